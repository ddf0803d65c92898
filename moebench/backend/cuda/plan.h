// What the routing kernel leaves for the grouped GEMMs: which experts have tokens, how their rows
// are cut into operand tiles, and what everything costs, so that each thread block finds its work
// without asking the host.
//
// Most of the work is shared out in advance, evenly. Where there is much of it, the rest are pieces
// that thread blocks take one by one when they are done, because multiprocessors are not equally
// fast. Where work is cut does not depend on who does it, so that sums have the same bits every
// time.
#pragma once

#include "moebench/backend/cuda/layout.h"

namespace moebench::cuda {

/// Rows of an operand tile, wgmma's N, that a GEMM is compiled for. Two sets, because ptxas runs
/// out of registers where it sees the sums of too many sizes at once; the host chooses by what
/// experts have on average.
enum class TileSet : std::uint8_t {
  kSmall,  ///< 8, 16, 24, 32, 40, 48
  kLarge,  ///< 16, 48, 64, 72, 80
};
MOEBENCH_HOST_DEVICE constexpr int max_tile_rows(TileSet set) {
  return set == TileSet::kSmall ? 48 : kMaxTileTokens;
}
MOEBENCH_HOST_DEVICE constexpr int tile_rows_class(TileSet set, int rows) {
  const int eights = (rows + 7) / 8 * 8;
  if (set == TileSet::kSmall) return eights;
  return rows <= 16 ? 16 : rows <= 48 ? 48 : rows <= 64 ? 64 : eights;
}
/// Up to 40 rows an expert few have more than 48.
constexpr TileSet tile_set_for(std::int64_t pairs, std::int64_t experts) {
  return pairs > 40 * experts ? TileSet::kLarge : TileSet::kSmall;
}

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

/// What of a GEMM's work is shared out in advance: the first entries. The others are pieces.
struct SharedWork {
  std::int32_t entries;
  std::int32_t piece_tiles;  ///< of the others: sum of tiles
  std::int64_t cost;         ///< of the former: sum of tiles * unit_cost
};

struct PlanHeader {
  std::int32_t active;         ///< entries
  std::int32_t padded_rows;    ///< sum of tiles * tile_rows
  std::int32_t max_tile_rows;  ///< largest tile_rows of any entry, 0 without entries
  std::int32_t tiles;          ///< sum of tiles
  std::int64_t total_cost;     ///< sum of tiles * unit_cost
  SharedWork shared[2];        ///< GEMM1's and GEMM2's
};

/// Only the ratios count. 40: clocks in which memory gives an m64k16 slab. Larger tiles take longer
/// at a device's power limit; by how much is an estimate, not fitted.
MOEBENCH_HOST_DEVICE constexpr int unit_cost(int tile_rows) {
  return tile_rows <= 32   ? 40
         : tile_rows <= 48 ? 42
         : tile_rows <= 64 ? 46
         : tile_rows <= 72 ? 50
                           : 54;
}

MOEBENCH_HOST_DEVICE constexpr ExpertTiles cut_into_tiles(int expert, int rows, int first_row,
                                                          TileSet set) {
  const int most = max_tile_rows(set);
  const int tiles = (rows + most - 1) / most;
  const int tile_rows = tile_rows_class(set, (rows + tiles - 1) / tiles);
  return {expert, rows, tile_rows, tiles, first_row, unit_cost(tile_rows)};
}

/// Padded rows of any routing of `pairs` (token, slot) pairs over `experts` experts, at most: a
/// tile has less than 8 (kLarge: 32) more rows than its even share.
MOEBENCH_HOST_DEVICE constexpr std::int64_t max_padded_rows(std::int64_t pairs,
                                                            std::int64_t experts, TileSet set) {
  const std::int64_t active = pairs < experts ? pairs : experts;
  return pairs + (set == TileSet::kSmall ? 8 : 32) * (active + pairs / max_tile_rows(set));
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

/// A place in the linear order of a GEMM's shared work: slices in order; within one, entries;
/// within one, 256-row tiles of the weights, then operand tiles, then chunks of depth. Thread block
/// b of `grid` takes [begin(b), begin(b + 1)).
struct WorkPosition {
  std::int32_t slice;
  std::int32_t entry;
  std::int32_t unit;  ///< (row_tile in the slice * tiles + tile) * chunks + chunk
};

/// `cost_begin`: for each entry the sum of tiles * unit_cost of those before, in memory that is
/// quick to search. Positions of neighbouring blocks fit together by construction: both call this
/// with the same index. Where there is less work than a unit for each block, the first ones have
/// it: no share is empty before the last one that is not.
MOEBENCH_HOST_DEVICE inline WorkPosition work_begin(const SharedWork& shared,
                                                    const ExpertTiles* entries,
                                                    const std::int64_t* cost_begin,
                                                    const WorkShape& shape, int block, int grid) {
  constexpr int kLargestUnitCost = unit_cost(kMaxTileTokens);
  const std::int64_t units = shape.units();
  const std::int64_t slice_cost = shared.cost * units;
  const std::int64_t blocks = slice_cost * shape.slices / kLargestUnitCost;
  if (blocks < grid) grid = blocks > 1 || slice_cost == 0 ? static_cast<int>(blocks) : 1;
  if (block >= grid) return {shape.slices, 0, 0};
  std::int64_t target = slice_cost * shape.slices * block / grid;
  const auto slice = static_cast<std::int32_t>(target / slice_cost);
  target -= slice * slice_cost;
  int low = 0;
  int high = shared.entries;  // the last entry that begins at or before target
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

/// How a tile that is not shared out is cut: into `parts` pieces of `depth` chunks (the last may be
/// shorter).
struct PieceShape {
  std::int32_t parts;
  std::int32_t depth;
};

/// Adding the sums of parts costs time, a piece that takes long an uneven end: tiles are only cut
/// where they are deep. Two parts of 56 chunks were up to 5 % faster than four, and 1 % than one
/// (H100, 16 to 2048 tokens). Never into more parts than thread blocks.
MOEBENCH_HOST_DEVICE constexpr PieceShape piece_shape(const WorkShape& shape, int grid) {
  constexpr int kDepth = 28;
  std::int64_t parts = shape.chunks <= kDepth * 3 / 2 ? 1 : divide_up(shape.chunks, kDepth);
  if (parts > grid) parts = grid;
  const std::int64_t depth = divide_up(shape.chunks, parts);
  return {static_cast<std::int32_t>(divide_up(shape.chunks, depth)),
          static_cast<std::int32_t>(depth)};
}

/// Entries up to this cost are shared out; the one that reaches beyond it is the first of the
/// pieces. None is where the end of a piece would be less even than those of shares: at 512 tokens
/// on an H100 the slowest multiprocessor was 5 % behind the mean with shares alone, and the fastest
/// 7 % before it.
MOEBENCH_HOST_DEVICE constexpr std::int64_t shared_cost_limit(const PlanHeader& header,
                                                              const WorkShape& shape, int grid) {
  constexpr std::int64_t kPiecesPerBlock = 32;
  const PieceShape piece = piece_shape(shape, grid);
  const std::int64_t chunks = std::int64_t{header.tiles} * shape.row_tiles * shape.chunks;
  if (chunks < kPiecesPerBlock * piece.depth * grid) return header.total_cost;
  return header.total_cost - header.total_cost / (piece.parts == 1 ? 4 : 8);
}

/// Integers through which the thread blocks of a GEMM hand over work: the next piece; then the
/// states of 2 * grid slots for sums that one leaves for another. A slot is full for the n-th time
/// at 2 n + 1, and free again at 2 n + 2. Slot b takes those of thread block b's share, once; slot
/// grid + n % grid the n-th that are left of pieces.
MOEBENCH_HOST_DEVICE constexpr int hand_over_count(int grid) { return 1 + 2 * grid; }

/// A piece is one part of a tile: 256 weight rows x tile_rows tokens. In order of entries, then row
/// tiles, operand tiles and parts: what is worked on at the same time shares tokens and weights.
struct Piece {
  std::int32_t entry;
  std::int32_t row_tile;
  std::int32_t tile;
  std::int32_t part;
};

/// Where a search for pieces stands that only goes forward.
struct PieceCursor {
  std::int32_t entry;  ///< at the beginning shared.entries
  std::int32_t first;  ///< its first piece
};

/// `piece`: below the count, and not before the cursor.
MOEBENCH_HOST_DEVICE inline Piece find_piece(const ExpertTiles* entries, const WorkShape& shape,
                                             std::int32_t parts, std::int32_t piece,
                                             PieceCursor& at) {
  for (;;) {
    const std::int32_t tiles = entries[at.entry].tiles;
    const std::int32_t end = at.first + tiles * shape.row_tiles * parts;
    if (piece < end) {
      const std::int32_t index = (piece - at.first) / parts;
      return {at.entry, index / tiles, index % tiles, (piece - at.first) % parts};
    }
    at = {at.entry + 1, end};
  }
}

}  // namespace moebench::cuda
