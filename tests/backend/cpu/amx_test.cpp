// The AMX kernels at the sizes where their tiles begin and end, over emulated instructions and,
// where the CPU has them, over its own.
#include <gtest/gtest.h>

#include "moebench/backend/cpu/cpu_backend.h"
#include "moebench/backend/cpu/layout.h"
#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::testing {
namespace {

constexpr const char* kAmxIsas[] = {"amx", "amx_emulated"};
/// Around what integers do, one and two activation tiles, and several of both kinds.
constexpr std::int64_t kTokens[] = {1, 4, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 129, 257};

LayerCase single_expert_case(std::uint64_t seed, const SchemeCase& scheme_case, std::int64_t tokens,
                             std::int64_t hidden, std::int64_t intermediate) {
  const MoeShape shape{.num_experts = 2,
                       .topk = 1,
                       .hidden = hidden,
                       .intermediate = intermediate,
                       .act = scheme_case.act};
  Routing routing = make_routing(parse_routing("single"), seed, tokens, 2, 1, false);
  return {synthetic_problem(seed, shape, scheme_case.scheme, tokens, std::move(routing),
                            calibrate(seed, shape)),
          synthetic_weights(seed, shape, weight_format(scheme_case.scheme))};
}

KernelAnswer run_on(const cpu::CpuKernels& kernels, const LayerCase& layer, int threads) {
  const auto backend = cpu::make_cpu_backend(kernels, threads);
  for (const auto& kernel : backend->kernels()) {
    if (kernel->scheme() != layer.problem.scheme.scheme) continue;
    const auto prepared = kernel->prepare(layer.problem, kernel->pack(layer.weights, {}));
    GuardedOutput output(layer.problem.tokens, layer.problem.shape.hidden);
    output.poison();
    prepared->run(output.y());
    return {
        {output.y().begin(), output.y().end()}, prepared->dynamic_scale(), output.guard_damage()};
  }
  throw std::logic_error("no kernel for the scheme");
}

class AmxKernels : public ::testing::TestWithParam<IsaScheme> {
 protected:
  void SetUp() override {
    const std::string absence = isa_absence(GetParam().isa);
    if (!absence.empty()) GTEST_SKIP() << absence;
  }
};

TEST_P(AmxKernels, PassAtEveryTileBoundary) {
  const SchemeCase& scheme_case = GetParam().scheme_case;
  const bool nvfp4 = weight_format(scheme_case.scheme) == WeightFormat::kNvfp4;
  // K and N at and around multiples of 16, 32, 64 and 128; NVFP4 has them in 16s.
  static constexpr std::int64_t kAny[] = {16, 1,  15, 17,  31,  32,  33,  63,
                                          64, 65, 80, 112, 127, 128, 129, 144};
  static constexpr std::int64_t kBlocks[] = {16,  32,  48, 64, 80,  96,  112, 128,
                                             144, 160, 16, 32, 112, 144, 48,  64};
  const auto& sizes = nvfp4 ? kBlocks : kAny;
  for (std::size_t i = 0; i < std::size(kTokens); ++i) {
    const std::int64_t hidden = sizes[(i * 7 + 3) % std::size(sizes)];
    const std::int64_t intermediate = sizes[(i * 5 + 8) % std::size(sizes)];
    const LayerCase layer =
        single_expert_case(i + 1, scheme_case, kTokens[i], hidden, intermediate);
    const KernelAnswer answer = run_kernel(layer, GetParam().isa, 2);
    const Verdict verdict = check_answer(layer, answer);
    EXPECT_TRUE(verdict.passed()) << describe(i + 1, layer.problem) << ": " << verdict.reason;
  }
}

TEST_P(AmxKernels, GiveTheReferencesBitsInTheExactMode) {
  const SchemeCase& scheme_case = GetParam().scheme_case;
  const MoeShape shape{
      .num_experts = 2, .topk = 2, .hidden = 144, .intermediate = 80, .act = scheme_case.act};
  for (const std::int64_t tokens : {4, 17, 40, 140}) {
    const auto seed = static_cast<std::uint64_t>(tokens);
    const LayerCase layer = exact_case(seed, shape, scheme_case.scheme, tokens);
    const KernelAnswer answer = run_kernel(layer, GetParam().isa, 2);
    const ReferenceRows reference =
        reference_forward(layer.problem, layer.weights, all_rows(layer.problem), answer.claim, 1);
    ASSERT_EQ(reference.expected.size(), answer.y.size());
    for (std::size_t i = 0; i < answer.y.size(); ++i) {
      ASSERT_EQ(double{decode_act(shape.act, answer.y[i])}, reference.expected[i])
          << describe(seed, layer.problem) << ", element " << i;
    }
  }
}

/// However weights are expanded and whatever parts the depth is cut into, a sum is made in one
/// order.
TEST_P(AmxKernels, EveryWayThroughManyTilesGivesTheSameBits) {
  const LayerCase layer = single_expert_case(7, GetParam().scheme_case, 150, 144, 272);
  const cpu::CpuKernels& kernels = kernels_of(GetParam().isa);
  cpu::CpuKernels in_small_parts = kernels;
  in_small_parts.cached_operand_bytes = 0;
  cpu::CpuKernels in_one_part = kernels;
  in_one_part.cached_operand_bytes = std::int64_t{1} << 40;
  cpu::CpuKernels on_the_way = kernels;
  std::fill(std::begin(on_the_way.multiply_expanded), std::end(on_the_way.multiply_expanded),
            nullptr);
  const KernelAnswer first = run_on(on_the_way, layer, 1);
  const Verdict verdict = check_answer(layer, first);
  EXPECT_TRUE(verdict.passed()) << verdict.reason;
  const cpu::CpuKernels* const ways[] = {&kernels, &in_small_parts, &in_one_part, &on_the_way};
  for (const cpu::CpuKernels* way : ways) {
    for (const int threads : {1, 2, 3, 7}) {
      EXPECT_EQ(run_on(*way, layer, threads).y, first.y) << threads << " threads";
    }
  }
  // Several parts and several slabs a task.
  const LayerCase wide = single_expert_case(9, GetParam().scheme_case, 40, 1040, 272);
  EXPECT_EQ(run_on(in_small_parts, wide, 1).y, run_on(on_the_way, wide, 1).y);
  // More tiles than sums are kept for.
  const LayerCase many = single_expert_case(8, GetParam().scheme_case, 530, 144, 48);
  EXPECT_EQ(run_on(in_small_parts, many, 2).y, run_on(on_the_way, many, 2).y);
}

std::vector<IsaScheme> amx_schemes() {
  std::vector<IsaScheme> out;
  for (const char* isa : kAmxIsas) {
    for (const SchemeCase& scheme_case : all_scheme_cases()) out.push_back({isa, scheme_case});
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(Schemes, AmxKernels, ::testing::ValuesIn(amx_schemes()),
                         [](const auto& param) { return name_of(param.param); });

}  // namespace
}  // namespace moebench::testing
