// The routing data of the grouped GEMMs: sizes, row offsets and scale offsets of every group, by
// the code that runs on the device.
#include "moebench/backend/cutlass/groups.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/cutlass/routed_groups.h"

namespace moebench::cutlass_moe {
namespace {

using testing::random_routed;
using testing::Routed;

TEST(CutlassGroups, HoldEveryPairOfTheirExpertOnce) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const Routed routed = random_routed(seed);
    SCOPED_TRACE(routed.name);
    std::vector<int> seen(routed.ids.size(), 0);
    std::vector<int> experts_seen(static_cast<std::size_t>(routed.experts), 0);
    for (const Group& group : routed.groups) {
      if (group.rows == 0) continue;
      ASSERT_EQ(++experts_seen[static_cast<std::size_t>(group.expert)], 1);
      for (int row = 0; row < group.rows; ++row) {
        const std::int32_t pair =
            routed.plan.row_pair[static_cast<std::size_t>(group.first_row + row)];
        ASSERT_GE(pair, 0);
        ASSERT_EQ(routed.ids[static_cast<std::size_t>(pair)], group.expert);
        ++seen[static_cast<std::size_t>(pair)];
      }
    }
    ASSERT_EQ(std::count(seen.begin(), seen.end(), 1), std::ssize(seen));
  }
}

TEST(CutlassGroups, BeginScaleTilesOfTheirOwnWithoutGaps) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const Routed routed = random_routed(seed);
    SCOPED_TRACE(routed.name);
    std::int32_t next = 0;
    for (const Group& group : routed.groups) {
      ASSERT_EQ(group.first_scale_row, next);
      ASSERT_EQ(group.first_scale_row % kScaleTileRows, 0);
      next += (group.rows + 127) / 128 * 128;
    }
    ASSERT_LE(next, max_scale_rows(std::ssize(routed.ids), routed.experts));
  }
}

/// No smaller bound would do.
TEST(CutlassGroups, NeedTheScaleRowsOfTheBound) {
  for (const std::int64_t experts : {1, 2, 7, 256}) {
    for (std::int64_t pairs = 1; pairs < 1200; ++pairs) {
      // All but one expert have one row, which wastes the most; the last has the rest.
      const std::int64_t groups = std::min(pairs, experts);
      const auto rest = static_cast<std::int32_t>(pairs - groups + 1);
      const std::int64_t worst = (groups - 1) * 128 + scale_rows(rest);
      ASSERT_EQ(worst, max_scale_rows(pairs, experts)) << pairs << " over " << experts;
    }
  }
  EXPECT_EQ(max_scale_rows(0, 256), 0);
}

TEST(CutlassGroups, ThatAreNotActiveAreEmptyAndLast) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const Routed routed = random_routed(seed);
    SCOPED_TRACE(routed.name);
    for (std::size_t g = 0; g < routed.groups.size(); ++g) {
      const bool active = g < static_cast<std::size_t>(routed.plan.header.active);
      ASSERT_EQ(routed.groups[g].rows > 0, active);
      const ProblemSize size = problem_size(routed.groups[g], 4096, 7168);
      ASSERT_EQ(size.m, 4096);
      ASSERT_EQ(size.n, routed.groups[g].rows);
      ASSERT_EQ(size.k, 7168);
    }
  }
}

TEST(CutlassGroups, AreFoundByTheirScaleRows) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Routed routed = random_routed(seed);
    SCOPED_TRACE(routed.name);
    const auto count = static_cast<std::int32_t>(routed.groups.size());
    std::int32_t scale_row = 0;
    for (std::int32_t g = 0; g < routed.plan.header.active; ++g) {
      for (std::int32_t row = 0; row < scale_rows(routed.groups[static_cast<std::size_t>(g)].rows);
           ++row, ++scale_row) {
        const ScaleRow found = find_scale_row(routed.groups.data(), count, scale_row);
        ASSERT_EQ(found.group, g);
        ASSERT_EQ(found.row, row);
      }
    }
    const std::int64_t bound = max_scale_rows(std::ssize(routed.ids), routed.experts);
    for (; scale_row < bound; ++scale_row) {
      ASSERT_EQ(find_scale_row(routed.groups.data(), count, scale_row).group, -1);
    }
  }
}

/// Threads' spans are one behind the other and cover all groups.
TEST(CutlassGroups, AreSharedOutOverTheThreads) {
  for (std::int32_t groups = 0; groups < 700; ++groups) {
    std::int32_t next = 0;
    for (int thread = 0; thread < kGroupThreads; ++thread) {
      const GroupSpan span = groups_of_thread(groups, thread);
      ASSERT_LE(span.begin, span.end);
      if (span.begin < span.end) {
        ASSERT_EQ(span.begin, next);
        next = span.end;
      }
    }
    ASSERT_EQ(next, groups);
  }
}

}  // namespace
}  // namespace moebench::cutlass_moe
