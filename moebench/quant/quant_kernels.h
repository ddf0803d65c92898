// The fast quantiser loops, one set per ISA, and the choice between them. Internal to
// moebench/quant: nvfp4.cpp and fp8.cpp dispatch, the tests compare every set with the scalar
// truth.
#pragma once

#include <cstdint>

#include "moebench/core/vector_isa.h"

namespace moebench::quant {

/// Same contracts and same bits as the scalar forms in nvfp4.h and fp8.h.
struct Kernels {
  void (*nvfp4_row)(const float* x, std::int64_t cols, float global_scale, std::uint8_t* payload,
                    std::uint8_t* scales);
  void (*fp8_row)(const float* x, std::int64_t cols, float scale, std::uint8_t* payload);
  /// Largest |x| as float bits: these order as the magnitudes do, with every NaN above infinity. 0
  /// for count 0.
  std::uint32_t (*amax_bits)(const float* x, std::int64_t count);
};

/// nullptr where this build or this CPU lacks the ISA.
[[nodiscard]] const Kernels* kernels_for(VectorIsa isa);
/// The fastest set that this CPU has and MOEBENCH_ISA allows; chosen once.
[[nodiscard]] const Kernels& fastest_kernels();

// How every set rounds. Let t be the magnitude, clamped to the format's largest value, in [2^e,
// 2^(e+1)), or below 2^e with e the smallest normal exponent. The float 2^(e + 23 - m) has an ulp
// of 2^(e-m): one quantum of a format with m mantissa bits. So t + 2^(e+23-m), one IEEE addition,
// rounds t to nearest even and leaves n = t / 2^(e-m) in its low bits, and the code is n + (e -
// e_min) * 2^m. The exponent field shifted right by 23 - m is e * 2^m plus a constant.
struct RoundingConstants {
  int exponent_step;      ///< added to the bits of 2^e to get 2^(e+23-m)
  int code_shift;         ///< 23 - m
  int code_bias;          ///< what (bits >> code_shift) + n exceeds the code by
  float smallest_normal;  ///< 2^e_min
};
inline constexpr std::int32_t kSignBit = INT32_MIN;
inline constexpr std::int32_t kMagnitudeBits = 0x7FFFFFFF;
inline constexpr std::int32_t kExponentBits = 0x7F800000;

constexpr RoundingConstants rounding_constants(int mantissa_bits, int min_exponent) {
  constexpr int kFloatFractionBits = 23;
  constexpr int kFloatBias = 127;
  const int code_shift = kFloatFractionBits - mantissa_bits;
  const float smallest_normal = 1.0F / static_cast<float>(1 << -min_exponent);
  return {code_shift << kFloatFractionBits, code_shift,
          (kFloatBias + min_exponent + code_shift) << mantissa_bits, smallest_normal};
}
inline constexpr RoundingConstants kE2m1Rounding = rounding_constants(1, 0);
inline constexpr RoundingConstants kE4m3Rounding = rounding_constants(3, -6);

// Defined by quant_<isa>.cpp, or, returning nullptr, by quant_no_<isa>.cpp.
[[nodiscard]] const Kernels* portable_kernels();
[[nodiscard]] const Kernels* avx2_kernels();
[[nodiscard]] const Kernels* avx512_kernels();

}  // namespace moebench::quant
