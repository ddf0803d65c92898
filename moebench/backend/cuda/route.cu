// A stable counting sort of the pairs by expert, in one cluster of thread blocks: each warp takes a
// contiguous segment of the pairs and ranks equal experts of 32 neighbours by a vote; sums over
// segments and experts give every (segment, expert) its first row. Every block computes the plan of
// all of them by itself, so that they exchange their counts and nothing else.
//
// With few tokens what takes time is latency: what depends on nothing is done before the kernel
// waits for the one before, pairs' ranks stay in registers, the plan in shared memory. Loops are
// not unrolled where that saves no wait: instructions are read for the first time, too.
#include <algorithm>

#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/ptx.cuh"
#include "moebench/backend/cuda/route.h"

namespace moebench::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;
constexpr int kMaxBlocks = 8;  ///< of a cluster, everywhere
/// A second block costs as much as a few rounds of 32 pairs of each warp.
constexpr std::int64_t kPairsPerBlock = 1024;
constexpr int kHeldRounds = 4;  ///< whose ranks a warp keeps in registers
/// What a block may ask for on sm_90, less BlockState.
constexpr std::int64_t kMaxSharedBytes = 226 << 10;
constexpr int kSharedBytesUnasked = 48 << 10;

/// How the pairs are cut: segment s, of warp s % segments of block s / segments, begins at pair
/// s * segment_pairs.
struct Cut {
  int blocks;
  int segments;  ///< of a block
  std::int32_t segment_pairs;
};

/// What the placing pass needs of an expert. Rows are in eights, as tiles are.
struct ExpertBegin {
  std::uint32_t first_eight : 28;  ///< of its padded rows
  std::uint32_t tile_eights : 4;
  std::int32_t rows_before;  ///< its pairs in the blocks before
};

/// Sums over the experts before.
struct Totals {
  std::uint32_t rows;
  std::uint32_t cost;
  std::uint32_t tiles;
  std::uint32_t active;
  std::uint32_t largest;

  __device__ void add(const Totals& before) {
    rows += before.rows;
    cost += before.cost;
    tiles += before.tiles;
    active += before.active;
    largest = max(largest, before.largest);
  }
};

struct BlockState {
  Totals of_warp[2][kWarps];      ///< in turns
  std::uint32_t cost[2][kWarps];  ///< of the tiles of a set
  SharedWork shared[2];
};

/// The launch's shared memory. An array in it has an element for each expert.
struct SharedArrays {
  BlockState* state;
  ExpertBegin* begins;
  EntryBegin* entries;
  std::int32_t* rows;    ///< of the block
  std::int32_t* counts;  ///< [segments]: while counting, the segment's; then of those before
};
constexpr int kExpertBytes = sizeof(ExpertBegin) + sizeof(EntryBegin) + sizeof(std::int32_t);

__device__ SharedArrays shared_arrays(int experts) {
  SharedArrays arrays{};
  arrays.state = reinterpret_cast<BlockState*>(ptx::dynamic_shared());
  arrays.begins = reinterpret_cast<ExpertBegin*>(arrays.state + 1);
  arrays.entries = reinterpret_cast<EntryBegin*>(arrays.begins + experts);
  arrays.rows = reinterpret_cast<std::int32_t*>(arrays.entries + experts);
  arrays.counts = arrays.rows + experts;
  return arrays;
}

__device__ int warp_number() { return static_cast<int>(threadIdx.x) / kWarpThreads; }
__device__ int lane_number() { return static_cast<int>(threadIdx.x) % kWarpThreads; }

/// Inclusive sums over the lanes of a warp.
__device__ std::uint32_t scan_warp(std::uint32_t mine) {
#pragma unroll
  for (int lanes = 1; lanes < kWarpThreads; lanes *= 2) {
    const std::uint32_t other = __shfl_up_sync(kAllLanes, mine, lanes);
    if (lane_number() >= lanes) mine += other;
  }
  return mine;
}

