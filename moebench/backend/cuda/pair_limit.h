// Whether the routing kernel can take all pairs of a case: asked before anything is allocated.
#pragma once

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/plan.h"
#include "moebench/core/error.h"

namespace moebench::cuda {

/// `topk` is at least 1.
[[nodiscard]] inline Support supports_pairs(std::int64_t tokens, std::int64_t topk) {
  const std::int64_t most_tokens = kMaxRoutedPairs / topk;
  if (tokens <= most_tokens) return Support::yes();
  return Support::no(fmt::format("{} tokens with top-{} are more than {} pairs; at most {} tokens",
                                 tokens, topk, kMaxRoutedPairs, most_tokens));
}

}  // namespace moebench::cuda
