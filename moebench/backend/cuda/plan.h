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
  std::int32_t unit_cost;   ///< of multiplying 256 weight rows x 128 columns with one tile
  std::int64_t cost_begin;  ///< sum of tiles * unit_cost of the entries before
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
  return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 48 ? 48 : rows <= 64 ? 64 : 96;
}

/// Reading a chunk from memory costs 40 clocks per m64k16 slab; above 80 tokens the multiplication
/// takes longer.
MOEBENCH_HOST_DEVICE constexpr int unit_cost(int tile_rows) {
  return tile_rows <= 80 ? 40 : tile_rows / 2 + 2;
}

/// `max_tile_rows`: kMaxTileTokens, or kMaxBlockScaledTileTokens for fp8-block.
MOEBENCH_HOST_DEVICE constexpr ExpertTiles cut_into_tiles(int expert, int rows, int first_row,
                                                          std::int64_t cost_begin,
                                                          int max_tile_rows) {
  const int tiles = (rows + max_tile_rows - 1) / max_tile_rows;
  const int tile_rows = tile_rows_class((rows + tiles - 1) / tiles);
  return {expert, rows, tile_rows, tiles, first_row, unit_cost(tile_rows), cost_begin};
}

/// Padded rows of any routing of `pairs` (token, slot) pairs over `experts` experts, at most.
MOEBENCH_HOST_DEVICE constexpr std::int64_t max_padded_rows(std::int64_t pairs,
                                                            std::int64_t experts) {
  const std::int64_t active = pairs < experts ? pairs : experts;
  return pairs + 32 * (active + pairs / kMaxBlockScaledTileTokens);
}

/// Where pair `i` of an expert's rows lies among the padded rows: tiles are filled one after
/// another. (rows of an expert are contiguous: padded row = first_row + i.)

/// A place in the linear order of a GEMM's work: entries in order; within one, 256-row tiles of the
/// weights, then operand tiles, then chunks of depth. Thread block b of `grid` takes [begin(b),
/// begin(b + 1)).
struct WorkPosition {
  std::int32_t entry;
  std::int32_t unit;  ///< (row_tile * tiles + tile) * chunks + chunk
};

/// `units_per_tile` = row tiles * chunks of the GEMM. Positions of neighbouring blocks fit together
/// by construction: both call this with the same index.
MOEBENCH_HOST_DEVICE inline WorkPosition work_begin(const PlanHeader& header,
                                                    const ExpertTiles* entries, int units_per_tile,
                                                    int block, int grid) {
  if (block >= grid) return {header.active, 0};
  const std::int64_t target = header.total_cost * units_per_tile * block / grid;
  int low = 0;
  int high = header.active;  // the last entry that begins at or before target
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (entries[middle].cost_begin * units_per_tile <= target) {
      low = middle;
    } else {
      high = middle;
    }
  }
  if (header.active == 0) return {0, 0};
  const std::int64_t offset = target - entries[low].cost_begin * units_per_tile;
  return {low, static_cast<std::int32_t>(offset / entries[low].unit_cost)};
}

}  // namespace moebench::cuda
