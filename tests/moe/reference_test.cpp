// The oracle against things that are right: FP32 kernels in every summation order, a layer worked
// out by hand, a long-double forward without intervals; and the oracle's own promises (exact mode,
// threads, claims).
#include "moebench/moe/reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "moebench/core/error.h"
#include "moebench/moe/verify.h"
#include "tests/support/long_double_moe.h"
#include "tests/support/moe_cases.h"
#include "tests/support/naive_moe.h"

namespace moebench {
namespace {

using testing::all_rows;
using testing::all_scheme_cases;
using testing::describe;
using testing::exact_case;
using testing::kAllSumOrders;
using testing::LayerCase;
using testing::naive_forward;
using testing::NaiveAnswer;
using testing::NaiveOptions;
using testing::SchemeCase;
using testing::SumOrder;
using testing::synthetic_case;

constexpr int kThreads = 2;

ReferenceRows full_reference(const LayerCase& layer,
                             const std::optional<DynamicScaleClaim>& claim) {
  return reference_forward(layer.problem, layer.weights, all_rows(layer.problem), claim, kThreads);
}

Verdict verdict_of(const LayerCase& layer, const NaiveAnswer& answer) {
  return judge(layer.problem, full_reference(layer, answer.claim), answer.y, "");
}

class Reference : public ::testing::TestWithParam<SchemeCase> {};
INSTANTIATE_TEST_SUITE_P(AllSchemes, Reference, ::testing::ValuesIn(all_scheme_cases()),
                         testing::param_name<::testing::TestParamInfo<SchemeCase>>);

TEST_P(Reference, AcceptsEverySummationOrderOnRandomShapes) {
  constexpr int kShapes = 8;
  constexpr std::int64_t kMaxMacs = 60'000;
  for (int i = 0; i < kShapes * testing::test_rounds(); ++i) {
    const auto seed = static_cast<std::uint64_t>(i) + 1;
    std::mt19937_64 random(seed);
    const auto [shape, tokens] = testing::random_size(random, GetParam(), kMaxMacs);
    const LayerCase layer = synthetic_case(seed, shape, GetParam().scheme, tokens);
    for (const SumOrder order : kAllSumOrders) {
      const Verdict verdict = verdict_of(
          layer, naive_forward(layer.problem, layer.weights, {.order = order, .seed = seed}));
      ASSERT_TRUE(verdict.passed()) << verdict.reason << "\n"
                                    << describe(seed, layer.problem) << " " << name_of(order);
    }
  }
}

TEST_P(Reference, RaisesNoFalseAlarmAtARealisticShape) {
  const MoeShape shape{
      .num_experts = 2, .topk = 1, .hidden = 2048, .intermediate = 128, .act = GetParam().act};
  constexpr std::int64_t kTokens = 1;
  for (int i = 0; i < testing::test_rounds(); ++i) {
    const auto seed = static_cast<std::uint64_t>(i) + 100;
    const LayerCase layer = synthetic_case(seed, shape, GetParam().scheme, kTokens);
    for (const SumOrder order :
         {SumOrder::kSequential, SumOrder::kReversed, SumOrder::kLanes16, SumOrder::kShuffled}) {
      const Verdict verdict = verdict_of(
          layer, naive_forward(layer.problem, layer.weights, {.order = order, .seed = seed}));
      ASSERT_TRUE(verdict.passed()) << verdict.reason << "\n"
                                    << describe(seed, layer.problem) << " " << name_of(order);
    }
  }
}

TEST_P(Reference, IsBitwiseTheAnswerOfEveryOrderInExactMode) {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    const MoeShape shape{
        .num_experts = 4, .topk = 3, .hidden = 160, .intermediate = 144, .act = GetParam().act};
    const LayerCase layer = exact_case(seed, shape, GetParam().scheme, 5);
    const ReferenceRows reference = full_reference(layer, std::nullopt);
    ASSERT_EQ(reference.defect, "");
    ASSERT_TRUE(std::any_of(reference.expected.begin(), reference.expected.end(),
                            [](double y) { return y != 0.0; }));
    for (const SumOrder order : kAllSumOrders) {
      const NaiveAnswer answer =
          naive_forward(layer.problem, layer.weights, {.order = order, .seed = seed});
      for (std::size_t i = 0; i < answer.y.size(); ++i) {
        ASSERT_EQ(double{decode_act(shape.act, answer.y[i])}, reference.expected[i])
            << describe(seed, layer.problem) << " " << name_of(order) << " element " << i;
      }
    }
  }
}

// Sums that are exact leave no room but at ties of the last two roundings: one step for y and one
// for each c2.
TEST_P(Reference, AllowsNoMoreThanTheFinalFormatsInExactMode) {
  const MoeShape shape{
      .num_experts = 4, .topk = 3, .hidden = 160, .intermediate = 144, .act = GetParam().act};
  const LayerCase layer = exact_case(1, shape, GetParam().scheme, 5);
  const ReferenceRows reference = full_reference(layer, std::nullopt);
  const double largest =
      std::abs(*std::max_element(reference.expected.begin(), reference.expected.end(),
                                 [](double a, double b) { return std::abs(a) < std::abs(b); }));
  const double step = largest * (shape.act == ActType::kFp16 ? 0x1p-10 : 0x1p-7);
  for (const double radius : reference.radius) {
    ASSERT_LE(radius, static_cast<double>(shape.topk + 1) * step);
  }
}

TEST_P(Reference, AgreesWithALongDoubleForwardWithoutIntervals) {
  constexpr std::int64_t kMaxMacs = 100'000;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    std::mt19937_64 random(seed);
    const auto [shape, tokens] = testing::random_size(random, GetParam(), kMaxMacs);
    const LayerCase layer = synthetic_case(seed, shape, GetParam().scheme, tokens);
    const ReferenceRows reference = full_reference(layer, std::nullopt);
    const std::vector<double> expected = testing::long_double_forward(layer.problem, layer.weights);
    ASSERT_EQ(reference.expected, expected) << describe(seed, layer.problem);
  }
}

