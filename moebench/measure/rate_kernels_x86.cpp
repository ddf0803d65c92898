// Rate loops for x86-64: one function per ISA by target attribute, chosen at run time, so that the
// file itself is compiled for the baseline.
#include <immintrin.h>

#include "moebench/core/amx_state.h"
#include "moebench/measure/rate_kernels.h"

namespace moebench {
namespace {

/// Each step takes one cache line from each stream. Two sums a stream keep the adds off the
/// critical path.
template <int kStreams>
[[gnu::target("avx2,fma")]] std::uint64_t sum_avx2(const std::uint64_t* words, std::int64_t bytes) {
  const std::int64_t lines = bytes / 64 / kStreams;
  const auto* base = reinterpret_cast<const __m256i*>(words);
  __m256i low[kStreams];
  __m256i high[kStreams];
  for (int s = 0; s < kStreams; ++s) low[s] = high[s] = _mm256_setzero_si256();
  for (std::int64_t line = 0; line < lines; ++line) {
    for (int s = 0; s < kStreams; ++s) {
      const __m256i* at = base + 2 * (s * lines + line);
      low[s] = _mm256_add_epi64(low[s], _mm256_load_si256(at));
      high[s] = _mm256_add_epi64(high[s], _mm256_load_si256(at + 1));
    }
  }
  __m256i all = _mm256_setzero_si256();
  for (int s = 0; s < kStreams; ++s) all = _mm256_add_epi64(all, _mm256_add_epi64(low[s], high[s]));
  alignas(32) std::uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), all);
  return parts[0] + parts[1] + parts[2] + parts[3];
}

template <int kStreams>
[[gnu::target("avx512f")]] std::uint64_t sum_avx512(const std::uint64_t* words,
                                                    std::int64_t bytes) {
  const std::int64_t pairs = bytes / 128 / kStreams;
  const auto* base = reinterpret_cast<const __m512i*>(words);
  __m512i even[kStreams];
  __m512i odd[kStreams];
  for (int s = 0; s < kStreams; ++s) even[s] = odd[s] = _mm512_setzero_si512();
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    for (int s = 0; s < kStreams; ++s) {
      const __m512i* at = base + 2 * (s * pairs + pair);
      even[s] = _mm512_add_epi64(even[s], _mm512_load_si512(at));
      odd[s] = _mm512_add_epi64(odd[s], _mm512_load_si512(at + 1));
    }
  }
  __m512i all = _mm512_setzero_si512();
  for (int s = 0; s < kStreams; ++s) all = _mm512_add_epi64(all, _mm512_add_epi64(even[s], odd[s]));
  alignas(64) std::uint64_t parts[8];
  _mm512_store_si512(parts, all);
  std::uint64_t total = 0;
  for (const std::uint64_t part : parts) total += part;
  return total;
}

/// Two FMA units of latency 4 (5 on some) need 10 independent chains; 12 and 16 leave registers for
/// the operands.
constexpr int kChainsAvx2 = 12;
constexpr int kChainsAvx512 = 16;
/// The chains tend to term / (1 - factor) = 1: no overflow, no denormals. Read through volatile, or
/// the compiler could compute the outcome itself.
struct Operands {
  volatile float factor = 0.999F;
  volatile float term = 0.001F;
};

[[gnu::target("avx2,fma")]] float fma_avx2(std::int64_t steps) {
  const Operands operands;
  const __m256 factor = _mm256_set1_ps(operands.factor);
  const __m256 term = _mm256_set1_ps(operands.term);
  __m256 chains[kChainsAvx2];
  for (auto& chain : chains) chain = _mm256_setzero_ps();
  for (std::int64_t step = 0; step < steps; ++step) {
    for (auto& chain : chains) chain = _mm256_fmadd_ps(chain, factor, term);
  }
  __m256 all = _mm256_setzero_ps();
  for (const auto& chain : chains) all = _mm256_add_ps(all, chain);
  alignas(32) float parts[8];
  _mm256_store_ps(parts, all);
  float total = 0.0F;
  for (const float part : parts) total += part;
  return total;
}

[[gnu::target("avx512f")]] float fma_avx512(std::int64_t steps) {
  const Operands operands;
  const __m512 factor = _mm512_set1_ps(operands.factor);
  const __m512 term = _mm512_set1_ps(operands.term);
  __m512 chains[kChainsAvx512];
  for (auto& chain : chains) chain = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < steps; ++step) {
    for (auto& chain : chains) chain = _mm512_fmadd_ps(chain, factor, term);
  }
  __m512 all = _mm512_setzero_ps();
  for (const auto& chain : chains) all = _mm512_add_ps(all, chain);
  alignas(64) float parts[16];
  _mm512_store_ps(parts, all);
  float total = 0.0F;
  for (const float part : parts) total += part;
  return total;
}