/// What lies before this thread's expert in the block, and the sum of all.
struct Scanned {
  Totals before;
  Totals all;
};
/// `mine.active`: 0 or 1. `idle`: so for the whole warp. `of_warp` is not the one of the last call.
__device__ Scanned scan_block(const Totals& mine, bool idle, Totals (&of_warp)[kWarps]) {
  const int warp = warp_number();
  const int lane = lane_number();
  Totals inclusive{};
  if (!idle) {
    const std::uint32_t active = __ballot_sync(kAllLanes, mine.active != 0);
    const std::uint32_t lanes_up_to_me = ~std::uint32_t{0} >> (kWarpThreads - 1 - lane);
    inclusive = {scan_warp(mine.rows), scan_warp(mine.cost), scan_warp(mine.tiles),
                 static_cast<std::uint32_t>(__popc(active & lanes_up_to_me)),
                 __reduce_max_sync(kAllLanes, mine.largest)};
  }
  if (lane == kWarpThreads - 1) of_warp[warp] = inclusive;
  __syncthreads();
  const Totals other = lane < kWarps ? of_warp[lane] : Totals{};
  const Totals all = {
      __reduce_add_sync(kAllLanes, other.rows), __reduce_add_sync(kAllLanes, other.cost),
      __reduce_add_sync(kAllLanes, other.tiles), __reduce_add_sync(kAllLanes, other.active),
      __reduce_max_sync(kAllLanes, other.largest)};
  if (idle) return {{}, all};
  const auto before = [&](std::uint32_t of_lane, std::uint32_t with_me, std::uint32_t me) {
    return __reduce_add_sync(kAllLanes, lane < warp ? of_lane : 0) + with_me - me;
  };
  return {
      {before(other.rows, inclusive.rows, mine.rows), before(other.cost, inclusive.cost, mine.cost),
       before(other.tiles, inclusive.tiles, mine.tiles),
       before(other.active, inclusive.active, mine.active), 0},
      all};
}

/// Counts each lane's expert, -1 for none, on in `next` of the warp's segment; returns what was
/// there before, equal experts in the order of lanes.
__device__ std::int32_t take_row(std::int32_t* next, std::int32_t expert) {
  const std::uint32_t alike = __match_any_sync(kAllLanes, expert);
  const int rank = __popc(alike & ((1U << lane_number()) - 1));
  const std::int32_t start = expert >= 0 ? next[expert] : 0;
  __syncwarp();
  if (expert >= 0 && rank == 0) next[expert] = start + __popc(alike);
  __syncwarp();
  return start + rank;
}

/// The segment of a warp.
class Segment {
 public:
  __device__ Segment(const RouteArgs& args, const Cut& cut) : args_(args) {
    const auto pairs = static_cast<std::int32_t>(args.pairs);
    const int warp = warp_number();
    const int segment = static_cast<int>(blockIdx.x) * cut.segments + warp;
    begin_ = min(static_cast<std::int64_t>(segment) * cut.segment_pairs, args.pairs);
    end_ = warp < cut.segments ? min(begin_ + cut.segment_pairs, pairs) : begin_;
    held_ = cut.segment_pairs <= kHeldRounds * kWarpThreads;
  }

  /// Into registers, where there is room.
  __device__ void load() {
    if (!held_) return;
#pragma unroll
    for (int i = 0; i < kHeldRounds; ++i) expert_[i] = expert_of(begin_ + i * kWarpThreads);
  }
  __device__ void count(std::int32_t* counts) {
    if (held_) {
#pragma unroll
      for (int i = 0; i < kHeldRounds; ++i) {
        if (begin_ + i * kWarpThreads < end_) row_[i] = take_row(counts, expert_[i]);
      }
    } else {
      each_round([counts](std::int32_t, std::int32_t expert) { take_row(counts, expert); });
    }
  }
  /// `counts`: now of the segments before.
  __device__ void place(std::int32_t* counts, const ExpertBegin* begins) const {
    if (held_) {
#pragma unroll
      for (int i = 0; i < kHeldRounds; ++i) {
        const std::int32_t pair = begin_ + i * kWarpThreads + lane_number();
        const std::int32_t expert = expert_[i];
        if (pair < end_ && expert >= 0) place_pair(pair, begins[expert], counts[expert] + row_[i]);
      }
    } else {
      each_round([&](std::int32_t pair, std::int32_t expert) {
        const std::int32_t row = take_row(counts, expert);
        if (expert >= 0) place_pair(pair, begins[expert], row);
      });
    }
  }

