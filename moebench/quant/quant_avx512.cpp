// The quantiser loops for AVX-512 (F, BW, DQ, VL). How they round: quant_kernels.h.
#include <immintrin.h>

#include <algorithm>
#include <array>

#include "moebench/core/dtype.h"
#include "moebench/quant/nvfp4.h"
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {
namespace {

constexpr std::int64_t kLanes = 16;
static_assert(kLanes == kNvfp4BlockSize, "one register holds one block");
constexpr int kE4m3Nan = 0x7F;

__m512i magnitude_bits(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(kMagnitudeBits));
}

struct Rounded {
  __m512 magnitude;  ///< on the format's grid
  __m512i code;      ///< of that magnitude; upper bits of each lane are rubbish
};

/// A NaN counts as `largest`: vminps returns its second operand then.
Rounded round_magnitude(__m512 x, float largest, const RoundingConstants& constants) {
  const __m512 t = _mm512_min_ps(_mm512_castsi512_ps(magnitude_bits(x)), _mm512_set1_ps(largest));
  const __m512 at_least = _mm512_max_ps(t, _mm512_set1_ps(constants.smallest_normal));
  const __m512i exponent =
      _mm512_and_si512(_mm512_castps_si512(at_least), _mm512_set1_epi32(kExponentBits));
  const __m512 power =
      _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(constants.exponent_step)));
  const __m512 sum = _mm512_add_ps(t, power);
  const __m512i bits = _mm512_castps_si512(sum);
  const __m512i shifted = _mm512_srli_epi32(bits, static_cast<unsigned>(constants.code_shift));
  return {_mm512_sub_ps(sum, power), _mm512_sub_epi32(_mm512_add_epi32(bits, shifted),
                                                      _mm512_set1_epi32(constants.code_bias))};
}

/// E2M1 codes with their signs in bits 0..3; a NaN gives +6.
__m512i e2m1_codes(__m512 x) {
  const __mmask16 ordered = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
  const __m512i code =
      _mm512_and_si512(round_magnitude(x, kE2m1Max, kE2m1Rounding).code, _mm512_set1_epi32(0x7));
  const __m512i sign =
      _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x), 28), _mm512_set1_epi32(0x8));
  return _mm512_mask_or_epi32(code, ordered, code, sign);
}

/// E4M3 codes with their signs in bits 0..7, the rest rubbish; a NaN gives 0x7F.
__m512i e4m3_codes(__m512 x, __m512i code) {
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i sign =
      _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x), 24), _mm512_set1_epi32(0x80));
  return _mm512_mask_mov_epi32(_mm512_or_si512(code, sign), nan, _mm512_set1_epi32(kE4m3Nan));
}

std::uint32_t amax_bits(const float* x, std::int64_t count) {
  __m512i largest = _mm512_setzero_si512();
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    largest = _mm512_max_epi32(largest, magnitude_bits(_mm512_loadu_ps(x + i)));
  }
  if (i < count) {
    const auto tail = static_cast<__mmask16>((1U << (count - i)) - 1U);
    largest = _mm512_max_epi32(largest, magnitude_bits(_mm512_maskz_loadu_ps(tail, x + i)));
  }
  return static_cast<std::uint32_t>(_mm512_reduce_max_epi32(largest));
}

/// Scales and factors of up to 16 blocks at once: the divisions are one lane per block.
struct BlockScales {
  __m128i codes;
  __m512 factors;
};

BlockScales block_scales(__m512i amax, float global_scale) {
  const __m512 gs = _mm512_set1_ps(global_scale);
  const __m512 wanted =
      _mm512_mul_ps(gs, _mm512_div_ps(_mm512_castsi512_ps(amax), _mm512_set1_ps(kE2m1Max)));
  const Rounded rounded = round_magnitude(wanted, kE4m3Max, kE4m3Rounding);
  const __m512 negative_zero = _mm512_set1_ps(-0.0F);
  const __mmask16 nan = _mm512_cmp_ps_mask(wanted, wanted, _CMP_UNORD_Q);
  const __m512 scale = _mm512_mask_mov_ps(
      _mm512_or_ps(rounded.magnitude, _mm512_and_ps(wanted, negative_zero)), nan, wanted);
  const __mmask16 not_zero = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  return {_mm512_cvtepi32_epi8(e4m3_codes(wanted, rounded.code)),
          _mm512_maskz_div_ps(not_zero, gs, scale)};
}

/// Quantises `blocks` <= 16 consecutive blocks.
void nvfp4_blocks(const float* x, std::int64_t blocks, float global_scale, std::uint8_t* payload,
                  std::uint8_t* scales) {
  alignas(64) std::array<std::int32_t, kLanes> amax{};
  for (std::int64_t b = 0; b < blocks; ++b) {
    amax[static_cast<std::size_t>(b)] =
        _mm512_reduce_max_epi32(magnitude_bits(_mm512_loadu_ps(x + b * kLanes)));
  }
  const BlockScales all = block_scales(_mm512_load_si512(amax.data()), global_scale);
  const auto valid = static_cast<__mmask16>((1U << blocks) - 1U);
  _mm_mask_storeu_epi8(scales, valid, all.codes);
  alignas(64) std::array<float, kLanes> factors;
  _mm512_store_ps(factors.data(), all.factors);
  for (std::int64_t b = 0; b < blocks; ++b) {
    const __m512i codes = e2m1_codes(_mm512_mul_ps(
        _mm512_loadu_ps(x + b * kLanes), _mm512_set1_ps(factors[static_cast<std::size_t>(b)])));
    // Each 64-bit lane holds an even column's code in its low half and an odd one's in its high
    // half.
    const __m512i pairs = _mm512_or_si512(codes, _mm512_srli_epi64(codes, 28));
    const __m128i bytes = _mm512_cvtepi64_epi8(pairs);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(payload + b * kLanes / 2), bytes);
  }
}

void nvfp4_row(const float* x, std::int64_t cols, float global_scale, std::uint8_t* payload,
               std::uint8_t* scales) {
  const std::int64_t blocks = cols / kNvfp4BlockSize;
  for (std::int64_t first = 0; first < blocks; first += kLanes) {
    nvfp4_blocks(x + first * kNvfp4BlockSize, std::min(kLanes, blocks - first), global_scale,
                 payload + first * kNvfp4BlockSize / 2, scales + first);
  }
}

__m128i fp8_codes(__m512 x, __m512 scale) {
  const __m512 quotient = _mm512_div_ps(x, scale);
  return _mm512_cvtepi32_epi8(
      e4m3_codes(quotient, round_magnitude(quotient, kE4m3Max, kE4m3Rounding).code));
}

void fp8_row(const float* x, std::int64_t cols, float scale, std::uint8_t* payload) {
  const __m512 divisor = _mm512_set1_ps(scale);
  std::int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(payload + i),
                     fp8_codes(_mm512_loadu_ps(x + i), divisor));
  }
  if (i < cols) {
    const auto tail = static_cast<__mmask16>((1U << (cols - i)) - 1U);
    _mm_mask_storeu_epi8(payload + i, tail, fp8_codes(_mm512_maskz_loadu_ps(tail, x + i), divisor));
  }
}

constexpr Kernels kKernels{nvfp4_row, fp8_row, amax_bits};

}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace moebench::quant
