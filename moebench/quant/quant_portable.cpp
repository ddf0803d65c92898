// The quantiser loops in plain, branch-free C++, which compilers vectorise with whatever the
// target's baseline has.
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <limits>

#include "moebench/core/dtype.h"
#include "moebench/quant/nvfp4.h"
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {
namespace {

static_assert(std::numeric_limits<float>::is_iec559);

std::int32_t bits_of(float x) { return std::bit_cast<std::int32_t>(x); }

/// `magnitude` plus the power of two that rounds it; a NaN counts as `largest`.
float rounding_sum(float magnitude, float largest, const RoundingConstants& constants) {
  const float t = magnitude < largest ? magnitude : largest;
  const float at_least = t > constants.smallest_normal ? t : constants.smallest_normal;
  return t + std::bit_cast<float>((bits_of(at_least) & kExponentBits) + constants.exponent_step);
}

std::int32_t code_of_sum(float sum, const RoundingConstants& constants) {
  return (bits_of(sum) >> constants.code_shift) + (bits_of(sum) & 0x1F) - constants.code_bias;
}

std::uint8_t e2m1_code(float x) {
  const std::int32_t bits = bits_of(x);
  const float sum =
      rounding_sum(std::bit_cast<float>(bits & kMagnitudeBits), kE2m1Max, kE2m1Rounding);
  const bool nan = (bits & kMagnitudeBits) > kExponentBits;
  const std::int32_t sign = nan ? 0 : (bits >> 28) & 0x8;
  return static_cast<std::uint8_t>(code_of_sum(sum, kE2m1Rounding) | sign);
}

/// NaN of either sign gives 0x7F.
std::uint8_t e4m3_code(float x) {
  const std::int32_t bits = bits_of(x);
  const float sum =
      rounding_sum(std::bit_cast<float>(bits & kMagnitudeBits), kE4m3Max, kE4m3Rounding);
  const bool nan = (bits & kMagnitudeBits) > kExponentBits;
  const std::int32_t code = code_of_sum(sum, kE4m3Rounding) | ((bits >> 24) & 0x80);
  return static_cast<std::uint8_t>(nan ? 0x7F : code);
}

std::uint32_t amax_bits(const float* x, std::int64_t count) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, bits_of(x[i]) & kMagnitudeBits);
  }
  return static_cast<std::uint32_t>(largest);
}

void nvfp4_row(const float* x, std::int64_t cols, float global_scale, std::uint8_t* payload,
               std::uint8_t* scales) {
  for (std::int64_t group = 0; group < cols / kNvfp4BlockSize; ++group) {
    const float* values = x + group * kNvfp4BlockSize;
    std::uint8_t* bytes = payload + group * kNvfp4BlockSize / 2;
    const auto amax = std::bit_cast<float>(amax_bits(values, kNvfp4BlockSize));
    const std::uint8_t code = e4m3_code(global_scale * (amax / kE2m1Max));
    scales[group] = code;
    const float scale = decode_e4m3(code);
    const float factor = scale == 0.0F ? 0.0F : global_scale / scale;
    std::array<std::uint8_t, kNvfp4BlockSize> codes{};
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = e2m1_code(values[i] * factor);
    for (std::size_t i = 0; i < codes.size() / 2; ++i) {
      bytes[i] = static_cast<std::uint8_t>(codes[2 * i] | (codes[2 * i + 1] << 4));
    }
  }
}

void fp8_row(const float* x, std::int64_t cols, float scale, std::uint8_t* payload) {
  for (std::int64_t i = 0; i < cols; ++i) payload[i] = e4m3_code(x[i] / scale);
}

constexpr Kernels kKernels{nvfp4_row, fp8_row, amax_bits};

}  // namespace

const Kernels* portable_kernels() { return &kKernels; }

}  // namespace moebench::quant