TEST_P(Reference, DoesNotDependOnTheNumberOfThreads) {
  const MoeShape shape{
      .num_experts = 6, .topk = 2, .hidden = 96, .intermediate = 48, .act = GetParam().act};
  const LayerCase layer = synthetic_case(3, shape, GetParam().scheme, 9);
  const ReferenceRows one =
      reference_forward(layer.problem, layer.weights, all_rows(layer.problem), std::nullopt, 1);
  const std::vector<double> plain_one =
      unquantized_forward(layer.problem, layer.weights, all_rows(layer.problem), 1);
  for (const int threads : {2, 3, 5, 16}) {
    const ReferenceRows many = reference_forward(layer.problem, layer.weights,
                                                 all_rows(layer.problem), std::nullopt, threads);
    EXPECT_EQ(one.expected, many.expected) << threads;
    EXPECT_EQ(one.radius, many.radius) << threads;
    EXPECT_EQ(plain_one,
              unquantized_forward(layer.problem, layer.weights, all_rows(layer.problem), threads));
  }
}

TEST_P(Reference, GivesTheSameRowsForASampleAsForAll) {
  const MoeShape shape{
      .num_experts = 4, .topk = 2, .hidden = 64, .intermediate = 32, .act = GetParam().act};
  const LayerCase layer = synthetic_case(5, shape, GetParam().scheme, 11);
  const auto claim = naive_forward(layer.problem, layer.weights, {}).claim;
  const ReferenceRows all = full_reference(layer, claim);
  const std::int64_t claimed = claim ? claim->pair / shape.topk : 4;
  const ReferenceRows sample =
      reference_forward(layer.problem, layer.weights, {10, claimed, 0, claimed}, claim, kThreads);
  ASSERT_EQ(sample.defect, "");
  ASSERT_TRUE(std::is_sorted(sample.tokens.begin(), sample.tokens.end()));
  for (std::size_t row = 0; row < sample.tokens.size(); ++row) {
    for (std::int64_t c = 0; c < shape.hidden; ++c) {
      const std::size_t here =
          row * static_cast<std::size_t>(shape.hidden) + static_cast<std::size_t>(c);
      const auto there = static_cast<std::size_t>(sample.tokens[row] * shape.hidden + c);
      ASSERT_EQ(sample.expected[here], all.expected[there]);
      ASSERT_EQ(sample.radius[here], all.radius[there]);
    }
  }
}

TEST_P(Reference, HasAFormatErrorOfTheFormatsSize) {
  const MoeShape shape{
      .num_experts = 2, .topk = 2, .hidden = 256, .intermediate = 256, .act = GetParam().act};
  const LayerCase layer = synthetic_case(7, shape, GetParam().scheme, 4);
  const std::vector<double> exact =
      unquantized_forward(layer.problem, layer.weights, all_rows(layer.problem), kThreads);
  const double error = format_error(exact, full_reference(layer, std::nullopt).expected);
  // 3 significant bits (E4M3) err by about 2.5 % an operand, E2M1 by about 10 %; three to four
  // operands meet in a result.
  const bool four_bits = layer.weights.format == WeightFormat::kNvfp4;
  EXPECT_GT(error, four_bits ? 0.05 : 0.01);
  EXPECT_LT(error, four_bits ? 0.40 : 0.12);
}

/// One expert with E4M3 weights and scales of 1: w1 = {gate row, up row}, w2 by column.
struct TinyFp8Layer {
  std::int64_t k;
  std::vector<std::uint8_t> w1, w2;
  float one = 1.0F;
  ExpertWeightsView expert;
  LayerCase layer;

