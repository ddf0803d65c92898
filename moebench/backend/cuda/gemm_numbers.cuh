// Numbers in the epilogues of the grouped GEMMs: pairs of 16-bit ones, and roundings to E4M3 and
// E2M1 that are bit-identical to the host's (quant/).
#pragma once

#include <cuda_fp16.h>

#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/ptx.cuh"
#include "moebench/backend/cuda/quantize.h"

namespace moebench::cuda {

template <HalfType type>
__device__ __forceinline__ std::uint32_t round_pair(float low, float high) {
  return type == HalfType::kFp16 ? ptx::round_pair_fp16(low, high)
                                 : ptx::round_pair_bf16(low, high);
}
template <HalfType type>
__device__ __forceinline__ float2 widen_pair(std::uint32_t pair) {
  if constexpr (type == HalfType::kFp16) {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  } else {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000)};
  }
}
/// max(a, b) of both halves.
template <HalfType type>
__device__ __forceinline__ std::uint32_t larger_magnitude(std::uint32_t a, std::uint32_t b) {
  return type == HalfType::kFp16 ? ptx::max_pair_fp16(a, b) : ptx::max_pair_bf16(a, b);
}
/// max(|a|, |b|) of both halves.
template <HalfType type>
__device__ __forceinline__ std::uint32_t largest_pair(std::uint32_t a, std::uint32_t b) {
  return larger_magnitude<type>(a & 0x7FFF7FFF, b & 0x7FFF7FFF);
}

__device__ __forceinline__ float e4m3_round(float x) {
  const std::uint32_t pair = ptx::e4m3_to_fp16(ptx::e4m3_pair(x, 0.0F));
  return __half2float(__ushort_as_half(static_cast<std::uint16_t>(pair)));
}

/// The NVFP4 scale of values with magnitudes up to `amax`, as in quant/nvfp4.h.
template <HalfType type>
__device__ __forceinline__ float nvfp4_scale_of(float amax, float global_scale) {
  return e4m3_round(global_scale * sixth_of<type == HalfType::kFp16>(amax));
}
/// Of a scale that is 0 values become 0 whatever they are multiplied with before.
__device__ __forceinline__ float smallest_for_zero(float scale) { return fmaxf(scale, 0x1p-9F); }
/// x / scale, rounded to nearest. A division proper asks about its operands, takes a slow path for
/// zeros, and none is begun before the one before has ended. The reciprocal of a number of four
/// bits is rounded to nearest after one step, and with it the quotient. `scale`: positive E4M3; x:
/// divides_by_reciprocal().
__device__ __forceinline__ float divide_by_e4m3(float x, float scale) {
  const float near = ptx::reciprocal_approximate(scale);
  return refined_quotient(x, scale, __fmaf_rn(__fmaf_rn(-scale, near, 1.0F), near, near));
}

/// Nearest E2M1 value, ties to the even code, saturating at 6. Adding 2^22 times the power of two
/// below rounds to one mantissa bit; below 1 the step stays that of 1.
__device__ __forceinline__ float e2m1_round(float x) {
  constexpr std::uint32_t kExponent = 0x7F800000;
  const float t = fminf(fabsf(x), 6.0F);
  const float power = __uint_as_float((__float_as_uint(fmaxf(t, 1.0F)) & kExponent) + (22 << 23));
  return copysignf(__fsub_rn(__fadd_rn(t, power), power), x);
}

/// x / (1 + e^-x) to a few units in the last place of FP32, far inside what the order of
/// accumulation moves.
__device__ __forceinline__ float silu(float x) {
  constexpr float kLog2E = 1.4426950408889634F;
  return x * ptx::reciprocal_approximate(1.0F + ptx::exp2_approximate(-x * kLog2E));
}

}  // namespace moebench::cuda
