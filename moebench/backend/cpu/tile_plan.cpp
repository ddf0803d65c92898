// Sorting rows by expert and cutting them into tiles: a few nanoseconds per row, so one thread does
// it.
#include "moebench/backend/cpu/tile_plan.h"

#include <algorithm>

#include "moebench/core/checked.h"

namespace moebench::cpu {

TilePlan::TilePlan(std::int64_t tokens, std::int64_t topk, std::int64_t num_experts,
                   int max_tile_tokens)
    : num_experts_(num_experts), max_tile_tokens_(max_tile_tokens) {
  const auto rows = static_cast<std::size_t>(checked_product("pairs", {tokens, topk}));
  const auto experts = static_cast<std::size_t>(num_experts);
  permutation_.offsets.reserve(experts + 1);
  permutation_.sorted_pairs.reserve(rows);
  permutation_.active_experts.reserve(experts);
  groups_.reserve(std::min(rows, experts));
  tile_of_row_.resize(rows);
  expert_of_row_.resize(rows);
}

void TilePlan::route(std::span<const std::int32_t> topk_ids) {
  permute_by_expert(topk_ids, num_experts_, permutation_);
  groups_.clear();
  for (const std::int32_t expert : permutation_.active_experts) {
    const auto e = static_cast<std::size_t>(expert);
    ExpertGroup group;
    group.expert = expert;
    group.first_row = permutation_.offsets[e];
    group.tokens = permutation_.offsets[e + 1] - group.first_row;
    group.tiles = ceil_div(group.tokens, max_tile_tokens_);
    groups_.push_back(group);
    for (std::int64_t i = 0; i < group.tiles; ++i) {
      const Tile cut = tile(group, i);
      const auto first = static_cast<std::size_t>(cut.first_row);
      std::fill_n(tile_of_row_.begin() + cut.first_row, cut.tokens, cut);
      std::fill_n(expert_of_row_.data() + first, cut.tokens, expert);
    }
  }
  std::sort(groups_.begin(), groups_.end(), [](const ExpertGroup& a, const ExpertGroup& b) {
    return a.tokens != b.tokens ? a.tokens > b.tokens : a.expert < b.expert;
  });
}

Tile TilePlan::tile(const ExpertGroup& group, std::int64_t index) {
  const std::int64_t base = group.tokens / group.tiles;
  const std::int64_t larger = group.tokens % group.tiles;  // the first `larger` tiles hold one more
  Tile tile;
  tile.first_row = group.first_row + index * base + std::min(index, larger);
  tile.tokens = static_cast<int>(base + (index < larger ? 1 : 0));
  return tile;
}

}  // namespace moebench::cpu
