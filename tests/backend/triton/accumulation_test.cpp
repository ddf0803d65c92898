// Which accumulation the verdict can accept, found on the host with a model of Hopper's FP8 tensor
// core: the reason why the kernels widen e4m3 to FP16 and leave the routing weight to the last sum.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moebench/moe/verify.h"
#include "tests/backend/triton/fp8_pipeline.h"
#include "tests/support/moe_cases.h"

namespace moebench::testing {
namespace {

Verdict verdict_on(const LayerCase& layer, const PipelineOptions& options) {
  const PipelineAnswer answer = run_fp8_pipeline(layer.problem, layer.weights, options);
  const ReferenceRows reference =
      reference_forward(layer.problem, layer.weights, all_rows(layer.problem), answer.claim, 0);
  return judge(layer.problem, reference, answer.y, "");
}

constexpr MoeShape kLayer{
    .num_experts = 4, .topk = 2, .hidden = 1024, .intermediate = 256, .act = ActType::kFp16};

class Accumulations : public ::testing::TestWithParam<SchemeCase> {};

TEST_P(Accumulations, WidenedPasses) {
  MoeShape shape = kLayer;
  shape.act = GetParam().act;
  const Verdict verdict = verdict_on(synthetic_case(3, shape, GetParam().scheme, 3), {});
  EXPECT_TRUE(verdict.passed()) << verdict.reason;
}

TEST_P(Accumulations, HoppersOwnDoesNot) {
  MoeShape shape = kLayer;
  shape.act = GetParam().act;
  const LayerCase layer = synthetic_case(3, shape, GetParam().scheme, 3);
  for (const Accumulation accumulation : {Accumulation::kHardware, Accumulation::kPromoted}) {
    EXPECT_FALSE(verdict_on(layer, {.accumulation = accumulation}).passed());
  }
}

TEST_P(Accumulations, AWeightBeforeTheRoundingDoesNot) {
  MoeShape shape = kLayer;
  shape.act = GetParam().act;
  // Any of these layers may be lucky; not all of them.
  bool failed = false;
  for (std::uint64_t seed = 3; seed < 9 && !failed; ++seed) {
    failed =
        !verdict_on(synthetic_case(seed, shape, GetParam().scheme, 3), {.weight_in_gemm2 = true})
             .passed();
  }
  EXPECT_TRUE(failed);
}

/// Small integers are exact in each of them.
TEST_P(Accumulations, AllPassTheExactLayer) {
  MoeShape shape = kLayer;
  shape.act = GetParam().act;
  const LayerCase layer = exact_case(5, shape, GetParam().scheme, 3);
  for (const PipelineOptions& options :
       {PipelineOptions{}, PipelineOptions{.weight_in_gemm2 = true}}) {
    const Verdict verdict = verdict_on(layer, options);
    EXPECT_TRUE(verdict.passed()) << verdict.reason;
    EXPECT_EQ(verdict.worst_row_error, 0.0);
  }
}

std::vector<SchemeCase> fp8_cases() {
  std::vector<SchemeCase> out;
  for (const SchemeCase& scheme_case : all_scheme_cases()) {
    if (scheme_case.scheme.scheme == Scheme::kFp8) out.push_back(scheme_case);
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(Fp8, Accumulations, ::testing::ValuesIn(fp8_cases()),
                         param_name<::testing::TestParamInfo<SchemeCase>>);

TEST(HopperFp8Sum, CutsOffBelowTheLargestTerm) {
  const float ones[] = {1.0F, 1.0F};
  const float kept[] = {256.0F, 0x1p-5F};
  EXPECT_EQ(hopper_fp8_sum(ones, kept, 2), 256.0F + 0x1p-5F);
  const float lost[] = {256.0F, 0x1p-6F};
  EXPECT_EQ(hopper_fp8_sum(ones, lost, 2), 256.0F);
}

}  // namespace
}  // namespace moebench::testing
