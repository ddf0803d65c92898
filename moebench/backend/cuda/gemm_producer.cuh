// The producer of a grouped GEMM: one thread that streams weights and tokens into the ring, and
// leaves there what each tile is.
#pragma once

#include "moebench/backend/cuda/gemm_ring.cuh"

namespace moebench::cuda {

template <WeightKind kind>
class Producer {
 public:
  __device__ Producer(const GemmArgs& args, const Ring& ring) : args_(args), ring_(ring) {}

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
    for (PieceList work(args_); work.take();) produce(work, work.sums);
    ptx::barrier_wait(ring_.empty_at(at_.stage), at_.phase ^ 1);
    ring_.tiles[number_ % kTileSlots].chunks = 0;
    ptx::barrier_arrive(ring_.full_at(at_.stage));
    ptx::barrier_arrive(ring_.full_at(at_.stage));
  }

 private:
  /// Scales of tokens that go with a chunk of their operand.
  static constexpr bool kScaled = kind == WeightKind::kFp8Block;
  static constexpr int kTokenScaleBytes = kScaled ? 4 : 0;

  __device__ void produce(const TileWork& work, const TileWork::HandOver& sums) {
    // Sums are only given to a slot whose last ones were fetched.
    if (sums.gives) wait_for_value(args_.hand_over + 1 + sums.slot, sums.full - 1);
    // The ring is not as deep as there are descriptions: nobody reads this one any more.
    describe(work, sums);
    WeightStream weights(args_, work);
    const std::int64_t rows = work.entry.tile_rows;
    const auto operand_bytes = static_cast<std::uint32_t>(rows * kOperandChunkBytes);
    const std::uint8_t* operand =
        args_.operand +
        (work.entry.first_row + work.tile * rows) * args_.geometry.chunks * kOperandChunkBytes +
        work.first_chunk * rows * kOperandChunkBytes;
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
      const std::uint32_t full = ring_.full_at(at_.stage);
      ptx::copy_to_shared(ring_.at(at_.stage) + kTileBlocks * kWeightChunkBytes<kind>, operand,
                          operand_bytes, full);
      if constexpr (kScaled) {
        ptx::copy_to_shared(
            ring_.scales_at(at_.stage),
            args_.token_scale + (operand - ptx::known_here(args_.operand)) / kOperandChunkBytes,
            operand_bytes / kOperandChunkBytes * kTokenScaleBytes, full);
      }
      operand += operand_bytes;
      ptx::barrier_arrive(full);  // the second of two: what describe() wrote is there
      at_.advance(ring_.stages);
    }
  }

  /// The chunks of a tile's blocks. An instruction of the producer is one that the consumers on the
  /// same scheduler wait for: addresses are counted on, not multiplied.
  struct WeightStream {
    __device__ WeightStream(const GemmArgs& args, const TileWork& work)
        : next(args.weights + work.entry.expert * args.geometry.expert_bytes() +
               work.row_tile * kTileBlocks * args.geometry.block_bytes() +
               work.first_chunk * kWeightChunkBytes<kind>),
          block_bytes(args.geometry.block_bytes()),
          policy(work.entry.tiles == 1 ? ptx::policy_evict_first() : ptx::policy_evict_normal()),
          blocks(blocks_of(args, work.row_tile)) {}
    const std::uint8_t* next;
    std::int64_t block_bytes;
    std::uint64_t policy;
    int blocks;
  };
  /// The next chunk, into the stage at hand.
  __device__ void load_weights(WeightStream& stream, const TileWork& work) const {
    const std::uint32_t full = ring_.full_at(at_.stage);
    ptx::barrier_expect(full, stream.blocks * kWeightChunkBytes<kind> +
                                  work.entry.tile_rows * (kOperandChunkBytes + kTokenScaleBytes));
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
  __device__ void describe(const TileWork& work, const TileWork::HandOver& sums) {
    const ExpertTiles& entry = work.entry;
    TileSlot slot{};
    slot.chunks = work.last_chunk - work.first_chunk;
    slot.first_chunk = work.first_chunk;
    slot.expert = entry.expert;
    slot.tile_rows = entry.tile_rows;
    slot.valid_rows = min(entry.tile_rows, entry.rows - work.tile * entry.tile_rows);
    slot.first_row = entry.first_row + work.tile * entry.tile_rows;
    slot.row_tile = work.row_tile;
    slot.gives = sums.gives ? 1 : 0;
    slot.adds = sums.adds;
    slot.sums_slot = sums.slot;
    slot.slot_full = sums.full;
    ring_.tiles[number_++ % kTileSlots] = slot;
  }

  const GemmArgs& args_;
  const Ring& ring_;
  RingPosition at_;
  int prefilled_ = 0;  ///< stages that have their weights already
  int number_ = 0;     ///< tiles
};

}  // namespace moebench::cuda
