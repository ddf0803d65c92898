// The same bits on every run and for any number of threads.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::testing {
namespace {

class CpuKernelRepeatability : public ::testing::TestWithParam<IsaScheme> {
 protected:
  void SetUp() override {
    const std::string absence = isa_absence(GetParam().isa);
    if (!absence.empty()) GTEST_SKIP() << absence;
  }
  [[nodiscard]] static LayerCase layer() {
    const SchemeCase& scheme_case = GetParam().scheme_case;
    const MoeShape shape{
        .num_experts = 5, .topk = 3, .hidden = 112, .intermediate = 80, .act = scheme_case.act};
    return synthetic_case(3, shape, scheme_case.scheme, 41);
  }
};

TEST_P(CpuKernelRepeatability, ThreadCountDoesNotChangeBits) {
  const LayerCase test_case = layer();
  const KernelAnswer one = run_kernel(test_case, GetParam().isa, 1);
  for (const int threads : {2, 3, 7}) {
    const KernelAnswer several = run_kernel(test_case, GetParam().isa, threads);
    EXPECT_EQ(one.y, several.y) << threads << " threads";
    ASSERT_EQ(one.claim.has_value(), several.claim.has_value());
    if (!one.claim) continue;
    EXPECT_EQ(one.claim->scale, several.claim->scale);
    EXPECT_EQ(one.claim->pair, several.claim->pair);
  }
}

TEST_P(CpuKernelRepeatability, SecondRunGivesTheSameBits) {
  const LayerCase test_case = layer();
  const auto kernel = cpu_kernel(GetParam().scheme_case.scheme.scheme, GetParam().isa, 2);
  const auto prepared = kernel->prepare(test_case.problem, kernel->pack(test_case.weights, {}));
  GuardedOutput first(test_case.problem.tokens, test_case.problem.shape.hidden);
  GuardedOutput second(test_case.problem.tokens, test_case.problem.shape.hidden);
  first.poison();
  second.poison();
  prepared->run(first.y());
  prepared->run_phases(second.y());
  EXPECT_TRUE(std::ranges::equal(first.y(), second.y()));
}

INSTANTIATE_TEST_SUITE_P(AllIsas, CpuKernelRepeatability, ::testing::ValuesIn(all_isa_schemes()),
                         [](const auto& param) { return name_of(param.param); });

}  // namespace
}  // namespace moebench::testing
