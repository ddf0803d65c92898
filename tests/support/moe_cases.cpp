// See moe_cases.h.
#include "tests/support/moe_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>

namespace moebench::testing {
namespace {

Routing uniform_routing(std::uint64_t seed, const MoeShape& shape, std::int64_t tokens) {
  return make_routing(RoutingSpec{}, seed, tokens, shape.num_experts, shape.topk, true);
}

template <std::size_t kCount>
std::int64_t pick(std::mt19937_64& random, const std::array<std::int64_t, kCount>& values) {
  return values[random() % kCount];
}

}  // namespace

std::string name_of(const SchemeCase& scheme_case) {
  std::string name = moebench::name_of(scheme_case.scheme.scheme);
  std::replace(name.begin(), name.end(), '-', '_');
  if (scheme_case.scheme.per_act_token) name += "_per_token";
  if (scheme_case.scheme.per_out_ch) name += "_per_channel";
  return name + (scheme_case.act == ActType::kFp16 ? "_fp16" : "_bf16");
}

std::vector<SchemeCase> all_scheme_cases() {
  std::vector<SchemeCase> out;
  for (const ActType act : {ActType::kFp16, ActType::kBf16}) {
    for (const Scheme scheme : kAllSchemes) {
      for (const bool per_act_token : {false, true}) {
        for (const bool per_out_ch : {false, true}) {
          if (scheme != Scheme::kFp8 && (per_act_token || per_out_ch)) continue;
          out.push_back({{scheme, per_act_token, per_out_ch}, act});
        }
      }
    }
  }
  return out;
}

LayerCase synthetic_case(std::uint64_t seed, const MoeShape& shape, const SchemeConfig& scheme,
                         std::int64_t tokens) {
  return {synthetic_problem(seed, shape, scheme, tokens, uniform_routing(seed, shape, tokens),
                            calibrate(seed, shape)),
          synthetic_weights(seed, shape, weight_format(scheme))};
}

LayerCase exact_case(std::uint64_t seed, const MoeShape& shape, const SchemeConfig& scheme,
                     std::int64_t tokens) {
  return {exact_problem(seed, shape, scheme, tokens, uniform_routing(seed, shape, tokens)),
          exact_weights(seed, shape, weight_format(scheme))};
}

std::string describe(std::uint64_t seed, const MoeProblem& problem) {
  return fmt::format("--seed {}: {} tokens, E={} topk={} K={} N={} {}", seed, problem.tokens,
                     problem.shape.num_experts, problem.shape.topk, problem.shape.hidden,
                     problem.shape.intermediate,
                     name_of(SchemeCase{problem.scheme, problem.shape.act}));
}

RandomSize random_size(std::mt19937_64& random, const SchemeCase& scheme_case,
                       std::int64_t max_macs) {
  static constexpr std::array<std::int64_t, 12> kTokens = {0, 1, 1, 2, 3, 4, 7, 8, 16, 17, 33, 40};
  static constexpr std::array<std::int64_t, 10> kGroups16 = {16,  16,  32,  48,  64,
                                                             112, 128, 144, 256, 288};
  static constexpr std::array<std::int64_t, 14> kAnySize = {2,   7,   16,  17,  31,  64,  127,
                                                            128, 129, 130, 200, 255, 257, 300};
  static constexpr std::array<std::int64_t, 6> kExperts = {1, 2, 3, 5, 8, 16};
  const bool nvfp4 = weight_format(scheme_case.scheme) == WeightFormat::kNvfp4;
  const auto size = [&] { return nvfp4 ? pick(random, kGroups16) : pick(random, kAnySize); };
  for (;;) {
    RandomSize out;
    out.tokens = pick(random, kTokens);
    out.shape = {.num_experts = pick(random, kExperts),
                 .hidden = size(),
                 .intermediate = size(),
                 .act = scheme_case.act};
    out.shape.topk =
        1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(out.shape.num_experts));
    const std::int64_t macs =
        out.tokens * out.shape.topk * 3 * out.shape.hidden * out.shape.intermediate;
    if (macs <= max_macs) return out;
  }
}

std::vector<std::int64_t> all_rows(const MoeProblem& problem) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(problem.tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

int test_rounds() {
  const char* rounds = std::getenv("MOEBENCH_TEST_ROUNDS");
  return rounds == nullptr ? 1 : std::max(1, std::atoi(rounds));
}

}  // namespace moebench::testing
