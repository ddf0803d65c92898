// Choosing tiles: the nearest row of a table, and saying how near it is.
#include "moebench/backend/triton/configs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "moebench/backend/triton/align.h"
#include "moebench/moe/routing.h"

namespace moebench::triton {
namespace {

using ::testing::HasSubstr;

constexpr TileConfig kSmall{16, 64, 128, 4, 4, false, false};
constexpr TileConfig kLarge{64, 128, 128, 4, 3, true, false};
constexpr TileConfig kSmallAnyDepth{16, 128, 64, 4, 4, false, true};
constexpr TileConfig kLargeAnyDepth{64, 128, 64, 4, 4, false, true};

EmbeddedKernel kernel_of(int arch, ActType act, const TileConfig& tile) {
  EmbeddedKernel kernel;
  kernel.arch = arch;
  kernel.act = act;
  kernel.tile = tile;
  return kernel;
}

struct Table {
  std::vector<EmbeddedKernel> kernels = {
      kernel_of(90, ActType::kFp16, kSmall),         kernel_of(90, ActType::kFp16, kLarge),
      kernel_of(90, ActType::kFp16, kSmallAnyDepth), kernel_of(90, ActType::kFp16, kLargeAnyDepth),
      kernel_of(90, ActType::kBf16, kSmallAnyDepth), kernel_of(100, ActType::kFp16, kSmall)};
  std::vector<TuningEntry> tuning = {
      {90, 256, 8, 2048, 7168, 16, kSmall, kSmall, 1, 1, ""},
      {90, 256, 8, 2048, 7168, 2048, kLarge, kLarge, 8, 2, "on a card, some day"},
      {90, 256, 8, 7168, 2048, 2048, kLarge, kLarge, 4, 1, ""}};
  [[nodiscard]] EmbeddedSet set() const {
    EmbeddedSet out;
    out.kernels = kernels;
    out.tuning = tuning;
    return out;
  }
};

MoeShape layer(std::int64_t hidden, std::int64_t intermediate, ActType act = ActType::kFp16) {
  return {
      .num_experts = 256, .topk = 8, .hidden = hidden, .intermediate = intermediate, .act = act};
}

TEST(TileName, IsAsTheConfigurationFileWritesIt) {
  EXPECT_EQ(name_of(kSmall), "m16n64k128w4s4");
  EXPECT_EQ(name_of(kLarge), "m64n128k128w4s3t");
  EXPECT_EQ(name_of(kSmallAnyDepth), "m16n128k64w4s4g");
}

TEST(ChooseConfig, AnExactEntrySaysWhoMeasuredIt) {
  const Table table;
  const auto config = choose_config(table.set(), 90, layer(2048, 7168), 2048);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->gate_up->tile, kLarge);
  EXPECT_EQ(config->gate_up_group, 8);
  EXPECT_EQ(config->down_group, 2);
  EXPECT_EQ(config->origin, "table: measured on a card, some day");
}

TEST(ChooseConfig, TheNearestEntrySaysThatItIsNone) {
  const Table table;
  const auto config = choose_config(table.set(), 90, layer(2048, 7168), 33);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->gate_up->tile, kSmall);
  EXPECT_THAT(config->origin, HasSubstr("nearest entry"));
  EXPECT_THAT(config->origin, HasSubstr("M=16, not measured"));
  EXPECT_EQ(choose_config(table.set(), 90, layer(7168, 2048), 1500)->gate_up_group, 4);
}

TEST(ChooseConfig, PairsPerExpertCountNotTokens) {
  const Table table;
  MoeShape few = layer(2048, 7168);
  few.num_experts = 8;  // 64 tokens: as many rows per expert as 2048 of 256 experts
  EXPECT_EQ(choose_config(table.set(), 90, few, 64)->gate_up->tile, kLarge);
}

TEST(ChooseConfig, OtherDepthsTakeAnAnyDepthKernelOfLikeHeight) {
  const Table table;
  const auto small = choose_config(table.set(), 90, layer(208, 7168), 16);
  ASSERT_TRUE(small);
  EXPECT_EQ(small->gate_up->tile, kSmallAnyDepth);
  EXPECT_EQ(small->down->tile, kSmallAnyDepth);
  EXPECT_EQ(choose_config(table.set(), 90, layer(2048, 208), 2048)->down->tile, kLargeAnyDepth);
  EXPECT_EQ(choose_config(table.set(), 90, layer(2048, 7168, ActType::kBf16), 2048)->down->tile,
            kSmallAnyDepth);
}

