// Top-k softmax, the routing generators, the check of a routing, and the permutation by expert.
// Trace files are read in routing_trace.cpp.
#include "moebench/moe/routing.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "moebench/core/checked.h"
#include "moebench/moe/philox.h"
#include "moebench/moe/routing_trace.h"

namespace moebench {
namespace {

constexpr double kMaxZipfExponent = 100.0;

/// Tags of stream kLogits: what a generator draws beside the logits themselves.
enum class Draw : std::uint32_t { kLogits = 0, kShuffle = 1, kGumbel = 2 };

PhiloxBlock draw_block(std::uint64_t seed, Draw draw, std::int64_t row, std::int64_t index) {
  return philox4x32(
      seed, {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(row),
             static_cast<std::uint32_t>(Stream::kLogits), static_cast<std::uint32_t>(draw)});
}

/// Near-normal logits with standard deviation 1.15: four uniform 16-bit halves of two words each.
/// 18 bits of resolution keep ties, which would favour low expert ids, out of the picture.
void draw_logits(std::uint64_t seed, std::int64_t token, std::span<float> logits) {
  constexpr std::int32_t kHalvesMean = 4 * 65535 / 2;
  constexpr float kLogitStep = 0x1p-15F;
  const auto halves = [](std::uint32_t word) {
    return static_cast<std::int32_t>((word & 0xFFFF) + (word >> 16));
  };
  for (std::size_t e = 0; e < logits.size(); ++e) {
    const PhiloxBlock block =
        draw_block(seed, Draw::kLogits, token, static_cast<std::int64_t>(e / 2));
    const std::size_t word = 2 * (e % 2);
    logits[e] = static_cast<float>(halves(block[word]) + halves(block[word + 1]) - kHalvesMean) *
                kLogitStep;
  }
}

/// The expert ids in a random order that depends on (seed, number) alone.
std::vector<std::int32_t> shuffled_experts(std::uint64_t seed, std::int64_t number,
                                           std::int64_t num_experts) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) {
    const PhiloxBlock block =
        draw_block(seed, Draw::kShuffle, number, static_cast<std::int64_t>(i));
    const std::uint64_t word = (std::uint64_t{block[1]} << 32) | block[0];
    std::swap(order[i - 1], order[word % i]);
  }
  return order;
}

/// Softmax weight of each expert, in double; `weights` has the size of `logits`.
void softmax(std::span<const float> logits, std::span<double> weights) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    weights[e] = std::exp(static_cast<double>(logits[e]) - largest);
    sum += weights[e];
  }
  for (double& weight : weights) {
    weight /= sum;
  }
}

/// Working memory of the generators for one token.
struct TokenScratch {
  std::vector<float> logits;
  std::vector<double> softmax;
  std::vector<std::int32_t> order;
  explicit TokenScratch(std::int64_t num_experts)
      : logits(static_cast<std::size_t>(num_experts)),
        softmax(logits.size()),
        order(logits.size()) {}
};

/// The `chosen.size()` largest logits, largest first, ties to the lower id.
void choose_topk(std::span<const float> logits, std::vector<std::int32_t>& order,
                 std::span<std::int32_t> chosen) {
  std::iota(order.begin(), order.end(), 0);
  const auto larger = [&](std::int32_t a, std::int32_t b) {
    const float logit_a = logits[static_cast<std::size_t>(a)];
    const float logit_b = logits[static_cast<std::size_t>(b)];
    return logit_a != logit_b ? logit_a > logit_b : a < b;
  };
  const auto k = static_cast<std::ptrdiff_t>(chosen.size());
  std::partial_sort(order.begin(), order.begin() + k, order.end(), larger);
  std::copy_n(order.begin(), k, chosen.begin());
}

/// Weights of the chosen experts: their softmax over all logits, divided by their sum if
/// `renormalize`.
void weigh(std::span<const float> logits, std::span<const std::int32_t> chosen, bool renormalize,
           std::vector<double>& scratch, std::span<float> weights) {
  softmax(logits, scratch);
  double sum = 0.0;
  for (const std::int32_t e : chosen) {
    sum += scratch[static_cast<std::size_t>(e)];
  }
  // All chosen experts may be too unlikely for a double; equal weights are then as good as any.
  const bool vanished = renormalize && sum == 0.0;
  for (std::size_t slot = 0; slot < chosen.size(); ++slot) {
    const double weight = scratch[static_cast<std::size_t>(chosen[slot])];
    weights[slot] = static_cast<float>(vanished      ? 1.0 / static_cast<double>(chosen.size())
                                       : renormalize ? weight / sum
                                                     : weight);
  }
}

