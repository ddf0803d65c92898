// The table of known expert shapes, and finding a model in it.
#include "moebench/model/presets.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

namespace moebench {
namespace {

constexpr std::string_view kSoftmaxStandsIn =
    "a softmax router stands in for the model's own: same work, other routing weights";
constexpr std::string_view kSharedApart = "the shared expert is not part of the measured layer";

// Columns: name, experts, topk, hidden, intermediate, renormalize, router, activation, formats,
// confidence, note.
constexpr ModelPreset kPresets[] = {
    {"nvidia/DeepSeek-R1-FP4", 256, 8, 2048, 7168, false, "softmax, no renorm", "silu", "NVFP4",
     'A',
     "K = 2048 and N = 7168 are the original benchmark's row, in which the true layer's K and N "
     "stand swapped; "
     "deepseek-r1 is the true one (K = 7168, N = 2048: same bytes and FLOPs, other GEMM shapes)"},
    {"deepseek-r1", 256, 8, 7168, 2048, true, "sigmoid + bias, 8 groups top 4, norm, x2.5", "silu",
     "FP8 block 128x128, NVFP4", 'A', kSoftmaxStandsIn},
    {"deepseek-v2-lite", 64, 6, 2048, 1408, false, "softmax, no norm", "silu", "BF16", 'A',
     kSharedApart},
    {"kimi-k2", 384, 8, 7168, 2048, true, "sigmoid + bias, norm, x2.827", "silu",
     "FP8 block, INT4 g32", 'A', kSoftmaxStandsIn},
    {"qwen3-30b-a3b", 128, 8, 2048, 768, true, "softmax, norm", "silu", "BF16, FP8 block, NVFP4",
     'A', ""},
    {"qwen3-235b-a22b", 128, 8, 4096, 1536, true, "softmax, norm", "silu", "BF16", 'B', ""},
    {"qwen3-next-80b-a3b", 512, 10, 2048, 512, true, "softmax, norm", "silu", "BF16", 'A',
     kSharedApart},
    {"qwen3.5-397b-a17b", 512, 10, 4096, 1024, false, "softmax", "silu", "unknown", 'B',
     kSharedApart},
    {"qwen3.6-35b-a3b", 256, 8, 2048, 512, false, "softmax", "silu", "NVFP4 (ModelOpt)", 'A',
     kSharedApart},
    {"mixtral-8x7b", 8, 2, 4096, 14336, true, "softmax, renorm", "silu", "BF16, FP8 per tensor",
     'A', ""},
    {"mixtral-8x22b", 8, 2, 6144, 16384, true, "softmax, renorm", "silu", "BF16, FP8", 'C', ""},
    {"gpt-oss-120b", 128, 4, 2880, 2880, true, "softmax after top-k, biases", "swiglu-oai", "MXFP4",
     'A', ""},
    {"gpt-oss-20b", 32, 4, 2880, 2880, true, "softmax after top-k, biases", "swiglu-oai", "MXFP4",
     'A', ""},
    {"llama-4-scout", 16, 1, 5120, 8192, false, "sigmoid, weight applied to the input", "silu",
     "FP8 per tensor", 'A',
     "the model applies its sigmoid routing weight to the expert's input; here a softmax weight "
     "multiplies its output"},
    {"llama-4-maverick", 128, 1, 5120, 8192, false, "sigmoid, weight applied to the input", "silu",
     "FP8", 'C',
     "the model applies its sigmoid routing weight to the expert's input; here a softmax weight "
     "multiplies its output"},
    {"glm-4.5-air", 128, 8, 4096, 1408, false, "sigmoid + bias", "silu", "unknown", 'B',
     kSoftmaxStandsIn},
    {"glm-4.7", 160, 8, 5120, 1536, true, "sigmoid + bias, norm, x2.5", "silu", "unknown", 'A',
     kSoftmaxStandsIn},
    {"minimax-m2", 256, 8, 3072, 1536, false, "sigmoid + bias", "silu", "FP8 block", 'A',
     kSoftmaxStandsIn},
    {"gemma-4-26b-a4b", 128, 8, 2816, 704, true, "softmax renorm", "gelu_tanh", "NVFP4", 'A',
     "the dense layer beside the experts is not part of the measured layer"},
    {"nemotron-3-nano", 128, 6, 2688, 1856, true, "sigmoid, norm, x2.5", "relu2-ungated",
     "FP8, NVFP4", 'A', kSoftmaxStandsIn},
};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) { return lower(c); });
  return result;
}

