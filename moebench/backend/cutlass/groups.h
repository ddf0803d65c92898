// What the grouped GEMMs multiply: one group for each expert that has tokens, where its rows begin,
// and where their block scales do. Scales lie in tiles of 128 rows, so that every expert begins a
// tile of its own. Shared by the kernels and by the tests on the host.
#pragma once

#include <cstdint>

#include "moebench/backend/cuda/plan.h"

namespace moebench::cutlass_moe {

inline constexpr int kScaleTileRows = 128;  ///< rows of a scale tile
inline constexpr int kScaleTileGroups = 4;  ///< 16-column groups of a scale tile
inline constexpr int kScaleTileBytes = kScaleTileRows * kScaleTileGroups;

/// One expert's part of a GEMM. Past the active ones: rows 0.
struct Group {
  std::int32_t expert;
  std::int32_t rows;
  std::int32_t first_row;        ///< in the rows of all experts
  std::int32_t first_scale_row;  ///< multiple of kScaleTileRows
};

MOEBENCH_HOST_DEVICE constexpr std::int32_t scale_rows(std::int32_t rows) {
  return (rows + kScaleTileRows - 1) / kScaleTileRows * kScaleTileRows;
}

MOEBENCH_HOST_DEVICE constexpr std::int64_t scale_tiles_across(std::int64_t depth) {
  return cuda::divide_up(cuda::divide_up(depth, cuda::kScaleGroup), kScaleTileGroups);
}

/// Bytes of the swizzled scales of `rows` rows, a multiple of kScaleTileRows.
MOEBENCH_HOST_DEVICE constexpr std::int64_t scale_bytes(std::int64_t rows, std::int64_t depth) {
  return rows / kScaleTileRows * scale_tiles_across(depth) * kScaleTileBytes;
}

/// Byte of the scale of (row, 16-column group), `row` counted over all scale rows: quant/'s
/// swizzled_scale_offset().
MOEBENCH_HOST_DEVICE constexpr std::int64_t scale_offset(std::int64_t row, std::int64_t group,
                                                         std::int64_t depth) {
  const std::int64_t tile =
      row / kScaleTileRows * scale_tiles_across(depth) + group / kScaleTileGroups;
  return tile * kScaleTileBytes + row % 32 * 16 + row % kScaleTileRows / 32 * 4 +
         group % kScaleTileGroups;
}

/// Groups that a GEMM is launched for: no more experts can have tokens.
MOEBENCH_HOST_DEVICE constexpr std::int64_t max_groups(std::int64_t pairs, std::int64_t experts) {
  return pairs < experts ? pairs : experts;
}

/// Scale rows of any routing, at most: every group may leave a tile nearly empty.
MOEBENCH_HOST_DEVICE constexpr std::int64_t max_scale_rows(std::int64_t pairs,
                                                           std::int64_t experts) {
  const std::int64_t groups = max_groups(pairs, experts);
  return (groups + (pairs - groups) / kScaleTileRows) * kScaleTileRows;
}

// Groups from the entries of the routing plan, in two passes of kGroupThreads threads, each of
// which takes neighbouring entries: add up the scale rows, then place the groups behind those of
// the threads before.
inline constexpr int kGroupThreads = 32;

struct GroupSpan {
  std::int32_t begin, end;
};
MOEBENCH_HOST_DEVICE constexpr GroupSpan groups_of_thread(std::int32_t groups, int thread) {
  const std::int32_t each = (groups + kGroupThreads - 1) / kGroupThreads;
  const std::int32_t begin = each * thread < groups ? each * thread : groups;
  return {begin, begin + each < groups ? begin + each : groups};
}

MOEBENCH_HOST_DEVICE inline std::int32_t add_scale_rows(const cuda::PlanHeader& plan,
                                                        const cuda::ExpertTiles* entries,
                                                        GroupSpan span) {
  std::int32_t sum = 0;
  for (std::int32_t g = span.begin; g < span.end && g < plan.active; ++g) {
    sum += scale_rows(entries[g].rows);
  }
  return sum;
}

/// Groups past the active ones have no rows and begin where the last one ends.
MOEBENCH_HOST_DEVICE inline void place_groups(const cuda::PlanHeader& plan,
                                              const cuda::ExpertTiles* entries, GroupSpan span,
                                              std::int32_t scale_rows_before, Group* groups) {
  for (std::int32_t g = span.begin; g < span.end; ++g) {
    const bool active = g < plan.active;
    groups[g] = {active ? entries[g].expert : 0, active ? entries[g].rows : 0,
                 active ? entries[g].first_row : 0, scale_rows_before};
    scale_rows_before += scale_rows(groups[g].rows);
  }
}

/// Which row a scale row belongs to: of `group`, its row `row`; past the group's rows for padding,
/// group -1 past all of them.
struct ScaleRow {
  std::int32_t group;
  std::int32_t row;
};
MOEBENCH_HOST_DEVICE inline ScaleRow find_scale_row(const Group* groups, std::int32_t count,
                                                    std::int32_t scale_row) {
  std::int32_t low = 0;
  std::int32_t high = count;  // the last group that begins at or before scale_row
  while (high - low > 1) {
    const std::int32_t middle = (low + high) / 2;
    if (groups[middle].first_scale_row <= scale_row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  if (count == 0) return {-1, 0};
  const std::int32_t row = scale_row - groups[low].first_scale_row;
  if (row >= scale_rows(groups[low].rows)) return {-1, 0};
  return {low, row};
}

/// Sizes of one GEMM of one group as CUTLASS names them: the weights' rows are M, the tokens N.
struct ProblemSize {
  std::int32_t m, n, k;
};
MOEBENCH_HOST_DEVICE constexpr ProblemSize problem_size(const Group& group,
                                                        std::int64_t weight_rows,
                                                        std::int64_t depth) {
  return {static_cast<std::int32_t>(weight_rows), group.rows, static_cast<std::int32_t>(depth)};
}

/// Where a group's operands and its part of the output begin, in bytes (`out`: elements) from the
/// begin of the arrays of all experts and rows.
struct OperandOffsets {
  std::int64_t weights, weight_scales, tokens, token_scales, out;
};
MOEBENCH_HOST_DEVICE constexpr OperandOffsets operand_offsets(const Group& group,
                                                              std::int64_t weight_rows,
                                                              std::int64_t depth) {
  const std::int64_t row_bytes = depth / 2;
  const std::int64_t padded_weight_rows =
      cuda::divide_up(weight_rows, kScaleTileRows) * kScaleTileRows;
  return {group.expert * weight_rows * row_bytes,
          group.expert * scale_bytes(padded_weight_rows, depth), group.first_row * row_bytes,
          scale_bytes(group.first_scale_row, depth), group.first_row * weight_rows};
}

}  // namespace moebench::cutlass_moe
