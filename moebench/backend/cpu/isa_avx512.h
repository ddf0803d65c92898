// The vector class of AVX-512 F, BW, VL and DQ: FP32 multiply-adds. avx512.cpp uses it as it is,
// avx512_bf16.cpp replaces the products. For those two translation units only.
#pragma once

#include <immintrin.h>

#include "moebench/backend/cpu/isa_rows.h"

namespace moebench::cpu {
namespace {

/// E2M1 values times 256 as BF16, twice: the nibble above the one in question is a don't-care bit
/// of the index. 256 is what load_scales divides by.
alignas(64) inline constexpr std::uint16_t kE2m1Times256Bf16[32] = {
    0x0000, 0x4300, 0x4380, 0x43C0, 0x4400, 0x4440, 0x4480, 0x44C0, 0x8000, 0xC300, 0xC380,
    0xC3C0, 0xC400, 0xC440, 0xC480, 0xC4C0, 0x0000, 0x4300, 0x4380, 0x43C0, 0x4400, 0x4440,
    0x4480, 0x44C0, 0x8000, 0xC300, 0xC380, 0xC3C0, 0xC400, 0xC440, 0xC480, 0xC4C0};
alignas(64) inline constexpr float kE2m1Times256[16] = {
    0.0F,  128.0F,  256.0F,  384.0F,  512.0F,  768.0F,  1024.0F,  1536.0F,
    -0.0F, -128.0F, -256.0F, -384.0F, -512.0F, -768.0F, -1024.0F, -1536.0F};
/// Word order that brings the even words of a register to its low half and the odd ones to the high
/// half.
alignas(64) inline constexpr std::uint16_t kEvenThenOddWords[32] = {
    0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
    1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};

/// E4M3 in the high byte of a word, read as FP16 with the exponent of E4M3, is the value times
/// 2^-8, subnormals included (VCVTPH2PS takes FP16 subnormals at full speed).
inline constexpr int kE4m3AsFp16Mask = 0xBF80;
inline constexpr float kE4m3AsFp16Factor = 256.0F;

struct Avx512Fp32 {
  using Vec = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kStrips = 2;
  static constexpr int kTileTokens = 12;
  static constexpr int kTwoStripTokens = 6;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec broadcast(float x) { return _mm512_set1_ps(x); }
  static Vec load(const float* x) { return _mm512_loadu_ps(x); }
  static void store(float* out, Vec x) { _mm512_storeu_ps(out, x); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec divide(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  /// NaN in `a` stays: MAXPS returns its second operand then.
  static Vec maximum(Vec a, Vec b) { return _mm512_max_ps(b, a); }
  static Vec round(Vec a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static Vec scale_by_power_of_two(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
  static Vec negative_magnitude(Vec a) { return _mm512_or_ps(a, _mm512_set1_ps(-0.0F)); }
  static Vec select_negative(Vec test, Vec negative, Vec other) {
    return _mm512_mask_mov_ps(other, _mm512_cmp_ps_mask(test, zero(), _CMP_LT_OQ), negative);
  }
  static Vec larger_magnitude(Vec largest, Vec a) {
    const __m512i magnitude =
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7FFFFFFF));
    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(largest), magnitude));
  }

