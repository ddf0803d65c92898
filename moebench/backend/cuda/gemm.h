// The grouped GEMMs of the layer on sm_90a: persistent, the work split evenly over the
// multiprocessors down to a chunk of depth (stream-K), every answer the same bits from run to run.
#pragma once

#include <cuda_runtime.h>

#include "moebench/backend/cuda/plan.h"

namespace moebench::cuda {

/// Number type of activations, h, c2 and y.
enum class HalfType : std::uint8_t { kFp16, kBf16 };

/// What GEMM1 does with h = half(silu(gate) * up).
enum class HiddenOutput : std::uint8_t {
  kWide,   ///< 16-bit operand of GEMM2 (nvfp4-w4a16)
  kNvfp4,  ///< quantised to NVFP4, then the exact products e2m1 * scale as 16-bit operand of GEMM2
           ///< (nvfp4)
  kRows,   ///< 16 bits, [padded rows][intermediate], for a quantising pass (fp8)
  kFp8Block,  ///< quantised 1x128, then FP16 of the e4m3 codes as operand of GEMM2, with their
              ///< scales (fp8-block)
};

/// What the weights are and what they are expanded to. FP8 activations are FP16 operands that hold
/// the e4m3 values.
enum class WeightKind : std::uint8_t { kNvfp4, kFp8, kFp8Block };

/// The tile sets that a call's plan may be of: a kernel for each, because the one with both is
/// slower by up to 1 %.
enum class GemmTiles : std::uint8_t { kSmall, kBoth };

/// Thread blocks of a team. With few tokens there is little to share, and blocks that wait for each
/// other would be slower than those alone.
MOEBENCH_HOST_DEVICE constexpr int team_blocks(GemmTiles tiles) {
  return tiles == GemmTiles::kSmall ? 1 : 2;
}

struct GemmArgs {
  // Work
  GemmTiles tiles;
  const PlanHeader* plan;      ///< device
  const ExpertTiles* entries;  ///< device
  std::int32_t gemm;           ///< 0, 1: index of plan->shared
  WorkShape work;              ///< work_shape(geometry, grid, team_blocks(tiles))
  PieceShape pieces;           ///< piece_shape(work, grid)
  const WorkPosition* shares;  ///< device, [grid + 1]: where each team begins
  std::int32_t* hand_over;     ///< [hand_over_count(blocks)], zero when the kernel begins
  MatrixGeometry geometry;     ///< of this matrix
  std::int64_t hidden, intermediate;
  // Operands
  const std::uint8_t* weights;  ///< [E][geometry.expert_bytes()]
  const std::uint8_t* operand;  ///< tiles: an expert's begin at first_row * operand row bytes
  // acc * weight_scale * token_scale, in FP32, is what is rounded to 16 bits
  const float* weight_scale;  ///< [E], or per channel [E][2N or K] in canonical row order, or
                              ///< blocks (fp8-block): [E][ceil(rows/128)][chunks]
  bool per_channel;
  const float* token_scale;  ///< [1] (fp8 per tensor), [padded rows] (per token), blocks:
                             ///< operand_scale_index(); null = 1
  bool per_token;
  // GEMM1's output
  HiddenOutput hidden_output;
  std::uint8_t* hidden_out;          ///< operand of GEMM2, or rows (kRows)
  const float* hidden_global_scale;  ///< kNvfp4: [E], a2's
  float* hidden_block_scale;         ///< kFp8Block: operand_scale_index(), of GEMM2
  std::uint32_t* hidden_amax;        ///< kRows: raised to the largest 16-bit magnitude; may be null
  // GEMM2's output: c2 [pairs][hidden], 16 bits
  std::uint16_t* pair_out;
  const std::int32_t*
      row_pair;  ///< [padded rows] -> pair; read for rows below an entry's `rows` only
  // Split tiles
  float* partial;  ///< see partial_bytes
  int grid;        ///< teams: no more than run at the same time
};

/// Bytes of `partial`: 2 slots of 256 * kMaxTileTokens sums for each thread block, see
/// hand_over_count().
constexpr std::int64_t partial_bytes(int blocks) {
  return std::int64_t{2} * blocks * kTileBlocks * kBlockRows * kMaxTileTokens * 4;
}

/// Teams of two blocks that the current device runs at the same time. All of a GEMM must, because
/// they wait for each other.
cudaError_t max_teams(int* teams);

/// Enqueues one GEMM. It is launched with programmatic stream serialisation: weights are prefetched
/// while the kernel before still runs, whose results (operand, scales) are read after it has ended.
/// `plan`, `entries` and `shares` are read before that: they must come from an earlier kernel,
/// which the one directly before has waited for before it let this one start. `type`: of h, c2 and
/// (kNvfp4) of the operands.
cudaError_t enqueue_gemm(WeightKind kind, Projection projection, HalfType type,
                         const GemmArgs& args, cudaStream_t stream);

}  // namespace moebench::cuda