/// A sum that grows without bound would stay finite for far more steps than are ever run: 2 *
/// 0.001^2 a step.
[[gnu::target("avx512f,avx512bf16")]] float dot_bf16_avx512(std::int64_t steps) {
  const Operands operands;
  const __m512 values = _mm512_set1_ps(operands.term);
  const __m512bh pairs = _mm512_cvtne2ps_pbh(values, values);
  __m512 chains[kChainsAvx512];
  for (auto& chain : chains) chain = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < steps; ++step) {
    for (auto& chain : chains) chain = _mm512_dpbf16_ps(chain, pairs, pairs);
  }
  __m512 all = _mm512_setzero_ps();
  for (const auto& chain : chains) all = _mm512_add_ps(all, chain);
  alignas(64) float parts[16];
  _mm512_store_ps(parts, all);
  float total = 0.0F;
  for (const float part : parts) total += part;
  return total;
}

/// Any x86-64: SSE2 by the compiler.
/// Four tiles of sums, each 16 x 16 x 32 multiply-adds a step: C += A * B with all values alike.
constexpr std::int64_t kChainsAmx = 4;
constexpr std::int64_t kAmxProducts = 16 * 16 * 32;

[[gnu::target("avx512f,amx-tile,amx-bf16")]] float dot_amx(std::int64_t steps) {
  struct alignas(64) Config {
    std::uint8_t palette = 1;
    std::uint8_t unused[15] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Config config;
  const Operands operands;
  alignas(64) std::uint32_t pairs[256];
  const float rounded = operands.term + operands.term * 0x1p-9F;  // then cut to BF16
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &rounded, sizeof bits);
  for (std::uint32_t& pair : pairs) pair = (bits & 0xFFFF0000U) | bits >> 16;
  constexpr std::int64_t kStride = 64;
  // As in the kernels, instructions and not intrinsics: GCC 12's do not say that they read memory.
  __asm__ volatile(
      "ldtilecfg %0\n\ttilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\t"
      "tilezero %%tmm3\n\ttileloadd (%1,%2,1), %%tmm4\n\ttileloadd (%1,%2,1), %%tmm5\n\t"
      "tileloadd (%1,%2,1), %%tmm6\n\ttileloadd (%1,%2,1), %%tmm7"
      :
      : "m"(config), "r"(pairs), "r"(kStride)
      : "memory");
  for (std::int64_t step = 0; step < steps; ++step) {
    __asm__ volatile(
        "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
        "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3"
        :
        :);
  }
  alignas(64) float sums[kChainsAmx][256];
  __asm__ volatile(
      "tilestored %%tmm0, (%0,%4,1)\n\ttilestored %%tmm1, (%1,%4,1)\n\t"
      "tilestored %%tmm2, (%2,%4,1)\n\ttilestored %%tmm3, (%3,%4,1)\n\ttilerelease"
      :
      : "r"(sums[0]), "r"(sums[1]), "r"(sums[2]), "r"(sums[3]), "r"(kStride)
      : "memory");
  float total = 0.0F;
  for (const auto& tile : sums) {
    for (const float sum : tile) total += sum;
  }
  return total;
}

std::uint64_t sum_baseline(const std::uint64_t* words, std::int64_t bytes) {
  std::uint64_t sums[4] = {};
  for (std::int64_t i = 0; i < bytes / 8; i += 4) {
    for (int k = 0; k < 4; ++k) sums[k] += words[i + k];
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

constexpr int kChainsBaseline = 32;

float multiply_add_baseline(std::int64_t steps) {
  const Operands operands;
  const float factor = operands.factor;
  const float term = operands.term;
  float chains[kChainsBaseline] = {};
  for (std::int64_t step = 0; step < steps; ++step) {
    for (float& chain : chains) chain = chain * factor + term;
  }
  float total = 0.0F;
  for (const float chain : chains) total += chain;
  return total;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() { return __builtin_cpu_supports("avx512f"); }
bool has_amx() {
  return has_avx512() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         request_amx_tiles();
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

}  // namespace

std::vector<ReadKernel> read_kernels() {
  std::vector<ReadKernel> kernels;
  if (has_avx512()) {
    kernels.push_back({"avx512", 1, sum_avx512<1>});
    kernels.push_back({"avx512", 2, sum_avx512<2>});
    kernels.push_back({"avx512", 4, sum_avx512<4>});
    kernels.push_back({"avx512", 8, sum_avx512<8>});
  }
  if (has_avx2()) {
    kernels.push_back({"avx2", 1, sum_avx2<1>});
    kernels.push_back({"avx2", 4, sum_avx2<4>});
  }
  kernels.push_back({"sse2", 1, sum_baseline});
  return kernels;
}

std::vector<FlopKernel> flop_kernels() {
  constexpr std::int64_t kMultiplyAdd = 2;
  std::vector<FlopKernel> kernels;
  if (has_amx())
    kernels.push_back({"amx", true, kMultiplyAdd * kAmxProducts * kChainsAmx, dot_amx});
  if (has_avx512_bf16()) {
    kernels.push_back({"avx512_bf16", true, kMultiplyAdd * 32 * kChainsAvx512, dot_bf16_avx512});
  }
  if (has_avx512())
    kernels.push_back({"avx512", false, kMultiplyAdd * 16 * kChainsAvx512, fma_avx512});
  if (has_avx2()) kernels.push_back({"avx2", false, kMultiplyAdd * 8 * kChainsAvx2, fma_avx2});
  kernels.push_back({"sse2", false, kMultiplyAdd * kChainsBaseline, multiply_add_baseline});
  return kernels;
}

}  // namespace moebench
