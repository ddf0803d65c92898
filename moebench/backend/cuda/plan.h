// What the routing kernel leaves for the grouped GEMMs: which experts have tokens, how their rows
// are cut into operand tiles, and what everything costs, so that each thread block finds its work
// without asking the host.
//
// Most of the work is shared out in advance, evenly. Where there is much of it, the rest are pieces
// that thread blocks take one by one when they are done, because multiprocessors are not equally
// fast. Where work is cut does not depend on who does it, so that sums have the same bits every
// time.
//
// Work is shared out among teams: a thread block alone, or two as a cluster, which multiply
// neighbouring 256-row tiles of the weights with the same tokens at the same time and read those
// from the second-level cache once.
#pragma once

#include "moebench/backend/cuda/layout.h"

namespace moebench::cuda {

/// Rows of an operand tile, wgmma's N, that a GEMM is compiled for. Two sets, each with a loop of
/// its own, because ptxas runs out of registers where it sees the sums of too many sizes at once.
/// All tiles of a call are of one set.
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
/// By what all tiles would cost. The finer sizes of the small set are worth 2 to 3 % more than
/// unit_cost() says (H100, 512 and 1024 tokens).
MOEBENCH_HOST_DEVICE constexpr TileSet cheaper_tiles(std::uint32_t small_cost,
                                                     std::uint32_t large_cost) {
  return large_cost < small_cost - small_cost / 32 ? TileSet::kLarge : TileSet::kSmall;
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
  // Divisions by constants, or none.
  const int tiles = set == TileSet::kSmall ? (rows + 47) / 48 : (rows + 79) / 80;
  const int tile_rows = tile_rows_class(set, tiles == 1 ? rows : (rows + tiles - 1) / tiles);
  return {expert, rows, tile_rows, tiles, first_row, unit_cost(tile_rows)};
}

/// Padded rows of any routing of `pairs` (token, slot) pairs over `experts` experts, at most: a
/// tile has less than 8 (kLarge: 32) more rows than its even share. What holds for kLarge holds for
/// kSmall, too.
MOEBENCH_HOST_DEVICE constexpr std::int64_t max_padded_rows(std::int64_t pairs,
                                                            std::int64_t experts, TileSet set) {
  const std::int64_t active = pairs < experts ? pairs : experts;
  return pairs + (set == TileSet::kSmall ? 8 : 32) * (active + pairs / max_tile_rows(set));
}

/// The work that one GEMM has for each tile of tokens.
struct WorkShape {
  std::int32_t row_tiles;  ///< of a team: 256 weight rows for each of its blocks
  std::int32_t chunks;     ///< of depth
  std::int32_t slices;     ///< see work_slices(); divides row_tiles
  /// Of one operand tile in one slice.
  [[nodiscard]] MOEBENCH_HOST_DEVICE constexpr std::int32_t units() const {
    return row_tiles / slices * chunks;
  }
};

/// Slices of the weight rows that are worked through side by side, by a part of the teams (`grid`
/// of them) each. Those in the same place of their slices then read the same tokens at the same
/// time: far fewer experts are being worked on at once, and their tokens stay in the second-level
/// cache. 1, 2 or 4, so that slices are equal.
MOEBENCH_HOST_DEVICE constexpr std::int32_t work_slices(std::int64_t row_tiles, int grid) {
  return row_tiles % 4 == 0 && grid % 4 == 0 ? 4 : row_tiles % 2 == 0 && grid % 2 == 0 ? 2 : 1;
}

MOEBENCH_HOST_DEVICE constexpr WorkShape work_shape(const MatrixGeometry& geometry, int grid,
                                                    int team_blocks) {
  const auto row_tiles =
      static_cast<std::int32_t>(divide_up(geometry.tile_rows_blocks(), team_blocks));
  return {row_tiles, static_cast<std::int32_t>(geometry.chunks), work_slices(row_tiles, grid)};
}

/// How a tile that is not shared out is cut: into `parts` pieces of `depth` chunks (the last may be
/// shorter).
struct PieceShape {
  std::int32_t parts;
  std::int32_t depth;
};

/// Adding the sums of parts costs time, a piece that takes long an uneven end: tiles are only cut
/// where they are deep. Two parts of 56 chunks were up to 5 % faster than four, and 1 % than one
/// (H100, 16 to 2048 tokens). Never into more parts than teams.
MOEBENCH_HOST_DEVICE constexpr PieceShape piece_shape(const WorkShape& shape, int grid) {
  constexpr int kDepth = 28;
  std::int64_t parts = shape.chunks <= kDepth * 3 / 2 ? 1 : divide_up(shape.chunks, kDepth);
  if (parts > grid) parts = grid;
  const std::int64_t depth = divide_up(shape.chunks, parts);
  return {static_cast<std::int32_t>(divide_up(shape.chunks, depth)),
          static_cast<std::int32_t>(depth)};
}

/// What the shares of a GEMM follow from besides the routing: computed on the host, once.
struct ShareShape {
  std::int32_t units;   ///< WorkShape::units()
  std::int32_t slices;  ///< WorkShape's
  std::int32_t grid;
  std::int32_t least_tiles;  ///< with fewer, all tiles are shared out
  std::int32_t piece_shift;  ///< otherwise all but 1 / 2^piece_shift of the cost
  double per_unit;           ///< 1 / units
  double per_block;          ///< 1 / grid
};

/// Pieces are the last quarter of the cost, or eighth if tiles are cut. None where the end of a
/// piece would be less even than those of shares: at 512 tokens on an H100 the slowest
/// multiprocessor was 5 % behind the mean with shares alone, and the fastest 7 % before it.
constexpr ShareShape share_shape(const WorkShape& shape, int grid) {
  constexpr std::int64_t kPiecesPerBlock = 32;
  const PieceShape piece = piece_shape(shape, grid);
  const std::int64_t least =
      divide_up(kPiecesPerBlock * piece.depth * grid, std::int64_t{shape.row_tiles} * shape.chunks);
  const std::int32_t units = shape.units();
  return {
      units,       shape.slices, grid, static_cast<std::int32_t>(least), piece.parts == 1 ? 2 : 3,
      1.0 / units, 1.0 / grid};
}

/// Entries up to this cost are shared out; the one that reaches beyond it is the first of the
/// pieces.
MOEBENCH_HOST_DEVICE constexpr std::uint32_t shared_cost_limit(std::uint32_t tiles,
                                                               std::uint32_t total_cost,
                                                               const ShareShape& shape) {
  if (static_cast<std::int32_t>(tiles) < shape.least_tiles) return total_cost;
  return total_cost - (total_cost >> shape.piece_shift);
}

/// Where an entry begins, in memory that is quick to search.
struct EntryBegin {
  std::uint32_t cost;           ///< sum of tiles * unit_cost of the entries before
  std::uint32_t tiles : 25;     ///< sum of their tiles
  std::uint32_t unit_cost : 7;  ///< of the entry
};
/// Most (token, slot) pairs of a call: what the sums of tiles in an EntryBegin hold.
inline constexpr std::int64_t kMaxRoutedPairs = std::int64_t{1} << 25;

MOEBENCH_HOST_DEVICE constexpr EntryBegin entry_begin(std::uint32_t cost, std::uint32_t tiles,
                                                      int unit_cost) {
  return {cost, tiles & 0x1FFFFFF, static_cast<std::uint32_t>(unit_cost) & 0x7F};
}

/// n / d without the hundred instructions of a 64-bit division. `reciprocal`: 1.0 / d.
MOEBENCH_HOST_DEVICE inline std::int64_t divide(std::int64_t n, std::int64_t d, double reciprocal) {
  constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;
  if (n >= kExactInDouble) return n / d;
  const auto near = static_cast<std::int64_t>(static_cast<double>(n) * reciprocal);
  const std::int64_t rest = n - near * d;
  return rest < 0 ? near - 1 : rest >= d ? near + 1 : near;
}

/// A place in the linear order of a GEMM's shared work: slices in order; within one, entries;
/// within one, row tiles of the weights, then operand tiles, then chunks of depth. Team b of the
/// grid takes [begin(b), begin(b + 1)).
struct WorkPosition {
  std::int32_t slice;
  std::int32_t entry;
  std::int32_t unit;  ///< (row_tile in the slice * tiles + tile) * chunks + chunk
};

/// `begins`: of the entries. Positions of neighbouring blocks fit together by construction: both
/// call this with the same index. Where there is less work than a unit for each block, the first
/// ones have it: no share is empty before the last one that is not.
MOEBENCH_HOST_DEVICE inline WorkPosition work_begin(const SharedWork& shared,
                                                    const EntryBegin* begins,
                                                    const ShareShape& shape, int block) {
  constexpr int kLargestUnitCost = unit_cost(kMaxTileTokens);
  const std::int64_t slice_cost = shared.cost * shape.units;
  const std::int64_t all = slice_cost * shape.slices;
  std::int64_t target = 0;
  if (all >= std::int64_t{kLargestUnitCost} * shape.grid) {
    if (block >= shape.grid) return {shape.slices, 0, 0};
    target = divide(all * block, shape.grid, shape.per_block);
  } else {
    const std::int64_t blocks = all / kLargestUnitCost;
    const std::int64_t grid = blocks > 1 || slice_cost == 0 ? blocks : 1;
    if (block >= grid) return {shape.slices, 0, 0};
    target = all * block / grid;
  }
  std::int32_t slice = 0;
  for (; target >= slice_cost; target -= slice_cost) ++slice;
  // The last entry that begins at or before the target.
  const auto cost = static_cast<std::uint32_t>(divide(target, shape.units, shape.per_unit));
  int low = 0;
  for (int high = shared.entries; high - low > 1;) {
    const int middle = (low + high) / 2;
    if (begins[middle].cost <= cost) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const EntryBegin begin = begins[low];
  const std::int64_t offset = target - std::int64_t{begin.cost} * shape.units;
  const bool narrow = offset >> 32 == 0;
  const std::int64_t unit = narrow ? static_cast<std::uint32_t>(offset) / begin.unit_cost
                                   : offset / static_cast<std::int64_t>(begin.unit_cost);
  return {slice, low, static_cast<std::int32_t>(unit)};
}

/// Integers through which the teams of a GEMM hand over work: the next piece; then the states of
/// 2 * grid slots, for each of a team's blocks, for sums that one leaves for another's block of the
/// same rank. A slot is full for the n-th time at 2 n + 1, and free again at 2 n + 2. Slot b takes
/// those of team b's share, once; slot grid + n % grid the n-th that are left of pieces. `blocks`:
/// of all teams.
MOEBENCH_HOST_DEVICE constexpr int hand_over_count(int blocks) { return 1 + 2 * blocks; }

/// A piece is one part of a tile: row tile x tile_rows tokens. In order of entries, then row
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