 private:
  /// Of the lane's pair among the 32 from `first` on; -1 behind the segment.
  __device__ std::int32_t expert_of(std::int32_t first) const {
    const std::int32_t pair = first + lane_number();
    return pair < end_ ? args_.topk_ids[pair] : -1;
  }
  template <typename Visit>
  __device__ void each_round(Visit visit) const {
    std::int32_t expert = expert_of(begin_);
#pragma unroll 1
    for (std::int32_t first = begin_; first < end_; first += kWarpThreads) {
      const std::int32_t expert_after = expert_of(first + kWarpThreads);
      visit(first + lane_number(), expert);
      expert = expert_after;
    }
  }
  /// `row`: in the block.
  __device__ void place_pair(std::int32_t pair, const ExpertBegin& at, std::int32_t row) const {
    const auto first_row = static_cast<std::int32_t>(at.first_eight * 8);
    const auto tile_rows = static_cast<std::int32_t>(at.tile_eights * 8);
    row += at.rows_before;
    const std::int32_t tile_row = row < tile_rows ? 0 : row / tile_rows * tile_rows;
    args_.row_pair[first_row + row] = pair;
    args_.places[pair] = {first_row + tile_row, static_cast<std::int16_t>(tile_rows),
                          static_cast<std::int16_t>(row - tile_row)};
  }

  const RouteArgs& args_;
  std::int32_t begin_;
  std::int32_t end_;
  bool held_;
  std::int32_t expert_[kHeldRounds];
  std::int32_t row_[kHeldRounds];  ///< among those of its expert in the segment
};

/// The counts of an expert become the numbers of its pairs in the segments before; returns its
/// pairs in the block.
__device__ std::int32_t scan_segments(std::int32_t* counts, int experts, int segments) {
  constexpr int kTogether = 8;
  std::int32_t rows = 0;
#pragma unroll 1
  for (int first = 0; first < segments; first += kTogether) {
    std::int32_t count[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      count[i] = first + i < segments ? counts[(first + i) * experts] : 0;
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (first + i < segments) counts[(first + i) * experts] = rows;
      rows += count[i];
    }
  }
  return rows;
}

/// An expert's pairs in all blocks, and in those before this one.
struct ExpertRows {
  std::int32_t all;
  std::int32_t before;
};
__device__ ExpertRows rows_of(const std::int32_t* of_block, int blocks) {
  if (blocks == 1) return {*of_block, 0};
  std::int32_t count[kMaxBlocks];
#pragma unroll
  for (int block = 0; block < kMaxBlocks; ++block) {
    count[block] = block < blocks ? ptx::load_cluster(of_block, block) : 0;
  }
  ExpertRows rows{};
#pragma unroll
  for (int block = 0; block < kMaxBlocks; ++block) {
    if (block < static_cast<int>(blockIdx.x)) rows.before += count[block];
    rows.all += count[block];
  }
  return rows;
}

__device__ std::uint32_t cost_of(std::int32_t rows, TileSet set) {
  if (rows == 0) return 0;
  const ExpertTiles tiles = cut_into_tiles(0, rows, 0, set);
  return static_cast<std::uint32_t>(tiles.tiles * tiles.unit_cost);
}

