// Expert shapes of known models. A new model is one row of the table in presets.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "moebench/core/error.h"

namespace moebench {

struct ModelPreset {
  std::string_view name;
  std::int64_t num_experts, topk, hidden, intermediate;
  bool renormalize;               ///< softmax weights divided by their sum after top-k
  std::string_view routing_note;  ///< the model's own router in words ("sigmoid + bias, 8 groups
                                  ///< top 4, norm, x2.5")
  std::string_view activation;    ///< "silu", or what the model uses instead
  std::string_view formats;       ///< checkpoint formats seen
  char confidence;        ///< A: read from config files, B: from others' lists, C: from issue text
  std::string_view note;  ///< printed on stderr when the model is run; empty for none
};
[[nodiscard]] std::span<const ModelPreset> model_presets();
/// The whole name, case ignored. Throws kBadInput with the closest names.
[[nodiscard]] const ModelPreset& find_model(std::string_view name);
/// The kernels compute silu-gated layers; others are listed, and skipped with this reason.
[[nodiscard]] Support computable(const ModelPreset& preset);

/// The closest of `candidates` by edit distance, for "did you mean"; empty if none is close.
[[nodiscard]] std::string closest_name(std::string_view name,
                                       std::span<const std::string> candidates);

}  // namespace moebench