  static __m256i load_16(const std::uint16_t* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  }
  static void store_16(std::uint16_t* out, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), x);
  }
  template <ActType kType>
  static Vec from_act(__m256i x) {
    if constexpr (kType == ActType::kFp16) {
      return _mm512_cvtph_ps(x);
    } else {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
  }
  /// BF16 by integer arithmetic: VCVTNEPS2BF16 would flush denormals.
  template <ActType kType>
  static __m256i to_act(Vec x) {
    if constexpr (kType == ActType::kFp16) {
      return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    } else {
      const __m512i bits = _mm512_castps_si512(x);
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
      const __m512i rounded = _mm512_srli_epi32(
          _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
      const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x0040));
      const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
      return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet));
    }
  }

  /// 16 E4M3 codes to value / 256.
  static Vec load_scales(const std::uint8_t* codes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7));
  }

  struct Pair {
    Vec even;
    Vec odd;
  };
  /// A BF16 pair per lane to FP32.
  static Pair split_bf16(__m512i pair) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)),
            _mm512_castsi512_ps(
                _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))))};
  }
  struct Nvfp4Lanes {
    __m512i codes;
    static Nvfp4Lanes load(const std::uint8_t* bytes) { return {_mm512_loadu_si512(bytes)}; }
    template <int J>
    __m512i bf16_pair() const {
      const __m512i table = _mm512_load_si512(kE2m1Times256Bf16);
      return _mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4 * J), table);
    }
    template <int J>
    Pair pair() const {
      return split_bf16(bf16_pair<J>());
    }
  };
  struct Fp8Lanes {
    __m512i codes;
    static Fp8Lanes load(const std::uint8_t* bytes) { return {_mm512_loadu_si512(bytes)}; }
    template <int H>
    Pair pair() const {
      const __m512i zeros = _mm512_setzero_si512();
      const __m512i words =
          H == 0 ? _mm512_unpacklo_epi8(zeros, codes) : _mm512_unpackhi_epi8(zeros, codes);
      const __m512i fp16 =
          _mm512_and_si512(_mm512_srai_epi16(words, 1),
                           _mm512_set1_epi16(static_cast<std::int16_t>(kE4m3AsFp16Mask)));
      const __m512i halves = _mm512_permutexvar_epi16(_mm512_load_si512(kEvenThenOddWords), fp16);
      return {_mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
              _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
    }
  };
  template <int kFactorLog2>
  struct Entry {
    static constexpr std::int64_t kBytes = 2 * sizeof(float);
    static constexpr float kFactor = static_cast<float>(1 << kFactorLog2);
    Vec even;
    Vec odd;
    static Entry load(const std::byte* from) {
      const auto* values = reinterpret_cast<const float*>(from);
      return {_mm512_set1_ps(values[0]), _mm512_set1_ps(values[1])};
    }
    static void store(float even, float odd, std::byte* to) {
      auto* values = reinterpret_cast<float*>(to);
      values[0] = even;
      values[1] = odd;
    }
  };
  template <int kFactorLog2>
  static Vec dot2(Vec sum, const Pair& pair, const Entry<kFactorLog2>& entry) {
    return _mm512_fmadd_ps(pair.odd, entry.odd, _mm512_fmadd_ps(pair.even, entry.even, sum));
  }

  static void expand_nvfp4(const std::uint8_t* payload, const std::uint8_t* scales,
                           std::int64_t cols, float* out) {
    const __m512 table = _mm512_load_ps(kE2m1Times256);
    for (std::int64_t k = 0; k < cols; k += kStepDepth) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(payload + k / 2));
      const __m128i codes = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
      const __m128i scale = _mm_slli_epi16(_mm_cvtsi32_si128(scales[k / kStepDepth]), 7);
      const __m512 values = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), table);
      _mm512_storeu_ps(out + k, _mm512_mul_ps(values, _mm512_broadcastss_ps(_mm_cvtph_ps(scale))));
    }
  }
  static void expand_fp8(const std::uint8_t* payload, std::int64_t cols, float* out) {
    for (std::int64_t k = 0; k < cols; k += kLanes) {
      const auto count = static_cast<unsigned>(cols - k < kLanes ? cols - k : kLanes);
      const auto mask = static_cast<__mmask16>((1U << count) - 1U);
      const __m128i codes = _mm_maskz_loadu_epi8(mask, payload + k);
      const __m256i fp16 =
          _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7),
                           _mm256_set1_epi16(static_cast<std::int16_t>(kE4m3AsFp16Mask)));
      _mm512_mask_storeu_ps(
          out + k, mask, _mm512_mul_ps(_mm512_cvtph_ps(fp16), _mm512_set1_ps(kE4m3AsFp16Factor)));
    }
  }
};

}  // namespace
}  // namespace moebench::cpu
