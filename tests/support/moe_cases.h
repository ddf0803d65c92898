// Layers to test with: every scheme and its options, synthetic cases of a given shape, random
// shapes biased to boundaries.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "moebench/moe/problem.h"

namespace moebench::testing {

struct SchemeCase {
  SchemeConfig scheme;
  ActType act = ActType::kFp16;
};
/// Scheme, options and activation type as one word: "nvfp4_w4a16_bf16",
/// "fp8_per_token_per_channel_fp16".
[[nodiscard]] std::string name_of(const SchemeCase& scheme_case);
/// All schemes, options and activation types.
[[nodiscard]] std::vector<SchemeCase> all_scheme_cases();
/// For gtest's INSTANTIATE_TEST_SUITE_P.
template <typename ParamInfo>
std::string param_name(const ParamInfo& info) {
  return name_of(info.param);
}

struct LayerCase {
  MoeProblem problem;
  WeightSource weights;
};
[[nodiscard]] LayerCase synthetic_case(std::uint64_t seed, const MoeShape& shape,
                                       const SchemeConfig& scheme, std::int64_t tokens);
[[nodiscard]] LayerCase exact_case(std::uint64_t seed, const MoeShape& shape,
                                   const SchemeConfig& scheme, std::int64_t tokens);

/// "--seed 7: 5 tokens, E=4 topk=2 K=48 N=16 nvfp4_fp16": what a failing test prints.
[[nodiscard]] std::string describe(std::uint64_t seed, const MoeProblem& problem);

struct RandomSize {
  MoeShape shape;
  std::int64_t tokens = 0;
};
/// Tokens 0..40, K and N up to 300 around the formats' group sizes, E 1..16, topk 1..E; at most
/// `max_macs` in all.
[[nodiscard]] RandomSize random_size(std::mt19937_64& random, const SchemeCase& scheme_case,
                                     std::int64_t max_macs);

[[nodiscard]] std::vector<std::int64_t> all_rows(const MoeProblem& problem);

/// MOEBENCH_TEST_ROUNDS: how many times the usual number of random cases to run (default 1).
[[nodiscard]] int test_rounds();

}  // namespace moebench::testing
