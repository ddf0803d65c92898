// What the roles of a grouped GEMM's thread block share: how they are sized, the walk through the
// block's share of the work, and the ring in shared memory between producer and consumers.
#pragma once

#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kGroups = 2;
inline constexpr int kGroupBlocks = kTileBlocks / kGroups;  ///< blocks of one warpgroup
inline constexpr int kConsumerThreads = kGroups * kWarpgroupThreads;
inline constexpr int kConsumerWarps = kConsumerThreads / 32;
inline constexpr int kGemmThreads = kConsumerThreads + kWarpgroupThreads;
inline constexpr int kMaxStages = 12;
/// Consumers get more than a thread starts with, and the producer gives up as many: what is asked
/// for beyond what the block came with is waited for, without end.
inline constexpr int kEntryRegisters = 65536 / kGemmThreads / 8 * 8;
inline constexpr int kConsumerRegisters = 232;
inline constexpr int kProducerRegisters = 40;
static_assert(kGroups * kConsumerRegisters + kProducerRegisters <= 3 * kEntryRegisters);

/// Shared memory: the ring, aligned to the swizzle's 1024 bytes, then what consumers exchange, the
/// part of the ring that holds scales, and barriers.
inline constexpr int kSharedBytes = 227 * 1024;
/// fp8-block only.
inline constexpr int kExchangeBytes = kConsumerWarps * kMaxTileTokens * 4;
inline constexpr int kScaleStageBytes = kMaxTileTokens * 4;
inline constexpr int kScaleStages = 6;
inline constexpr int kBarrierBytes = 2 * kMaxStages * 8;
/// The producer is at most kMaxStages tiles ahead of a consumer that is still finishing one, and
/// describes the next.
inline constexpr int kTileSlots = 16;
static_assert(kTileSlots > kMaxStages + 1);
inline constexpr int kTileSlotBytes = 44;
inline constexpr int kRingBytes =
    (kSharedBytes - 1024 - kExchangeBytes - kScaleStages * kScaleStageBytes - kBarrierBytes -
     kTileSlots * kTileSlotBytes) /
    1024 * 1024;

template <WeightKind kind>
inline constexpr int kWeightChunkBytes =
    kind == WeightKind::kNvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes;
/// Bytes of a token's row in an operand per chunk of 128 columns.
inline constexpr int kOperandChunkBytes = kChunkDepth * 2;
static_assert(kRingBytes / (kTileBlocks * kFp8ChunkBytes + 8 * kOperandChunkBytes) <= kScaleStages);

/// What a thread block multiplies at a time: 256 weight rows x tile_rows tokens over the chunks
/// [first_chunk, last_chunk).
struct TileWork {
  ExpertTiles entry{};
  int row_tile = 0;
  int tile = 0;
  int first_chunk = 0;
  int last_chunk = 0;
  /// What else becomes of the sums of a tile of which this is a part.
  struct HandOver {
    bool gives;         ///< left in a slot, for the thread block that finishes the tile
    std::int32_t adds;  ///< slots to be added, from `slot` on
    std::int32_t slot;
    std::int32_t full;  ///< its state then, see hand_over_count()
  };
};

/// Walks through a thread block's share, tile by tile.
class WorkList : public TileWork {
 public:
  __device__ explicit WorkList(const GemmArgs& args)
      : args_(args),
        entries_(args.plan->shared[args.gemm].entries),
        slice_rows_(args.work.row_tiles / args.work.slices),
        at_(args.shares[blockIdx.x]),
        end_(args.shares[blockIdx.x + 1]) {
    if (done()) return;
    entry = args.entries[at_.entry];
    first_chunk = at_.unit % args.work.chunks;
    const int index = at_.unit / args.work.chunks;
    tile = index % entry.tiles;
    row_tile = at_.slice * slice_rows_ + index / entry.tiles;
    find_end();
  }
  [[nodiscard]] __device__ bool done() const {
    if (at_.slice != end_.slice) return at_.slice > end_.slice;
    return at_.entry > end_.entry || (at_.entry == end_.entry && at_.unit >= end_.unit);
  }
  __device__ void next() {
    at_.unit += last_chunk - first_chunk;
    first_chunk = 0;
    if (++tile == entry.tiles) {
      tile = 0;
      if (++row_tile == (at_.slice + 1) * slice_rows_) next_entry();
    }
    find_end();
  }
  /// The thread block with a tile's first chunk finishes it: the others do their parts first thing.
  [[nodiscard]] __device__ HandOver sums() const {
    const auto block = static_cast<std::int32_t>(blockIdx.x);
    if (first_chunk > 0) return {true, 0, block, 1};
    if (last_chunk == args_.work.chunks) return {};
    for (int parts = 1;; ++parts) {
      const WorkPosition next = args_.shares[block + parts + 1];
      if (next.slice != at_.slice || next.entry != at_.entry ||
          next.unit >= at_.unit + args_.work.chunks) {
        return {false, parts, block + 1, 1};
      }
    }
  }