/// `mine`: of the thread's first expert.
__device__ TileSet choose_tiles(const SharedArrays& arrays, const ExpertRows& mine, int experts,
                                int blocks) {
  std::uint32_t small = cost_of(mine.all, TileSet::kSmall);
  std::uint32_t large = cost_of(mine.all, TileSet::kLarge);
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x) + kThreads; expert < experts;
       expert += kThreads) {
    const std::int32_t rows = rows_of(arrays.rows + expert, blocks).all;
    small += cost_of(rows, TileSet::kSmall);
    large += cost_of(rows, TileSet::kLarge);
  }
  small = __reduce_add_sync(kAllLanes, small);
  large = __reduce_add_sync(kAllLanes, large);
  auto& cost = arrays.state->cost;
  const int lane = lane_number();
  if (lane == 0) {
    cost[0][warp_number()] = small;
    cost[1][warp_number()] = large;
  }
  __syncthreads();
  return cheaper_tiles(__reduce_add_sync(kAllLanes, lane < kWarps ? cost[0][lane] : 0),
                       __reduce_add_sync(kAllLanes, lane < kWarps ? cost[1][lane] : 0));
}

/// Leaves the entries in memory, and where they and the experts begin in shared memory.
__device__ Totals make_plan(const RouteArgs& args, const SharedArrays& arrays, int blocks) {
  const int experts = static_cast<int>(args.experts);
  const auto read_rows = [&](int expert) {
    return expert < experts ? rows_of(arrays.rows + expert, blocks) : ExpertRows{0, 0};
  };
  const ExpertRows first_rows = read_rows(static_cast<int>(threadIdx.x));
  const TileSet set =
      args.large_if_cheaper ? choose_tiles(arrays, first_rows, experts, blocks) : args.tile_set;
  Totals carry{};
#pragma unroll 1
  for (int first = 0, turn = 0; first < experts; first += kThreads, turn ^= 1) {
    const int expert = first + static_cast<int>(threadIdx.x);
    const ExpertRows rows = first == 0 ? first_rows : read_rows(expert);
    ExpertTiles tiles{};
    Totals mine{};
    if (rows.all > 0) {
      tiles = cut_into_tiles(expert, rows.all, 0, set);
      mine.rows = static_cast<std::uint32_t>(tiles.tiles * tiles.tile_rows);
      mine.cost = static_cast<std::uint32_t>(tiles.tiles * tiles.unit_cost);
      mine.tiles = static_cast<std::uint32_t>(tiles.tiles);
      mine.active = 1;
      mine.largest = static_cast<std::uint32_t>(tiles.tile_rows);
    }
    const bool idle = first + warp_number() * kWarpThreads >= experts;
    const Scanned scanned = scan_block(mine, idle, arrays.state->of_warp[turn]);
    Totals before = carry;
    before.add(scanned.before);
    carry.add(scanned.all);
    if (rows.all == 0) continue;
    tiles.first_row = static_cast<std::int32_t>(before.rows);
    arrays.begins[expert] = {before.rows / 8, static_cast<std::uint32_t>(tiles.tile_rows) / 8,
                             rows.before};
    arrays.entries[before.active] = entry_begin(before.cost, before.tiles, tiles.unit_cost);
    if (blockIdx.x == 0) args.entries[before.active] = tiles;
  }
  return carry;
}

/// What of each GEMM is shared out, into shared memory.
__device__ void share_out(const RouteArgs& args, const SharedArrays& arrays, const Totals& all) {
  const int entries = static_cast<int>(all.active);
#pragma unroll 1
  for (int gemm = 0; gemm < 2; ++gemm) {
    SharedWork& shared = arrays.state->shared[gemm];
    const std::uint32_t limit = shared_cost_limit(all.tiles, all.cost, args.work[gemm]);
    if (limit == all.cost) {
      if (threadIdx.x == 0) shared = {entries, 0, all.cost};
      continue;
    }
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < entries; i += kThreads) {
      const EntryBegin begin = arrays.entries[i];
      const std::uint32_t end = i + 1 < entries ? arrays.entries[i + 1].cost : all.cost;
      if (begin.cost <= limit && limit < end) {
        shared = {i, static_cast<std::int32_t>(all.tiles - begin.tiles), begin.cost};
      }
    }
  }
}

__device__ void cut_into_shares(const RouteArgs& args, const SharedArrays& arrays) {
  const int positions = args.work[0].grid + 1;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < 2 * positions; i += kThreads) {
    const int gemm = i < positions ? 0 : 1;
    args.shares[i] = work_begin(arrays.state->shared[gemm], arrays.entries, args.work[gemm],
                                i - gemm * positions);
  }
}

