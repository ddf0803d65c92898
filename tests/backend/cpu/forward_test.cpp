// A prepared case: phases, sizes, the claim of the dynamic scale, and refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::testing {
namespace {

constexpr MoeShape kShape{.num_experts = 4, .topk = 2, .hidden = 64, .intermediate = 48};

std::unique_ptr<PreparedMoe> prepare(const Kernel& kernel, const LayerCase& layer) {
  return kernel.prepare(layer.problem, kernel.pack(layer.weights, {}));
}

TEST(CpuForward, PhasesCoverTheWholeCall) {
  const LayerCase layer = synthetic_case(1, kShape, {.scheme = Scheme::kFp8}, 64);
  const auto kernel = cpu_kernel(Scheme::kFp8, "", 2);
  const auto prepared = prepare(*kernel, layer);
  std::vector<std::uint16_t> y(64 * 64);
  std::vector<std::string> names;
  for (const auto& [name, seconds] : prepared->run_phases(y)) {
    EXPECT_GE(seconds, 0.0) << name;
    EXPECT_TRUE(std::isfinite(seconds)) << name;
    names.push_back(name);
  }
  EXPECT_THAT(names, ::testing::ElementsAre("route", "permute+quantize", "gemm1+activation",
                                            "quantize", "gemm2", "combine"));
}

TEST(CpuForward, FlushingCachesBetweenRunsChangesNothing) {
  const LayerCase layer = synthetic_case(1, kShape, {.scheme = Scheme::kNvfp4}, 7);
  const auto kernel = cpu_kernel(Scheme::kNvfp4, "", 2);
  const auto prepared = prepare(*kernel, layer);
  std::vector<std::uint16_t> first(7 * 64, kPoison);
  std::vector<std::uint16_t> second(7 * 64, kPoison);
  prepared->run(first);
  prepared->flush_caches();
  prepared->flush_caches();
  prepared->run(second);
  EXPECT_EQ(first, second);
}

TEST(CpuForward, NoTokensIsNoWork) {
  for (const Scheme scheme : kAllSchemes) {
    const LayerCase layer = synthetic_case(1, kShape, {.scheme = scheme}, 0);
    const KernelAnswer answer = run_kernel(layer, "", 2);
    EXPECT_TRUE(answer.y.empty());
    EXPECT_EQ(answer.guard_damage, "");
  }
}

TEST(CpuForward, OnlyPerTensorFp8ClaimsADynamicScale) {
  for (const SchemeCase& scheme_case : all_scheme_cases()) {
    const LayerCase layer = synthetic_case(2, kShape, scheme_case.scheme, 3);
    const bool expected =
        scheme_case.scheme.scheme == Scheme::kFp8 && !scheme_case.scheme.per_act_token;
    EXPECT_EQ(run_kernel(layer, "", 1).claim.has_value(), expected) << name_of(scheme_case);
  }
}

TEST(CpuForward, SchemesOfOneFormatShareWeights) {
  const LayerCase w4a4 = synthetic_case(3, kShape, {.scheme = Scheme::kNvfp4}, 5);
  const LayerCase w4a16 = synthetic_case(3, kShape, {.scheme = Scheme::kNvfp4W4A16}, 5);
  const auto packed = cpu_kernel(Scheme::kNvfp4, "", 1)->pack(w4a4.weights, {});
  const auto prepared = cpu_kernel(Scheme::kNvfp4W4A16, "", 1)->prepare(w4a16.problem, packed);
  std::vector<std::uint16_t> y(5 * 64, kPoison);
  prepared->run(y);
  EXPECT_TRUE(check_answer(w4a16, {y, std::nullopt, ""}).passed());
}

TEST(CpuForward, WeightsOfAnotherFormatAreRefused) {
  const LayerCase fp8 = synthetic_case(3, kShape, {.scheme = Scheme::kFp8}, 5);
  const LayerCase nvfp4 = synthetic_case(3, kShape, {.scheme = Scheme::kNvfp4}, 5);
  const auto kernel = cpu_kernel(Scheme::kNvfp4, "", 1);
  const auto packed = kernel->pack(fp8.weights, {});
  EXPECT_THROW(static_cast<void>(kernel->prepare(nvfp4.problem, packed)), Error);
}

TEST(CpuForward, OutputOfTheWrongSizeIsRefused) {
  const LayerCase layer = synthetic_case(4, kShape, {.scheme = Scheme::kNvfp4}, 2);
  const auto kernel = cpu_kernel(Scheme::kNvfp4, "", 1);
  const auto prepared = prepare(*kernel, layer);
  std::vector<std::uint16_t> y(2 * 64 - 1);
  EXPECT_THROW(prepared->run(y), Error);
}

TEST(CpuForward, EstimatesAreWhatIsTaken) {
  for (const SchemeCase& scheme_case : all_scheme_cases()) {
    MoeShape shape = kShape;
    shape.act = scheme_case.act;
    const LayerCase layer = synthetic_case(5, shape, scheme_case.scheme, 9);
    const auto kernel = cpu_kernel(scheme_case.scheme.scheme, "", 2);
    const auto packed = kernel->pack(layer.weights, {});
    EXPECT_EQ(packed->bytes(), kernel->packed_bytes(shape, scheme_case.scheme));
    EXPECT_EQ(kernel->prepare(layer.problem, packed)->scratch_bytes(),
              kernel->scratch_bytes(shape, scheme_case.scheme, 9));
  }
}

TEST(CpuForward, SupportNamesTheRuleThatAShapeBreaks) {
  const auto kernel = cpu_kernel(Scheme::kNvfp4, "", 1);
  MoeShape shape = kShape;
  EXPECT_TRUE(kernel->supports(shape, {.scheme = Scheme::kNvfp4}).ok);
  shape.intermediate = 40;
  EXPECT_THAT(kernel->supports(shape, {.scheme = Scheme::kNvfp4}).reason,
              ::testing::HasSubstr("N=40"));
  EXPECT_FALSE(kernel->supports(kShape, {.scheme = Scheme::kFp8}).ok);
  EXPECT_TRUE(cpu_kernel(Scheme::kFp8, "", 1)->supports(shape, {.scheme = Scheme::kFp8}).ok);
}

}  // namespace
}  // namespace moebench::testing
