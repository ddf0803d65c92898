// Every ISA of this CPU and every scheme against the double-precision oracle, over shapes at and
// around the sizes where the kernels' loops begin and end.
#include <gtest/gtest.h>

#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::testing {
namespace {

constexpr int kRandomCases = 10;

class CpuKernelOracle : public ::testing::TestWithParam<IsaScheme> {
 protected:
  void SetUp() override {
    const std::string absence = isa_absence(GetParam().isa);
    if (!absence.empty()) GTEST_SKIP() << absence;
  }

  void check(std::uint64_t seed, const LayerCase& layer, int threads) {
    const KernelAnswer answer = run_kernel(layer, GetParam().isa, threads);
    const Verdict verdict = check_answer(layer, answer);
    EXPECT_TRUE(verdict.passed()) << GetParam().isa << " " << describe(seed, layer.problem) << ": "
                                  << verdict.reason;
  }
};

TEST_P(CpuKernelOracle, PassesOnRandomShapes) {
  for (int i = 0; i < kRandomCases * test_rounds(); ++i) {
    const auto seed = static_cast<std::uint64_t>(i) + 1;
    check(seed, random_case(seed, GetParam().scheme_case), 1 + i % 3);
  }
}

TEST_P(CpuKernelOracle, PassesWithAllTokensOnOneExpert) {
  const SchemeCase& scheme_case = GetParam().scheme_case;
  const MoeShape shape{
      .num_experts = 3, .topk = 1, .hidden = 48, .intermediate = 32, .act = scheme_case.act};
  Routing routing = make_routing(parse_routing("single"), 5, 257, 3, 1, false);
  check(5,
        {synthetic_problem(5, shape, scheme_case.scheme, 257, std::move(routing),
                           calibrate(5, shape)),
         synthetic_weights(5, shape, weight_format(scheme_case.scheme))},
        2);
}

/// Long sums and several 128-wide groups, up rows that begin inside a 128-row block.
TEST_P(CpuKernelOracle, PassesOnDeepMatrices) {
  const SchemeCase& scheme_case = GetParam().scheme_case;
  const MoeShape shape{
      .num_experts = 2, .topk = 2, .hidden = 1040, .intermediate = 400, .act = scheme_case.act};
  check(9, synthetic_case(9, shape, scheme_case.scheme, 3), 2);
}

/// Values down to the subnormals of the 16-bit type. The a2 scale that the calibration chose stays:
/// h is small too.
TEST_P(CpuKernelOracle, PassesOnTinyTokens) {
  const SchemeCase& scheme_case = GetParam().scheme_case;
  const MoeShape shape{
      .num_experts = 2, .topk = 2, .hidden = 64, .intermediate = 48, .act = scheme_case.act};
  for (const float factor : {0x1p-8F, 0x1p-16F, 0x1p-30F, 0x1p-126F}) {
    LayerCase layer = synthetic_case(11, shape, scheme_case.scheme, 5);
    for (std::uint16_t& value : layer.problem.a) {
      value = encode_act(scheme_case.act, decode_act(scheme_case.act, value) * factor);
    }
    check(11, layer, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, CpuKernelOracle, ::testing::ValuesIn(all_isa_schemes()),
                         [](const auto& param) { return name_of(param.param); });

}  // namespace
}  // namespace moebench::testing