void require_sizes(std::int64_t tokens, std::int64_t num_experts, std::int64_t topk) {
  constexpr std::int64_t kMaxPairs = std::numeric_limits<std::int32_t>::max();
  if (num_experts < 1 || num_experts > kMaxPairs) {
    fail(ErrorCode::kBadInput, "routing: num_experts is {}; it must lie in 1..{}", num_experts,
         kMaxPairs);
  }
  if (topk < 1 || topk > num_experts) {
    fail(ErrorCode::kBadInput, "routing: topk is {}; it must lie in 1..{}, the number of experts",
         topk, num_experts);
  }
  if (tokens < 0 || tokens > kMaxPairs / topk) {
    fail(ErrorCode::kBadInput, "routing: {} tokens with topk {}; tokens must lie in 0..{}", tokens,
         topk, kMaxPairs / topk);
  }
}

Routing empty_routing(std::int64_t tokens, std::int64_t topk) {
  const auto pairs = static_cast<std::size_t>(tokens * topk);
  return {tokens, topk, std::vector<std::int32_t>(pairs), std::vector<float>(pairs)};
}

/// Runs `choose(token, scratch, chosen)` for every token, which may change the logits, and weighs
/// what it chose.
template <typename Choose>
Routing route(std::uint64_t seed, std::int64_t tokens, std::int64_t num_experts, std::int64_t topk,
              bool renormalize, Choose choose) {
  Routing routing = empty_routing(tokens, topk);
  TokenScratch scratch(num_experts);
  const auto k = static_cast<std::size_t>(topk);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const std::size_t pair = static_cast<std::size_t>(token) * k;
    const auto chosen = std::span(routing.topk_ids).subspan(pair, k);
    draw_logits(seed, token, scratch.logits);
    choose(token, scratch, chosen);
    weigh(scratch.logits, chosen, renormalize, scratch.softmax,
          std::span(routing.topk_weights).subspan(pair, k));
  }
  return routing;
}

/// Deals experts like cards: one shuffled deck of all experts after the other, topk cards a token,
/// so that counts differ by one at most whatever the number of tokens. Where a token's hand spans
/// two decks, cards of the new deck that it already holds go to the deck's end.
class BalancedDealer {
 public:
  BalancedDealer(std::uint64_t seed, std::int64_t num_experts)
      : seed_(seed), num_experts_(num_experts) {}

  void deal(std::span<std::int32_t> hand) {
    const std::size_t from_old = std::min(hand.size(), deck_.size() - next_);
    std::copy_n(deck_.begin() + static_cast<std::ptrdiff_t>(next_), from_old, hand.begin());
    next_ += from_old;
    if (from_old == hand.size()) {
      return;
    }
    const auto held = hand.first(from_old);
    deck_ = shuffled_experts(seed_, decks_++, num_experts_);
    std::stable_partition(deck_.begin(), deck_.end(), [&](std::int32_t expert) {
      return std::find(held.begin(), held.end(), expert) == held.end();
    });
    next_ = hand.size() - from_old;
    std::copy_n(deck_.begin(), next_, hand.begin() + static_cast<std::ptrdiff_t>(from_old));
  }

 private:
  std::uint64_t seed_;
  std::int64_t num_experts_;
  std::int64_t decks_ = 0;
  std::vector<std::int32_t> deck_;
  std::size_t next_ = 0;
};

/// log-popularity of each expert id, ~ -s * log(rank + 1).
std::vector<double> zipf_log_popularity(std::uint64_t seed, double s, std::int64_t num_experts) {
  const std::vector<std::int32_t> by_rank = shuffled_experts(seed, 0, num_experts);
  std::vector<double> result(by_rank.size());
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    result[static_cast<std::size_t>(by_rank[rank])] =
        -s * std::log(static_cast<double>(rank) + 1.0);
  }
  return result;
}

