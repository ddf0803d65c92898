// The first kernel of a layer: from the experts of each token to the plan of the grouped GEMMs and
// to the place of every (token, slot) pair's row in the operand tiles.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moebench/backend/cuda/plan.h"

namespace moebench::cuda {

/// Where the row of one pair lies: in the operand tile that begins at padded row `tile_begin`.
struct alignas(8) PairPlace {
  std::int32_t tile_begin;
  std::int16_t tile_rows;
  std::int16_t row;  ///< within the tile; its padded row is tile_begin + row
};

struct RouteArgs {
  const std::int32_t* topk_ids;  ///< [pairs]
  std::int64_t pairs;
  std::int64_t experts;
  TileSet tile_set;
  bool large_if_cheaper;  ///< instead of kSmall, see cheaper_tiles()
  PlanHeader* header;
  ExpertTiles* entries;  ///< [min(pairs, experts)]
  std::int32_t*
      row_pair;       ///< [max_padded_rows]: pairs of an expert in ascending order; not on padding
  PairPlace* places;  ///< [pairs]
  // The shares of two GEMMs
  WorkPosition* shares = nullptr;     ///< [2][grid + 1], GEMM1's first: work_begin(); may be null
  std::int32_t* hand_over = nullptr;  ///< [2][hand_over_count(blocks)], set to 0; with `shares`
  std::int32_t blocks = 0;            ///< of all teams; with `shares`
  ShareShape work[2] = {};            ///< with `shares`; of the same grid
};

/// Most experts that fit into a multiprocessor's shared memory.
inline constexpr std::int64_t kMaxRoutedExperts = 8192;

cudaError_t enqueue_route(const RouteArgs& args, cudaStream_t stream);

}  // namespace moebench::cuda
