// AVX-512 with BF16, VBMI and VNNI. W4A4 in integers (nvfp4_codes.h).
//
// The others: weights expanded to BF16 pairs in registers, VDPBF16PS. Exact products: E2M1 and E4M3
// fit BF16; FP16 tokens are split into two BF16 parts whose sum is exact. VDPBF16PS flushes
// denormals, which no operand reaches: the smallest product is 2^-24 (an FP16 subnormal) times 2^7
// (0.5 * 256), and BF16 tokens are scaled to an amax near 1 before (forward_quantize.cpp).
#include "moebench/backend/cpu/nvfp4_codes.h"

namespace moebench::cpu {
namespace {

/// High and low byte of the BF16 form of the E4M3 codes 0..127, each in the order of the two
/// VPERMI2B table registers.
struct alignas(64) E4m3ToBf16 {
  std::uint8_t high[128];
  std::uint8_t low[128];
};
constexpr E4m3ToBf16 make_e4m3_to_bf16() {
  constexpr unsigned kBiasDifference = 127 - 7;
  E4m3ToBf16 table{};
  for (unsigned code = 0; code < 128; ++code) {
    unsigned bits = ((code >> 3) + kBiasDifference) << 7 | (code & 7U) << 4;
    if (code < 8) {  // subnormal, code * 2^-9: normal in BF16
      unsigned exponent = 127 - 9;
      unsigned mantissa = code;
      while (mantissa > 1) {
        mantissa >>= 1;
        ++exponent;
      }
      const unsigned shift = exponent - (127 - 9);
      bits = code == 0 ? 0 : exponent << 7 | (code << 7 >> shift & 0x7FU);
    }
    if (code == 127) bits = 0x7FC0;
    table.high[code] = static_cast<std::uint8_t>(bits >> 8);
    table.low[code] = static_cast<std::uint8_t>(bits & 0xFFU);
  }
  return table;
}
constexpr E4m3ToBf16 kE4m3ToBf16 = make_e4m3_to_bf16();

std::uint32_t float_bits(float x) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

/// BF16, rounded to nearest even; for finite values.
std::uint32_t bf16_bits(float x) {
  const std::uint32_t bits = float_bits(x);
  return (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
}

std::uint32_t bf16_pair(float even, float odd) { return bf16_bits(even) | bf16_bits(odd) << 16; }

float bf16_residual(float x) {
  const std::uint32_t bits = bf16_bits(x) << 16;
  float rounded = 0.0F;
  __builtin_memcpy(&rounded, &bits, sizeof rounded);
  return x - rounded;
}

__m512bh broadcast_pair(const std::byte* from) {
  std::int32_t bits = 0;
  __builtin_memcpy(&bits, from, sizeof bits);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
}

struct Avx512Bf16 : Avx512Fp32 {
  using Pair = __m512bh;

  struct Nvfp4Lanes {
    Avx512Fp32::Nvfp4Lanes lanes;
    static Nvfp4Lanes load(const std::uint8_t* bytes) {
      return {Avx512Fp32::Nvfp4Lanes::load(bytes)};
    }
    template <int J>
    Pair pair() const {
      return reinterpret_cast<Pair>(lanes.template bf16_pair<J>());
    }
  };
  struct Fp8Lanes {
    __m512i high;
    __m512i low;
    static Fp8Lanes load(const std::uint8_t* bytes) {
      const __m512i codes = _mm512_loadu_si512(bytes);
      const __m512i high =
          _mm512_permutex2var_epi8(_mm512_load_si512(kE4m3ToBf16.high), codes,
                                   _mm512_load_si512(kE4m3ToBf16.high + kCacheLine));
      const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(kE4m3ToBf16.low), codes,
                                                   _mm512_load_si512(kE4m3ToBf16.low + kCacheLine));
      constexpr int kOrOfMasked = 0xF8;  // a | (b & c)
      const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
      return {_mm512_ternarylogic_epi32(high, codes, sign, kOrOfMasked), low};
    }
    template <int H>
    Pair pair() const {
      return reinterpret_cast<Pair>(H == 0 ? _mm512_unpacklo_epi8(low, high)
                                           : _mm512_unpackhi_epi8(low, high));
    }
  };
  /// Values that BF16 holds exactly.
  struct Entry {
    static constexpr std::int64_t kBytes = 4;
    static constexpr float kFactor = 1.0F;
    __m512bh pair;
    static Entry load(const std::byte* from) { return {broadcast_pair(from)}; }
    static void store(float even, float odd, std::byte* to) {
      const std::uint32_t bits = bf16_pair(even, odd);
      __builtin_memcpy(to, &bits, sizeof bits);
    }
  };
  /// FP16 values as BF16(x) and the rest: 11 significant bits are at most 8 + 3.
  struct SplitEntry {
    static constexpr std::int64_t kBytes = 8;
    static constexpr float kFactor = 1.0F;
    __m512bh high;
    __m512bh low;
    static SplitEntry load(const std::byte* from) {
      return {broadcast_pair(from), broadcast_pair(from + Entry::kBytes)};
    }
    static void store(float even, float odd, std::byte* to) {
      Entry::store(even, odd, to);
      Entry::store(bf16_residual(even), bf16_residual(odd), to + Entry::kBytes);
    }
  };
  static Vec dot2(Vec sum, Pair pair, const Entry& entry) {
    return _mm512_dpbf16_ps(sum, pair, entry.pair);
  }
  static Vec dot2(Vec sum, Pair pair, const SplitEntry& entry) {
    return _mm512_dpbf16_ps(_mm512_dpbf16_ps(sum, pair, entry.high), pair, entry.low);
  }
};

/// This ISA is AMD's choice. With 1 or 2 tokens, which wait for memory alone, its own prefetcher
/// does better than software: one Zen 4 core that reads 31 GB/s streams 31 and 24 GB/s without, 22
/// and 20 with it; with 4 tokens 16 and 19. (On a Xeon 1 and 2 tokens take 1.4 times as long
/// without.) 2026-11-23.
constexpr int kPrefetchCodesFrom = 3;

CpuKernels make_table() {
  CpuKernels table{};
  table.isa = "avx512_bf16";
  fill_tile_kernels<Avx512Bf16, Avx512Bf16::Entry, Avx512Bf16::SplitEntry, Avx512Bf16::Entry>(
      table);
  fill_row_kernels<Avx512Bf16>(table);
  fill_nvfp4_codes<kPrefetchCodesFrom>(table);
  return table;
}

}  // namespace

const CpuKernels* avx512_bf16_kernels() {
  static const CpuKernels table = make_table();
  return &table;
}

}  // namespace moebench::cpu