/// Adds Gumbel noise: the topk largest of log-popularity + noise are a draw without replacement in
/// which each next expert comes with probability proportional to its popularity among those left
/// (Gumbel-top-k; Vieira 2014).
void zipf_logits(std::uint64_t seed, std::int64_t token, std::span<const double> log_popularity,
                 std::span<float> logits) {
  for (std::size_t e = 0; e < logits.size(); ++e) {
    const PhiloxBlock block =
        draw_block(seed, Draw::kGumbel, token, static_cast<std::int64_t>(e / 4));
    const double uniform = (static_cast<double>(block[e % 4]) + 0.5) * 0x1p-32;
    logits[e] = static_cast<float>(log_popularity[e] - std::log(-std::log(uniform)));
  }
}

/// Tokens 0..t-1 hold floor(t * fraction) hot ones, spread evenly, whatever t is.
bool is_hot(std::int64_t token, double fraction) {
  return std::floor(static_cast<double>(token + 1) * fraction) >
         std::floor(static_cast<double>(token) * fraction);
}

/// Hot experts first, the rest of the slots as uniform routing would fill them.
void choose_hot(std::span<const std::int32_t> hot, TokenScratch& scratch,
                std::span<std::int32_t> chosen) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::vector<float> others = scratch.logits;
  for (std::size_t slot = 0; slot < hot.size(); ++slot) {
    chosen[slot] = hot[slot];
    others[static_cast<std::size_t>(hot[slot])] = kNever;
  }
  choose_topk(others, scratch.order, chosen.subspan(hot.size()));
}

void require_hot(const RoutingSpec& spec, std::int64_t topk) {
  if (spec.hot_experts < 1 || spec.hot_experts > topk) {
    fail(ErrorCode::kBadInput,
         "routing {}: {} hot experts; they must lie in 1..{}, the topk of a token", to_string(spec),
         spec.hot_experts, topk);
  }
}

/// All of `text` as a number; `whole` is the spec that it stands in.
template <typename Number>
Number parse_number(std::string_view text, std::string_view whole) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
    fail(ErrorCode::kBadInput,
         "routing \"{}\": \"{}\" is not a number; write zipf:1.2 or hot:2@0.8", printable(whole),
         printable(text));
  }
  return value;
}

}  // namespace

