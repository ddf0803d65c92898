// Linear and swizzled block scales: offsets, the way there and back, padding.
#include "moebench/quant/scale_layout.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "moebench/core/error.h"

namespace moebench {
namespace {

struct Shape {
  std::int64_t rows;
  std::int64_t groups;
};

std::string name_of_shape(const ::testing::TestParamInfo<Shape>& test_info) {
  return std::to_string(test_info.param.rows) + "x" + std::to_string(test_info.param.groups);
}

class SwizzledScales : public ::testing::TestWithParam<Shape> {
 protected:
  const std::int64_t rows_ = GetParam().rows;
  const std::int64_t groups_ = GetParam().groups;
  const std::size_t linear_bytes_ =
      static_cast<std::size_t>(nvfp4_scale_bytes(rows_, groups_ * 16, ScaleLayout::kLinear));
  const std::size_t swizzled_bytes_ =
      static_cast<std::size_t>(nvfp4_scale_bytes(rows_, groups_ * 16, ScaleLayout::kSwizzled128x4));
};

TEST_P(SwizzledScales, HaveWholeTiles) {
  EXPECT_EQ(linear_bytes_, static_cast<std::size_t>(rows_ * groups_));
  EXPECT_EQ(swizzled_bytes_ % 512, 0U);
  EXPECT_EQ(swizzled_bytes_,
            static_cast<std::size_t>((rows_ + 127) / 128 * ((groups_ + 3) / 4) * 512));
}

TEST_P(SwizzledScales, LieWhereTheFormulaSaysAndNeverTwiceInOnePlace) {
  // The tensor core's index order, written as nested counting rather than as the formula with / and
  // %.
  std::set<std::int64_t> seen;
  std::int64_t offset = 0;
  for (std::int64_t tile_row = 0; tile_row < rows_; tile_row += 128) {
    for (std::int64_t tile_group = 0; tile_group < groups_; tile_group += 4) {
      for (std::int64_t lane = 0; lane < 32; ++lane) {
        for (std::int64_t quarter = 0; quarter < 4; ++quarter) {
          for (std::int64_t g = 0; g < 4; ++g, ++offset) {
            const std::int64_t row = tile_row + quarter * 32 + lane;
            const std::int64_t group = tile_group + g;
            if (row >= rows_ || group >= groups_) continue;
            ASSERT_EQ(swizzled_scale_offset(row, group, groups_), offset) << row << " " << group;
            ASSERT_TRUE(seen.insert(offset).second);
          }
        }
      }
    }
  }
  EXPECT_EQ(static_cast<std::size_t>(offset), swizzled_bytes_);
  EXPECT_EQ(seen.size(), linear_bytes_);
}

TEST_P(SwizzledScales, ComeBackUnchangedAndPadWithZeros) {
  std::vector<std::uint8_t> linear(linear_bytes_);
  for (std::size_t i = 0; i < linear.size(); ++i) {
    linear[i] = static_cast<std::uint8_t>(1 + i * 31 % 255);  // never zero
  }
  std::vector<std::uint8_t> swizzled(swizzled_bytes_, 0xFF);
  swizzle_scales(linear, rows_, groups_, swizzled);
  std::size_t not_zero = 0;
  for (const std::uint8_t byte : swizzled) not_zero += byte != 0 ? 1 : 0;
  EXPECT_EQ(not_zero, linear.size()) << "padding must be zero";
  std::vector<std::uint8_t> back(linear_bytes_, 0xEE);
  unswizzle_scales(swizzled, rows_, groups_, back);
  EXPECT_EQ(back, linear);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SwizzledScales,
                         ::testing::Values(Shape{1, 1}, Shape{1, 4}, Shape{31, 3}, Shape{32, 4},
                                           Shape{33, 5}, Shape{127, 7}, Shape{128, 4},
                                           Shape{128, 8}, Shape{129, 9}, Shape{255, 1},
                                           Shape{256, 64}, Shape{300, 13}, Shape{512, 448},
                                           Shape{1000, 2}),
                         name_of_shape);

TEST(SwizzledScaleOffset, MatchesHandComputedPlaces) {
  EXPECT_EQ(swizzled_scale_offset(0, 0, 8), 0);
  EXPECT_EQ(swizzled_scale_offset(0, 3, 8), 3);
  EXPECT_EQ(swizzled_scale_offset(1, 0, 8), 16);
  EXPECT_EQ(swizzled_scale_offset(32, 0, 8), 4);
  EXPECT_EQ(swizzled_scale_offset(127, 3, 8), 511);
  EXPECT_EQ(swizzled_scale_offset(0, 4, 8), 512);
  EXPECT_EQ(swizzled_scale_offset(128, 0, 8), 1024);
  EXPECT_EQ(swizzled_scale_offset(129, 5, 8), 1024 + 512 + 16 + 1);
}

TEST(SwizzleScales, RejectsBuffersOfTheWrongSize) {
  std::vector<std::uint8_t> linear(128 * 4);
  std::vector<std::uint8_t> swizzled(512);
  swizzle_scales(linear, 128, 4, swizzled);
  EXPECT_THROW(swizzle_scales(linear, 129, 4, swizzled), Error);
  EXPECT_THROW(unswizzle_scales(swizzled, 128, 5, linear), Error);
  linear.pop_back();
  EXPECT_THROW(swizzle_scales(linear, 128, 4, swizzled), Error);
}

TEST(Nvfp4ScaleBytes, RejectsSizesPast64Bits) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  EXPECT_THROW(static_cast<void>(nvfp4_scale_bytes(kMax, 64, ScaleLayout::kLinear)), Error);
  EXPECT_THROW(static_cast<void>(nvfp4_scale_bytes(kMax, 64, ScaleLayout::kSwizzled128x4)), Error);
}

}  // namespace
}  // namespace moebench
