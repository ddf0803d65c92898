// The work plan of the grouped GEMMs: how experts' rows are cut into tiles, and how thread blocks
// share the work.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "moebench/backend/cuda/pair_limit.h"
#include "moebench/backend/cuda/plan.h"
#include "moebench/moe/routing.h"
#include "tests/backend/cuda_plan_reference.h"

namespace moebench::cuda {
namespace {

constexpr TileSet kTileSets[] = {TileSet::kSmall, TileSet::kLarge};

TEST(CudaPlan, CutsEveryNumberOfRowsIntoTilesThatExist) {
  for (const TileSet set : kTileSets) {
    for (int rows = 1; rows <= 70000; rows += rows < 2000 ? 1 : 997) {
      const ExpertTiles tiles = cut_into_tiles(3, rows, 0, set);
      ASSERT_EQ(tile_rows_class(set, tiles.tile_rows), tiles.tile_rows) << rows;
      ASSERT_LE(tiles.tile_rows, max_tile_rows(set)) << rows;
      ASSERT_GE(tiles.tiles * tiles.tile_rows, rows);
      ASSERT_LT((tiles.tiles - 1) * tiles.tile_rows, rows) << "a tile without rows";
    }
  }
}

TEST(CudaPlan, ChoosesTilesByWhatTheyCost) {
  const auto chosen = [](const char* routing, std::int64_t tokens) {
    const Routing r = make_routing(parse_routing(routing), 5, tokens, 256, 8, true);
    const auto cost = [&](TileSet set) {
      return static_cast<std::uint32_t>(
          testing::make_host_plan(r.topk_ids, 256, set).header.total_cost);
    };
    return cheaper_tiles(cost(TileSet::kSmall), cost(TileSet::kLarge));
  };
  for (const std::int64_t tokens : {1, 4, 64, 256, 512, 1024})
    EXPECT_EQ(chosen("uniform", tokens), TileSet::kSmall) << tokens;
  for (const std::int64_t tokens : {1536, 2048, 8192})
    EXPECT_EQ(chosen("uniform", tokens), TileSet::kLarge) << tokens;
  // The hot experts decide, not the mean.
  EXPECT_EQ(chosen("zipf:1.2", 1024), TileSet::kLarge);
  EXPECT_EQ(chosen("zipf:1.2", 4), TileSet::kSmall);
}

TEST(CudaPlan, MorePairsThanTheRoutingKernelTakesAreNotSupported) {
  constexpr std::int64_t kTopk = 6;  // no divisor of the limit
  const std::int64_t most = kMaxRoutedPairs / kTopk;
  EXPECT_TRUE(supports_pairs(0, kTopk).ok);
  EXPECT_TRUE(supports_pairs(most, kTopk).ok);
  EXPECT_FALSE(supports_pairs(most + 1, kTopk).ok);
  EXPECT_FALSE(supports_pairs(std::int64_t{1} << 62, kTopk).ok) << "the product overflowed";
  EXPECT_EQ(supports_pairs(kMaxRoutedPairs, 2).reason,
            "33554432 tokens with top-2 are more than 33554432 pairs; at most 16777216 tokens");
}

struct RandomRouting {
  std::int64_t experts;
  Routing routing;
  std::string name;
};
RandomRouting random_routing(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto experts = static_cast<std::int64_t>(1 + random() % 512);
  const auto topk = static_cast<std::int64_t>(
      1 + random() % static_cast<std::uint64_t>(std::min<std::int64_t>(experts, 10)));
  const auto tokens = static_cast<std::int64_t>(random() % (random() % 4 == 0 ? 3000 : 100));
  constexpr const char* kKinds[] = {"uniform", "balanced", "zipf:1.2", "hot:1@0.8", "single"};
  const std::string kind = kKinds[random() % std::size(kKinds)];
  RandomRouting out;
  out.experts = experts;
  out.routing = make_routing(parse_routing(kind), seed, tokens, experts, topk, true);
  out.name = fmt::format("seed {}: {} tokens, E={} topk={} {}", seed, tokens, experts, topk, kind);
  return out;
}

TEST(CudaPlan, GivesEveryPairOneRowWithinTheBound) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const RandomRouting r = random_routing(seed);
    SCOPED_TRACE(r.name);
    const auto pairs = static_cast<std::int64_t>(r.routing.topk_ids.size());
    for (const TileSet set : kTileSets) {
      const testing::HostPlan plan = testing::make_host_plan(r.routing.topk_ids, r.experts, set);
      ASSERT_LE(plan.header.padded_rows, max_padded_rows(pairs, r.experts, set));
      std::vector<int> seen(r.routing.topk_ids.size(), 0);
      for (const ExpertTiles& entry : plan.entries) {
        for (int row = 0; row < entry.tiles * entry.tile_rows; ++row) {
          const std::int32_t pair = plan.row_pair[static_cast<std::size_t>(entry.first_row + row)];
          ASSERT_EQ(pair >= 0, row < entry.rows);
          if (pair < 0) continue;
          ASSERT_EQ(r.routing.topk_ids[static_cast<std::size_t>(pair)], entry.expert);
          ++seen[static_cast<std::size_t>(pair)];
        }
      }
      ASSERT_EQ(std::count(seen.begin(), seen.end(), 1), pairs);
    }
  }
}

