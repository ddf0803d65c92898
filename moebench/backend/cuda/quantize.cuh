// Eight 16-bit values of a row at a time, one 16-byte load or store: their magnitudes, their
// widening to FP32, their quantisation to the exact 16-bit values that the GEMMs multiply.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "moebench/backend/cuda/ptx.cuh"
#include "moebench/backend/cuda/quantize.h"
#include "moebench/core/dtype.h"

namespace moebench::cuda {

inline constexpr int kUnitColumns = 8;  ///< 16-bit values in 16 bytes
inline constexpr int kUnitBytes = 16;
inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;

struct Unit {
  float values[kUnitColumns];
};

/// A 16-bit number of the layer's type as FP32.
template <ActType kType>
__device__ inline float widen(std::uint32_t bits) {
  if constexpr (kType == ActType::kBf16) return __uint_as_float(bits << 16);
  return __half2float(__ushort_as_half(static_cast<std::uint16_t>(bits)));
}

template <ActType kType>
__device__ inline std::uint32_t narrow_pair(float low, float high) {
  return kType == ActType::kBf16 ? ptx::round_pair_bf16(low, high)
                                 : ptx::round_pair_fp16(low, high);
}

template <ActType kType>
__device__ inline Unit widen(const uint4& raw) {
  Unit unit;
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    unit.values[2 * i] = widen<kType>(words[i] & 0xFFFF);
    unit.values[2 * i + 1] = widen<kType>(words[i] >> 16);
  }
  return unit;
}

template <ActType kType>
__device__ inline uint4 narrow(const Unit& unit) {
  return {narrow_pair<kType>(unit.values[0], unit.values[1]),
          narrow_pair<kType>(unit.values[2], unit.values[3]),
          narrow_pair<kType>(unit.values[4], unit.values[5]),
          narrow_pair<kType>(unit.values[6], unit.values[7])};
}

// The bits of 16-bit magnitudes, FP16 or BF16, are in the order of their values.

/// Largest magnitude of the eight, as 16 bits.
__device__ inline std::uint32_t largest_magnitude(const uint4& raw) {
  constexpr std::uint32_t kMagnitudes = 0x7FFF7FFF;
  const std::uint32_t pair = __vmaxu2(__vmaxu2(raw.x & kMagnitudes, raw.y & kMagnitudes),
                                      __vmaxu2(raw.z & kMagnitudes, raw.w & kMagnitudes));
  return max(pair & 0xFFFF, pair >> 16);
}

/// Over 2^k neighbouring lanes, all lanes of the warp taking part.
template <int kLanes>
__device__ inline std::uint32_t largest_over_lanes(std::uint32_t magnitude) {
#pragma unroll
  for (int lane = 1; lane < kLanes; lane *= 2) {
    magnitude = max(magnitude, __shfl_xor_sync(kAllLanes, magnitude, lane));
  }
  return magnitude;
}

/// NVFP4 and back: e2m1 * scale, exact in either 16-bit type.
template <ActType kType>
__device__ inline uint4 through_nvfp4(const Unit& unit, const Nvfp4Scale& scale) {
  Unit products;
#pragma unroll
  for (int i = 0; i < kUnitColumns; ++i) {
    products.values[i] =
        multiply(round_to_e2m1(multiply(unit.values[i], scale.factor)), scale.value);
  }
  return narrow<kType>(products);
}

/// E4M3 codes as FP16, exact.
__device__ inline uint4 through_fp8(const Unit& unit, const ScaleDivider& divide_by_scale) {
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto codes = static_cast<std::uint16_t>(
        e4m3_codes(divide_by_scale(unit.values[2 * i]), divide_by_scale(unit.values[2 * i + 1])));
    pairs[i] = ptx::e4m3_to_fp16(codes);
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

}  // namespace moebench::cuda
