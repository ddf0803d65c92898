// Weight sources that make an expert when asked: a fill function plus a pool of expert buffers.
// Internal to moebench/moe.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "moebench/moe/weights.h"

namespace moebench {

/// Buffers of one expert each. A caller's thread borrows one for the length of a call, so there are
/// as many as callers at the same time, and their pages are touched for the first time once, not
/// once per expert.
class ExpertPool {
 public:
  ExpertPool(const MoeShape& shape, WeightFormat format) : shape_(shape), format_(format) {}

  /// Calls `use` with a buffer of unspecified content.
  void with_buffer(const std::function<void(ExpertWeights&)>& use);

 private:
  [[nodiscard]] std::unique_ptr<ExpertWeights> take();

  MoeShape shape_;
  WeightFormat format_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<ExpertWeights>> free_;
};

/// Throws kInternal for an expert outside 0..num_experts-1.
void require_expert(std::int64_t expert, std::int64_t num_experts);

/// A source whose with_expert() fills a pooled buffer by `fill_expert(expert, out)`;
/// unquantized_row is left empty. `fill_expert` must be safe to call from several threads.
[[nodiscard]] WeightSource generated_source(
    const MoeShape& shape, WeightFormat format,
    std::function<void(std::int64_t expert, ExpertWeights& out)> fill_expert);

}  // namespace moebench
