// The order in which one call's (token, slot) pairs are worked on: pairs sorted by expert, experts
// by load, and each expert's rows cut into tiles. A function of the routing alone, never of the
// thread count.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moebench/moe/routing.h"

namespace moebench::cpu {

/// Consecutive sorted rows of one expert that a kernel multiplies at once.
struct Tile {
  std::int64_t first_row = 0;
  int tokens = 0;
};

/// The rows of one active expert.
struct ExpertGroup {
  std::int64_t expert = 0;
  std::int64_t first_row = 0;
  std::int64_t tokens = 0;
  std::int64_t tiles = 0;
};

class TilePlan {
 public:
  TilePlan(std::int64_t tokens, std::int64_t topk, std::int64_t num_experts, int max_tile_tokens);

  /// Allocates nothing: everything was reserved for the sizes of the constructor.
  void route(std::span<const std::int32_t> topk_ids);

  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(tile_of_row_.size()); }
  /// Most tokens first, so that the last tasks to be handed out are the short ones.
  [[nodiscard]] std::span<const ExpertGroup> groups() const { return groups_; }
  /// Tiles of a group, as even as possible.
  [[nodiscard]] static Tile tile(const ExpertGroup& group, std::int64_t index);
  [[nodiscard]] const Tile& tile_of_row(std::int64_t row) const {
    return tile_of_row_[static_cast<std::size_t>(row)];
  }
  [[nodiscard]] std::int64_t expert_of_row(std::int64_t row) const {
    return expert_of_row_[static_cast<std::size_t>(row)];
  }
  /// Sorted row -> pair (token * topk + slot).
  [[nodiscard]] const std::int32_t* pairs() const { return permutation_.sorted_pairs.data(); }

 private:
  std::int64_t num_experts_;
  int max_tile_tokens_;
  ExpertPermutation permutation_;
  std::vector<ExpertGroup> groups_;
  std::vector<Tile> tile_of_row_;
  std::vector<std::int32_t> expert_of_row_;
};

}  // namespace moebench::cpu
