// What becomes of GEMM1's sums with NVFP4 weights: consumers leave them in shared memory, as gate
// and up in 16 bits, and go on multiplying, while two warps that have nothing else to do compute
// SiLU(gate) * up, quantise it and store GEMM2's operand.
#pragma once

#include "moebench/backend/cuda/gemm_numbers.cuh"
#include "moebench/backend/cuda/gemm_ring.cuh"

namespace moebench::cuda {

/// c1 of a tile in shared memory: for each strip of 16 columns and each token 16 words (gate, up).
/// Columns r and 8 + r are neighbours, because one thread has both sums. A warp's stores and loads
/// meet each bank once: tokens 8 i + 2 t + odd lie in the order 8 i + 4 odd + t, and units of 16
/// bytes are exchanged.
struct C1Place {
  static constexpr int kTokenBytes = kScaleGroup * 4;
  static constexpr int kUnitBytes = 16;
  /// `position`: of a token, in that order.
  __device__ static std::uint32_t unit(int strip, int tile_rows, int position, int unit) {
    return (strip * tile_rows + position) * kTokenBytes + (unit ^ (position / 2 % 4)) * kUnitBytes;
  }
  __device__ static int position(int eight, int t, int odd) { return eight * 8 + odd * 4 + t; }
  __device__ static int token(int position) {
    return (position & ~7) + position % 4 * 2 + position / 4 % 2;
  }
};

template <HalfType type>
class Finisher {
 public:
  __device__ Finisher(const GemmArgs& args, const Ring& ring)
      : args_(args), ring_(ring), thread_(static_cast<int>(threadIdx.x) % kFinisherThreads) {}

  __device__ void run() const {
    for (std::uint32_t phase = 0;; phase ^= 1) {
      ptx::named_barrier(kC1Free, kC1Threads);
      ptx::barrier_wait(ring_.c1_full, phase);
      const std::int32_t slot = *ring_.c1_slot;
      if (slot < 0) return;
      finish(ring_.tiles[slot]);
    }
  }

 private:
  /// Of columns 2 i, 2 i + 1: one number of each in a word.
  using Columns = std::uint32_t[kScaleGroup / 2];

  __device__ void finish(const TileSlot& tile) const {
    const int rows = tile.tile_rows;
    const std::int64_t row_bytes = divide_up(args_.intermediate, kChunkDepth) * kOperandChunkBytes;
    std::uint8_t* const out = args_.hidden_out + tile.first_row * row_bytes;
    const float global_scale = tile.hidden_global_scale;
    const bool quantizes = args_.hidden_output == HiddenOutput::kNvfp4;
    int strip = 0;
    int position = thread_;
#pragma unroll 1
    for (;; position += kFinisherThreads) {
      for (; position >= rows; position -= rows) ++strip;
      if (strip >= kConsumerWarps) return;
      const int token = C1Place::token(position);
      if (token >= tile.valid_rows) continue;
      Columns h;
      activate(tile, strip, position, h);
      if (quantizes) quantize(global_scale, h);
      const int unit = strip % 4 * 2;
      uint4* const row = reinterpret_cast<uint4*>(
          out + (std::int64_t{tile.row_tile * 2 + strip / 4} * rows + token) * kSwizzleBytes);
      row[unit ^ (token % 8)] = {h[0], h[1], h[2], h[3]};
      row[(unit + 1) ^ (token % 8)] = {h[4], h[5], h[6], h[7]};
    }
  }

  __device__ void activate(const TileSlot& tile, int strip, int position, Columns& h) const {
    // Columns 0 to 7 are of the first of two blocks.
    const int block = tile.row_tile * kTileBlocks + strip / 4 * kGroupBlocks;
    const auto blocks = static_cast<int>(args_.geometry.blocks);
    const std::uint32_t first_exists = block < blocks ? 0xFFFFFFFF : 0;
    const std::uint32_t second_exists = block + 1 < blocks ? 0xFFFFFFFF : 0;
#pragma unroll
    for (int unit = 0; unit < 4; ++unit) {
      const uint4 words =
          ptx::load_shared_16(ring_.c1 + C1Place::unit(strip, tile.tile_rows, position, unit));
      h[unit] = first_exists & hidden_pair(words.x, words.z);
      h[unit + 4] = second_exists & hidden_pair(words.y, words.w);
    }
  }
  __device__ static std::uint32_t hidden_pair(std::uint32_t first, std::uint32_t second) {
    const float2 a = widen_pair<type>(first);
    const float2 b = widen_pair<type>(second);
    return round_pair<type>(silu(a.x) * a.y, silu(b.x) * b.y);
  }

  /// Leaves e2m1 * scale, exact in 16 bits.
  __device__ static void quantize(float global_scale, Columns& h) {
    std::uint32_t largest = 0;
#pragma unroll
    for (const std::uint32_t pair : h) largest = larger_magnitude<type>(largest, pair & 0x7FFF7FFF);
    largest = larger_magnitude<type>(largest, largest >> 16 | largest << 16);
    const float scale = nvfp4_scale_of<type>(widen_pair<type>(largest).x, global_scale);
    const float divisor = smallest_for_zero(scale);
    const float factor = divides_by_reciprocal(global_scale) ? divide_by_e4m3(global_scale, divisor)
                                                             : __fdiv_rn(global_scale, divisor);
#pragma unroll
    for (std::uint32_t& pair : h) {
      const float2 value = widen_pair<type>(pair);
      pair = round_pair<type>(e2m1_round(value.x * factor) * scale,
                              e2m1_round(value.y * factor) * scale);
    }
  }

  const GemmArgs& args_;
  const Ring& ring_;
  int thread_;
};

}  // namespace moebench::cuda
