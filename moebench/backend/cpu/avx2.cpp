// AVX2, FMA and F16C: weights expanded to FP32 in registers, eight rows at a time.
#include <immintrin.h>

#include "moebench/backend/cpu/isa_rows.h"

namespace moebench::cpu {
namespace {

/// Magnitudes of E2M1 times 256: load_scales divides by it.
alignas(32) constexpr float kE2m1Times256[8] = {0.0F,   128.0F, 256.0F,  384.0F,
                                                512.0F, 768.0F, 1024.0F, 1536.0F};
/// E4M3 in the high byte of a word, read as FP16 with the exponent of E4M3, is the value times
/// 2^-8, subnormals included (VCVTPH2PS takes FP16 subnormals at full speed).
constexpr int kE4m3AsFp16Mask = 0xBF80;
constexpr float kE4m3AsFp16Factor = 256.0F;

__m256i load_256(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
__m256i words(int value) { return _mm256_set1_epi16(static_cast<std::int16_t>(value)); }

/// E2M1 codes in bits 0..3 of each lane (what lies above is ignored) to value * 256.
__m256 decode_e2m1(__m256i codes) {
  const __m256 magnitude = _mm256_permutevar8x32_ps(_mm256_load_ps(kE2m1Times256), codes);
  const __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28),
                                        _mm256_set1_epi32(static_cast<int>(0x80000000U)));
  return _mm256_or_ps(magnitude, _mm256_castsi256_ps(sign));
}

struct Avx2 {
  using Vec = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kStrips = 4;
  static constexpr int kTileTokens = 6;
  static constexpr int kTwoStripTokens = 2;

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec broadcast(float x) { return _mm256_set1_ps(x); }
  static Vec load(const float* x) { return _mm256_loadu_ps(x); }
  static void store(float* out, Vec x) { _mm256_storeu_ps(out, x); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec divide(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  /// NaN in `a` stays: MAXPS returns its second operand then.
  static Vec maximum(Vec a, Vec b) { return _mm256_max_ps(b, a); }
  static Vec round(Vec a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// In two factors: 2^n itself may be too small for a float. n is at least -150 here; NaN passes
  /// through `a`.
  static Vec scale_by_power_of_two(Vec a, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(a, power_of_two(half)),
                         power_of_two(_mm256_sub_epi32(whole, half)));
  }
  static Vec negative_magnitude(Vec a) { return _mm256_or_ps(a, _mm256_set1_ps(-0.0F)); }
  static Vec select_negative(Vec test, Vec negative, Vec other) {
    return _mm256_blendv_ps(other, negative, _mm256_cmp_ps(test, zero(), _CMP_LT_OQ));
  }
  static Vec larger_magnitude(Vec largest, Vec a) {
    const __m256i magnitude =
        _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7FFFFFFF));
    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(largest), magnitude));
  }

  static __m128i load_16(const std::uint16_t* x) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  }
  static void store_16(std::uint16_t* out, __m128i x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), x);
  }
  template <ActType kType>
  static Vec from_act(__m128i x) {
    if constexpr (kType == ActType::kFp16) {
      return _mm256_cvtph_ps(x);
    } else {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
    }
  }
  template <ActType kType>
  static __m128i to_act(Vec x) {
    if constexpr (kType == ActType::kFp16) {
      return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    } else {
      const __m256i bits = _mm256_castps_si256(x);
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
      const __m256i rounded = _mm256_srli_epi32(
          _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
      const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x0040));
      const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
      const __m256i result = _mm256_blendv_epi8(rounded, quiet, nan);
      return _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
    }
  }

  /// 8 E4M3 codes to value / 256.
  static Vec load_scales(const std::uint8_t* codes) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
    return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 7));
  }

  struct Pair {
    Vec even;
    Vec odd;
  };
  struct Nvfp4Lanes {
    __m256i codes;
    static Nvfp4Lanes load(const std::uint8_t* bytes) { return {load_256(bytes)}; }
    template <int J>
    Pair pair() const {
      return {decode_e2m1(_mm256_srli_epi32(codes, 4 * J)),
              decode_e2m1(_mm256_srli_epi32(codes, 4 * J + 16))};
    }
  };
  struct Fp8Lanes {
    __m256i codes;
    static Fp8Lanes load(const std::uint8_t* bytes) { return {load_256(bytes)}; }
    template <int H>
    Pair pair() const {
      const __m256i zeros = _mm256_setzero_si256();
      const __m256i pairs =
          H == 0 ? _mm256_unpacklo_epi8(zeros, codes) : _mm256_unpackhi_epi8(zeros, codes);
      const __m256i fp16 = _mm256_and_si256(_mm256_srai_epi16(pairs, 1), words(kE4m3AsFp16Mask));
      // Even words of each half to its low 8 bytes, then the two low parts together.
      const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                                             0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
      constexpr int kLowPartsFirst = 0xD8;
      const __m256i halves =
          _mm256_permute4x64_epi64(_mm256_shuffle_epi8(fp16, order), kLowPartsFirst);
      return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
              _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
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
      return {_mm256_broadcast_ss(values), _mm256_broadcast_ss(values + 1)};
    }
    static void store(float even, float odd, std::byte* to) {
      auto* values = reinterpret_cast<float*>(to);
      values[0] = even;
      values[1] = odd;
    }
  };
  template <int kFactorLog2>
  static Vec dot2(Vec sum, const Pair& pair, const Entry<kFactorLog2>& entry) {
    return _mm256_fmadd_ps(pair.odd, entry.odd, _mm256_fmadd_ps(pair.even, entry.even, sum));
  }

  static void expand_nvfp4(const std::uint8_t* payload, const std::uint8_t* scales,
                           std::int64_t cols, float* out) {
    for (std::int64_t k = 0; k < cols; k += kStepDepth) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(payload + k / 2));
      const __m128i codes = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
      const __m128i scale_bits = _mm_slli_epi16(_mm_cvtsi32_si128(scales[k / kStepDepth]), 7);
      const __m256 scale = _mm256_broadcastss_ps(_mm_cvtph_ps(scale_bits));
      const __m256 low = decode_e2m1(_mm256_cvtepu8_epi32(codes));
      const __m256 high = decode_e2m1(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)));
      _mm256_storeu_ps(out + k, _mm256_mul_ps(low, scale));
      _mm256_storeu_ps(out + k + kLanes, _mm256_mul_ps(high, scale));
    }
  }
  static void expand_fp8(const std::uint8_t* payload, std::int64_t cols, float* out) {
    std::int64_t k = 0;
    for (; k + kLanes <= cols; k += kLanes) {
      _mm256_storeu_ps(out + k,
                       decode_e4m3(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(payload + k))));
    }
    for (; k < cols; ++k) {
      out[k] = _mm256_cvtss_f32(decode_e4m3(_mm_cvtsi32_si128(payload[k])));
    }
  }

 private:
  static Vec power_of_two(__m256i n) {
    constexpr int kBias = 127;
    constexpr int kMantissaBits = 23;
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(kBias)), kMantissaBits));
  }
  static Vec decode_e4m3(__m128i codes) {
    const __m128i fp16 = _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(codes), 7),
                                       _mm_set1_epi16(static_cast<std::int16_t>(kE4m3AsFp16Mask)));
    return _mm256_mul_ps(_mm256_cvtph_ps(fp16), _mm256_set1_ps(kE4m3AsFp16Factor));
  }
};

CpuKernels make_table() {
  CpuKernels table{};
  table.isa = "avx2";
  // FP8 weights come out of the decoder divided by 2^8; the tokens make up for it.
  fill_tile_kernels<Avx2, Avx2::Entry<0>, Avx2::Entry<0>, Avx2::Entry<8>>(table);
  fill_row_kernels<Avx2>(table);
  return table;
}

}  // namespace

const CpuKernels* avx2_kernels() {
  static const CpuKernels table = make_table();
  return &table;
}

}  // namespace moebench::cpu
