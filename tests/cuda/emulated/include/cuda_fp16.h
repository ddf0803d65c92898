// FP16 pairs for the emulator.
#pragma once

#include <cuda_runtime.h>

#include "moebench/core/dtype.h"

struct __half {
  std::uint16_t bits;
};
struct __half2 {
  __half x, y;
};
inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
inline float __half2float(__half x) { return emulated::half_values(false)[x.bits]; }
inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
inline __half2 __low2half2(__half2 x) { return {x.x, x.x}; }
inline __half2 __high2half2(__half2 x) { return {x.y, x.y}; }
/// The product of two FP16 numbers is exact in FP32.
inline __half __hmul(__half a, __half b) {
  return {moebench::encode_fp16(__half2float(a) * __half2float(b))};
}
inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
