// The producers of a grouped GEMM: one thread that streams weights into the ring and leaves there
// what each tile is, and one that streams the tokens of these tiles. The latter's counterparts of a
// team fetch half of the tokens each, for both blocks, as soon as both have room.
#pragma once

#include "moebench/backend/cuda/gemm_ring.cuh"

namespace moebench::cuda {

/// Scales of a token that go with a chunk of its operand.
template <WeightKind kind>
inline constexpr int kTokenScaleBytes = kind == WeightKind::kFp8Block ? 4 : 0;

template <WeightKind kind, int kTeamBlocks>
class WeightProducer {
 public:
  __device__ WeightProducer(const GemmArgs& args, const Ring& ring) : args_(args), ring_(ring) {}

  /// One thread does all of this.
  __device__ void run() {
    // Weights depend on no kernel before this one: the ring is filled with them while that one may
    // still run.
    for (WorkList work(args_); !work.done() && prefilled_ < ring_.stages; work.next()) {
      WeightStream weights(args_, work);
#pragma unroll 1
      for (int chunk = work.first_chunk; chunk < work.last_chunk && prefilled_ < ring_.stages;
           ++chunk, ++prefilled_) {
        load_weights(weights, work);
        at_.advance(ring_.stages);
      }
    }
    ptx::wait_for_previous_kernel();

    at_ = {};
    for (WorkList work(args_); !work.done(); work.next()) produce(work, work.sums());
    for (PieceList work(args_); work.take(next_piece());) produce(work, work.sums);
    ptx::barrier_wait(ring_.empty_at(at_.stage), at_.phase ^ 1);
    ring_.tiles[number_ % kTileSlots].chunks = 0;
    ptx::barrier_arrive(ring_.full_at(at_.stage));
    ptx::barrier_arrive(ring_.full_at(at_.stage));
    let_tokens_in();
  }

 private:
  using Place = cuda::Place<kTeamBlocks>;
  using WorkList = cuda::WorkList<kTeamBlocks>;

  /// The first block of a team takes it, and tells the second.
  __device__ std::int32_t next_piece() {
    if constexpr (kTeamBlocks == 1) {
      return atomicAdd(args_.hand_over, 1);
    } else {
      const int slot = asked_ % kMailSlots;
      const std::uint32_t phase = asked_ / kMailSlots % 2;
      ++asked_;
      if (Place::rank() == 0) {
        const std::int32_t piece = atomicAdd(args_.hand_over, 1);
        ptx::send(piece, ring_.mail + slot, ring_.mailed_at(slot), 1);
        return piece;
      }
      ptx::barrier_expect(ring_.mailed_at(slot), sizeof(std::int32_t));
      ptx::barrier_wait(ring_.mailed_at(slot), phase);
      return ring_.mail[slot];
    }
  }

  __device__ void produce(const TileWork& work, const TileWork::HandOver& sums) {
    // The ring is not as deep as there are descriptions: nobody reads this one any more.
    describe(ring_.tiles[number_++ % kTileSlots], work, sums);
    WeightStream weights(args_, work);
#pragma unroll 1
    for (int chunk = work.first_chunk; chunk < work.last_chunk; ++chunk) {
      if (prefilled_ > 0) {
        --prefilled_;
        weights.next += kWeightChunkBytes<kind>;
      } else {
        // A stage that was never used is empty.
        ptx::barrier_wait(ring_.empty_at(at_.stage), at_.phase ^ 1);
        load_weights(weights, work);
      }
      let_tokens_in();
      at_.advance(ring_.stages);
    }
  }

  /// The stage at hand is empty in this block, its barrier knows how many bytes to wait for, and
  /// the tile is described.
  __device__ void let_tokens_in() const {
    const std::uint32_t writable = ring_.writable_at(at_.stage);
    if constexpr (kTeamBlocks > 1) ptx::barrier_arrive_at(writable, 1 - Place::rank());
    ptx::barrier_arrive(writable);
  }

  /// The chunks of a tile's blocks. An instruction of the producer is one that the consumers on the
  /// same scheduler wait for: addresses are counted on, not multiplied.
  struct WeightStream {
    __device__ WeightStream(const GemmArgs& args, const TileWork& work)
        : next(args.weights + work.entry.expert * args.geometry.expert_bytes() +
               Place::own(work.row_tile) * kTileBlocks * args.geometry.block_bytes() +
               work.first_chunk * kWeightChunkBytes<kind>),
          block_bytes(args.geometry.block_bytes()),
          policy(work.entry.tiles == 1 ? ptx::policy_evict_first() : ptx::policy_evict_normal()),
          blocks(blocks_of(args, Place::own(work.row_tile))) {}
    const std::uint8_t* next;
    std::int64_t block_bytes;
    std::uint64_t policy;
    int blocks;
  };
  /// The next chunk, into the stage at hand.
  __device__ void load_weights(WeightStream& stream, const TileWork& work) const {
    const std::uint32_t full = ring_.full_at(at_.stage);
    ptx::barrier_expect(full,
                        stream.blocks * kWeightChunkBytes<kind> +
                            work.entry.tile_rows * (kOperandChunkBytes + kTokenScaleBytes<kind>));
    std::uint32_t to = ring_.at(at_.stage);
    const std::uint8_t* from = stream.next;
#pragma unroll
    for (int block = 0; block < kTileBlocks; ++block) {
      if (block < stream.blocks)
        ptx::copy_to_shared(to, from, kWeightChunkBytes<kind>, full, stream.policy);
      to += kWeightChunkBytes<kind>;
      from += stream.block_bytes;
    }
    stream.next += kWeightChunkBytes<kind>;
  }
  __device__ void describe(TileSlot& slot, const TileWork& work,
                           const TileWork::HandOver& sums) const {
    const ExpertTiles& entry = work.entry;
    slot.chunks = work.last_chunk - work.first_chunk;
    slot.first_chunk = work.first_chunk;
    slot.expert = entry.expert;
    slot.tile_rows = entry.tile_rows;
    slot.valid_rows = min(entry.tile_rows, entry.rows - work.tile * entry.tile_rows);
    slot.first_row = entry.first_row + work.tile * entry.tile_rows;
    slot.row_tile = Place::own(work.row_tile);
    slot.gives = blocks_of(args_, Place::own(work.row_tile)) == 0 ? TileSlot::kNowhere
                 : sums.gives                                     ? TileSlot::kGives
                                                                  : TileSlot::kFinishes;
    slot.adds = sums.adds;
    slot.sums_slot = sums.slot;
    slot.slot_full = sums.full;
  }

