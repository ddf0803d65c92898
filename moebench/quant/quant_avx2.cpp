// The quantiser loops for AVX2. How they round: quant_kernels.h. Tails go to the portable set.
#include <immintrin.h>

#include <algorithm>
#include <array>

#include "moebench/core/dtype.h"
#include "moebench/quant/nvfp4.h"
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {
namespace {

constexpr std::int64_t kLanes = 8;
static_assert(2 * kLanes == kNvfp4BlockSize, "two registers hold one block");
constexpr int kE4m3Nan = 0x7F;

__m256i magnitude_bits(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(kMagnitudeBits));
}

struct Rounded {
  __m256 magnitude;  ///< on the format's grid
  __m256i code;      ///< of that magnitude; upper bits of each lane are rubbish
};

/// A NaN counts as `largest`: vminps returns its second operand then.
Rounded round_magnitude(__m256 x, float largest, const RoundingConstants& constants) {
  const __m256 t = _mm256_min_ps(_mm256_castsi256_ps(magnitude_bits(x)), _mm256_set1_ps(largest));
  const __m256 at_least = _mm256_max_ps(t, _mm256_set1_ps(constants.smallest_normal));
  const __m256i exponent =
      _mm256_and_si256(_mm256_castps_si256(at_least), _mm256_set1_epi32(kExponentBits));
  const __m256 power =
      _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(constants.exponent_step)));
  const __m256 sum = _mm256_add_ps(t, power);
  const __m256i bits = _mm256_castps_si256(sum);
  const __m256i shifted = _mm256_srli_epi32(bits, constants.code_shift);
  return {_mm256_sub_ps(sum, power), _mm256_sub_epi32(_mm256_add_epi32(bits, shifted),
                                                      _mm256_set1_epi32(constants.code_bias))};
}

/// E2M1 codes with their signs, in 32-bit lanes; a NaN gives +6.
__m256i e2m1_codes(__m256 x) {
  const __m256i ordered = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
  const __m256i code =
      _mm256_and_si256(round_magnitude(x, kE2m1Max, kE2m1Rounding).code, _mm256_set1_epi32(0x7));
  const __m256i sign =
      _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(x), 28), _mm256_set1_epi32(0x8));
  return _mm256_or_si256(code, _mm256_and_si256(sign, ordered));
}

/// E4M3 codes with their signs, in 32-bit lanes; a NaN gives 0x7F.
__m256i e4m3_codes(__m256 x, __m256i code) {
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i sign =
      _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(x), 24), _mm256_set1_epi32(0x80));
  const __m256i with_sign = _mm256_or_si256(_mm256_and_si256(code, _mm256_set1_epi32(0x7F)), sign);
  return _mm256_blendv_epi8(with_sign, _mm256_set1_epi32(kE4m3Nan), nan);
}

/// The low bytes of eight 32-bit lanes, in order; lanes are below 256.
void store_low_bytes(__m256i lanes, std::uint8_t* out) {
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
}

std::int32_t largest_lane(__m256i lanes) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(m);
}

std::uint32_t amax_bits(const float* x, std::int64_t count) {
  __m256i largest = _mm256_setzero_si256();
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    largest = _mm256_max_epi32(largest, magnitude_bits(_mm256_loadu_ps(x + i)));
  }
  return std::max(static_cast<std::uint32_t>(largest_lane(largest)),
                  portable_kernels()->amax_bits(x + i, count - i));
}

/// Scale codes to `scales`; returns gs / sf, 0 where sf is 0, for eight blocks: one lane each.
__m256 block_factors(__m256i amax, float global_scale, std::uint8_t* scales) {
  const __m256 gs = _mm256_set1_ps(global_scale);
  const __m256 wanted =
      _mm256_mul_ps(gs, _mm256_div_ps(_mm256_castsi256_ps(amax), _mm256_set1_ps(kE2m1Max)));
  const Rounded rounded = round_magnitude(wanted, kE4m3Max, kE4m3Rounding);
  store_low_bytes(e4m3_codes(wanted, rounded.code), scales);
  const __m256 sign = _mm256_and_ps(wanted, _mm256_set1_ps(-0.0F));
  const __m256 nan = _mm256_cmp_ps(wanted, wanted, _CMP_UNORD_Q);
  const __m256 scale = _mm256_blendv_ps(_mm256_or_ps(rounded.magnitude, sign), wanted, nan);
  const __m256 not_zero = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_NEQ_UQ);
  return _mm256_and_ps(_mm256_div_ps(gs, scale), not_zero);
}

