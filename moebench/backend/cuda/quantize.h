// The scalar steps of the quantisers, shared by the kernels and by host tests, which compare them
// with quant/ for every input. Each step is one IEEE operation, in the order of quant/, so that
// device and host get the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "moebench/backend/cuda/layout.h"

namespace moebench::cuda {

MOEBENCH_HOST_DEVICE inline std::uint32_t bits_of(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}
MOEBENCH_HOST_DEVICE inline float float_of(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

// One operation each: never fused, never approximate, whatever the compiler's flags.
MOEBENCH_HOST_DEVICE inline float add(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}
MOEBENCH_HOST_DEVICE inline float multiply(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
MOEBENCH_HOST_DEVICE inline float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}
MOEBENCH_HOST_DEVICE inline float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

inline constexpr std::uint32_t kFloatSign = 0x80000000;
inline constexpr std::uint32_t kFloatExponent = 0x7F800000;

/// `magnitude` (not negative, at most the format's largest value) plus the power of two whose unit
/// in the last place is the format's: the sum is rounded to nearest even there. See
/// quant/quant_kernels.h.
struct Rounding {
  float power;
  float sum;
};
template <int kMantissaBits, int kMinExponent>
MOEBENCH_HOST_DEVICE inline Rounding round_magnitude(float magnitude) {
  constexpr int kShift = 23 - kMantissaBits;
  constexpr float kSmallestNormal = 1.0F / static_cast<float>(1 << -kMinExponent);
  const float at_least = magnitude > kSmallestNormal ? magnitude : kSmallestNormal;
  const float power = float_of((bits_of(at_least) & kFloatExponent) + (kShift << 23));
  return {power, add(magnitude, power)};
}
template <int kMantissaBits, int kMinExponent>
MOEBENCH_HOST_DEVICE inline std::uint32_t code_of(const Rounding& rounding) {
  constexpr int kShift = 23 - kMantissaBits;
  constexpr std::uint32_t kBias = static_cast<std::uint32_t>(127 + kMinExponent + kShift)
                                  << kMantissaBits;
  return (bits_of(rounding.sum) >> kShift) + (bits_of(rounding.sum) & 0x1F) - kBias;
}

/// |x|, at most `largest`; NaN counts as `largest`.
MOEBENCH_HOST_DEVICE inline float clamped_magnitude(float x, float largest) {
  const float magnitude = float_of(bits_of(x) & ~kFloatSign);
  return magnitude < largest ? magnitude : largest;
}

inline constexpr float kLargestE2m1 = 6.0F;
inline constexpr float kLargestE4m3 = 448.0F;

/// E2M1 code of a number (not NaN).
MOEBENCH_HOST_DEVICE inline std::uint8_t e2m1_code(float x) {
  const Rounding rounding = round_magnitude<1, 0>(clamped_magnitude(x, kLargestE2m1));
  return static_cast<std::uint8_t>(code_of<1, 0>(rounding) | (bits_of(x) >> 28 & 0x8));
}
/// The value that the code stands for.
MOEBENCH_HOST_DEVICE inline float round_to_e2m1(float x) {
  const Rounding rounding = round_magnitude<1, 0>(clamped_magnitude(x, kLargestE2m1));
  return float_of(bits_of(add(rounding.sum, -rounding.power)) | (bits_of(x) & kFloatSign));
}

/// E4M3 code of a number (not NaN), by arithmetic.
MOEBENCH_HOST_DEVICE inline std::uint32_t rounded_e4m3_code(float x) {
  const Rounding rounding = round_magnitude<3, -6>(clamped_magnitude(x, kLargestE4m3));
  return code_of<3, -6>(rounding) | (bits_of(x) >> 24 & 0x80);
}
/// E4M3 codes of two numbers (not NaN), the first in the low byte; by the device's instruction
/// where there is one.
MOEBENCH_HOST_DEVICE inline std::uint32_t e4m3_codes(float low, float high) {
#if defined(__CUDA_ARCH__)
  std::uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
#else
  return rounded_e4m3_code(low) | rounded_e4m3_code(high) << 8;
#endif
}
MOEBENCH_HOST_DEVICE inline std::uint8_t e4m3_code(float x) {
  return static_cast<std::uint8_t>(e4m3_codes(x, 0.0F));
}
/// Of a code without sign, not NaN.
MOEBENCH_HOST_DEVICE inline float e4m3_value(std::uint32_t code) {
  return multiply(float_of(code << 20), 0x1p120F);
}

/// So far from the ends of the exponent range that neither a quotient that counts nor its remainder
/// is subnormal or too large.
MOEBENCH_HOST_DEVICE inline bool divides_by_reciprocal(float x) {
  return x >= 0x1p-90F && x <= 0x1p90F;
}
/// x / d, rounded to nearest, from the reciprocal rounded to nearest: by the exact remainder.
MOEBENCH_HOST_DEVICE inline float refined_quotient(float x, float d, float reciprocal) {
  const float quotient = multiply(x, reciprocal);
  return fused(fused(-d, quotient, x), reciprocal, quotient);
}
/// amax / 6 for a magnitude of 16 bits, as IEEE division has it; infinity stays.
template <bool kFp16>
MOEBENCH_HOST_DEVICE inline float sixth_of(float amax) {
  if (!kFp16 && amax > 0.0F && amax < 0x1p-90F) return divide(amax, kLargestE2m1);
  return bits_of(amax) == kFloatExponent
             ? amax
             : refined_quotient(amax, kLargestE2m1, 1.0F / kLargestE2m1);
}

/// The scale of 16 values with magnitudes up to `amax`: its E4M3 code, its value, and what the
/// values are multiplied with before they are rounded to E2M1.
struct Nvfp4Scale {
  std::uint32_t code;
  float value;
  float factor;
};
MOEBENCH_HOST_DEVICE inline Nvfp4Scale nvfp4_scale(float amax, float global_scale) {
  const std::uint32_t code = e4m3_code(multiply(global_scale, divide(amax, kLargestE2m1)));
  const float value = e4m3_value(code);
  return {code, value, code == 0 ? 0.0F : divide(global_scale, value)};
}

/// quant/'s fp8_scale: amax / 448, never rounded to 0; 1 for amax 0.
MOEBENCH_HOST_DEVICE inline float fp8_scale_of(float amax) {
  const float scale = divide(amax, kLargestE4m3);
  constexpr std::uint32_t kSmallestPositive = 1;
  if (amax == 0.0F) return 1.0F;
  return scale == 0.0F ? float_of(kSmallestPositive) : scale;
}
/// quant/'s nvfp4_global_scale: 448 * 6 / amax, at most 2^118; 1 for amax 0.
MOEBENCH_HOST_DEVICE inline float nvfp4_global_scale_of(float amax) {
  constexpr float kLargest = 0x1p118F;
  if (amax == 0.0F) return 1.0F;
  const float scale = divide(kLargestE4m3 * kLargestE2m1, amax);
  return scale < kLargest ? scale : kLargest;
}

/// x / scale for many x: the E4M3 code of the result is that of IEEE division. The quotient by the
/// reciprocal is refined twice by its exact remainder, as compilers do it. Scales near the ends of
/// the exponent range, where a remainder would be subnormal while the quotient still counts, are
/// divided by as they are.
class ScaleDivider {
 public:
  /// 0: scales are divided by as they are.
  MOEBENCH_HOST_DEVICE static float reciprocal_of(float scale) {
    return divides_by_reciprocal(scale) ? divide(1.0F, scale) : 0.0F;
  }
  MOEBENCH_HOST_DEVICE static float refined_twice(float x, float scale, float reciprocal) {
    const float quotient = refined_quotient(x, scale, reciprocal);
    return fused(fused(-scale, quotient, x), reciprocal, quotient);
  }

  MOEBENCH_HOST_DEVICE explicit ScaleDivider(float scale)
      : scale_(scale), reciprocal_(reciprocal_of(scale)), largest_(kSaturated * scale) {}
  [[nodiscard]] MOEBENCH_HOST_DEVICE float operator()(float x) const {
    if (reciprocal_ == 0.0F) return divide(x, scale_);
    const float magnitude = clamped_magnitude(x, largest_);
    const float quotient = refined_twice(magnitude, scale_, reciprocal_);
    return float_of(bits_of(quotient) | (bits_of(x) & kFloatSign));
  }

 private:
  static constexpr float kSaturated = 1024.0F;  ///< a quotient that becomes 448 whatever it is
  float scale_;
  float reciprocal_;
  float largest_;
};

}  // namespace moebench::cuda