  const GemmArgs& args_;
  const Ring& ring_;
  RingPosition at_;
  int prefilled_ = 0;   ///< stages that have their weights already
  int number_ = 0;      ///< tiles
  unsigned asked_ = 0;  ///< for pieces
};

template <WeightKind kind, Projection projection, int kTeamBlocks>
class TokenProducer {
 public:
  __device__ TokenProducer(const GemmArgs& args, const Ring& ring) : args_(args), ring_(ring) {}

  /// One thread does all of this.
  __device__ void run() {
    ptx::wait_for_previous_kernel();
    for (int number = 0;; ++number) {
      wait_for_room();
      TileSlot& tile = ring_.tiles[number % kTileSlots];
      int chunks = tile.chunks;
      if (chunks == 0) return;
      // On their way while chunks are: the epilogue would wait for them.
      const Scales scales(args_, tile.expert);
      // Sums are only given to a slot whose last ones were fetched.
      if (tile.gives == TileSlot::kGives) {
        wait_for_value(args_.hand_over + 1 + Place::own(tile.sums_slot), tile.slot_full - 1);
      }
      const std::int64_t rows = tile.tile_rows;
      const std::uint8_t* operand =
          args_.operand +
          (tile.first_row * args_.geometry.chunks + tile.first_chunk * rows) * kOperandChunkBytes;
      const auto bytes = static_cast<std::uint32_t>(rows * kOperandChunkBytes);
      std::uint32_t row_bytes = 0;
      if constexpr (projection == Projection::kDown) {
        row_bytes = tile.tile_rows * 4;
        ptx::copy_to_shared(ring_.rows_at(number), args_.row_pair + tile.first_row, row_bytes,
                            ring_.full_at(at_.stage));
      }
      for (;;) {
        if (chunks == 1) scales.leave(tile);
        // The second arrival of two, after which consumers read what the tile is. Tokens are
        // expected already.
        ptx::barrier_expect(ring_.full_at(at_.stage), row_bytes);
        row_bytes = 0;
        load_tokens(operand, bytes);
        operand += bytes;
        at_.advance(ring_.stages);
        if (--chunks == 0) break;
        wait_for_room();
      }
    }
  }

 private:
  using Place = cuda::Place<kTeamBlocks>;

  /// Those that are the same for all of a tile.
  struct Scales {
    __device__ Scales(const GemmArgs& args, int expert) {
      if (kind != WeightKind::kFp8Block && !(kind == WeightKind::kFp8 && args.per_channel))
        weight = args.weight_scale[expert];
      if (kind == WeightKind::kFp8 && !args.per_token) token = args.token_scale[0];
      if (kind == WeightKind::kNvfp4 && projection == Projection::kGateUp &&
          args.hidden_output == HiddenOutput::kNvfp4)
        hidden_global = args.hidden_global_scale[expert];
    }
    __device__ void leave(TileSlot& tile) const {
      tile.weight_scale = weight;
      tile.token_scale = token;
      tile.hidden_global_scale = hidden_global;
    }
    float weight = 1.0F;
    float token = 1.0F;
    float hidden_global = 1.0F;
  };

  /// In the team's other block as well.
  __device__ void wait_for_room() const {
    ptx::barrier_wait(ring_.writable_at(at_.stage), at_.phase);
  }
  __device__ void load_tokens(const std::uint8_t* operand, std::uint32_t bytes) const {
    const std::uint32_t full = ring_.full_at(at_.stage);
    const std::uint32_t to = ring_.at(at_.stage) + kTileBlocks * kWeightChunkBytes<kind>;
    if constexpr (kTeamBlocks == 1) {
      ptx::copy_to_shared(to, operand, bytes, full);
    } else {
      const std::uint32_t half = bytes / 2;
      const std::uint32_t mine = Place::rank() * half;
      ptx::copy_to_both(to + mine, operand + mine, half, full);
    }
    if constexpr (kTokenScaleBytes < kind >> 0) {
      ptx::copy_to_shared(ring_.scales_at(at_.stage),
                          args_.token_scale + (operand - args_.operand) / kOperandChunkBytes,
                          bytes / kOperandChunkBytes * kTokenScaleBytes<kind>, full);
    }
  }

  const GemmArgs& args_;
  const Ring& ring_;
  RingPosition at_;
};

}  // namespace moebench::cuda
