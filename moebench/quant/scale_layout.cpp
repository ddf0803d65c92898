// The two layouts of NVFP4 block scales and the way between them.
#include "moebench/quant/scale_layout.h"

#include <algorithm>
#include <utility>

#include "moebench/core/checked.h"
#include "moebench/core/error.h"
#include "moebench/quant/nvfp4.h"

namespace moebench {
namespace {

// A swizzled tile: 128 rows x 4 groups in 512 bytes. Within it come row % 32, then row / 32, then
// the group, so that 16 consecutive bytes are what one of 32 lanes loads.
constexpr std::int64_t kTileRows = 128;
constexpr std::int64_t kTileGroups = 4;
constexpr std::int64_t kTileBytes = kTileRows * kTileGroups;
constexpr std::int64_t kLanes = 32;
constexpr std::int64_t kBytesPerLane = kTileBytes / kLanes;

std::int64_t swizzled_bytes(std::int64_t rows, std::int64_t groups) {
  return checked_product("NVFP4 scales",
                         {ceil_div(rows, kTileRows), ceil_div(groups, kTileGroups), kTileBytes});
}

void require_sizes(std::span<const std::uint8_t> linear, std::int64_t rows, std::int64_t groups,
                   std::span<const std::uint8_t> swizzled) {
  const std::int64_t linear_bytes = checked_product("NVFP4 scales", {rows, groups});
  const std::int64_t tiled_bytes = swizzled_bytes(rows, groups);
  if (std::cmp_not_equal(linear.size(), linear_bytes) ||
      std::cmp_not_equal(swizzled.size(), tiled_bytes)) {
    fail(ErrorCode::kBadInput,
         "NVFP4 scales: {} linear and {} swizzled bytes for {} rows x {} groups; pass {} and {}",
         linear.size(), swizzled.size(), rows, groups, linear_bytes, tiled_bytes);
  }
}

}  // namespace

std::int64_t nvfp4_scale_bytes(std::int64_t rows, std::int64_t cols, ScaleLayout layout) {
  const std::int64_t groups = cols / kNvfp4BlockSize;
  return layout == ScaleLayout::kLinear ? checked_product("NVFP4 scales", {rows, groups})
                                        : swizzled_bytes(rows, groups);
}

std::int64_t swizzled_scale_offset(std::int64_t row, std::int64_t group, std::int64_t groups) {
  const std::int64_t tile = row / kTileRows * ceil_div(groups, kTileGroups) + group / kTileGroups;
  return tile * kTileBytes + row % kLanes * kBytesPerLane + row % kTileRows / kLanes * kTileGroups +
         group % kTileGroups;
}

void swizzle_scales(std::span<const std::uint8_t> linear, std::int64_t rows, std::int64_t groups,
                    std::span<std::uint8_t> swizzled) {
  require_sizes(linear, rows, groups, swizzled);
  std::fill(swizzled.begin(), swizzled.end(), std::uint8_t{0});
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t group = 0; group < groups; ++group) {
      swizzled[static_cast<std::size_t>(swizzled_scale_offset(row, group, groups))] =
          linear[static_cast<std::size_t>(row * groups + group)];
    }
  }
}

void unswizzle_scales(std::span<const std::uint8_t> swizzled, std::int64_t rows,
                      std::int64_t groups, std::span<std::uint8_t> linear) {
  require_sizes(linear, rows, groups, swizzled);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t group = 0; group < groups; ++group) {
      linear[static_cast<std::size_t>(row * groups + group)] =
          swizzled[static_cast<std::size_t>(swizzled_scale_offset(row, group, groups))];
    }
  }
}

}  // namespace moebench