/// The blocks' shares, laid one behind the other, are the units of the entries that are shared out,
/// in order, slice by slice.
void check_split(const testing::HostPlan& plan, const WorkShape& shape, int grid) {
  const auto units_of = [&](std::int32_t entry) {
    return plan.entries[static_cast<std::size_t>(entry)].tiles * shape.units();
  };
  const ShareShape shares = share_shape(shape, grid);
  const SharedWork shared = testing::share_out(plan, shares);
  const auto begin_of = [&](int block) {
    return work_begin(shared, plan.begins.data(), shares, block);
  };
  const double all = static_cast<double>(shared.cost) * shape.units() * shape.slices;
  WorkPosition at = begin_of(0);
  bool work_left = shared.entries > 0;
  if (work_left) {
    ASSERT_EQ(at.slice, 0);
    ASSERT_EQ(at.entry, 0);
    ASSERT_EQ(at.unit, 0);
  }
  for (int block = 0; block < grid; ++block) {
    const WorkPosition end = begin_of(block + 1);
    std::int64_t cost = 0;
    int most_expensive = 0;
    const auto is_at = [&](const WorkPosition& place) {
      return at.slice == place.slice && at.entry == place.entry && at.unit == place.unit;
    };
    while (!is_at(end)) {
      ASSERT_LT(at.slice, shape.slices) << "a share begins after it ends";
      const ExpertTiles& entry = plan.entries[static_cast<std::size_t>(at.entry)];
      const bool ends_here = at.slice == end.slice && at.entry == end.entry;
      const std::int32_t until = ends_here ? end.unit : units_of(at.entry);
      ASSERT_LT(at.unit, until);
      ASSERT_LE(until, units_of(at.entry)) << "a share ends in a unit that does not exist";
      cost += std::int64_t{until - at.unit} * entry.unit_cost;
      most_expensive = std::max(most_expensive, entry.unit_cost);
      at.unit = until;
      if (at.unit < units_of(at.entry)) continue;
      at = {at.slice, at.entry + 1, 0};
      if (at.entry == shared.entries) at = {at.slice + 1, 0, 0};
    }
    // Partial sums are waited for up to the block that ends a tile, so none before it may be empty.
    if (cost == 0) work_left = false;
    ASSERT_EQ(cost > 0, work_left) << "an empty share before one with work";
    // A unit that straddles a boundary belongs to the block in which it begins... give or take one
    // at each end. With less work than a unit a block, some have one and some none.
    const double fair = std::max(all / grid, 1.0 * unit_cost(kMaxTileTokens));
    ASSERT_LE(static_cast<double>(cost), fair + 2.0 * most_expensive);
  }
  ASSERT_EQ(at.slice, shape.slices);
  ASSERT_EQ(at.entry, 0);
}

TEST(CudaPlan, SplitsTheWorkIntoEvenSharesWithoutGapOrOverlap) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const RandomRouting r = random_routing(seed);
    for (const TileSet set : kTileSets) {
      const testing::HostPlan plan = testing::make_host_plan(r.routing.topk_ids, r.experts, set);
      for (const int row_tiles : {1, 2, 3, 8, 28, 56}) {
        for (const int chunks : {1, 2, 16, 56}) {
          for (const int grid : {1, 2, 78, 132}) {
            const WorkShape shape{row_tiles, chunks, work_slices(row_tiles, grid)};
            ASSERT_EQ(row_tiles % shape.slices, 0);
            SCOPED_TRACE(r.name);
            SCOPED_TRACE(
                fmt::format("{} row tiles, {} chunks, {} blocks", row_tiles, chunks, grid));
            ASSERT_NO_FATAL_FAILURE(check_split(plan, shape, grid));
          }
        }
      }
    }
  }
}

TEST(CudaPlan, DividesExactly) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 200000; ++i) {
    const auto d = static_cast<std::int64_t>(1 + (random() >> (33 + random() % 31)));
    const auto q = static_cast<std::int64_t>(random() >> (5 + random() % 59)) / d;
    for (const std::int64_t rest : {std::int64_t{0}, std::int64_t{1}, d / 2, d - 1}) {
      const std::int64_t n = q * d + std::min(rest, d - 1);
      ASSERT_EQ(divide(n, d, 1.0 / static_cast<double>(d)), n / d) << n << " / " << d;
    }
  }
}

