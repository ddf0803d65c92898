// The routing kernel on the emulated device: all that it leaves against the plan made on the host.
#include "moebench/backend/cuda/route.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "moebench/moe/routing.h"
#include "tests/backend/cuda_plan_reference.h"
#include "tests/cuda/emulated/emulator.h"

namespace moebench::cuda {
namespace {

constexpr int kGrid = 7;
constexpr std::int32_t kUnset = -77;

struct RouteCase {
  const char* routing;
  std::int64_t tokens, experts, topk;
  TileSet tile_set;
  bool large_if_cheaper = false;
};

std::string name_of(const RouteCase& c) {
  return fmt::format("{} M={} E={} topk={} tiles up to {}", c.routing, c.tokens, c.experts, c.topk,
                     max_tile_rows(c.tile_set));
}

int small_chosen = 0;
int large_chosen = 0;

template <typename T>
bool same_bytes(std::span<const T> a, std::span<const T> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

void check_route(const RouteCase& c, std::uint64_t seed) {
  SCOPED_TRACE(fmt::format("{}, seed {}", name_of(c), seed));
  emulated::settings() = {seed, 2};
  const Routing routing =
      make_routing(parse_routing(c.routing), 9, c.tokens, c.experts, c.topk, true);
  const std::vector<std::int32_t>& ids = routing.topk_ids;
  const auto pairs = static_cast<std::int64_t>(ids.size());
  const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };

  PlanHeader header{};
  std::vector<ExpertTiles> entries(size(std::min(pairs, c.experts)));
  const TileSet most_padded = c.large_if_cheaper ? TileSet::kLarge : c.tile_set;
  std::vector<std::int32_t> row_pair(size(max_padded_rows(pairs, c.experts, most_padded)), kUnset);
  std::vector<PairPlace> places(ids.size());
  std::vector<WorkPosition> shares(2 * (kGrid + 1));
  std::vector<std::int32_t> hand_over(size(2 * hand_over_count(kGrid)), kUnset);
  RouteArgs args{};
  args.topk_ids = ids.data();
  args.pairs = pairs;
  args.experts = c.experts;
  args.tile_set = c.tile_set;
  args.large_if_cheaper = c.large_if_cheaper;
  args.header = &header;
  args.entries = entries.data();
  args.row_pair = row_pair.data();
  args.places = places.data();
  args.shares = shares.data();
  args.hand_over = hand_over.data();
  args.blocks = kGrid;
  args.work[0] = share_shape({8, 16, work_slices(8, kGrid)}, kGrid);
  args.work[1] = share_shape({3, 60, work_slices(3, kGrid)}, kGrid);
  ASSERT_EQ(enqueue_route(args, nullptr), cudaSuccess);
  emulated::synchronize();

  testing::HostPlan plan = testing::make_host_plan(ids, c.experts, c.tile_set);
  if (c.large_if_cheaper) {
    testing::HostPlan large = testing::make_host_plan(ids, c.experts, TileSet::kLarge);
    const TileSet chosen = cheaper_tiles(static_cast<std::uint32_t>(plan.header.total_cost),
                                         static_cast<std::uint32_t>(large.header.total_cost));
    if (chosen == TileSet::kLarge) plan = std::move(large);
    (chosen == TileSet::kLarge ? large_chosen : small_chosen) += 1;
  }
  std::vector<WorkPosition> expected_shares;
  for (int gemm = 0; gemm < 2; ++gemm) {
    plan.header.shared[gemm] = testing::share_out(plan, args.work[gemm]);
    for (int block = 0; block <= kGrid; ++block) {
      expected_shares.push_back(
          work_begin(plan.header.shared[gemm], plan.begins.data(), args.work[gemm], block));
    }
  }
  EXPECT_TRUE(same_bytes<PlanHeader>({&header, 1}, {&plan.header, 1}));
  EXPECT_TRUE(same_bytes<ExpertTiles>({entries.data(), plan.entries.size()}, plan.entries));
  EXPECT_TRUE(same_bytes<WorkPosition>(shares, expected_shares));
  EXPECT_EQ(hand_over, std::vector<std::int32_t>(hand_over.size(), 0));
  for (std::size_t row = 0; row < plan.row_pair.size(); ++row) {
    const std::int32_t expected = plan.row_pair[row] < 0 ? kUnset : plan.row_pair[row];
    ASSERT_EQ(row_pair[row], expected) << "padded row " << row;
  }
  for (std::size_t pair = 0; pair < ids.size(); ++pair) {
    ASSERT_EQ(places[pair].tile_begin, plan.tile_begin[pair]) << "pair " << pair;
    ASSERT_EQ(places[pair].tile_rows, plan.tile_rows[pair]) << "pair " << pair;
    ASSERT_EQ(places[pair].row, plan.row_of_pair[pair] - plan.tile_begin[pair]) << "pair " << pair;
  }
}

TEST(EmulatedRoute, LeavesThePlanOfTheHost) {
  constexpr TileSet kSmall = TileSet::kSmall;
  constexpr TileSet kLarge = TileSet::kLarge;
  for (const RouteCase& c : {
           RouteCase{"uniform", 1, 256, 8, kSmall},       // part of a warp of pairs
           RouteCase{"uniform", 4, 256, 8, kSmall},       // one warp
           RouteCase{"uniform", 45, 100, 3, kSmall},      // pairs are no multiple of 32
           RouteCase{"zipf:1.2", 128, 256, 8, kSmall},    // the most of one block
           RouteCase{"zipf:1.2", 129, 256, 8, kLarge},    // two blocks
           RouteCase{"uniform", 3001, 61, 1, kLarge},     // four
           RouteCase{"zipf:1.5", 900, 256, 8, kLarge},    // eight
           RouteCase{"single", 2000, 5, 1, kSmall},       // one expert has all
           RouteCase{"single", 9000, 1, 1, kLarge},       // and there is no other
           RouteCase{"uniform", 5000, 40, 4, kLarge},     // more pairs than registers hold
           RouteCase{"hot:1@0.8", 30, 1500, 12, kSmall},  // more experts than threads
           RouteCase{"uniform", 700, 3000, 8, kLarge},    // than fit with a segment for each warp
           RouteCase{"uniform", 50, kMaxRoutedExperts, 4, kLarge},
       }) {
    check_route(c, 1);
    check_route(c, 6);
  }
}

TEST(EmulatedRoute, ChoosesTheCheaperTiles) {
  small_chosen = large_chosen = 0;
  for (const RouteCase& c : {
           RouteCase{"uniform", 60, 256, 8, TileSet::kSmall, true},
           RouteCase{"uniform", 1000, 256, 8, TileSet::kSmall, true},
           RouteCase{"uniform", 1800, 700, 2, TileSet::kSmall, true},
           RouteCase{"uniform", 1600, 256, 8, TileSet::kSmall, true},
           RouteCase{"zipf:1.2", 1000, 256, 8, TileSet::kSmall, true},
           RouteCase{"hot:1@0.8", 100, 700, 6, TileSet::kSmall, true},
           RouteCase{"single", 100, 3, 1, TileSet::kSmall, true},
       }) {
    check_route(c, 2);
    check_route(c, 7);
  }
  EXPECT_EQ(small_chosen, 2 * 4);
  EXPECT_EQ(large_chosen, 2 * 3);
}

TEST(EmulatedRoute, RefusesWhatItHasNoRoomFor) {
  RouteArgs args{};
  args.experts = kMaxRoutedExperts + 1;
  EXPECT_NE(enqueue_route(args, nullptr), cudaSuccess);
  args.experts = 1;
  args.pairs = kMaxRoutedPairs + 1;
  EXPECT_NE(enqueue_route(args, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace moebench::cuda
