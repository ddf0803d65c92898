// The narrow formats in integer arithmetic: nothing here depends on the rounding mode, on
// flush-to-zero flags or on what the compiler does with floating-point expressions.
#include "moebench/core/dtype.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace moebench {
namespace {

/// An IEEE number taken apart: magnitude = significand * 2^exponent, unless nan or infinite.
struct Unpacked {
  bool negative = false;
  bool nan = false;
  bool infinite = false;
  std::uint64_t significand = 0;
  int exponent = 0;
};

template <typename Float>
Unpacked unpack(Float x) {
  using Bits =
      std::conditional_t<sizeof(Float) == sizeof(std::uint32_t), std::uint32_t, std::uint64_t>;
  constexpr int kFractionBits = std::numeric_limits<Float>::digits - 1;
  constexpr int kExponentBits = static_cast<int>(sizeof(Float)) * 8 - 1 - kFractionBits;
  constexpr int kMaxField = (1 << kExponentBits) - 1;
  constexpr int kMinQuantum = std::numeric_limits<Float>::min_exponent - 1 - kFractionBits;

  const auto bits = std::bit_cast<Bits>(x);
  const std::uint64_t fraction = bits & ((Bits{1} << kFractionBits) - 1);
  const int field = static_cast<int>((bits >> kFractionBits) & Bits{kMaxField});
  Unpacked out;
  out.negative = (bits >> (sizeof(Float) * 8 - 1)) != 0;
  out.nan = field == kMaxField && fraction != 0;
  out.infinite = field == kMaxField && fraction == 0;
  out.significand = field == 0 ? fraction : fraction | (std::uint64_t{1} << kFractionBits);
  out.exponent = kMinQuantum + std::max(field, 1) - 1;
  return out;
}

/// floor(log2(magnitude)) of a finite non-zero number.
int floor_log2(const Unpacked& x) {
  return x.exponent + static_cast<int>(std::bit_width(x.significand)) - 1;
}

/// A sign-magnitude format with subnormals: `mantissa_bits` stored, smallest positive value
/// 2^min_quantum.
struct Format {
  int mantissa_bits;
  int min_quantum;
};
constexpr Format kE2m1{1, -1};
constexpr Format kE4m3{3, -9};
constexpr Format kFp16{10, -24};
constexpr Format kBf16{7, -133};

/// The magnitude's code, rounded to nearest even as if the exponent field had no end: a value past
/// the format's range gives a code past its largest one, which the caller clamps. Codes of one sign
/// are in the order of their values, so a carry out of the mantissa is already right.
std::int64_t round_to_code(const Unpacked& x, Format format) {
  if (x.significand == 0) return 0;
  const int quantum = std::max(floor_log2(x) - format.mantissa_bits, format.min_quantum);
  const std::int64_t base = std::int64_t{quantum - format.min_quantum} << format.mantissa_bits;
  const int shift = quantum - x.exponent;
  // At most mantissa_bits + 1 bits are left of the quantum, so a left shift cannot lose any.
  if (shift <= 0) return base + static_cast<std::int64_t>(x.significand << -shift);
  constexpr int kSignificandBits = std::numeric_limits<double>::digits;
  if (shift > kSignificandBits) return base;  // below half a quantum
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  const std::uint64_t rest = x.significand & (2 * half - 1);
  std::uint64_t kept = x.significand >> shift;
  if (rest > half || (rest == half && (kept & 1U) != 0)) ++kept;
  return base + static_cast<std::int64_t>(kept);
}

/// The value of a magnitude code below the infinities and NaN.
float value_of_code(int code, Format format) {
  const int one = 1 << format.mantissa_bits;
  const int field = code >> format.mantissa_bits;
  const int fraction = code & (one - 1);
  const int significand = field == 0 ? fraction : fraction + one;
  return std::ldexp(static_cast<float>(significand), format.min_quantum + std::max(field, 1) - 1);
}

constexpr std::uint8_t kE2m1MaxCode = 0x7;
constexpr std::uint8_t kE2m1Sign = 0x8;
constexpr std::uint8_t kE4m3MaxCode = 0x7E;
constexpr std::uint8_t kE4m3Nan = 0x7F;
constexpr std::uint8_t kE4m3Sign = 0x80;
constexpr std::uint8_t kE8m0Nan = 0xFF;
constexpr std::uint8_t kE8m0MaxCode = 0xFE;
constexpr int kE8m0Bias = 127;
constexpr std::uint16_t kSign16 = 0x8000;
constexpr std::uint16_t kFp16Infinity = 0x7C00;
constexpr std::uint16_t kBf16Infinity = 0x7F80;

/// FP16 or BF16 of a float or double. A NaN keeps its sign and its upper payload bits and becomes
/// quiet, as F16C does.
template <typename Float>
std::uint16_t encode_16(Float x, Format format, std::uint16_t infinity) {
  const Unpacked parts = unpack(x);
  const std::uint16_t sign = parts.negative ? kSign16 : std::uint16_t{0};
  std::int64_t magnitude = infinity;
  if (parts.nan) {
    constexpr int kFractionBits = std::numeric_limits<Float>::digits - 1;
    const std::uint64_t fraction = parts.significand & ((std::uint64_t{1} << kFractionBits) - 1);
    const int quiet_bit = 1 << (format.mantissa_bits - 1);
    magnitude |= static_cast<std::int64_t>(fraction >> (kFractionBits - format.mantissa_bits));
    magnitude |= quiet_bit;
  } else if (!parts.infinite) {
    magnitude = std::min(round_to_code(parts, format), std::int64_t{infinity});
  }
  return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(magnitude));
}

}  // namespace

