// A stable counting sort of the pairs by expert, in one thread block: each warp takes a contiguous
// segment of the pairs and counts its experts; a scan over warps and experts gives every (warp,
// expert) its first row; then each warp places its pairs in order, equal experts of 32 neighbours
// ranked by a warp vote.
#include <algorithm>

#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/ptx.cuh"
#include "moebench/backend/cuda/route.h"

namespace moebench::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;
/// What a block may ask for on sm_90, less the scan's own.
constexpr std::int64_t kMaxSharedBytes = 226 << 10;
constexpr int kSharedBytesUnasked = 47 << 10;

/// What the placing pass needs of an expert.
struct ExpertBegin {
  std::int32_t first_row;
  std::int32_t tile_rows;
  std::uint32_t
      tile_reciprocal;  ///< ceil(2^32 / tile_rows): exact quotients of row numbers below 2^25
};
constexpr int kExpertBytes = sizeof(std::int64_t) + sizeof(ExpertBegin);

/// Sums over the experts before.
struct Totals {
  std::int32_t rows;
  std::int32_t active;
  std::int32_t largest;
  std::int32_t tiles;
  std::int64_t cost;

  __device__ void add(const Totals& before) {
    rows += before.rows;
    active += before.active;
    largest = max(largest, before.largest);
    tiles += before.tiles;
    cost += before.cost;
  }
};

__device__ Totals shifted_up(const Totals& mine, int lanes) {
  Totals other;
  other.rows = __shfl_up_sync(kAllLanes, mine.rows, lanes);
  other.active = __shfl_up_sync(kAllLanes, mine.active, lanes);
  other.largest = __shfl_up_sync(kAllLanes, mine.largest, lanes);
  other.tiles = __shfl_up_sync(kAllLanes, mine.tiles, lanes);
  other.cost = __shfl_up_sync(kAllLanes, mine.cost, lanes);
  return other;
}

/// Inclusive scan over the lanes of a warp.
__device__ Totals scan_warp(Totals mine) {
  for (int lanes = 1; lanes < kWarpThreads; lanes *= 2) {
    const Totals other = shifted_up(mine, lanes);
    if (static_cast<int>(threadIdx.x % kWarpThreads) >= lanes) mine.add(other);
  }
  return mine;
}

/// What lies before this thread's value in the block, and the sum of all.
struct Scanned {
  Totals before;
  Totals all;
};
__device__ Scanned scan_block(const Totals& mine, Totals (&warp_totals)[kWarps]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const Totals inclusive = scan_warp(mine);
  if (lane == kWarpThreads - 1) warp_totals[warp] = inclusive;
  __syncthreads();
  if (warp == 0) warp_totals[lane] = scan_warp(warp_totals[lane]);
  __syncthreads();
  Totals before = shifted_up(inclusive, 1);
  if (lane == 0) before = {};
  if (warp > 0) before.add(warp_totals[warp - 1]);
  const Totals all = warp_totals[kWarps - 1];
  __syncthreads();  // before warp_totals is used again
  return {before, all};
}

/// counts[warp][expert] becomes the number of the expert's pairs in the segments before; returns
/// its pairs in all.
__device__ std::int32_t scan_segments(std::int32_t* counts, int experts, int expert, int segments) {
  std::int32_t rows = 0;
#pragma unroll 8
  for (int segment = 0; segment < segments; ++segment) {
    std::int32_t& count = counts[segment * experts + expert];
    const std::int32_t here = count;
    count = rows;
    rows += here;
  }
  return rows;
}

/// After the entries and cost_begin, which all threads see.
__device__ SharedWork share_out(const RouteArgs& args, const PlanHeader& header,
                                const std::int64_t* cost_begin, const WorkShape& work) {
  __shared__ std::int32_t entries;
  __shared__ std::int32_t piece_tiles;
  __syncthreads();
  if (threadIdx.x == 0) {
    entries = header.active;
    piece_tiles = 0;
  }
  __syncthreads();
  const std::int64_t limit = shared_cost_limit(header, work, args.grid);
  for (int i = static_cast<int>(threadIdx.x); i < header.active; i += kThreads) {
    const std::int64_t end = i + 1 < header.active ? cost_begin[i + 1] : header.total_cost;
    if (end <= limit) continue;
    atomicAdd(&piece_tiles, args.entries[i].tiles);
    if (cost_begin[i] <= limit) entries = i;
  }
  __syncthreads();
  return {entries, piece_tiles, entries < header.active ? cost_begin[entries] : header.total_cost};
}

/// After the entries, which all threads see.
__device__ void cut_into_shares(const RouteArgs& args, const PlanHeader& header,
                                const std::int64_t* cost_begin) {
  const int positions = args.grid + 1;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * positions; i += kThreads) {
    const int gemm = i / positions;
    args.shares[i] = work_begin(header.shared[gemm], args.entries, cost_begin, args.work[gemm],
                                i % positions, args.grid);
  }
}