Routing topk_softmax(std::span<const float> logits, std::int64_t tokens, std::int64_t num_experts,
                     std::int64_t topk, bool renormalize) {
  require_sizes(tokens, num_experts, topk);
  if (static_cast<std::int64_t>(logits.size()) !=
      checked_product("logits", {tokens, num_experts})) {
    fail(ErrorCode::kBadInput,
         "logits: {} values for {} tokens and {} experts; give tokens * num_experts", logits.size(),
         tokens, num_experts);
  }
  const auto bad =
      std::find_if_not(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
  if (bad != logits.end()) {
    const std::int64_t at = bad - logits.begin();
    fail(ErrorCode::kBadInput, "logits: {} at token {}, expert {}; give finite logits", *bad,
         at / num_experts, at % num_experts);
  }
  Routing routing = empty_routing(tokens, topk);
  TokenScratch scratch(num_experts);
  const auto k = static_cast<std::size_t>(topk);
  const auto experts = static_cast<std::size_t>(num_experts);
  for (std::size_t token = 0; token < static_cast<std::size_t>(tokens); ++token) {
    const auto row = logits.subspan(token * experts, experts);
    const auto chosen = std::span(routing.topk_ids).subspan(token * k, k);
    choose_topk(row, scratch.order, chosen);
    weigh(row, chosen, renormalize, scratch.softmax,
          std::span(routing.topk_weights).subspan(token * k, k));
  }
  return routing;
}

RoutingSpec parse_routing(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  const bool has_argument = colon != std::string_view::npos;
  const std::string_view argument = has_argument ? text.substr(colon + 1) : std::string_view{};
  RoutingSpec spec;
  if (!has_argument && (kind == "uniform" || kind == "balanced" || kind == "single")) {
    spec.kind = kind == "uniform"    ? RoutingSpec::Kind::kUniform
                : kind == "balanced" ? RoutingSpec::Kind::kBalanced
                                     : RoutingSpec::Kind::kSingle;
  } else if (kind == "zipf" && has_argument) {
    spec.kind = RoutingSpec::Kind::kZipf;
    spec.zipf_s = parse_number<double>(argument, text);
    if (!(spec.zipf_s >= 0.0 && spec.zipf_s <= kMaxZipfExponent)) {
      fail(ErrorCode::kBadInput, "routing \"{}\": the exponent is {}; it must lie in 0..{}",
           printable(text), spec.zipf_s, kMaxZipfExponent);
    }
  } else if (kind == "hot" && argument.find('@') != std::string_view::npos) {
    const std::size_t at = argument.find('@');
    spec.kind = RoutingSpec::Kind::kHot;
    spec.hot_experts = parse_number<std::int64_t>(argument.substr(0, at), text);
    spec.hot_fraction = parse_number<double>(argument.substr(at + 1), text);
    if (spec.hot_experts < 1 || !(spec.hot_fraction >= 0.0 && spec.hot_fraction <= 1.0)) {
      fail(ErrorCode::kBadInput,
           "routing \"{}\": {} experts and fraction {}; write hot:K@F with K >= 1 and F in 0..1",
           printable(text), spec.hot_experts, spec.hot_fraction);
    }
  } else if (kind == "trace" && !argument.empty()) {
    spec.kind = RoutingSpec::Kind::kTrace;
    spec.trace_path = argument;
  } else {
    fail(ErrorCode::kBadInput,
         "routing \"{}\": unknown; choose uniform, balanced, zipf:S, hot:K@F, single or trace:FILE",
         printable(text));
  }
  return spec;
}

std::string to_string(const RoutingSpec& spec) {
  switch (spec.kind) {
    case RoutingSpec::Kind::kUniform:
      return "uniform";
    case RoutingSpec::Kind::kBalanced:
      return "balanced";
    case RoutingSpec::Kind::kZipf:
      return fmt::format("zipf:{}", spec.zipf_s);
    case RoutingSpec::Kind::kHot:
      return fmt::format("hot:{}@{}", spec.hot_experts, spec.hot_fraction);
    case RoutingSpec::Kind::kSingle:
      return "single";
    case RoutingSpec::Kind::kTrace:
      return "trace:" + spec.trace_path;
  }
  return "unknown";
}

Routing make_routing(const RoutingSpec& spec, std::uint64_t seed, std::int64_t tokens,
                     std::int64_t num_experts, std::int64_t topk, bool renormalize) {
  require_sizes(tokens, num_experts, topk);
  const auto route_by = [&](auto choose) {
    return route(seed, tokens, num_experts, topk, renormalize, choose);
  };
  switch (spec.kind) {
    case RoutingSpec::Kind::kUniform:
      return route_by([](std::int64_t, TokenScratch& scratch, std::span<std::int32_t> chosen) {
        choose_topk(scratch.logits, scratch.order, chosen);
      });
    case RoutingSpec::Kind::kBalanced:
      return route_by([dealer = BalancedDealer(seed, num_experts)](
                          std::int64_t, TokenScratch&, std::span<std::int32_t> chosen) mutable {
        dealer.deal(chosen);
      });
    case RoutingSpec::Kind::kZipf:
      return route_by(
          [&, popularity = zipf_log_popularity(seed, spec.zipf_s, num_experts)](
              std::int64_t token, TokenScratch& scratch, std::span<std::int32_t> chosen) {
            zipf_logits(seed, token, popularity, scratch.logits);
            choose_topk(scratch.logits, scratch.order, chosen);
          });
    case RoutingSpec::Kind::kHot: {
      require_hot(spec, topk);
      std::vector<std::int32_t> hot = shuffled_experts(seed, 0, num_experts);
      hot.resize(static_cast<std::size_t>(spec.hot_experts));
      return route_by(
          [&, hot](std::int64_t token, TokenScratch& scratch, std::span<std::int32_t> chosen) {
            choose_hot(is_hot(token, spec.hot_fraction) ? std::span<const std::int32_t>(hot)
                                                        : std::span<const std::int32_t>(),
                       scratch, chosen);
          });
    }
    case RoutingSpec::Kind::kSingle:
      return route_by([experts = shuffled_experts(seed, 0, num_experts)](
                          std::int64_t, TokenScratch&, std::span<std::int32_t> chosen) {
        std::copy_n(experts.begin(), chosen.size(), chosen.begin());
      });
    case RoutingSpec::Kind::kTrace:
      return read_routing_trace(spec.trace_path, tokens, num_experts, topk, renormalize);
  }
  fail(ErrorCode::kInternal, "routing kind {} is unknown", static_cast<int>(spec.kind));
}

void validate(const Routing& routing, std::int64_t num_experts) {
  validate_routing(routing.topk_ids, routing.topk_weights, routing.tokens, routing.topk,
                   num_experts);
}

void validate_routing(std::span<const std::int32_t> topk_ids, std::span<const float> topk_weights,
                      std::int64_t tokens, std::int64_t topk, std::int64_t num_experts) {
  require_sizes(tokens, num_experts, topk);
  const auto pairs = static_cast<std::size_t>(tokens * topk);
  if (topk_ids.size() != pairs || topk_weights.size() != pairs) {
    fail(ErrorCode::kBadInput,
         "routing: {} ids and {} weights for {} tokens and topk {}; give {} of each",
         topk_ids.size(), topk_weights.size(), tokens, topk, pairs);
  }
  std::vector<std::int64_t> last_token(static_cast<std::size_t>(num_experts), -1);
  for (std::size_t pair = 0; pair < pairs; ++pair) {
    const auto token = static_cast<std::int64_t>(pair) / topk;
    const auto slot = static_cast<std::int64_t>(pair) % topk;
    const std::int32_t expert = topk_ids[pair];
    if (expert < 0 || expert >= num_experts) {
      fail(ErrorCode::kBadInput, "topk_ids: expert {} at token {}, slot {}; ids must lie in 0..{}",
           expert, token, slot, num_experts - 1);
    }
    if (std::exchange(last_token[static_cast<std::size_t>(expert)], token) == token) {
      fail(ErrorCode::kBadInput,
           "topk_ids: expert {} a second time at token {}, slot {}; a token's experts must differ",
           expert, token, slot);
    }
    if (!std::isfinite(topk_weights[pair])) {
      fail(ErrorCode::kBadInput, "topk_weights: {} at token {}, slot {}; weights must be finite",
           topk_weights[pair], token, slot);
    }
  }
}

void permute_by_expert(std::span<const std::int32_t> topk_ids, std::int64_t num_experts,
                       ExpertPermutation& out) {
  out.offsets.assign(static_cast<std::size_t>(num_experts) + 1, 0);
  out.sorted_pairs.resize(topk_ids.size());
  out.active_experts.clear();
  out.active_experts.reserve(std::min(topk_ids.size(), static_cast<std::size_t>(num_experts)));
  out.largest_group = 0;
  for (const std::int32_t expert : topk_ids) {
    ++out.offsets[static_cast<std::size_t>(expert) + 1];
  }
  for (std::size_t e = 0; e < static_cast<std::size_t>(num_experts); ++e) {
    if (out.offsets[e + 1] > 0) {
      out.active_experts.push_back(static_cast<std::int32_t>(e));
      out.largest_group = std::max(out.largest_group, out.offsets[e + 1]);
    }
    out.offsets[e + 1] += out.offsets[e];
  }
  // The scatter advances each expert's begin to its end, which is the next expert's begin: shifting
  // by one restores it.
  for (std::size_t pair = 0; pair < topk_ids.size(); ++pair) {
    std::int64_t& next = out.offsets[static_cast<std::size_t>(topk_ids[pair])];
    out.sorted_pairs[static_cast<std::size_t>(next++)] = static_cast<std::int32_t>(pair);
  }
  std::copy_backward(out.offsets.begin(), out.offsets.end() - 1, out.offsets.end());
  out.offsets.front() = 0;
}

ExpertPermutation permute_by_expert(const Routing& routing, std::int64_t num_experts) {
  ExpertPermutation permutation;
  permute_by_expert(routing.topk_ids, num_experts, permutation);
  return permutation;
}

}  // namespace moebench
