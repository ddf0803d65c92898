// CUDA's keywords, built-in variables and functions, and launching, for the emulator (see
// emulator.h).
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <tuple>
#include <type_traits>

#include "tests/cuda/emulated/emulator.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
struct dim3 : emulated::Index {
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
      : Index{x_, y_, z_} {}  // NOLINT: as in CUDA
};

extern emulated::Index threadIdx, blockIdx, blockDim, gridDim;

// ---------------------------------------------------------------- launching

enum cudaLaunchAttributeID {
  cudaLaunchAttributeClusterDimension = 4,
  cudaLaunchAttributeProgrammaticStreamSerialization = 6
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    emulated::Index clusterDim;
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel*,
                                           const cudaLaunchConfig_t* config) {
  const cudaLaunchAttribute& last = config->attrs[config->numAttrs - 1];
  const int blocks =
      last.id == cudaLaunchAttributeClusterDimension ? static_cast<int>(last.val.clusterDim.x) : 1;
  // A cluster has room on any device.
  *clusters = std::max(1, emulated::settings().multiprocessors / blocks);
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  emulated::Launch launch;
  launch.grid = config->gridDim;
  launch.block = config->blockDim;
  launch.shared_bytes = config->dynamicSmemBytes;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      launch.cluster = attribute.val.clusterDim.x;
    } else {
      launch.overlaps = attribute.val.programmaticStreamSerializationAllowed != 0;
    }
  }
  launch.kernel = [kernel, parameters = std::tuple<std::remove_cvref_t<Parameters>...>(
                               std::forward<Arguments>(arguments)...)] {
    std::apply(kernel, parameters);
  };
  emulated::launch(std::move(launch));
  return cudaSuccess;
}
inline void cudaGridDependencySynchronize() { emulated::wait_for_previous_launch(); }
inline void cudaTriggerProgrammaticLaunchCompletion() { emulated::allow_next_launch(); }

// ---------------------------------------------------------------- collectives

namespace emulated {
template <typename T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int lane() { return static_cast<int>(threadIdx.x % 32); }
}  // namespace emulated

inline void __syncthreads() { emulated::block_barrier(0, 0); }
inline void __syncwarp() { emulated::exchange("__syncwarp", 0); }
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulated::from_bits<T>(emulated::exchange("__shfl_sync", emulated::to_bits(value))[lane]);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int lanes) {
  const auto* values = emulated::exchange("__shfl_up_sync", emulated::to_bits(value));
  const int from = emulated::lane() - lanes;
  return emulated::from_bits<T>(values[from < 0 ? emulated::lane() : from]);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
  return emulated::from_bits<T>(
      emulated::exchange("__shfl_xor_sync", emulated::to_bits(value))[emulated::lane() ^ lanes]);
}
inline unsigned __reduce_max_sync(unsigned, unsigned value) {
  const auto* values = emulated::exchange("__reduce_max_sync", value);
  return static_cast<unsigned>(*std::max_element(values, values + 32));
}
inline unsigned __reduce_add_sync(unsigned, unsigned value) {
  const auto* values = emulated::exchange("__reduce_add_sync", value);
  return static_cast<unsigned>(std::accumulate(values, values + 32, std::uint64_t{0}));
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  const auto* values = emulated::exchange("__ballot_sync", predicate != 0 ? 1 : 0);
  unsigned lanes = 0;
  for (int i = 0; i < 32; ++i) lanes |= static_cast<unsigned>(values[i]) << i;
  return lanes;
}
inline unsigned __match_any_sync(unsigned, int value) {
  const auto* values = emulated::exchange("__match_any_sync", emulated::to_bits(value));
  unsigned alike = 0;
  for (int i = 0; i < 32; ++i)
    alike |= static_cast<unsigned>(values[i] == emulated::to_bits(value)) << i;
  return alike;
}

// ---------------------------------------------------------------- memory

template <typename T>
T __ldcg(const T* p) {
  return *p;
}
template <typename T>
void __stcg(T* p, T value) {
  *p = value;
}
inline void __threadfence() {}
template <typename T, typename U>
T atomicAdd(T* p, U value) {
  const T old = *p;
  *p = static_cast<T>(*p + static_cast<T>(value));
  return old;
}
template <typename T, typename U>
T atomicMax(T* p, U value) {
  const T old = *p;
  *p = std::max(*p, static_cast<T>(value));
  return old;
}
template <typename T, typename U>
T atomicMin(T* p, U value) {
  const T old = *p;
  *p = std::min(*p, static_cast<T>(value));
  return old;
}

// ---------------------------------------------------------------- arithmetic

template <typename A, typename B>
constexpr auto min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}
template <typename A, typename B>
constexpr auto max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return static_cast<C>(a) > static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline unsigned __float_as_uint(float x) {
  return emulated::from_bits<unsigned>(emulated::to_bits(x));
}
inline float __uint_as_float(unsigned bits) { return emulated::from_bits<float>(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline unsigned __vmaxu2(unsigned a, unsigned b) {
  return std::max(a & 0xFFFF, b & 0xFFFF) | std::max(a >> 16, b >> 16) << 16;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) {
    out |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7) * 8 & 0xFF) << 8 * i;
  }
  return out;
}