TEST(CudaPlan, SharesBeginWhereTheCostsSay) {
  int checked = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const RandomRouting r = random_routing(seed);
    const testing::HostPlan plan =
        testing::make_host_plan(r.routing.topk_ids, r.experts, TileSet::kSmall);
    for (const int row_tiles : {3, 56}) {
      constexpr int kGrid = 132;
      const WorkShape work{row_tiles, 16, work_slices(row_tiles, kGrid)};
      const ShareShape shape = share_shape(work, kGrid);
      const SharedWork shared = testing::share_out(plan, shape);
      const std::int64_t slice_cost = shared.cost * work.units();
      if (slice_cost * work.slices < std::int64_t{unit_cost(kMaxTileTokens)} * kGrid) continue;
      ++checked;
      for (int block = 0; block < kGrid; ++block) {
        std::int64_t cost = slice_cost * work.slices * block / kGrid;
        const WorkPosition begin = work_begin(shared, plan.begins.data(), shape, block);
        ASSERT_EQ(begin.slice, cost / slice_cost);
        cost %= slice_cost;
        const auto entry = static_cast<std::size_t>(begin.entry);
        cost -= std::int64_t{plan.begins[entry].cost} * work.units();
        ASSERT_GE(cost, 0);
        ASSERT_EQ(begin.unit, cost / plan.entries[entry].unit_cost);
        ASSERT_LT(begin.unit, plan.entries[entry].tiles * work.units());
      }
    }
  }
  EXPECT_GT(checked, 10);
}

/// Thread blocks that take pieces in any order of turns find each chunk of each tile of the other
/// entries once, in parts of which none is empty.
void check_pieces(const testing::HostPlan& plan, const WorkShape& shape, int grid) {
  const SharedWork shared = testing::share_out(plan, share_shape(shape, grid));
  const PieceShape pieces = piece_shape(shape, grid);
  ASSERT_LE(pieces.parts, grid) << "more parts of a tile than slots for their sums";
  ASSERT_LT((pieces.parts - 1) * pieces.depth, shape.chunks) << "a part without chunks";
  ASSERT_GE(pieces.parts * pieces.depth, shape.chunks);
  std::int64_t tiles = 0;
  for (std::size_t i = 0; i < plan.entries.size(); ++i) {
    if (static_cast<std::int32_t>(i) >= shared.entries) tiles += plan.entries[i].tiles;
  }
  ASSERT_EQ(tiles, shared.piece_tiles);
  const std::int64_t count = tiles * shape.row_tiles * pieces.parts;
  std::mt19937_64 random(static_cast<std::uint64_t>(grid) * 1000 +
                         static_cast<std::uint64_t>(tiles));
  std::vector<PieceCursor> cursors(static_cast<std::size_t>(grid), PieceCursor{shared.entries, 0});
  Piece expected{shared.entries, 0, 0, 0};
  for (std::int32_t piece = 0; piece < count; ++piece) {
    PieceCursor& cursor = cursors[random() % cursors.size()];
    const Piece found = find_piece(plan.entries.data(), shape, pieces.parts, piece, cursor);
    ASSERT_EQ(found.entry, expected.entry);
    ASSERT_EQ(found.row_tile, expected.row_tile);
    ASSERT_EQ(found.tile, expected.tile);
    ASSERT_EQ(found.part, expected.part);
    if (++expected.part < pieces.parts) continue;
    expected.part = 0;
    if (++expected.tile < plan.entries[static_cast<std::size_t>(expected.entry)].tiles) continue;
    expected.tile = 0;
    if (++expected.row_tile < shape.row_tiles) continue;
    expected = {expected.entry + 1, 0, 0, 0};
  }
  ASSERT_EQ(expected.entry, plan.header.active);
}

TEST(CudaPlan, CutsTheRestIntoPiecesWithoutGapOrOverlap) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const RandomRouting r = random_routing(seed);
    for (const TileSet set : kTileSets) {
      const testing::HostPlan plan = testing::make_host_plan(r.routing.topk_ids, r.experts, set);
      for (const int row_tiles : {1, 3, 8, 56}) {
        for (const int chunks : {1, 2, 5, 16, 56, 300}) {
          for (const int grid : {1, 2, 78, 132}) {
            const WorkShape shape{row_tiles, chunks, work_slices(row_tiles, grid)};
            SCOPED_TRACE(r.name);
            SCOPED_TRACE(
                fmt::format("{} row tiles, {} chunks, {} blocks", row_tiles, chunks, grid));
            ASSERT_NO_FATAL_FAILURE(check_pieces(plan, shape, grid));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebench::cuda
