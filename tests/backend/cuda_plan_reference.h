// What the routing kernel must leave, made on the host from the permutation of moe/routing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moebench/backend/cuda/plan.h"
#include "moebench/moe/routing.h"

namespace moebench::cuda::testing {

struct HostPlan {
  PlanHeader header{};
  std::vector<ExpertTiles> entries;
  std::vector<EntryBegin> begins;         ///< by entry
  std::vector<std::int32_t> row_pair;     ///< [header.padded_rows]
  std::vector<std::int64_t> row_of_pair;  ///< padded row
  std::vector<std::int64_t> tile_begin;   ///< by pair: padded row
  std::vector<int> tile_rows;             ///< by pair
};

inline HostPlan make_host_plan(std::span<const std::int32_t> topk_ids, std::int64_t experts,
                               TileSet set) {
  ExpertPermutation permutation;
  permute_by_expert(topk_ids, experts, permutation);
  HostPlan plan;
  plan.row_of_pair.resize(topk_ids.size());
  plan.tile_begin.resize(topk_ids.size());
  plan.tile_rows.resize(topk_ids.size());
  for (const std::int32_t expert : permutation.active_experts) {
    const std::int64_t begin = permutation.offsets[static_cast<std::size_t>(expert)];
    const std::int64_t end = permutation.offsets[static_cast<std::size_t>(expert) + 1];
    const auto tiles =
        cut_into_tiles(expert, static_cast<int>(end - begin), plan.header.padded_rows, set);
    plan.entries.push_back(tiles);
    plan.begins.push_back(entry_begin(static_cast<std::uint32_t>(plan.header.total_cost),
                                      static_cast<std::uint32_t>(plan.header.tiles),
                                      tiles.unit_cost));
    ++plan.header.active;
    plan.header.padded_rows += tiles.tiles * tiles.tile_rows;
    if (tiles.tile_rows > plan.header.max_tile_rows) plan.header.max_tile_rows = tiles.tile_rows;
    plan.header.tiles += tiles.tiles;
    plan.header.total_cost += std::int64_t{tiles.tiles} * tiles.unit_cost;
    plan.row_pair.resize(static_cast<std::size_t>(plan.header.padded_rows), -1);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int32_t pair = permutation.sorted_pairs[static_cast<std::size_t>(i)];
      const auto at = static_cast<std::size_t>(pair);
      const std::int64_t row = tiles.first_row + (i - begin);
      plan.row_pair[static_cast<std::size_t>(row)] = pair;
      plan.row_of_pair[at] = row;
      plan.tile_begin[at] = tiles.first_row + (i - begin) / tiles.tile_rows * tiles.tile_rows;
      plan.tile_rows[at] = tiles.tile_rows;
    }
  }
  return plan;
}

inline SharedWork share_out(const HostPlan& plan, const ShareShape& shape) {
  const std::uint32_t limit =
      shared_cost_limit(static_cast<std::uint32_t>(plan.header.tiles),
                        static_cast<std::uint32_t>(plan.header.total_cost), shape);
  SharedWork shared{};
  for (std::size_t i = 0; i < plan.entries.size(); ++i) {
    const std::int64_t end =
        i + 1 < plan.entries.size() ? plan.begins[i + 1].cost : plan.header.total_cost;
    if (end <= limit) {
      ++shared.entries;
      shared.cost = end;
    } else {
      shared.piece_tiles += plan.entries[i].tiles;
    }
  }
  return shared;
}

}  // namespace moebench::cuda::testing
