// A stable counting sort of the pairs by expert, in one thread block: each warp counts the experts
// of a contiguous segment of the pairs; a scan over experts gives every expert its first row,
// padded to whole tiles; then each warp places its pairs in order, equal experts of 32 neighbours
// ranked by a warp vote.
#include <algorithm>

#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/layout.h"
#include "moebench/backend/cuda/ptx.cuh"
#include "moebench/backend/triton/kernels.h"

namespace moebench::triton {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;
/// What a block may ask for on every architecture that the kernels are compiled for (sm_120: 99
/// KB).
constexpr std::int64_t kMaxSharedBytes = 96 << 10;
constexpr int kSharedBytesUnasked = 47 << 10;

__device__ std::int32_t scan_warp(std::int32_t value) {
  for (int lanes = 1; lanes < kWarpThreads; lanes *= 2) {
    const std::int32_t other = __shfl_up_sync(kAllLanes, value, lanes);
    if (static_cast<int>(threadIdx.x % kWarpThreads) >= lanes) value += other;
  }
  return value;
}

/// The sum of the values of the threads before; `all` becomes the sum of all.
__device__ std::int32_t scan_block(std::int32_t value, std::int32_t& all) {
  __shared__ std::int32_t of_warp[kWarps];
  const unsigned warp = threadIdx.x / kWarpThreads;
  const unsigned lane = threadIdx.x % kWarpThreads;
  const std::int32_t inclusive = scan_warp(value);
  if (lane == kWarpThreads - 1) of_warp[warp] = inclusive;
  __syncthreads();
  if (warp == 0) of_warp[lane] = scan_warp(of_warp[lane]);
  __syncthreads();
  const std::int32_t before = inclusive - value + (warp > 0 ? of_warp[warp - 1] : 0);
  all = of_warp[kWarps - 1];
  __syncthreads();  // before of_warp is used again
  return before;
}

/// counts[segment][expert] becomes the row of the expert's first pair in that segment. Writes the
/// experts of the tiles and the padding.
__device__ void lay_out_experts(const AlignArgs& args, std::int32_t* counts, int segments) {
  const int experts = static_cast<int>(args.experts);
  std::int32_t rows_before = 0;
  for (int first = 0; first < experts; first += kThreads) {
    const int expert = first + static_cast<int>(threadIdx.x);
    std::int32_t rows = 0;
    for (int segment = 0; expert < experts && segment < segments; ++segment) {
      rows += counts[segment * experts + expert];
    }
    const std::int32_t tiles = (rows + args.block_m - 1) / args.block_m;
    std::int32_t all = 0;
    const std::int32_t begin = rows_before + scan_block(tiles * args.block_m, all);
    rows_before += all;
    if (rows == 0) continue;
    std::int32_t next = begin;
    for (int segment = 0; segment < segments; ++segment) {
      std::int32_t& count = counts[segment * experts + expert];
      const std::int32_t here = count;
      count = next;
      next += here;
    }
    for (std::int32_t tile = 0; tile < tiles; ++tile) {
      args.tile_experts[begin / args.block_m + tile] = expert;
    }
    for (std::int32_t row = next; row < begin + tiles * args.block_m; ++row) {
      args.sorted_pairs[row] = static_cast<std::int32_t>(args.pairs);
    }
  }
  if (threadIdx.x == 0) {
    *args.padded_rows = rows_before;
    *args.amax_key = 0;
  }
  __syncthreads();
}

/// The pairs [begin, end) of one warp, in order. next[expert]: the row of its next pair.
__device__ void place_segment(const AlignArgs& args, std::int32_t* next, std::int64_t begin,
                              std::int64_t end) {
  const std::int64_t lane = threadIdx.x % kWarpThreads;
  const std::uint32_t lanes_below = (1U << lane) - 1;
  for (std::int64_t first = begin; first < end; first += kWarpThreads) {
    const std::int64_t pair = first + lane;
    const std::int32_t expert = pair < end ? args.topk_ids[pair] : -1;
    const std::uint32_t alike = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(alike & lanes_below);
    const std::int32_t start = expert >= 0 ? next[expert] : 0;
    __syncwarp();
    if (expert >= 0) {
      if (rank == 0) next[expert] = start + __popc(alike);
      args.sorted_pairs[start + rank] = static_cast<std::int32_t>(pair);
    }
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kThreads, 1) align_kernel(AlignArgs args, int segments) {
  auto* counts = reinterpret_cast<std::int32_t*>(cuda::ptx::dynamic_shared());
  const int experts = static_cast<int>(args.experts);
  for (int i = static_cast<int>(threadIdx.x); i < segments * experts; i += kThreads) counts[i] = 0;
  __syncthreads();
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();

  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const std::int64_t segment =
      cuda::divide_up(cuda::divide_up(args.pairs, max(segments, 1)), kWarpThreads) * kWarpThreads;
  const std::int64_t begin = min(warp * segment, args.pairs);
  const std::int64_t end = warp < segments ? min(begin + segment, args.pairs) : begin;
  std::int32_t* mine = counts + min(warp, max(segments - 1, 0)) * experts;
  for (std::int64_t pair = begin + lane; pair < end; pair += kWarpThreads) {
    atomicAdd(mine + args.topk_ids[pair], 1);
  }
  __syncthreads();
  lay_out_experts(args, counts, segments);
  place_segment(args, mine, begin, end);
}

}  // namespace

cudaError_t enqueue_align(const AlignArgs& args, cudaStream_t stream) {
  const std::int64_t by_memory =
      kMaxSharedBytes / (args.experts * std::int64_t{sizeof(std::int32_t)});
  if (args.experts < 1 || by_memory < 1) return cudaErrorInvalidValue;
  const int segments = static_cast<int>(std::min(
      {std::int64_t{kWarps}, cuda::divide_up(args.pairs, std::int64_t{kWarpThreads}), by_memory}));
  const auto shared_bytes =
      static_cast<int>(args.experts * segments * std::int64_t{sizeof(std::int32_t)});
  if (shared_bytes > kSharedBytesUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(
        align_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  return cuda::launch_overlapped(align_kernel, {1, kThreads, shared_bytes}, stream, args, segments);
}

}  // namespace moebench::triton