  TinyFp8Layer(std::vector<float> a, const std::vector<float>& gate, const std::vector<float>& up,
               const std::vector<float>& down, float routing_weight, ActType act = ActType::kFp16)
      : k(static_cast<std::int64_t>(a.size())) {
    for (const float w : gate) w1.push_back(encode_e4m3(w));
    for (const float w : up) w1.push_back(encode_e4m3(w));
    for (const float w : down) w2.push_back(encode_e4m3(w));
    expert.format = WeightFormat::kFp8PerTensor;
    expert.fp8_w1 = {2, k, Fp8Scaling::kPerTensor, w1.data(), &one};
    expert.fp8_w2 = {k, 1, Fp8Scaling::kPerTensor, w2.data(), &one};
    layer.problem.shape = {.num_experts = 1, .topk = 1, .hidden = k, .intermediate = 1, .act = act};
    layer.problem.scheme = {Scheme::kFp8, false, false};
    layer.problem.tokens = 1;
    for (const float x : a) layer.problem.a.push_back(encode_act(act, x));
    layer.problem.routing = {1, 1, {0}, {routing_weight}};
    layer.weights = resident_weights(layer.problem.shape, {&expert, 1});
  }
};

TEST(ReferenceByHand, MultipliesRoundsAndCombines) {
  // gate = 64, up = 6; silu(64) = 64; h = 384; a2 scale 384/448, so h is quantised to 448 * scale =
  // 384; c2 = {192, -384}; y = 0.25 * c2.
  const TinyFp8Layer tiny({64.0F, 3.0F}, {1.0F, 0.0F}, {0.0F, 2.0F}, {0.5F, -1.0F}, 0.25F);
  const ReferenceRows reference = full_reference(tiny.layer, std::nullopt);
  EXPECT_EQ(reference.defect, "");
  EXPECT_THAT(reference.expected, ::testing::ElementsAre(48.0, -96.0));
  EXPECT_THAT(reference.radius, ::testing::ElementsAre(0.0, 0.0));
}

TEST(ReferenceByHand, RoundsSiluTimesUpToSixteenBits) {
  // gate = 1, up = 2: 2 * silu(1) = 1.462117..., nearest FP16 1497 * 2^-10. Alone in its row it is
  // its own amax and comes back from the quantiser as 448 * (h / 448); h * 2^-3 has the same bits
  // as h.
  const TinyFp8Layer tiny({1.0F, 2.0F}, {1.0F, 0.0F}, {0.0F, 1.0F}, {1.0F, 0.0F}, 0.125F);
  const ReferenceRows reference = full_reference(tiny.layer, std::nullopt);
  EXPECT_THAT(reference.expected, ::testing::ElementsAre(1497.0 * 0x1p-13, 0.0));
}

TEST(ReferenceByHand, ReportsAnOverflowOfTheActivationType) {
  // gate = up = 448: h = 200704 is past FP16 (65504), not past BF16.
  const std::vector<float> a = {448.0F};
  const TinyFp8Layer fp16(a, {1.0F}, {1.0F}, {1.0F}, 1.0F);
  EXPECT_THAT(full_reference(fp16.layer, std::nullopt).defect,
              ::testing::HasSubstr("token 0 slot 0 overflows fp16"));
  const TinyFp8Layer bf16(a, {1.0F}, {1.0F}, {1.0F}, 1.0F, ActType::kBf16);
  EXPECT_EQ(full_reference(bf16.layer, std::nullopt).defect, "");
}

TEST(ReferenceByHand, TakesALayerOfZeros) {
  const TinyFp8Layer tiny({0.0F, 0.0F}, {1.0F, 0.0F}, {0.0F, 1.0F}, {1.0F, 1.0F}, 1.0F);
  const ReferenceRows reference = full_reference(tiny.layer, std::nullopt);
  EXPECT_EQ(reference.defect, "");
  EXPECT_THAT(reference.expected, ::testing::ElementsAre(0.0, 0.0));
  EXPECT_EQ(full_reference(tiny.layer, DynamicScaleClaim{1.0F, 0}).defect, "");
}

class ScaleClaim : public ::testing::Test {
 protected:
  ScaleClaim()
      : layer_(synthetic_case(9, {.num_experts = 3, .topk = 2, .hidden = 48, .intermediate = 40},
                              {Scheme::kFp8}, 12)),
        right_(*naive_forward(layer_.problem, layer_.weights, {}).claim) {}
  [[nodiscard]] std::string defect_of(const DynamicScaleClaim& claim) const {
    return full_reference(layer_, claim).defect;
  }
  LayerCase layer_;
  DynamicScaleClaim right_;
};

