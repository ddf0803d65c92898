// The whole layer - route, permute, grouped GEMMs, quantising pass, combine - as the kernels
// compute it on the emulated device, judged by the oracle row by row.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "moebench/backend/cuda/forward.h"
#include "moebench/backend/cuda/plan.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"
#include "tests/cuda/emulated/emulator.h"
#include "tests/support/moe_cases.h"

namespace moebench::cuda {
namespace {

using testing::LayerCase;
using testing::SchemeCase;

/// Token t goes to `topk` experts from the t-th place on of the list that names each expert as
/// often as `rows` says.
Routing routing_of_rows(const std::vector<std::int64_t>& rows) {
  Routing routing;
  routing.topk = 1;
  for (std::size_t expert = 0; expert < rows.size(); ++expert) {
    for (std::int64_t i = 0; i < rows[expert]; ++i)
      routing.topk_ids.push_back(static_cast<std::int32_t>(expert));
  }
  // Neighbours in the batch are not neighbours in the tiles.
  std::mt19937 random(7);
  std::shuffle(routing.topk_ids.begin(), routing.topk_ids.end(), random);
  routing.tokens = static_cast<std::int64_t>(routing.topk_ids.size());
  routing.topk_weights.assign(routing.topk_ids.size(), 0.75F);
  return routing;
}

struct Layer {
  std::string name;
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  std::int64_t experts = 0;
  Routing routing;
};

Layer rows_layer(std::string name, std::int64_t hidden, std::int64_t intermediate,
                 const std::vector<std::int64_t>& rows) {
  return {std::move(name), hidden, intermediate, static_cast<std::int64_t>(rows.size()),
          routing_of_rows(rows)};
}
Layer drawn_layer(std::string name, std::int64_t hidden, std::int64_t intermediate,
                  std::int64_t experts, std::int64_t topk, const char* routing,
                  std::int64_t tokens) {
  return {std::move(name), hidden, intermediate, experts,
          make_routing(parse_routing(routing), 5, tokens, experts, topk, true)};
}

/// Weights and tokens of a scheme for it; on the device the weights come from the kernels that
/// generate them, or (exact, or packed on the host) from the source.
LayerCase make_case(const Layer& layer, const SchemeCase& scheme, bool exact) {
  const MoeShape shape{layer.experts, layer.routing.topk, layer.hidden, layer.intermediate,
                       scheme.act};
  const WeightFormat format = weight_format(scheme.scheme);
  constexpr std::uint64_t kSeed = 3;
  const std::int64_t tokens = layer.routing.tokens;
  if (exact)
    return {exact_problem(kSeed, shape, scheme.scheme, tokens, layer.routing),
            exact_weights(kSeed, shape, format)};
  return {synthetic_problem(kSeed, shape, scheme.scheme, tokens, layer.routing,
                            calibrate(kSeed, shape)),
          synthetic_weights(kSeed, shape, format)};
}

struct Answer {
  std::vector<std::uint16_t> y;
  std::optional<DynamicScaleClaim> claim;
  std::string guard_damage;
};

/// Runs enqueued one after the other without a wait in between, the output poisoned before the
/// first.
Answer run(Forward& forward, const MoeProblem& problem, std::uint64_t seed, int runs = 1) {
  emulated::settings().seed = seed;
  const std::int64_t count = problem.tokens * problem.shape.hidden;
  std::uint16_t* const y = forward.output();
  std::fill(y - kGuardElements, y, kGuard);
  std::fill(y, y + count, kPoison);
  std::fill(y + count, y + count + kGuardElements, kGuard);
  for (int i = 0; i < runs; ++i) forward.enqueue(nullptr, nullptr);
  wait(cudaStream_t{}, "the layer");
  Answer answer{{y, y + count}, forward.dynamic_scale(nullptr), {}};
  const auto intact = [](const std::uint16_t* guards) {
    return std::all_of(guards, guards + kGuardElements,
                       [](std::uint16_t x) { return x == kGuard; });
  };
  if (!intact(y - kGuardElements) || !intact(y + count))
    answer.guard_damage = "wrote outside of the output";
  return answer;
}

struct Run {
  int multiprocessors;
  std::uint64_t seed;
};

/// All rows against the oracle, for each run, and the same bits whatever the order in which warps,
/// copies and blocks came.
void check_layer(const Layer& layer, const SchemeCase& scheme, const std::vector<Run>& runs,
                 bool exact = false) {
  const LayerCase made = make_case(layer, scheme, exact);
  const MoeProblem& problem = made.problem;
  std::shared_ptr<const DeviceWeights> weights;
  ReferenceRows reference;
  std::optional<DynamicScaleClaim> referred_to;
  for (const auto& [multiprocessors, seed] : runs) {
    SCOPED_TRACE(
        fmt::format("{} on {} multiprocessors, seed {}", layer.name, multiprocessors, seed));
    emulated::settings() = {seed, multiprocessors};
    if (!weights) weights = pack_device(made.weights, {});
    Forward forward(problem, weights);
    forward.upload(nullptr);
    const Answer answer = run(forward, problem, seed);
    const auto same_claim = [](const auto& a, const auto& b) {
      return a.has_value() == b.has_value() && (!a || (a->scale == b->scale && a->pair == b->pair));
    };
    if (reference.tokens.empty() || !same_claim(answer.claim, referred_to)) {
      referred_to = answer.claim;
      reference =
          reference_forward(problem, made.weights, testing::all_rows(problem), answer.claim, 0);
    }
    const Verdict verdict = judge(problem, reference, answer.y, answer.guard_damage);
    EXPECT_TRUE(verdict.passed()) << verdict.reason << "; share of the bound "
                                  << verdict.worst_bound_share;
    if (exact) {
      for (std::size_t i = 0; i < answer.y.size(); ++i) {
        ASSERT_EQ(double{decode_act(scheme.act, answer.y[i])}, reference.expected[i])
            << "element " << i;
      }
    }
    // Twice without a wait, on what the first run left behind.
    const Answer again = run(forward, problem, seed + 1, 2);
    EXPECT_EQ(again.y, answer.y) << "other bits with another seed";
    EXPECT_TRUE(same_claim(again.claim, answer.claim));
  }
}

class EmulatedForward : public ::testing::TestWithParam<SchemeCase> {};

TEST_P(EmulatedForward, EveryTileSize) {
  const auto sizes_used = [](const auto& check) {
    const emulated::Statistics before = emulated::statistics();
    check();
    std::vector<int> used;
    for (int eights = 1; eights <= kMaxTileTokens / 8; ++eights) {
      if (emulated::statistics().multiplications[eights] > before.multiplications[eights])
        used.push_back(eights * 8);
    }
    return used;
  };
  EXPECT_EQ(sizes_used([] {
              check_layer(rows_layer("the small tiles", 208, 144, {5, 41, 12, 30, 20, 38}),
                          GetParam(), {{1, 1}, {7, 2}});
            }),
            (std::vector<int>{8, 16, 24, 32, 40, 48}));
  // Up to 48 tokens in a kernel of their own.
  EXPECT_EQ(sizes_used([] {
              check_layer(rows_layer("40 and 8", 128, 144, {40, 8}), GetParam(), {{1, 1}});
              check_layer(rows_layer("48", 128, 144, {43}), GetParam(), {{1, 1}});
              check_layer(rows_layer("24, 32 and 8", 128, 144, {17, 26, 5}), GetParam(), {{1, 1}});
            }),
            (std::vector<int>{8, 24, 32, 40, 48}));
  // Chosen by the routing kernel, for the same number of pairs as well.
  const std::vector<int> large = sizes_used([] {
    check_layer(rows_layer("the large tiles", 128, 208, {120, 1, 150, 0, 70, 40}), GetParam(),
                {{3, 3}, {5, 4}});
  });
  EXPECT_EQ(large, (std::vector<int>{16, 48, 64, 72, 80}));
}

TEST_P(EmulatedForward, SplitTiles) {
  // Four chunks of depth, which up to all blocks of a grid share.
  check_layer(drawn_layer("one row tile", 512, 80, 2, 2, "uniform", 9), GetParam(),
              {{3, 20}, {7, 21}});
  check_layer(drawn_layer("skewed", 144, 512, 6, 2, "zipf:1.5", 24), GetParam(),
              {{2, 22}, {30, 23}});
}

TEST_P(EmulatedForward, Teams) {
  // Above 48 tokens two blocks share each tile's tokens. Three and five row tiles: a team's second
  // block has one that the matrix lacks, also of tiles that teams divide.
  check_layer(drawn_layer("odd row tiles", 1168, 336, 3, 1, "uniform", 49), GetParam(),
              {{2, 33}, {4, 34}, {10, 35}});
}

TEST_P(EmulatedForward, Slices) {
  // Four row tiles in both GEMMs: four slices, then two, of blocks that share tiles.
  check_layer(drawn_layer("four row tiles", 1024, 512, 4, 2, "uniform", 11), GetParam(),
              {{4, 30}, {12, 31}, {6, 32}});
}

TEST_P(EmulatedForward, Pieces) {
  // So much work for so few blocks that part of it is handed out piece by piece.
  check_layer(drawn_layer("whole tiles", 128, 128, 100, 2, "uniform", 130), GetParam(),
              {{3, 50}, {2, 51}, {1, 52}});
}

TEST_P(EmulatedForward, SkewedRouting) {
  // On average fewer rows an expert than the largest of the small tiles has.
  check_layer(rows_layer("two hot experts", 128, 128, {5, 160, 0, 3, 0, 9, 75, 0, 1, 2}),
              GetParam(), {{5, 70}});
}

TEST_P(EmulatedForward, FewTokens) {
  check_layer(drawn_layer("one token", 208, 208, 5, 3, "uniform", 1), GetParam(), {{3, 40}});
  check_layer(drawn_layer("two tokens", 128, 16, 3, 1, "uniform", 2), GetParam(), {{7, 41}});
  check_layer(drawn_layer("all to one expert", 128, 128, 4, 1, "single", 200), GetParam(),
              {{3, 42}});
}

TEST_P(EmulatedForward, ExactModeIsBitwise) {
  check_layer(drawn_layer("skewed", 272, 208, 6, 2, "zipf:1.2", 57), GetParam(),
              {{1, 60}, {3, 61}, {7, 62}}, true);
  check_layer(rows_layer("large tiles", 256, 128, {90, 130}), GetParam(), {{5, 63}}, true);
}

std::vector<SchemeCase> scheme_cases() {
  std::vector<SchemeCase> cases = testing::all_scheme_cases();
  // Per token and per channel appear together, too.
  std::erase_if(cases,
                [](const SchemeCase& c) { return c.scheme.per_act_token != c.scheme.per_out_ch; });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Schemes, EmulatedForward, ::testing::ValuesIn(scheme_cases()),
                         testing::param_name<::testing::TestParamInfo<SchemeCase>>);

/// The scale of h that the layer finds for what is uploaded.
DynamicScaleClaim found_scale(Forward& forward, const MoeProblem& problem) {
  return run(forward, problem, 1).claim.value();
}

class EmulatedHiddenScale : public ::testing::TestWithParam<ActType> {
 protected:
  static constexpr SchemeConfig kScheme{.scheme = Scheme::kFp8};
  static LayerCase make(const std::vector<std::int64_t>& rows, bool exact = false) {
    emulated::settings() = {1, 3};
    return make_case(rows_layer("", 208, 144, rows), {kScheme, GetParam()}, exact);
  }
};

TEST_P(EmulatedHiddenScale, PaddingRowsDoNotCount) {
  LayerCase made = make({5, 41, 70});
  const auto weights = pack_device(made.weights, {});
  Forward fresh(made.problem, weights);
  fresh.upload(nullptr);
  const DynamicScaleClaim expected = found_scale(fresh, made.problem);
  // What larger tokens leave in rows that are padding afterwards.
  Forward used(made.problem, weights);
  const std::vector<std::uint16_t> tokens = made.problem.a;
  const std::vector<std::int32_t> ids = made.problem.routing.topk_ids;
  for (std::uint16_t& x : made.problem.a)
    x = encode_act(GetParam(), 16.0F * decode_act(GetParam(), x));
  for (const std::int32_t expert : {0, 1, 2}) {
    std::fill(made.problem.routing.topk_ids.begin(), made.problem.routing.topk_ids.end(), expert);
    used.upload(nullptr);
    EXPECT_GT(found_scale(used, made.problem).scale, 2.0F * expected.scale);
  }
  made.problem.a = tokens;
  made.problem.routing.topk_ids = ids;
  used.upload(nullptr);
  const DynamicScaleClaim found = found_scale(used, made.problem);
  EXPECT_EQ(found.scale, expected.scale);
  EXPECT_EQ(found.pair, expected.pair);
}

TEST_P(EmulatedHiddenScale, OfZeros) {
  LayerCase made = make({5, 41});
  std::fill(made.problem.a.begin(), made.problem.a.end(), std::uint16_t{0});
  Forward forward(made.problem, pack_device(made.weights, {}));
  forward.upload(nullptr);
  const DynamicScaleClaim found = found_scale(forward, made.problem);
  EXPECT_EQ(found.scale, 1.0F);
  EXPECT_EQ(found.pair, 0);
}

TEST_P(EmulatedHiddenScale, NanIsLargerThanInfinity) {
  // Gates overflow: SiLU makes infinity of one sign, NaN of the other.
  LayerCase made = make({5, 41}, true);
  MoeProblem& problem = made.problem;
  const float large = GetParam() == ActType::kFp16 ? 0x1p15F : 0x1p126F;
  for (std::size_t i = 0; i < problem.a.size(); ++i)
    problem.a[i] = encode_act(GetParam(), i / 208 % 2 == 0 ? large : -large);
  problem.scales.a1_scale = large / 256.0F;
  Forward forward(problem, pack_device(made.weights, {}));
  forward.upload(nullptr);
  const DynamicScaleClaim found = found_scale(forward, problem);
  EXPECT_TRUE(std::isnan(found.scale)) << found.scale;
  EXPECT_LT(found.pair, problem.tokens);
}

INSTANTIATE_TEST_SUITE_P(Types, EmulatedHiddenScale,
                         ::testing::Values(ActType::kFp16, ActType::kBf16), [](const auto& type) {
                           return type.param == ActType::kFp16 ? "fp16" : "bf16";
                         });

// One scheme: it is a deep layer for an emulated device.
TEST(EmulatedPieces, OfSplitTiles) {
  // 57 chunks in GEMM1, in pieces of 19.
  check_layer(drawn_layer("split tiles", 7200, 80, 34, 1, "balanced", 34), scheme_cases().front(),
              {{3, 53}, {2, 54}});
  // The same by teams, with three row tiles: the second block of the last team has none.
  check_layer(drawn_layer("split tiles of teams", 5600, 336, 17, 3, "balanced", 51),
              scheme_cases().front(), {{4, 55}, {2, 56}});
}

}  // namespace
}  // namespace moebench::cuda
