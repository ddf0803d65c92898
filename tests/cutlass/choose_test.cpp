// Which GEMM a batch gets, out of tables made up here.
#include <gtest/gtest.h>

#include <array>

#include "moebench/backend/cutlass/grouped_gemm.h"

namespace moebench::cutlass_moe {
namespace {

GroupedGemm gemm(int major, ActType out, int tile_tokens) {
  GroupedGemm made{};
  made.major = major;
  made.out = out;
  made.tile_tokens = tile_tokens;
  return made;
}

const GroupedGemm kSmall = gemm(10, ActType::kFp16, 64);
const GroupedGemm kLarge = gemm(10, ActType::kFp16, 128);
const GroupedGemm kOther = gemm(12, ActType::kFp16, 32);
const std::array<const GroupedGemm*, 3> kAll = {&kLarge, &kOther, &kSmall};

TEST(CutlassChoice, TakesTheSmallestTileWithRoomForTwiceTheMean) {
  EXPECT_EQ(choose_gemm(kAll, 10, ActType::kFp16, 8, 8), &kSmall);
  EXPECT_EQ(choose_gemm(kAll, 10, ActType::kFp16, 32 * 256, 256), &kSmall);
  EXPECT_EQ(choose_gemm(kAll, 10, ActType::kFp16, 33 * 256, 256), &kLarge);
}

TEST(CutlassChoice, TakesTheLargestTileWhereNoneHasRoom) {
  EXPECT_EQ(choose_gemm(kAll, 10, ActType::kFp16, 1000 * 256, 256), &kLarge);
  EXPECT_EQ(choose_gemm(kAll, 12, ActType::kFp16, 1000 * 256, 256), &kOther);
}

TEST(CutlassChoice, TakesNoneOfAnotherArchitectureOrType) {
  EXPECT_EQ(choose_gemm(kAll, 9, ActType::kFp16, 8, 8), nullptr);
  EXPECT_EQ(choose_gemm(kAll, 11, ActType::kFp16, 8, 8), nullptr);
  EXPECT_EQ(choose_gemm(kAll, 10, ActType::kBf16, 8, 8), nullptr);
  EXPECT_EQ(choose_gemm({}, 10, ActType::kFp16, 8, 8), nullptr);
}

TEST(CutlassChoice, WorksWithoutTokens) {
  EXPECT_EQ(choose_gemm(kAll, 10, ActType::kFp16, 0, 0), &kSmall);
}

}  // namespace
}  // namespace moebench::cutlass_moe
