// Which experts each token goes to, and the permutation that brings the tokens of one expert
// together.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

/// topk_ids, topk_weights: [tokens, topk], row-major. A token never holds the same expert twice.
struct Routing {
  std::int64_t tokens = 0;
  std::int64_t topk = 0;
  std::vector<std::int32_t> topk_ids;
  std::vector<float> topk_weights;
};

/// Softmax over `num_experts` logits per token, then the topk largest (ties: lower expert id
/// first); `renormalize` divides by their sum. logits: [tokens, num_experts].
[[nodiscard]] Routing topk_softmax(std::span<const float> logits, std::int64_t tokens,
                                   std::int64_t num_experts, std::int64_t topk, bool renormalize);

/// How a benchmark draws experts; always without replacement.
struct RoutingSpec {
  enum class Kind : std::uint8_t {
    kUniform,   ///< random logits: each set of topk experts equally likely
    kBalanced,  ///< every expert gets the same number of tokens, +-1
    kZipf,      ///< popularity of expert rank r ~ 1/(r+1)^s, ranks shuffled over ids by the seed
    kHot,  ///< hot:K@F: a fraction F of the tokens goes to the same K experts (first in its topk),
           ///< the rest uniform
    kSingle,  ///< all tokens to the same topk experts
    kTrace,   ///< from a file: one line per token, "id:weight" or "id" times topk, '#' comments
  };
  Kind kind = Kind::kUniform;
  double zipf_s = 1.0;
  std::int64_t hot_experts = 1;
  double hot_fraction = 0.5;
  std::string trace_path;
};
/// "uniform", "balanced", "zipf:1.2", "hot:2@0.8", "single", "trace:FILE". Throws kBadInput with
/// the value.
[[nodiscard]] RoutingSpec parse_routing(std::string_view text);
[[nodiscard]] std::string to_string(const RoutingSpec& spec);

/// Routing of `tokens` tokens: a pure function of (spec, seed, sizes). Throws kBadInput (topk not
/// in 1..num_experts; trace with a bad id, a repeated id, NaN weight, too few lines: file and line
/// named).
[[nodiscard]] Routing make_routing(const RoutingSpec& spec, std::uint64_t seed, std::int64_t tokens,
                                   std::int64_t num_experts, std::int64_t topk, bool renormalize);

/// Throws kBadInput, with token and slot, for an id outside 0..num_experts-1, the same expert twice
/// in a row, a NaN or infinite weight, or sizes that do not match. Cheap enough to run before every
/// library call.
void validate(const Routing& routing, std::int64_t num_experts);
void validate_routing(std::span<const std::int32_t> topk_ids, std::span<const float> topk_weights,
                      std::int64_t tokens, std::int64_t topk, std::int64_t num_experts);

/// Pairs (token, slot) sorted by expert, stable in pair order; pair p = token*topk + slot.
struct ExpertPermutation {
  std::vector<std::int64_t> offsets;         ///< [num_experts + 1]
  std::vector<std::int32_t> sorted_pairs;    ///< [tokens*topk]: sorted position -> pair
  std::vector<std::int32_t> active_experts;  ///< ids with at least one token, ascending
  std::int64_t largest_group = 0;            ///< tokens of the busiest expert
};
void permute_by_expert(std::span<const std::int32_t> topk_ids, std::int64_t num_experts,
                       ExpertPermutation& out);
[[nodiscard]] ExpertPermutation permute_by_expert(const Routing& routing, std::int64_t num_experts);

}  // namespace moebench
