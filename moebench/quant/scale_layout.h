// Where the block scales of an NVFP4 matrix lie in memory, linear or in the tensor cores' 128x4
// order, and the ways between the two. Part of the installed interface, therefore free of other
// includes.
#pragma once

#include <cstdint>
#include <span>

namespace moebench {

/// Where the scale of (row, group) lies; a group is 16 consecutive columns.
enum class ScaleLayout : std::uint8_t {
  kLinear,         ///< [rows, cols/16]
  kSwizzled128x4,  ///< [ceil(rows/128)][ceil(groups/4)][32][4][4] bytes: the block-scaled MMA's
                   ///< operand order
};

/// Bytes of the scales of a [rows, cols] matrix (padding of the swizzled form included).
[[nodiscard]] std::int64_t nvfp4_scale_bytes(std::int64_t rows, std::int64_t cols,
                                             ScaleLayout layout);
/// Offset of the scale of (row, group) in the swizzled form; `groups` = cols/16.
[[nodiscard]] std::int64_t swizzled_scale_offset(std::int64_t row, std::int64_t group,
                                                 std::int64_t groups);
/// linear [rows, groups] -> swizzled; every padding byte is written as zero (NaN bugs elsewhere
/// come from not doing so).
void swizzle_scales(std::span<const std::uint8_t> linear, std::int64_t rows, std::int64_t groups,
                    std::span<std::uint8_t> swizzled);
void unswizzle_scales(std::span<const std::uint8_t> swizzled, std::int64_t rows,
                      std::int64_t groups, std::span<std::uint8_t> linear);

}  // namespace moebench