const char* name_of(ActType type) { return type == ActType::kFp16 ? "fp16" : "bf16"; }

std::uint8_t encode_e2m1(float x) {
  const Unpacked parts = unpack(x);
  if (parts.nan) return kE2m1MaxCode;
  const std::int64_t magnitude =
      parts.infinite ? kE2m1MaxCode
                     : std::min(round_to_code(parts, kE2m1), std::int64_t{kE2m1MaxCode});
  return static_cast<std::uint8_t>(magnitude | (parts.negative ? kE2m1Sign : 0));
}

float decode_e2m1(std::uint8_t code) {
  const float magnitude = value_of_code(code & kE2m1MaxCode, kE2m1);
  return (code & kE2m1Sign) != 0 ? -magnitude : magnitude;
}

std::uint8_t encode_e4m3(float x) {
  const Unpacked parts = unpack(x);
  std::int64_t magnitude = kE4m3MaxCode;
  if (parts.nan) {
    magnitude = kE4m3Nan;
  } else if (!parts.infinite) {
    magnitude = std::min(round_to_code(parts, kE4m3), std::int64_t{kE4m3MaxCode});
  }
  return static_cast<std::uint8_t>(magnitude | (parts.negative ? kE4m3Sign : 0));
}

float decode_e4m3(std::uint8_t code) {
  const int magnitude_code = code & kE4m3Nan;
  const float magnitude = magnitude_code == kE4m3Nan ? std::numeric_limits<float>::quiet_NaN()
                                                     : value_of_code(magnitude_code, kE4m3);
  return (code & kE4m3Sign) != 0 ? -magnitude : magnitude;
}

std::uint8_t encode_e8m0(float x) {
  const Unpacked parts = unpack(x);
  if (parts.nan || parts.infinite) return kE8m0Nan;
  if (parts.significand == 0) return 0;
  if (parts.negative) return kE8m0Nan;
  const int ceil_log2 = floor_log2(parts) + (std::has_single_bit(parts.significand) ? 0 : 1);
  return static_cast<std::uint8_t>(std::clamp(ceil_log2 + kE8m0Bias, 0, int{kE8m0MaxCode}));
}

float decode_e8m0(std::uint8_t code) {
  if (code == kE8m0Nan) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0F, int{code} - kE8m0Bias);
}

std::uint16_t encode_fp16(float x) { return encode_16(x, kFp16, kFp16Infinity); }

float decode_fp16(std::uint16_t bits) {
  constexpr int kFloatExtraFractionBits = 23 - 10;
  constexpr std::uint32_t kFloatInfinity = 0x7F800000;
  const std::uint16_t magnitude = bits & static_cast<std::uint16_t>(~kSign16);
  if (magnitude < kFp16Infinity) {
    const float value = value_of_code(magnitude, kFp16);
    return (bits & kSign16) != 0 ? -value : value;
  }
  const std::uint32_t fraction = magnitude & static_cast<std::uint32_t>(~kFp16Infinity);
  return std::bit_cast<float>((static_cast<std::uint32_t>(bits & kSign16) << 16) | kFloatInfinity |
                              (fraction << kFloatExtraFractionBits));
}

std::uint16_t encode_bf16(float x) { return encode_16(x, kBf16, kBf16Infinity); }

float decode_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

std::uint16_t encode_act(ActType type, float x) {
  return type == ActType::kFp16 ? encode_fp16(x) : encode_bf16(x);
}

std::uint16_t encode_act(ActType type, double x) {
  return type == ActType::kFp16 ? encode_16(x, kFp16, kFp16Infinity)
                                : encode_16(x, kBf16, kBf16Infinity);
}

float decode_act(ActType type, std::uint16_t bits) {
  return type == ActType::kFp16 ? decode_fp16(bits) : decode_bf16(bits);
}

}  // namespace moebench