/// Writes header, entries, padding rows and shares.
__device__ void make_plan(const RouteArgs& args, std::int32_t* counts, ExpertBegin* begins,
                          std::int64_t* cost_begin, int segments) {
  __shared__ Totals warp_totals[kWarps];
  const int experts = static_cast<int>(args.experts);
  Totals carry{};
  for (int first = 0; first < experts; first += kThreads) {
    const int expert = first + static_cast<int>(threadIdx.x);
    const std::int32_t rows =
        expert < experts ? scan_segments(counts, experts, expert, segments) : 0;
    ExpertTiles tiles{};
    Totals mine{};
    if (rows > 0) {
      tiles = cut_into_tiles(expert, rows, 0, args.tile_set);
      mine.rows = tiles.tiles * tiles.tile_rows;
      mine.active = 1;
      mine.largest = tiles.tile_rows;
      mine.tiles = tiles.tiles;
      mine.cost = std::int64_t{tiles.tiles} * tiles.unit_cost;
    }
    const Scanned scanned = scan_block(mine, warp_totals);
    Totals before = carry;
    before.add(scanned.before);
    carry.add(scanned.all);
    if (rows == 0) continue;
    tiles.first_row = before.rows;
    args.entries[before.active] = tiles;
    cost_begin[before.active] = before.cost;
    const auto divisor = static_cast<std::uint32_t>(tiles.tile_rows);
    begins[expert] = {before.rows, tiles.tile_rows, ~std::uint32_t{0} / divisor + 1};
    for (std::int32_t row = rows; row < mine.rows; ++row) args.row_pair[before.rows + row] = -1;
  }
  PlanHeader header{};
  header.active = carry.active;
  header.padded_rows = carry.rows;
  header.max_tile_rows = carry.largest;
  header.tiles = carry.tiles;
  header.total_cost = carry.cost;
  __syncthreads();
  if (args.shares != nullptr) {
    for (int gemm = 0; gemm < 2; ++gemm)
      header.shared[gemm] = share_out(args, header, cost_begin, args.work[gemm]);
    cut_into_shares(args, header, cost_begin);
    for (int i = static_cast<int>(threadIdx.x); i < 2 * hand_over_count(args.grid); i += kThreads)
      args.hand_over[i] = 0;
  }
  if (threadIdx.x == 0) *args.header = header;
}

/// The pairs [begin, end) of one warp, in order. next[expert]: the expert's pairs in the segments
/// before, counted on here.
__device__ void place_segment(const RouteArgs& args, std::int32_t* next, const ExpertBegin* begins,
                              std::int64_t begin, std::int64_t end) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const std::uint32_t lanes_below = (1U << lane) - 1;
  std::int32_t expert = begin + lane < end ? args.topk_ids[begin + lane] : -1;
  for (std::int64_t first = begin; first < end; first += kWarpThreads) {
    const std::int64_t pair = first + lane;
    const std::int64_t pair_after = pair + kWarpThreads;
    const std::int32_t expert_after = pair_after < end ? args.topk_ids[pair_after] : -1;
    const std::uint32_t alike = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(alike & lanes_below);
    const std::int32_t start = expert >= 0 ? next[expert] : 0;
    __syncwarp();
    if (expert >= 0) {
      if (rank == 0) next[expert] = start + __popc(alike);
      const ExpertBegin at = begins[expert];
      const std::int32_t row = start + rank;
      const auto tile =
          static_cast<std::int32_t>(__umulhi(static_cast<std::uint32_t>(row), at.tile_reciprocal));
      const std::int32_t tile_row = tile * at.tile_rows;
      args.row_pair[at.first_row + row] = static_cast<std::int32_t>(pair);
      args.places[pair] = {at.first_row + tile_row, static_cast<std::int16_t>(at.tile_rows),
                           static_cast<std::int16_t>(row - tile_row)};
    }
    __syncwarp();
    expert = expert_after;
  }
}

__global__ void __launch_bounds__(kThreads, 1) route_kernel(RouteArgs args, int segments) {
  const int experts = static_cast<int>(args.experts);
  auto* cost_begin = reinterpret_cast<std::int64_t*>(ptx::dynamic_shared());
  auto* begins = reinterpret_cast<ExpertBegin*>(cost_begin + experts);
  auto* counts = reinterpret_cast<std::int32_t*>(begins + experts);
  for (int i = static_cast<int>(threadIdx.x); i < segments * experts; i += kThreads) counts[i] = 0;
  __syncthreads();
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();

  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const std::int64_t segment =
      divide_up(divide_up(args.pairs, max(segments, 1)), kWarpThreads) * kWarpThreads;
  const std::int64_t begin = min(warp * segment, args.pairs);
  const std::int64_t end = warp < segments ? min(begin + segment, args.pairs) : begin;
  std::int32_t* mine = counts + min(warp, max(segments - 1, 0)) * experts;
#pragma unroll 8
  for (std::int64_t pair = begin + lane; pair < end; pair += kWarpThreads) {
    atomicAdd(mine + args.topk_ids[pair], 1);
  }
  __syncthreads();
  make_plan(args, counts, begins, cost_begin, segments);
  place_segment(args, mine, begins, begin, end);
}

/// Warps that get a segment: no more than there are full warps of pairs, as many as shared memory
/// has room for.
int segments_for(const RouteArgs& args) {
  const std::int64_t by_memory =
      (kMaxSharedBytes - args.experts * kExpertBytes) / (args.experts * 4);
  return static_cast<int>(
      std::min({std::int64_t{kWarps}, divide_up(args.pairs, kWarpThreads), by_memory}));
}

}  // namespace

cudaError_t enqueue_route(const RouteArgs& args, cudaStream_t stream) {
  if (args.experts < 1 || args.experts > kMaxRoutedExperts ||
      args.pairs > (std::int64_t{1} << 25)) {
    return cudaErrorInvalidValue;
  }
  const int segments = segments_for(args);
  const auto shared_bytes =
      static_cast<int>(args.experts * (std::int64_t{segments} * 4 + kExpertBytes));
  if (shared_bytes > kSharedBytesUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(
        route_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  return launch_overlapped(route_kernel, {1, kThreads, shared_bytes}, stream, args, segments);
}

}  // namespace moebench::cuda
