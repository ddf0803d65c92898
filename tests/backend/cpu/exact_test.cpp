// The exact mode: inputs on which every sum is exact in FP32, so that each ISA must give the
// reference's bits.
#include <gtest/gtest.h>

#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::testing {
namespace {

class CpuKernelExact : public ::testing::TestWithParam<IsaScheme> {
 protected:
  void SetUp() override {
    const std::string absence = isa_absence(GetParam().isa);
    if (!absence.empty()) GTEST_SKIP() << absence;
  }
};

TEST_P(CpuKernelExact, GivesTheReferencesBits) {
  const SchemeCase& scheme_case = GetParam().scheme_case;
  const MoeShape shapes[] = {
      {.num_experts = 4, .topk = 2, .hidden = 64, .intermediate = 48, .act = scheme_case.act},
      {.num_experts = 3, .topk = 3, .hidden = 144, .intermediate = 80, .act = scheme_case.act}};
  for (const MoeShape& shape : shapes) {
    for (const std::int64_t tokens : {1, 5, 29}) {
      const auto seed = static_cast<std::uint64_t>(tokens);
      const LayerCase layer = exact_case(seed, shape, scheme_case.scheme, tokens);
      const KernelAnswer answer = run_kernel(layer, GetParam().isa, 2);
      const ReferenceRows reference =
          reference_forward(layer.problem, layer.weights, all_rows(layer.problem), answer.claim, 1);
      ASSERT_EQ(reference.expected.size(), answer.y.size());
      for (std::size_t i = 0; i < answer.y.size(); ++i) {
        ASSERT_EQ(double{decode_act(shape.act, answer.y[i])}, reference.expected[i])
            << GetParam().isa << " " << describe(seed, layer.problem) << ", element " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, CpuKernelExact, ::testing::ValuesIn(all_isa_schemes()),
                         [](const auto& param) { return name_of(param.param); });

}  // namespace
}  // namespace moebench::testing
