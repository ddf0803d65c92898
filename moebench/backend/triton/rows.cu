// Every thread takes 8 columns of a row: 16 bytes in, 8 codes or 16 bytes out.
#include <algorithm>
#include <type_traits>

#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/quantize.cuh"
#include "moebench/backend/triton/embedded.h"
#include "moebench/backend/triton/kernels.h"

namespace moebench::triton {
namespace {

using cuda::kAllLanes;
using cuda::kUnitColumns;
using cuda::ScaleDivider;
using cuda::Unit;

constexpr int kWarpThreads = 32;
constexpr int kUnitThreads = 256;
constexpr int kRowThreads = 1024;

/// One IEEE operation after the other, but for the exponential (2 units in the last place).
__device__ float silu_times(float gate, float up) {
  return cuda::multiply(cuda::divide(gate, cuda::add(1.0F, expf(-gate))), up);
}

__device__ uint4 load_unit(const std::uint16_t* row, std::int64_t unit) {
  return *reinterpret_cast<const uint4*>(row + unit * kUnitColumns);
}

template <bool kWide>
__device__ void store_quantized(const QuantizeArgs& args, std::int64_t row, std::int64_t unit,
                                const Unit& values, const ScaleDivider& divide_by_scale) {
  const std::int64_t at = row * args.columns + unit * kUnitColumns;
  if constexpr (kWide) {
    Unit split;
#pragma unroll
    for (int i = 0; i < kUnitColumns; ++i) {
      split.values[i] = values.values[2 * i % kUnitColumns + 2 * i / kUnitColumns];
    }
    const uint4 numbers = cuda::through_fp8(split, divide_by_scale);
    const std::int64_t in_split = at % kWideSplit;
    std::uint16_t* const even = args.wide + (at - in_split) + in_split / 2;
    *reinterpret_cast<std::uint64_t*>(even) = std::uint64_t{numbers.y} << 32 | numbers.x;
    *reinterpret_cast<std::uint64_t*>(even + kWideSplit / 2) =
        std::uint64_t{numbers.w} << 32 | numbers.z;
  } else {
    std::uint32_t words[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float* v = values.values + 4 * i;
      words[i] = cuda::e4m3_codes(divide_by_scale(v[0]), divide_by_scale(v[1])) |
                 cuda::e4m3_codes(divide_by_scale(v[2]), divide_by_scale(v[3])) << 16;
    }
    *reinterpret_cast<std::uint64_t*>(args.codes + at) = std::uint64_t{words[1]} << 32 | words[0];
  }
}

/// Largest magnitude of a block's threads, to all of them.
__device__ std::uint32_t largest_of_block(std::uint32_t magnitude) {
  __shared__ std::uint32_t of_warp[kRowThreads / kWarpThreads];
  magnitude = __reduce_max_sync(kAllLanes, magnitude);
  if (threadIdx.x % kWarpThreads == 0) of_warp[threadIdx.x / kWarpThreads] = magnitude;
  __syncthreads();
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  return __reduce_max_sync(kAllLanes, lane < blockDim.x / kWarpThreads ? of_warp[lane] : 0);
}

/// One scale for all. Block b takes part b % parts of row b / parts.
template <ActType kType, bool kWide>
__global__ void __launch_bounds__(kUnitThreads) quantize_units(QuantizeArgs args, int parts) {
  const std::int64_t row = blockIdx.x / static_cast<unsigned>(parts);
  const std::int64_t unit =
      std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * blockDim.x + threadIdx.x;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (unit * kUnitColumns >= args.columns) return;
  const ScaleDivider divide_by_scale(*args.given_scale);
  const Unit values = cuda::widen<kType>(load_unit(args.rows + row * args.columns, unit));
  store_quantized<kWide>(args, row, unit, values, divide_by_scale);
}

/// A scale for each row. Block b takes row b.
template <ActType kType, bool kWide>
__global__ void __launch_bounds__(kRowThreads) quantize_rows(QuantizeArgs args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t units = args.columns / kUnitColumns;
  const std::uint16_t* from = args.rows + row * args.columns;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  std::uint32_t magnitude = 0;
  for (std::int64_t unit = threadIdx.x; unit < units; unit += blockDim.x) {
    magnitude = max(magnitude, cuda::largest_magnitude(load_unit(from, unit)));
  }
  const float scale = cuda::fp8_scale_of(cuda::widen<kType>(largest_of_block(magnitude)));
  if (threadIdx.x == 0) args.row_scale[row] = scale;
  const ScaleDivider divide_by_scale(scale);
  for (std::int64_t unit = threadIdx.x; unit < units; unit += blockDim.x) {
    store_quantized<kWide>(args, row, unit, cuda::widen<kType>(load_unit(from, unit)),
                           divide_by_scale);
  }
}

template <ActType kType>
__global__ void __launch_bounds__(kUnitThreads) silu_units(SiluArgs args, int parts) {
  const std::int64_t pair = blockIdx.x / static_cast<unsigned>(parts);
  const std::int64_t unit =
      std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * blockDim.x + threadIdx.x;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  uint4 raw{};
  if (unit * kUnitColumns < args.columns) {
    const std::uint16_t* row = args.gate_up + pair * 2 * args.columns;
    const Unit gate = cuda::widen<kType>(load_unit(row, unit));
    const Unit up = cuda::widen<kType>(load_unit(row + args.columns, unit));
    Unit h;
#pragma unroll
    for (int i = 0; i < kUnitColumns; ++i) h.values[i] = silu_times(gate.values[i], up.values[i]);
    raw = cuda::narrow<kType>(h);
    *reinterpret_cast<uint4*>(args.hidden + pair * args.columns + unit * kUnitColumns) = raw;
  }
  if (args.amax_key == nullptr) return;
  const std::uint32_t magnitude = largest_of_block(cuda::largest_magnitude(raw));
  if (threadIdx.x != 0) return;
  const unsigned long long key =
      static_cast<unsigned long long>(magnitude) << 32 | ~static_cast<std::uint32_t>(pair);
  auto* best = reinterpret_cast<unsigned long long*>(args.amax_key);
  // Most blocks come after one with a larger value.
  if (key > *const_cast<volatile unsigned long long*>(best)) atomicMax(best, key);
}

template <ActType kType>
__global__ void dynamic_scale_kernel(const std::uint64_t* amax_key, DynamicScale* out) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (threadIdx.x != 0) return;
  const std::uint64_t key = *amax_key;
  *out = {cuda::fp8_scale_of(cuda::widen<kType>(static_cast<std::uint32_t>(key >> 32))),
          static_cast<std::int32_t>(~static_cast<std::uint32_t>(key))};
}

struct Cut {
  int parts;
  int threads;
};
/// A row's units over blocks of whole warps, as even as possible.
Cut cut_row(std::int64_t columns) {
  const std::int64_t units = columns / kUnitColumns;
  const std::int64_t parts = cuda::divide_up(units, kUnitThreads);
  return {static_cast<int>(parts),
          static_cast<int>(cuda::divide_up(cuda::divide_up(units, parts), kWarpThreads) *
                           kWarpThreads)};
}

template <ActType kType, bool kWide>
cudaError_t quantize_as(const QuantizeArgs& args, cudaStream_t stream) {
  if (args.given_scale != nullptr) {
    const Cut cut = cut_row(args.columns);
    return cuda::launch_overlapped(quantize_units<kType, kWide>,
                                   {args.count * cut.parts, cut.threads}, stream, args, cut.parts);
  }
  const std::int64_t threads = std::min<std::int64_t>(
      kRowThreads, cuda::divide_up(args.columns / kUnitColumns, kWarpThreads) * kWarpThreads);
  return cuda::launch_overlapped(quantize_rows<kType, kWide>,
                                 {args.count, static_cast<int>(threads)}, stream, args);
}

template <ActType kType>
cudaError_t silu_as(const SiluArgs& args, cudaStream_t stream) {
  const Cut cut = cut_row(args.columns);
  return cuda::launch_overlapped(silu_units<kType>, {args.pairs * cut.parts, cut.threads}, stream,
                                 args, cut.parts);
}

}  // namespace

