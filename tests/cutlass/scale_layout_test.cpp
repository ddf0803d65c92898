// CUTLASS's own layout functions, on the host, against this project's swizzle and against the
// formula that the device kernels write by.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cutlass/detail/sm100_blockscaled_layout.hpp>
#include <random>
#include <vector>

#include "moebench/backend/cutlass/groups.h"
#include "moebench/quant/scale_layout.h"

namespace moebench::cutlass_moe {
namespace {

using ScaleConfig = cutlass::detail::Sm1xxBlockScaledConfig<16>;

struct Size {
  int rows;
  int depth;
};

/// Every combination around the borders of a tile (128 rows, 64 columns), then the layers' own
/// sizes, then random ones.
std::vector<Size> sizes() {
  std::vector<Size> out;
  for (const int rows : {1, 2, 3, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 160, 255, 256, 257}) {
    for (const int depth : {16, 32, 48, 64, 80, 96, 112, 128, 144, 256, 272}) {
      out.push_back({rows, depth});
    }
  }
  for (const Size layer : {Size{14336, 2048}, {2048, 7168}, {4096, 7168}, {7168, 2048}}) {
    out.push_back(layer);
  }
  std::mt19937 random(5);
  for (int i = 0; i < 200; ++i) {
    out.push_back(
        {static_cast<int>(1 + random() % 600), static_cast<int>(1 + random() % 100) * 16});
  }
  return out;
}

/// `layout` maps (row, column) to the byte of its scale.
template <typename Layout>
void expect_our_swizzle(const Layout& layout, const Size& size) {
  const std::int64_t groups = size.depth / 16;
  const std::int64_t bytes = nvfp4_scale_bytes(size.rows, size.depth, ScaleLayout::kSwizzled128x4);
  // What a multiplication may load: whole tiles, padding included.
  ASSERT_EQ(static_cast<std::int64_t>(cute::cosize(layout)), bytes);
  ASSERT_EQ(scale_bytes(scale_rows(size.rows), size.depth), bytes);
  for (int row = 0; row < size.rows; ++row) {
    for (int group = 0; group < groups; ++group) {
      const auto theirs = static_cast<std::int64_t>(layout(row, group * 16, 0));
      ASSERT_EQ(theirs, swizzled_scale_offset(row, group, groups)) << row << ", " << group;
      ASSERT_EQ(theirs, scale_offset(row, group, size.depth)) << row << ", " << group;
    }
    // All 16 columns of a group share its scale.
    ASSERT_EQ(layout(row, size.depth - 1, 0), layout(row, size.depth - 16, 0));
  }
}

TEST(CutlassScaleLayout, IsTheSwizzleOfQuantForTheWeights) {
  for (const Size& size : sizes()) {
    SCOPED_TRACE(fmt::format("{} rows, depth {}", size.rows, size.depth));
    ASSERT_NO_FATAL_FAILURE(expect_our_swizzle(
        ScaleConfig::tile_atom_to_shape_SFA(cute::make_shape(size.rows, 7, size.depth, 1)), size));
  }
}

TEST(CutlassScaleLayout, IsTheSwizzleOfQuantForTheTokens) {
  for (const Size& size : sizes()) {
    SCOPED_TRACE(fmt::format("{} rows, depth {}", size.rows, size.depth));
    ASSERT_NO_FATAL_FAILURE(expect_our_swizzle(
        ScaleConfig::tile_atom_to_shape_SFB(cute::make_shape(7, size.rows, size.depth, 1)), size));
  }
}

/// Where the layout puts rows and columns that the matrix does not have, quant/ writes zero.
TEST(CutlassScaleLayout, FindsZeroInThePadding) {
  for (const Size& size : sizes()) {
    if (size.rows > 600) continue;
    SCOPED_TRACE(fmt::format("{} rows, depth {}", size.rows, size.depth));
    const std::int64_t groups = size.depth / 16;
    std::vector<std::uint8_t> linear(static_cast<std::size_t>(size.rows * groups), 0x38);
    std::vector<std::uint8_t> swizzled(static_cast<std::size_t>(nvfp4_scale_bytes(
                                           size.rows, size.depth, ScaleLayout::kSwizzled128x4)),
                                       0x7F);
    swizzle_scales(linear, size.rows, groups, swizzled);
    const int padded_rows = scale_rows(size.rows);
    const auto padded_groups = static_cast<int>(scale_tiles_across(size.depth) * kScaleTileGroups);
    const auto layout = ScaleConfig::tile_atom_to_shape_SFB(
        cute::make_shape(7, padded_rows, padded_groups * 16, 1));
    std::vector<int> seen(swizzled.size(), 0);
    for (int row = 0; row < padded_rows; ++row) {
      for (int group = 0; group < padded_groups; ++group) {
        const auto at = static_cast<std::size_t>(layout(row, group * 16, 0));
        ++seen[at];
        ASSERT_EQ(swizzled[at], row < size.rows && group < groups ? 0x38 : 0);
      }
    }
    for (const int count : seen) ASSERT_EQ(count, 1);
  }
}

}  // namespace
}  // namespace moebench::cutlass_moe