/// Levenshtein distance, ASCII case ignored.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replace = diagonal + (lower(a[i]) == lower(b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replace, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

/// What a typist may get wrong: a third of the name, but always two letters.
std::size_t tolerated_edits(std::string_view name) {
  constexpr std::size_t kAlways = 2;
  constexpr std::size_t kLettersPerEdit = 3;
  return std::max(kAlways, name.size() / kLettersPerEdit);
}

// Longer input is no misspelt name, and the distance's cost is the product of both lengths.
constexpr std::size_t kMaxTypedName = 256;

/// Preset names by closeness, at most three: those that contain the text, then those within the
/// tolerated edits.
std::vector<std::string_view> suggestions(std::string_view name) {
  constexpr std::size_t kShown = 3;
  constexpr std::size_t kShortestPart = 3;  // "a3b" finds the A3B models, "k" nothing
  struct Candidate {
    std::size_t distance;
    std::string_view name;
  };
  std::vector<Candidate> candidates;
  if (name.size() <= kMaxTypedName) {
    const std::string typed = lower(name);
    for (const ModelPreset& preset : kPresets) {
      const bool part =
          typed.size() >= kShortestPart && lower(preset.name).find(typed) != std::string::npos;
      const std::size_t distance = edit_distance(name, preset.name);
      if (part || distance <= tolerated_edits(name)) {
        candidates.push_back({part ? 0 : distance, preset.name});
      }
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.distance < b.distance; });
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < std::min(kShown, candidates.size()); ++i) {
    names.push_back(candidates[i].name);
  }
  return names;
}

}  // namespace

std::span<const ModelPreset> model_presets() { return kPresets; }

const ModelPreset& find_model(std::string_view name) {
  const std::string wanted = lower(name);
  for (const ModelPreset& preset : kPresets) {
    if (lower(preset.name) == wanted) {
      return preset;
    }
  }
  const std::vector<std::string_view> close = suggestions(name);
  if (close.empty()) {
    fail(ErrorCode::kBadInput, "--models: no model \"{}\"; see `moebench list models`",
         printable(name));
  }
  fail(ErrorCode::kBadInput, "--models: no model \"{}\"; did you mean {}?", printable(name),
       fmt::join(close, ", "));
}

Support computable(const ModelPreset& preset) {
  if (preset.activation == "silu") {
    return Support::yes();
  }
  if (preset.activation == "swiglu-oai") {
    return Support::no(
        "its activation is a clamped SwiGLU (alpha 1.702, limit 7, up + 1) with biases; the "
        "kernels compute silu(gate) * "
        "up without biases");
  }
  if (preset.activation == "gelu_tanh") {
    return Support::no(
        "its activation is gelu_tanh(gate) * up; the kernels compute silu(gate) * up");
  }
  if (preset.activation == "relu2-ungated") {
    return Support::no(
        "its activation is relu(x)^2 without a gate, w1 is [E, N, K]; the kernels compute "
        "silu(gate) * up");
  }
  return Support::no(
      fmt::format("its activation is {}; the kernels compute silu(gate) * up", preset.activation));
}

std::string closest_name(std::string_view name, std::span<const std::string> candidates) {
  std::string best;
  if (name.size() > kMaxTypedName) {
    return best;
  }
  std::size_t best_distance = tolerated_edits(name) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace moebench
