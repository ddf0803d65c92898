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
    RingPosition at;
    int filled = 0;
    for (WorkList work(args_); !work.done() && filled < ring_.stages; work.next()) {
      for (int chunk = work.first_chunk; chunk < work.last_chunk && filled < ring_.stages;
           ++chunk, ++filled) {
        load_weights(work, chunk, at.stage);
        at.advance(ring_.stages);
      }
    }
    ptx::wait_for_previous_kernel();

    at = {};
    int seen = 0;
    int number = 0;
    for (WorkList work(args_); !work.done(); work.next()) {
      for (int chunk = work.first_chunk; chunk < work.last_chunk; ++chunk, ++seen) {
        const bool refill = seen >= filled;
        if (refill) ptx::barrier_wait(ring_.empty_at(at.stage), at.phase ^ 1);
        if (chunk == work.first_chunk) describe(work, number++);
        if (refill) load_weights(work, chunk, at.stage);
        load_operand(work, chunk, at.stage);
        at.advance(ring_.stages);
      }
    }
    if (seen >= ring_.stages) ptx::barrier_wait(ring_.empty_at(at.stage), at.phase ^ 1);
    ring_.tiles[number % kTileSlots].chunks = 0;
    ptx::barrier_arrive(ring_.full_at(at.stage));
    ptx::barrier_arrive(ring_.full_at(at.stage));
  }

 private:
  __device__ void load_weights(const WorkList& work, int chunk, int stage) const {
    const int blocks = blocks_of(args_, work.row_tile);
    ptx::barrier_expect(ring_.full_at(stage), blocks * kWeightChunkBytes<kind> +
                                                  work.entry.tile_rows * kOperandChunkBytes);
    const std::uint64_t policy = work.entry.tiles == 1 ? once_ : again_;
    const std::uint8_t* from = args_.weights + work.entry.expert * args_.geometry.expert_bytes() +
                               work.row_tile * kTileBlocks * args_.geometry.block_bytes() +
                               chunk * kWeightChunkBytes<kind>;
    for (int block = 0; block < blocks; ++block) {
      ptx::copy_to_shared(ring_.at(stage) + block * kWeightChunkBytes<kind>,
                          from + block * args_.geometry.block_bytes(), kWeightChunkBytes<kind>,
                          ring_.full_at(stage), policy);
    }
  }
  __device__ void describe(const WorkList& work, int number) const {
    const ExpertTiles& entry = work.entry;
    TileSlot slot{};
    slot.chunks = work.last_chunk - work.first_chunk;
    slot.first_chunk = work.first_chunk;
    slot.expert = entry.expert;
    slot.tile_rows = entry.tile_rows;
    slot.valid_rows = min(entry.tile_rows, entry.rows - work.tile * entry.tile_rows);
    slot.first_row = entry.first_row + work.tile * entry.tile_rows;
    slot.row_tile = work.row_tile;
    slot.last_part = work.last_part();
    ring_.tiles[number % kTileSlots] = slot;
  }
  __device__ void load_operand(const WorkList& work, int chunk, int stage) const {
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
};

}  // namespace moebench::cuda
