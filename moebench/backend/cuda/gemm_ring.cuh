// What the roles of a grouped GEMM's thread block share: how they are sized, the walk through the
// team's share of the work, and the ring in shared memory between producer and consumers.
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
/// Whether two warps beside the producers, finishers, compute and store what GEMM1 gives.
MOEBENCH_HOST_DEVICE constexpr bool has_finishers(WeightKind kind, Projection projection) {
  return kind == WeightKind::kNvfp4 && projection == Projection::kGateUp;
}
/// Consumers get more than a thread starts with, and the producers give up as many: what is asked
/// for beyond what the block came with is waited for, without end.
inline constexpr int kEntryRegisters = 65536 / kGemmThreads / 8 * 8;
template <bool kWithFinishers>
inline constexpr int kProducerRegisters = kWithFinishers ? 56 : 40;
template <bool kWithFinishers>
inline constexpr int kConsumerRegisters =
    (3 * kEntryRegisters - kProducerRegisters<kWithFinishers>) / kGroups;

/// Named barriers (0 is that of __syncthreads).
inline constexpr int kAllConsumers = 1;
inline constexpr int kC1Free = 2;  ///< finishers have read all of it
inline constexpr int kFinisherThreads = 64;
inline constexpr int kC1Threads = kConsumerThreads + kFinisherThreads;
/// Gate and up in 16 bits.
__device__ constexpr int c1_bytes(int tile_rows) {
  return tile_rows * kTileBlocks * kBlockRows * 2;
}

/// Shared memory: the ring, aligned to the swizzle's 1024 bytes, then what consumers exchange (in
/// GEMM2: rows of tiles), the part of the ring that holds scales, and barriers.
inline constexpr int kSharedBytes = 227 * 1024;
/// GEMM1 of fp8-block, and GEMM2.
inline constexpr int kExchangeBytes = kConsumerWarps * kMaxTileTokens * 4;
inline constexpr int kScaleStageBytes = kMaxTileTokens * 4;
inline constexpr int kScaleStages = 6;
/// The producer is at most kMaxStages tiles ahead of a consumer that is still finishing one, or
/// waits for finishers that are at the one before, and describes the next.
inline constexpr int kTileSlots = 16;
static_assert(kTileSlots > kMaxStages + 2);
inline constexpr int kTileSlotBytes = 56;
/// Tiles whose rows of pairs are there at the same time: as many as there are slots, or half of
/// them, of which each then has room for the largest tile. More than the ring has stages.
__device__ constexpr int row_slots(int max_tile_rows) {
  return max_tile_rows * 4 * kTileSlots <= kExchangeBytes ? kTileSlots : kTileSlots / 2;
}
/// Pieces that the first block of a team has taken and the second is still to read of: as many as
/// the ring has stages, because it does not get their tokens without the other.
inline constexpr int kMailSlots = kTileSlots;
inline constexpr int kBarrierBytes = (3 * kMaxStages + kMailSlots + 1) * 8;
inline constexpr int kRingBytes =
    (kSharedBytes - 1024 - kExchangeBytes - kScaleStages * kScaleStageBytes - kBarrierBytes -
     kTileSlots * kTileSlotBytes - kMailSlots * 4 - 4) /
    1024 * 1024;

template <WeightKind kind>
inline constexpr int kWeightChunkBytes =
    kind == WeightKind::kNvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes;
/// Bytes of a token's row in an operand per chunk of 128 columns.
inline constexpr int kOperandChunkBytes = kChunkDepth * 2;
static_assert(kRingBytes / (kTileBlocks * kFp8ChunkBytes + 8 * kOperandChunkBytes) <= kScaleStages);
/// row_slots(): the smallest tiles for which they are half as many.
static_assert(kRingBytes / (kTileBlocks * kNvfp4ChunkBytes + 48 * kOperandChunkBytes) <
              row_slots(48));
static_assert(kMaxStages < row_slots(40) && kMaxTileTokens * 4 * row_slots(48) <= kExchangeBytes);

/// Which of a GEMM's blocks this one is. Read where it is used: the producer has few registers.
template <int kTeamBlocks>
struct Place {
  __device__ static int team() { return static_cast<int>(ptx::block_index() / kTeamBlocks); }
  __device__ static int rank() { return static_cast<int>(ptx::block_index() % kTeamBlocks); }
  /// Of the block, of what is the team's: a row tile, a slot.
  __device__ static int own(int of_team) { return of_team * kTeamBlocks + rank(); }
};

/// What a team multiplies at a time: 256 weight rows for each block x tile_rows tokens over the
/// chunks [first_chunk, last_chunk).
struct TileWork {
  ExpertTiles entry{};
  int row_tile = 0;  ///< the team's
  int tile = 0;
  int first_chunk = 0;
  int last_chunk = 0;
  /// What else becomes of the sums of a tile of which this is a part.
  struct HandOver {
    bool gives;         ///< left in a slot, for the team that finishes the tile
    std::int32_t adds;  ///< slots to be added, from `slot` on
    std::int32_t slot;  ///< the team's
    std::int32_t full;  ///< its state then, see hand_over_count()
  };
};

