// The producer of a grouped GEMM: one thread that streams weights and tokens into the ring, and
// leaves there what each tile is.
#pragma once

#include "moebench/backend/cuda/gemm_ring.cuh"

namespace moebench::cuda {

template <WeightKind kind>
class Producer {
 public:
  __device__ Producer(const GemmArgs& args, const Ring& ring)
      : args_(args),
        ring_(ring),
        once_(ptx::policy_evict_first()),
        again_(ptx::policy_evict_normal()) {}

  /// One thread does all of this.
  __device__ void run() {
    // Weights depend on no kernel before this one: the ring is filled with them while that one may
    // still run.
    for (WorkList work(args_); !work.done() && prefilled_ < ring_.stages; work.next()) {
#pragma unroll 1
      for (int chunk = work.first_chunk; chunk < work.last_chunk && prefilled_ < ring_.stages;
           ++chunk, ++prefilled_) {
        load_weights(work, chunk, at_.stage);
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
  __device__ void produce(const TileWork& work, const TileWork::HandOver& sums) {
    // Sums are only given to a slot whose last ones were fetched.
    if (sums.gives) wait_for_value(args_.hand_over + 1 + sums.slot, sums.full - 1);
    // The ring is not as deep as there are descriptions: nobody reads this one any more.
    describe(work, sums);
#pragma unroll 1
    for (int chunk = work.first_chunk; chunk < work.last_chunk; ++chunk) {
      if (prefilled_ > 0) {
        --prefilled_;
      } else {
        // A stage that was never used is empty.
        ptx::barrier_wait(ring_.empty_at(at_.stage), at_.phase ^ 1);
        load_weights(work, chunk, at_.stage);
      }
      load_operand(work, chunk, at_.stage);
      at_.advance(ring_.stages);
    }
  }
  __device__ void load_weights(const TileWork& work, int chunk, int stage) const {
    const int blocks = blocks_of(args_, work.row_tile);
    ptx::barrier_expect(ring_.full_at(stage), blocks * kWeightChunkBytes<kind> +
                                                  work.entry.tile_rows * kOperandChunkBytes);
    const std::uint64_t policy = work.entry.tiles == 1 ? once_ : again_;
    const std::uint8_t* from = args_.weights + work.entry.expert * args_.geometry.expert_bytes() +
                               work.row_tile * kTileBlocks * args_.geometry.block_bytes() +
                               chunk * kWeightChunkBytes<kind>;
#pragma unroll 1
    for (int block = 0; block < blocks; ++block) {
      ptx::copy_to_shared(ring_.at(stage) + block * kWeightChunkBytes<kind>,
                          from + block * args_.geometry.block_bytes(), kWeightChunkBytes<kind>,
                          ring_.full_at(stage), policy);
    }
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
  __device__ void load_operand(const TileWork& work, int chunk, int stage) const {
    const std::int64_t rows = work.entry.tile_rows;
    const std::uint8_t* from =
        args_.operand +
        (work.entry.first_row + work.tile * rows) * args_.geometry.chunks * kOperandChunkBytes +
        chunk * rows * kOperandChunkBytes;
    ptx::copy_to_shared(ring_.at(stage) + kTileBlocks * kWeightChunkBytes<kind>, from,
                        work.entry.tile_rows * kOperandChunkBytes, ring_.full_at(stage), again_);
    ptx::barrier_arrive(ring_.full_at(stage));  // the second of two: what describe() wrote is there
  }

  const GemmArgs& args_;
  const Ring& ring_;
  std::uint64_t once_;
  std::uint64_t again_;
  RingPosition at_;
  int prefilled_ = 0;  ///< stages that have their weights already
  int number_ = 0;     ///< tiles
};

}  // namespace moebench::cuda
