// The NVFP4 pipeline - route, groups, quantised rows, SiLU, unpermute, everything that the host
// enqueues - on the emulated device, with a plain GEMM in CUTLASS's place, judged by the oracle.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "moebench/backend/cutlass/forward.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"
#include "tests/cuda/emulated/emulator.h"
#include "tests/cutlass/reference_grouped_gemm.h"
#include "tests/support/moe_cases.h"

namespace moebench::cutlass_moe {
namespace {

using moebench::testing::LayerCase;

/// The output is poisoned before the first of the runs, which do not wait for each other.
std::vector<std::uint16_t> run(CutlassForward& forward, const MoeProblem& problem,
                               std::uint64_t seed, int runs) {
  emulated::settings().seed = seed;
  const std::int64_t count = problem.tokens * problem.shape.hidden;
  std::uint16_t* const y = forward.output();
  std::fill(y, y + count, kPoison);
  for (int i = 0; i < runs; ++i) forward.enqueue(nullptr, nullptr);
  cuda::wait(cudaStream_t{}, "the layer");
  return {y, y + count};
}

/// Memory that nothing has written reads as 0xFF on the emulated device: as scales, NaN.
void check(const LayerCase& layer, std::uint64_t seed) {
  const MoeProblem& problem = layer.problem;
  SCOPED_TRACE(moebench::testing::describe(seed, problem));
  emulated::settings() = {seed, 4};
  const auto weights = std::make_shared<const CutlassWeights>(
      layer.weights, std::function<void(std::int64_t, std::int64_t)>{});
  CutlassForward forward(problem, weights, testing::reference_gemm(problem.shape.act), 4);
  forward.upload(nullptr);
  const std::vector<std::uint16_t> y = run(forward, problem, seed, 1);
  const ReferenceRows reference = reference_forward(
      problem, layer.weights, moebench::testing::all_rows(problem), std::nullopt, 0);
  const Verdict verdict = judge(problem, reference, y, "");
  EXPECT_TRUE(verdict.passed()) << verdict.reason;
  EXPECT_EQ(run(forward, problem, seed + 1, 2), y) << "other bits with another seed";
}

LayerCase drawn(std::uint64_t seed, const MoeShape& shape, std::int64_t tokens,
                const char* routing) {
  const SchemeConfig scheme{.scheme = Scheme::kNvfp4};
  return {synthetic_problem(seed, shape, scheme, tokens,
                            make_routing(parse_routing(routing), seed, tokens, shape.num_experts,
                                         shape.topk, true),
                            calibrate(seed, shape)),
          synthetic_weights(seed, shape, WeightFormat::kNvfp4)};
}

TEST(EmulatedCutlass, PassesTheOracleOnRandomShapes) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](std::uint64_t low, std::uint64_t high) {
      return static_cast<std::int64_t>(low + random() % (high - low + 1));
    };
    MoeShape shape;
    shape.num_experts = pick(1, 12);
    shape.topk = pick(1, static_cast<std::uint64_t>(std::min<std::int64_t>(shape.num_experts, 6)));
    shape.hidden = 32 * pick(1, 8);
    shape.intermediate = 32 * pick(1, 5);
    shape.act = random() % 2 == 0 ? ActType::kFp16 : ActType::kBf16;
    constexpr const char* kRoutings[] = {"uniform", "zipf:1.2", "hot:1@0.8", "single"};
    const auto tokens = pick(1, 40);
    check(drawn(seed, shape, tokens, kRoutings[random() % 4]), seed);
  }
}

/// More rows than a scale tile and than an operand tile of the plan holds.
TEST(EmulatedCutlass, PassesTheOracleWithManyTokensOnOneExpert) {
  const MoeShape shape{
      .num_experts = 3, .topk = 1, .hidden = 96, .intermediate = 64, .act = ActType::kFp16};
  check(drawn(5, shape, 300, "single"), 5);
}

TEST(EmulatedCutlass, WorksWithoutTokens) {
  const MoeShape shape{
      .num_experts = 3, .topk = 1, .hidden = 96, .intermediate = 64, .act = ActType::kFp16};
  const LayerCase layer = drawn(5, shape, 0, "uniform");
  const auto weights = std::make_shared<const CutlassWeights>(
      layer.weights, std::function<void(std::int64_t, std::int64_t)>{});
  CutlassForward forward(layer.problem, weights, testing::reference_gemm(ActType::kFp16), 4);
  forward.upload(nullptr);
  EXPECT_TRUE(run(forward, layer.problem, 1, 1).empty());
}

}  // namespace
}  // namespace moebench::cutlass_moe