TEST_F(ScaleClaim, IsAcceptedWhenRight) { EXPECT_EQ(defect_of(right_), ""); }

TEST_F(ScaleClaim, MayBeMissingWhenAllRowsAreComputed) {
  const ReferenceRows with = full_reference(layer_, right_);
  const ReferenceRows without = full_reference(layer_, std::nullopt);
  EXPECT_EQ(with.expected, without.expected);
  EXPECT_EQ(without.defect, "");
}

TEST_F(ScaleClaim, IsRejectedWhenTooSmallForSomePair) {
  EXPECT_THAT(defect_of({right_.scale * 0.99F, right_.pair}),
              ::testing::HasSubstr("needs at least"));
}

TEST_F(ScaleClaim, IsRejectedWhenItsPairDoesNotAttainIt) {
  EXPECT_THAT(defect_of({right_.scale * 1.01F, right_.pair}),
              ::testing::HasSubstr("whose h gives"));
  EXPECT_THAT(defect_of({right_.scale, right_.pair == 0 ? 1 : 0}),
              ::testing::HasSubstr("whose h gives"));
}

TEST_F(ScaleClaim, IsRejectedWhenNotANumberOrFromNowhere) {
  EXPECT_THAT(defect_of({std::nanf(""), right_.pair}),
              ::testing::HasSubstr("not a positive number"));
  EXPECT_THAT(defect_of({-right_.scale, right_.pair}),
              ::testing::HasSubstr("not a positive number"));
  EXPECT_THAT(defect_of({right_.scale, -1}), ::testing::HasSubstr("outside 0..23"));
  EXPECT_THAT(defect_of({right_.scale, 24}), ::testing::HasSubstr("outside 0..23"));
}

TEST_F(ScaleClaim, IsNeededForASample) {
  EXPECT_THROW(static_cast<void>(
                   reference_forward(layer_.problem, layer_.weights, {0}, std::nullopt, kThreads)),
               Error);
  const std::int64_t other = (right_.pair / 2 + 1) % 12;
  EXPECT_THROW(static_cast<void>(
                   reference_forward(layer_.problem, layer_.weights, {other}, right_, kThreads)),
               Error);
}

TEST(ReferenceRowsAsked, AreValidated) {
  const LayerCase layer =
      synthetic_case(1, {.num_experts = 2, .topk = 1, .hidden = 16, .intermediate = 16}, {}, 3);
  EXPECT_THROW(static_cast<void>(
                   reference_forward(layer.problem, layer.weights, {3}, std::nullopt, kThreads)),
               Error);
  EXPECT_THROW(static_cast<void>(
                   reference_forward(layer.problem, layer.weights, {-1}, std::nullopt, kThreads)),
               Error);
  EXPECT_TRUE(
      reference_forward(layer.problem, layer.weights, {}, std::nullopt, kThreads).expected.empty());
  const WeightSource other = synthetic_weights(1, layer.problem.shape, WeightFormat::kFp8Block);
  EXPECT_THROW(
      static_cast<void>(reference_forward(layer.problem, other, {0}, std::nullopt, kThreads)),
      Error);
}

TEST(ReferenceWeights, AreVisitedOnceAnExpert) {
  LayerCase layer =
      synthetic_case(2, {.num_experts = 8, .topk = 3, .hidden = 32, .intermediate = 32}, {}, 20);
  std::array<std::atomic<int>, 8> visits{};
  layer.weights.with_expert = [&, inner = layer.weights.with_expert](std::int64_t expert,
                                                                     const WithExpert& use) {
    ++visits[static_cast<std::size_t>(expert)];
    inner(expert, use);
  };
  static_cast<void>(full_reference(layer, std::nullopt));
  for (const std::atomic<int>& count : visits) EXPECT_LE(count.load(), 1);
}

TEST(ReferenceWeights, ErrorsReachTheCaller) {
  LayerCase layer =
      synthetic_case(2, {.num_experts = 8, .topk = 3, .hidden = 32, .intermediate = 32}, {}, 4);
  layer.weights.with_expert = [](std::int64_t, const WithExpert&) {
    fail(ErrorCode::kIo, "weights.bin: gone");
  };
  layer.weights.unquantized_row = [](std::int64_t, bool, std::int64_t, float*) {
    fail(ErrorCode::kIo, "weights.bin: gone");
  };
  EXPECT_THROW(static_cast<void>(full_reference(layer, std::nullopt)), Error);
  EXPECT_THROW(static_cast<void>(unquantized_forward(layer.problem, layer.weights, {0}, kThreads)),
               Error);
  layer.weights.unquantized_row = nullptr;
  EXPECT_THROW(static_cast<void>(unquantized_forward(layer.problem, layer.weights, {0}, kThreads)),
               Error);
}

}  // namespace
}  // namespace moebench