 private:
  __device__ void next_entry() {
    at_.unit = 0;
    if (++at_.entry == entries_) {
      at_.entry = 0;
      ++at_.slice;
    }
    row_tile = at_.slice * slice_rows_;
    if (!done()) entry = args_.entries[at_.entry];
  }
  __device__ void find_end() {
    last_chunk = args_.work.chunks;
    if (at_.slice == end_.slice && at_.entry == end_.entry) {
      last_chunk = min(last_chunk, first_chunk + end_.unit - at_.unit);
    }
  }
  const GemmArgs& args_;
  int entries_;
  int slice_rows_;  ///< row tiles of a slice
  WorkPosition at_;
  WorkPosition end_;
};

/// The pieces that this thread block takes, one after the other.
class PieceList : public TileWork {
 public:
  __device__ explicit PieceList(const GemmArgs& args)
      : args_(args), at_{args.plan->shared[args.gemm].entries, 0} {}
  /// False: there are none left.
  __device__ bool take() {
    // Not held from tile to tile: the producer has few registers.
    const PieceShape shape{ptx::known_here(args_.pieces.parts),
                           ptx::known_here(args_.pieces.depth)};
    const std::int32_t piece = atomicAdd(args_.hand_over, 1);
    const std::int32_t tiles = args_.plan->shared[args_.gemm].piece_tiles;
    if (piece >= tiles * args_.work.row_tiles * shape.parts) return false;
    const Piece found = find_piece(args_.entries, args_.work, shape.parts, piece, at_);
    entry = args_.entries[found.entry];
    row_tile = found.row_tile;
    tile = found.tile;
    first_chunk = found.part * shape.depth;
    last_chunk = min(first_chunk + shape.depth, args_.work.chunks);
    // The part that is taken last waits for the others: they are under way already, or done.
    const std::int32_t others = shape.parts - 1;
    sums.gives = found.part < others;
    sums.adds = sums.gives ? 0 : others;
    const std::int32_t first = piece / shape.parts * others + (sums.gives ? found.part : 0);
    sums.slot = args_.grid + first % args_.grid;
    sums.full = first / args_.grid * 2 + 1;
    return true;
  }
  HandOver sums{};

 private:
  const GemmArgs& args_;
  PieceCursor at_;
};

/// What consumers need to know of a tile; left in shared memory by the producer, who alone walks
/// through the work.
struct TileSlot {
  std::int32_t chunks;  ///< to multiply; 0: there is no more work
  std::int32_t first_chunk;
  std::int32_t expert;
  std::int32_t tile_rows;
  std::int32_t valid_rows;  ///< those that are tokens
  std::int32_t first_row;   ///< padded row of the tile's first
  std::int32_t row_tile;
  std::int32_t gives;  ///< as in TileWork::HandOver
  std::int32_t adds;
  std::int32_t sums_slot;
  std::int32_t slot_full;
};
static_assert(sizeof(TileSlot) == kTileSlotBytes);

/// Where in the ring a role stands.
struct RingPosition {
  int stage = 0;
  std::uint32_t phase = 0;
  __device__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

struct Ring {
  std::uint32_t data;    ///< shared address
  std::uint32_t scales;  ///< fp8-block
  std::uint32_t full;    ///< barriers
  std::uint32_t empty;
  TileSlot* tiles;
  int stages;
  int stage_bytes;
  __device__ std::uint32_t at(int stage) const { return data + stage * stage_bytes; }
  __device__ std::uint32_t scales_at(int stage) const { return scales + stage * kScaleStageBytes; }
  __device__ std::uint32_t full_at(int stage) const { return full + stage * 8; }
  __device__ std::uint32_t empty_at(int stage) const { return empty + stage * 8; }
};

__device__ inline void wait_for_value(const std::int32_t* p, std::int32_t value) {
  while (ptx::load_acquire(p) != value) {
  }
}

__device__ inline int blocks_of(const GemmArgs& args, int row_tile) {
  return min(kTileBlocks, static_cast<int>(args.geometry.blocks) - row_tile * kTileBlocks);
}

}  // namespace moebench::cuda