__device__ void write_header(const RouteArgs& args, const SharedArrays& arrays, const Totals& all) {
  PlanHeader header{};
  header.active = static_cast<std::int32_t>(all.active);
  header.padded_rows = static_cast<std::int32_t>(all.rows);
  header.max_tile_rows = static_cast<std::int32_t>(all.largest);
  header.tiles = static_cast<std::int32_t>(all.tiles);
  header.total_cost = all.cost;
  if (args.shares != nullptr) {
    header.shared[0] = arrays.state->shared[0];
    header.shared[1] = arrays.state->shared[1];
  }
  *args.header = header;
}

__device__ void clear(const RouteArgs& args) {
  if (args.hand_over == nullptr) return;
  const int count = 2 * hand_over_count(args.blocks);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) args.hand_over[i] = 0;
}

__global__ void __launch_bounds__(kThreads, 1)
    route_kernel(const __grid_constant__ RouteArgs args, Cut cut) {
  const int experts = static_cast<int>(args.experts);
  const SharedArrays arrays = shared_arrays(experts);
  const bool first_block = blockIdx.x == 0;
  const int warp = warp_number();
  std::int32_t* const counts = arrays.counts + min(warp, max(cut.segments - 1, 0)) * experts;
  if (warp < cut.segments) {
#pragma unroll 1
    for (int i = lane_number(); i < experts; i += kWarpThreads) counts[i] = 0;
  }
  __syncwarp();
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();

  Segment segment(args, cut);
  segment.load();
  if (first_block) clear(args);
  segment.count(counts);
  __syncthreads();
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += kThreads) {
    arrays.rows[expert] = scan_segments(arrays.counts + expert, experts, cut.segments);
  }
  if (cut.blocks > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
  const Totals all = make_plan(args, arrays, cut.blocks);
  // A block ends when no other reads its shared memory any more.
  if (cut.blocks > 1) ptx::cluster_arrive();
  __syncthreads();
  const bool shares = first_block && args.shares != nullptr;
  if (shares) share_out(args, arrays, all);
  segment.place(counts, arrays.begins);
  if (shares) {
    __syncthreads();
    cut_into_shares(args, arrays);
  }
  if (first_block && threadIdx.x == 0) write_header(args, arrays, all);
  if (cut.blocks > 1) ptx::cluster_wait();
}

Cut cut_for(const RouteArgs& args) {
  Cut cut{1, 0, 0};
  while (cut.blocks < kMaxBlocks && args.pairs > cut.blocks * kPairsPerBlock) cut.blocks *= 2;
  // No more segments than there are full warps of pairs, as many as shared memory has room for.
  const std::int64_t by_memory =
      (kMaxSharedBytes - args.experts * kExpertBytes) / (args.experts * 4);
  cut.segments = static_cast<int>(std::min(
      {std::int64_t{kWarps}, divide_up(args.pairs, cut.blocks * kWarpThreads), by_memory}));
  const std::int64_t count = std::max(1, cut.blocks * cut.segments);
  cut.segment_pairs = static_cast<std::int32_t>(
      divide_up(divide_up(args.pairs, count), kWarpThreads) * kWarpThreads);
  return cut;
}

}  // namespace

cudaError_t enqueue_route(const RouteArgs& args, cudaStream_t stream) {
  if (args.experts < 1 || args.experts > kMaxRoutedExperts || args.pairs > kMaxRoutedPairs) {
    return cudaErrorInvalidValue;
  }
  const Cut cut = cut_for(args);
  const auto shared_bytes = static_cast<int>(
      sizeof(BlockState) + args.experts * (std::int64_t{cut.segments} * 4 + kExpertBytes));
  if (shared_bytes > kSharedBytesUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(
        route_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  return launch_overlapped(route_kernel, {cut.blocks, kThreads, shared_bytes, cut.blocks}, stream,
                           args, cut);
}

}  // namespace moebench::cuda