TEST(ChooseConfig, NothingForAnArchitectureWithoutKernels) {
  const Table table;
  EXPECT_FALSE(choose_config(table.set(), 80, layer(2048, 7168), 16));
  EXPECT_FALSE(choose_config(EmbeddedSet{}, 90, layer(2048, 7168), 16));
  EXPECT_EQ(nearest_entry(table.tuning, 100, layer(2048, 7168), 16), nullptr);
}

TEST(ChooseConfig, TheBuiltTableCoversItsArchitectures) {
  const EmbeddedSet& set = embedded_set();
  if (!set.absent.empty()) GTEST_SKIP() << set.absent;
  for (const EmbeddedKernel& kernel : set.kernels) {
    for (const std::int64_t depth : {16, 128, 208, 2048, 7168}) {
      for (const std::int64_t tokens : {1, 17, 300, 5000}) {
        const auto config =
            choose_config(set, kernel.arch, layer(depth, depth, kernel.act), tokens);
        ASSERT_TRUE(config);
        EXPECT_EQ(config->gate_up->tile.block_m, config->down->tile.block_m);
      }
    }
  }
}

TEST(UsableKernels, LeaveOutOtherTypesAndDepths) {
  const Table table;
  const EmbeddedSet set = table.set();
  EXPECT_EQ(usable_kernels(set, 90, ActType::kFp16, 128).size(), 4U);
  EXPECT_EQ(usable_kernels(set, 90, ActType::kFp16, 208).size(), 2U);
  EXPECT_EQ(usable_kernels(set, 90, ActType::kBf16, 128).size(), 1U);
}

/// Against permute_by_expert: the same pairs in the same order, each expert's padded to block_m.
TEST(Align, IsThePermutationPaddedToTiles) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const std::int64_t experts = 1 + static_cast<std::int64_t>(random() % 40);
    const std::int64_t topk =
        1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(experts));
    const std::int64_t tokens = static_cast<std::int64_t>(random() % 90);
    const int block_m = std::array{16, 32, 64, 128}[random() % 4];
    RoutingSpec spec;
    if (round % 4 == 1) spec.kind = RoutingSpec::Kind::kSingle;
    if (round % 4 == 2) spec.kind = RoutingSpec::Kind::kZipf;
    const Routing routing = make_routing(spec, random(), tokens, experts, topk, false);
    const Alignment aligned = align_pairs(routing.topk_ids, experts, block_m);
    const ExpertPermutation expected = permute_by_expert(routing, experts);
    const std::int64_t pairs = tokens * topk;

    ASSERT_EQ(std::ssize(aligned.sorted_pairs), std::ssize(aligned.tile_experts) * block_m);
    ASSERT_LE(std::ssize(aligned.sorted_pairs), max_aligned_rows(pairs, experts, block_m));
    std::vector<std::int32_t> order;
    for (std::size_t row = 0; row < aligned.sorted_pairs.size(); ++row) {
      const std::int32_t pair = aligned.sorted_pairs[row];
      if (pair >= pairs) {
        ASSERT_EQ(pair, pairs);
        continue;
      }
      order.push_back(pair);
      ASSERT_EQ(aligned.tile_experts[row / static_cast<std::size_t>(block_m)],
                routing.topk_ids[static_cast<std::size_t>(pair)]);
    }
    ASSERT_EQ(order.size(), static_cast<std::size_t>(pairs));
    for (std::size_t i = 0; i < order.size(); ++i) {
      ASSERT_EQ(order[i], expected.sorted_pairs[i]) << "round " << round;
    }
  }
}

TEST(Align, TheBoundOnRowsIsReached) {
  // One pair each: every expert needs a whole tile.
  const std::vector<std::int32_t> ids = {0, 1, 2, 3};
  EXPECT_EQ(align_pairs(ids, 4, 16).sorted_pairs.size(), 64U);
  EXPECT_EQ(max_aligned_rows(4, 4, 16), 64);
}

}  // namespace
}  // namespace moebench::triton
