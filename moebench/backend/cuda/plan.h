// What the routing kernel leaves for the grouped GEMMs: which experts have tokens, how their rows
// are cut into operand tiles, and what everything costs, so that each thread block finds its share
// without asking the host.
#pragma once

#include "moebench/backend/cuda/layout.h"

namespace moebench::cuda {

/// One expert that has tokens. Its rows are cut into `tiles` operand tiles of `tile_rows` rows each
/// (a multiple of 8 out of tile_rows_class); the last holds what is left. Rows of a tile: [tile *
/// tile_rows, min(rows, (tile+1) * tile_rows)).
struct ExpertTiles {
  std::int32_t expert;
  std::int32_t rows;       ///< tokens of this expert
  std::int32_t tile_rows;  ///< wgmma's N
  std::int32_t tiles;
  std::int32_t
      first_row;  ///< of the padded rows of all experts; tiles * tile_rows rows are this expert's
  std::int32_t unit_cost;  ///< of multiplying 256 weight rows x 128 columns with one tile
};

struct PlanHeader {
  std::int32_t active;         ///< entries
  std::int32_t padded_rows;    ///< sum of tiles * tile_rows
  std::int32_t max_tile_rows;  ///< largest tile_rows of any entry, 0 without entries
  std::int32_t unused;
  std::int64_t total_cost;  ///< sum of tiles * unit_cost
};

/// Tile rows that the GEMMs are compiled for. More of them make ptxas run out of registers: it
/// keeps the sums of all of them in mind at once.
MOEBENCH_HOST_DEVICE constexpr int tile_rows_class(int rows) {
  return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 48 ? 48 : rows <= 64 ? 64 : 80;
}

/// Only the ratios count. 40: clocks in which memory gives an m64k16 slab. Larger tiles take longer
/// at a device's power limit; by how much is an estimate, not fitted.
MOEBENCH_HOST_DEVICE constexpr int unit_cost(int tile_rows) {
  return tile_rows <= 32 ? 40 : tile_rows <= 48 ? 42 : tile_rows <= 64 ? 46 : 54;
}

/// `max_tile_rows`: kMaxTileTokens, or kMaxBlockScaledTileTokens for fp8-block.
MOEBENCH_HOST_DEVICE constexpr ExpertTiles cut_into_tiles(int expert, int rows, int first_row,
                                                          int max_tile_rows) {
  const int tiles = (rows + max_tile_rows - 1) / max_tile_rows;
  const int tile_rows = tile_rows_class((rows + tiles - 1) / tiles);
  return {expert, rows, tile_rows, tiles, first_row, unit_cost(tile_rows)};
}

/// Padded rows of any routing of `pairs` (token, slot) pairs over `experts` experts, at most: a
/// tile has less than 16 more rows than its even share, which the steps of tile_rows_class bound.
MOEBENCH_HOST_DEVICE constexpr std::int64_t max_padded_rows(std::int64_t pairs,
                                                            std::int64_t experts) {
  const std::int64_t active = pairs < experts ? pairs : experts;
  return pairs + 16 * (active + pairs / kMaxBlockScaledTileTokens);
}

/// The work that one GEMM has for each tile of tokens.
struct WorkShape {
  std::int32_t row_tiles;  ///< of 256 weight rows
  std::int32_t chunks;     ///< of depth
  std::int32_t slices;     ///< see work_slices(); divides row_tiles
  /// Of one operand tile in one slice.
  [[nodiscard]] MOEBENCH_HOST_DEVICE constexpr std::int32_t units() const {
    return row_tiles / slices * chunks;
  }
};

/// Slices of the weight rows that are worked through side by side, by a part of the thread blocks
/// each. Blocks in the same place of their slices then read the same tokens at the same time: far
/// fewer experts are being worked on at once, and their tokens stay in the second-level cache.
/// 1, 2 or 4, so that slices are equal.
MOEBENCH_HOST_DEVICE constexpr std::int32_t work_slices(std::int64_t row_tiles, int grid) {
  return row_tiles % 4 == 0 && grid % 4 == 0 ? 4 : row_tiles % 2 == 0 && grid % 2 == 0 ? 2 : 1;
}

MOEBENCH_HOST_DEVICE constexpr WorkShape work_shape(const MatrixGeometry& geometry, int grid) {
  const auto row_tiles = static_cast<std::int32_t>(geometry.tile_rows_blocks());
  return {row_tiles, static_cast<std::int32_t>(geometry.chunks), work_slices(row_tiles, grid)};
}

/// A place in the linear order of a GEMM's work: slices in order; within one, entries; within one,
/// 256-row tiles of the weights, then operand tiles, then chunks of depth. Thread block b of `grid`
/// takes [begin(b), begin(b + 1)).
struct WorkPosition {
  std::int32_t slice;
  std::int32_t entry;
  std::int32_t unit;  ///< (row_tile in the slice * tiles + tile) * chunks + chunk
};

/// `cost_begin`: for each entry the sum of tiles * unit_cost of those before, in memory that is
/// quick to search. Positions of neighbouring blocks fit together by construction: both call this
/// with the same index. Where there is less work than a unit for each block, the first ones have
/// it: no share is empty before the last one that is not.
MOEBENCH_HOST_DEVICE inline WorkPosition work_begin(const PlanHeader& header,
                                                    const ExpertTiles* entries,
                                                    const std::int64_t* cost_begin,
                                                    const WorkShape& shape, int block, int grid) {
  constexpr int kLargestUnitCost = unit_cost(kMaxTileTokens);
  const std::int64_t units = shape.units();
  const std::int64_t slice_cost = header.total_cost * units;
  const std::int64_t blocks = slice_cost * shape.slices / kLargestUnitCost;
  if (blocks < grid) grid = blocks > 1 || header.active == 0 ? static_cast<int>(blocks) : 1;
  if (block >= grid) return {shape.slices, 0, 0};
  std::int64_t target = slice_cost * shape.slices * block / grid;
  const auto slice = static_cast<std::int32_t>(target / slice_cost);
  target -= slice * slice_cost;
  int low = 0;
  int high = header.active;  // the last entry that begins at or before target
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (cost_begin[middle] * units <= target) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const std::int64_t offset = target - cost_begin[low] * units;
  return {slice, low, static_cast<std::int32_t>(offset / entries[low].unit_cost)};
}

}  // namespace moebench::cuda
