// The layer through the public interface, on the caller's buffers, against the reference.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "moebench/moe/verify.h"
#include "tests/api/caller_layer.h"

namespace moebench::testing {
namespace {

constexpr std::uint64_t kSeed = 11;
/// Rows of w1 and w2 that fill no 128-row tile of swizzled scales, groups that fill no tile of 4.
constexpr MoeShape kShape = {.num_experts = 5, .topk = 3, .hidden = 176, .intermediate = 80};

MoeShape shape_of(const SchemeCase& scheme_case) {
  MoeShape shape = kShape;
  shape.act = scheme_case.act;
  return shape;
}

/// All rows: without a claim the reference then finds a per-tensor activation scale itself.
ReferenceRows reference_of(const LayerCase& layer) {
  return reference_forward(layer.problem, layer.weights, all_rows(layer.problem), std::nullopt, 0);
}

class ApiForward : public ::testing::TestWithParam<SchemeCase> {
 protected:
  [[nodiscard]] CallerLayer synthetic(std::int64_t tokens,
                                      ScaleLayout layout = ScaleLayout::kLinear) const {
    return caller_layer(synthetic_case(kSeed, shape_of(GetParam()), GetParam().scheme, tokens),
                        layout);
  }
};
INSTANTIATE_TEST_SUITE_P(Schemes, ApiForward, ::testing::ValuesIn(all_scheme_cases()),
                         param_name<::testing::TestParamInfo<SchemeCase>>);

TEST_P(ApiForward, AnswerPassesTheReference) {
  const CallerLayer layer = synthetic(9);
  const Verdict verdict = judge(layer.problem(), reference_of(layer.source),
                                layer.forward({.act = GetParam().act}), "");
  EXPECT_TRUE(verdict.passed()) << verdict.reason << "\n" << describe(kSeed, layer.problem());
}

TEST_P(ApiForward, ExactLayerGivesTheReferenceBitForBit) {
  const CallerLayer layer = caller_layer(
      exact_case(kSeed, shape_of(GetParam()), GetParam().scheme, 9), ScaleLayout::kLinear);
  std::vector<std::uint16_t> expected;
  for (const double value : reference_of(layer.source).expected) {
    expected.push_back(encode_act(GetParam().act, value));
  }
  EXPECT_EQ(layer.forward({.act = GetParam().act}), expected);
}

class ApiScaleLayout : public ApiForward {};
INSTANTIATE_TEST_SUITE_P(Nvfp4, ApiScaleLayout,
                         ::testing::Values(SchemeCase{{.scheme = Scheme::kNvfp4}},
                                           SchemeCase{{.scheme = Scheme::kNvfp4W4A16}}),
                         param_name<::testing::TestParamInfo<SchemeCase>>);

TEST_P(ApiScaleLayout, SwizzledScalesGiveTheSameBits) {
  EXPECT_EQ(synthetic(7).forward({}), synthetic(7, ScaleLayout::kSwizzled128x4).forward({}));
}

TEST_P(ApiForward, PackedLayerServesOneBatchAfterTheOther) {
  const MoeOptions options{.act = GetParam().act};
  const CallerLayer first = synthetic(6);
  MoeLayer layer = first.make(options);
  for (const std::int64_t tokens : {6, 6, 1, 0, 17, 6}) {
    CallerLayer batch = first;
    batch.source.problem = synthetic_case(kSeed + static_cast<std::uint64_t>(tokens),
                                          shape_of(GetParam()), GetParam().scheme, tokens)
                               .problem;
    EXPECT_EQ(batch.run(layer), batch.forward(options)) << tokens << " tokens";
  }
}

TEST_P(ApiForward, SameSizesWithOtherTokensGiveOtherAnswers) {
  const CallerLayer layer = synthetic(4);
  MoeLayer packed = layer.make({.act = GetParam().act});
  const std::vector<std::uint16_t> before = layer.run(packed);
  CallerLayer other = layer;
  std::vector<std::int32_t>& ids = other.source.problem.routing.topk_ids;
  std::rotate(ids.begin(), ids.begin() + kShape.topk, ids.end());
  EXPECT_NE(other.run(packed), before);
  EXPECT_EQ(layer.run(packed), before);
}

TEST_P(ApiForward, WeightsMayGoOncePacked) {
  CallerLayer layer = synthetic(5);
  MoeLayer packed = layer.make({.act = GetParam().act});
  const std::vector<std::uint16_t> before = layer.run(packed);
  for (auto* bytes : {&layer.w1, &layer.w2, &layer.w1_blocks, &layer.w2_blocks}) {
    std::ranges::fill(*bytes, std::uint8_t{0});
  }
  for (auto* scales : {&layer.w1_scales, &layer.w2_scales, &layer.g1_alphas, &layer.g2_alphas}) {
    std::ranges::fill(*scales, 0.0F);
  }
  EXPECT_EQ(layer.run(packed), before);
}

TEST_P(ApiForward, ThreadCountDoesNotChangeTheBits) {
  const CallerLayer layer = synthetic(13);
  EXPECT_EQ(layer.forward({.act = GetParam().act, .threads = 1}),
            layer.forward({.act = GetParam().act, .threads = 3}));
}

TEST(ApiLayer, NamesWhatRuns) {
  const CallerLayer layer = caller_layer(
      synthetic_case(kSeed, kShape, {.scheme = Scheme::kNvfp4}, 1), ScaleLayout::kLinear);
  const MoeLayer packed = layer.make({.threads = 2, .isa = "portable"});
  EXPECT_EQ(packed.kernel(), "cpu_moe_fp4 (portable, 2 threads)");
  EXPECT_GE(packed.packed_bytes(), layer_weight_bytes(kShape, WeightFormat::kNvfp4));
}

TEST(ApiLayer, MovesWithItsWeights) {
  const CallerLayer layer = caller_layer(
      synthetic_case(kSeed, kShape, {.scheme = Scheme::kNvfp4}, 3), ScaleLayout::kLinear);
  MoeLayer first = layer.make({});
  const std::vector<std::uint16_t> before = layer.run(first);
  MoeLayer second = std::move(first);
  EXPECT_EQ(layer.run(second), before);
}

}  // namespace
}  // namespace moebench::testing