/// One block's 16 codes, in two registers of 32-bit lanes, to 8 bytes with the even column in the
/// low nibble.
void store_nibbles(__m256i low, __m256i high, std::uint8_t* payload) {
  // Packing works within 128-bit halves: words are [l0..3 h0..3 | l4..7 h4..7].
  const __m256i words = _mm256_packus_epi32(low, high);
  const __m256i pairs = _mm256_and_si256(_mm256_or_si256(words, _mm256_srli_epi32(words, 12)),
                                         _mm256_set1_epi32(0xFF));
  // After two more packs the bytes are [l01 l23 h01 h23 .. | l45 l67 h45 h67 ..]: interleave them
  // by twos.
  const __m256i packed = _mm256_packus_epi32(pairs, pairs);
  const __m256i bytes = _mm256_packus_epi16(packed, packed);
  const __m128i ordered =
      _mm_unpacklo_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(payload), ordered);
}

/// Quantises eight consecutive blocks.
void nvfp4_eight_blocks(const float* x, float global_scale, std::uint8_t* payload,
                        std::uint8_t* scales) {
  alignas(32) std::array<std::int32_t, kLanes> amax;
  for (std::size_t b = 0; b < amax.size(); ++b) {
    const float* block = x + b * kNvfp4BlockSize;
    amax[b] = largest_lane(_mm256_max_epi32(magnitude_bits(_mm256_loadu_ps(block)),
                                            magnitude_bits(_mm256_loadu_ps(block + kLanes))));
  }
  alignas(32) std::array<float, kLanes> factors;
  _mm256_store_ps(factors.data(),
                  block_factors(_mm256_load_si256(reinterpret_cast<const __m256i*>(amax.data())),
                                global_scale, scales));
  for (std::size_t b = 0; b < factors.size(); ++b) {
    const float* block = x + b * kNvfp4BlockSize;
    const __m256 factor = _mm256_set1_ps(factors[b]);
    store_nibbles(e2m1_codes(_mm256_mul_ps(_mm256_loadu_ps(block), factor)),
                  e2m1_codes(_mm256_mul_ps(_mm256_loadu_ps(block + kLanes), factor)),
                  payload + b * kNvfp4BlockSize / 2);
  }
}

void nvfp4_row(const float* x, std::int64_t cols, float global_scale, std::uint8_t* payload,
               std::uint8_t* scales) {
  constexpr std::int64_t kStep = kLanes * kNvfp4BlockSize;
  std::int64_t col = 0;
  for (; col + kStep <= cols; col += kStep) {
    nvfp4_eight_blocks(x + col, global_scale, payload + col / 2, scales + col / kNvfp4BlockSize);
  }
  portable_kernels()->nvfp4_row(x + col, cols - col, global_scale, payload + col / 2,
                                scales + col / kNvfp4BlockSize);
}

void fp8_row(const float* x, std::int64_t cols, float scale, std::uint8_t* payload) {
  const __m256 divisor = _mm256_set1_ps(scale);
  std::int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) {
    const __m256 quotient = _mm256_div_ps(_mm256_loadu_ps(x + i), divisor);
    const Rounded rounded = round_magnitude(quotient, kE4m3Max, kE4m3Rounding);
    store_low_bytes(e4m3_codes(quotient, rounded.code), payload + i);
  }
  portable_kernels()->fp8_row(x + i, cols - i, scale, payload + i);
}

constexpr Kernels kKernels{nvfp4_row, fp8_row, amax_bits};

}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace moebench::quant