/// Walks through a team's share, tile by tile.
template <int kTeamBlocks>
class WorkList : public TileWork {
 public:
  __device__ explicit WorkList(const GemmArgs& args)
      : args_(args), at_(args.shares[Place<kTeamBlocks>::team()]) {
    if (done()) return;
    entry = args.entries[at_.entry];
    first_chunk = at_.unit % args.work.chunks;
    const int index = at_.unit / args.work.chunks;
    tile = index % entry.tiles;
    row_tile = at_.slice * slice_rows() + index / entry.tiles;
    find_end();
  }
  [[nodiscard]] __device__ bool done() const {
    const WorkPosition end = share_end();
    if (at_.slice != end.slice) return at_.slice > end.slice;
    return at_.entry > end.entry || (at_.entry == end.entry && at_.unit >= end.unit);
  }
  __device__ void next() {
    at_.unit += last_chunk - first_chunk;
    first_chunk = 0;
    if (++tile == entry.tiles) {
      tile = 0;
      if (++row_tile == (at_.slice + 1) * slice_rows()) next_entry();
    }
    find_end();
  }
  /// The team with a tile's first chunk finishes it: the others do their parts first thing.
  [[nodiscard]] __device__ HandOver sums() const {
    const std::int32_t team = Place<kTeamBlocks>::team();
    if (first_chunk > 0) return {true, 0, team, 1};
    if (last_chunk == args_.work.chunks) return {};
    for (int parts = 1;; ++parts) {
      const WorkPosition next = args_.shares[team + parts + 1];
      if (next.slice != at_.slice || next.entry != at_.entry ||
          next.unit >= at_.unit + args_.work.chunks) {
        return {false, parts, team + 1, 1};
      }
    }
  }

 private:
  // Read where they are used, not held from tile to tile.
  __device__ WorkPosition share_end() const {
    return ptx::known_here(args_.shares)[Place<kTeamBlocks>::team() + 1];
  }
  /// Row tiles.
  __device__ int slice_rows() const {
    return ptx::known_here(args_.work.row_tiles) / args_.work.slices;
  }
  __device__ void next_entry() {
    at_.unit = 0;
    if (++at_.entry == ptx::known_here(args_.plan)->shared[args_.gemm].entries) {
      at_.entry = 0;
      ++at_.slice;
    }
    row_tile = at_.slice * slice_rows();
    if (!done()) entry = args_.entries[at_.entry];
  }
  __device__ void find_end() {
    last_chunk = args_.work.chunks;
    const WorkPosition end = share_end();
    if (at_.slice == end.slice && at_.entry == end.entry) {
      last_chunk = min(last_chunk, first_chunk + end.unit - at_.unit);
    }
  }
  const GemmArgs& args_;
  WorkPosition at_;
};

/// The pieces that a team takes, one after the other.
class PieceList : public TileWork {
 public:
  __device__ explicit PieceList(const GemmArgs& args)
      : args_(args), at_{args.plan->shared[args.gemm].entries, 0} {}
  /// `piece`: the next one that no other team has. False: there are none left.
  __device__ bool take(std::int32_t piece) {
    // Not held from tile to tile: the producer has few registers.
    const PieceShape shape{ptx::known_here(args_.pieces.parts),
                           ptx::known_here(args_.pieces.depth)};
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

/// What consumers need to know of a tile; left in shared memory by the producers: by that of the
/// weights, who alone walks through the work, before the first chunk, and the scales by that of the
/// tokens before the last.
struct TileSlot {
  std::int32_t chunks;  ///< to multiply; 0: there is no more work
  std::int32_t first_chunk;
  std::int32_t expert;
  std::int32_t tile_rows;
  std::int32_t valid_rows;  ///< those that are tokens
  std::int32_t first_row;   ///< padded row of the tile's first
  std::int32_t row_tile;    ///< the block's
  std::int32_t gives;       ///< what becomes of the sums
  std::int32_t adds;
  std::int32_t sums_slot;
  std::int32_t slot_full;
  float weight_scale;                           ///< if there is one for all rows
  float token_scale;                            ///< if there is one for all tokens
  float hidden_global_scale;                    ///< NVFP4's, of GEMM1's output
  static constexpr std::int32_t kFinishes = 0;  ///< with those of `adds` slots
  static constexpr std::int32_t kGives = 1;     ///< as in TileWork::HandOver
  static constexpr std::int32_t kNowhere = 2;   ///< the matrix ends before the block's rows
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
  std::uint32_t writable;  ///< tokens may be written to the stage, in all blocks of the team
  std::uint32_t mailed;
  TileSlot* tiles;
  std::int32_t* mail;     ///< [kMailSlots] pieces
  std::uint32_t rows;     ///< shared address; GEMM2: pairs of a tile's rows
  int row_slots;          ///< power of two
  std::uint32_t c1;       ///< shared address, see C1Place; with finishers only
  std::uint32_t c1_full;  ///< barrier
  std::int32_t* c1_slot;  ///< of the tile that c1 is of; -1: there is no more
  int stages;
  int stage_bytes;
  __device__ std::uint32_t at(int stage) const { return data + stage * stage_bytes; }
  /// `tile`: its number, or that of its slot.
  __device__ std::uint32_t rows_at(int tile) const {
    return rows + (tile & (row_slots - 1)) * (kExchangeBytes / row_slots);
  }
  __device__ std::uint32_t scales_at(int stage) const { return scales + stage * kScaleStageBytes; }
  __device__ std::uint32_t full_at(int stage) const { return full + stage * 8; }
  __device__ std::uint32_t empty_at(int stage) const { return empty + stage * 8; }
  __device__ std::uint32_t writable_at(int stage) const { return writable + stage * 8; }
  __device__ std::uint32_t mailed_at(int slot) const { return mailed + slot * 8; }
};

__device__ inline void wait_for_value(const std::int32_t* p, std::int32_t value) {
  while (ptx::load_acquire(p) != value) {
  }
}

/// 64-row blocks of a thread block's row tile; a team's last one may have none.
__device__ inline int blocks_of(const GemmArgs& args, int row_tile) {
  const int left = static_cast<int>(args.geometry.blocks) - row_tile * kTileBlocks;
  return max(0, min(kTileBlocks, left));
}

}  // namespace moebench::cuda