cudaError_t enqueue_quantize(ActType type, const QuantizeArgs& args, cudaStream_t stream) {
  if (args.codes == nullptr && args.columns % kWideSplit != 0) return cudaErrorInvalidValue;
  const auto as = [&](auto wide) {
    return type == ActType::kFp16
               ? quantize_as<ActType::kFp16, decltype(wide)::value>(args, stream)
               : quantize_as<ActType::kBf16, decltype(wide)::value>(args, stream);
  };
  return args.codes == nullptr ? as(std::true_type{}) : as(std::false_type{});
}

cudaError_t enqueue_silu(ActType type, const SiluArgs& args, cudaStream_t stream) {
  return type == ActType::kFp16 ? silu_as<ActType::kFp16>(args, stream)
                                : silu_as<ActType::kBf16>(args, stream);
}

cudaError_t enqueue_dynamic_scale(ActType type, const std::uint64_t* amax_key, DynamicScale* out,
                                  cudaStream_t stream) {
  return type == ActType::kFp16 ? cuda::launch_overlapped(dynamic_scale_kernel<ActType::kFp16>,
                                                          {1, kWarpThreads}, stream, amax_key, out)
                                : cuda::launch_overlapped(dynamic_scale_kernel<ActType::kBf16>,
                                                          {1, kWarpThreads}, stream, amax_key, out);
}

}  // namespace moebench::triton
