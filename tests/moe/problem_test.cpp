// Synthetic tokens, calibration and the checks of a whole case.
#include "moebench/moe/problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "moebench/core/error.h"

namespace moebench {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr std::uint64_t kSeed = 5;
constexpr MoeShape kShape{.num_experts = 6, .topk = 2, .hidden = 96, .intermediate = 64};
constexpr SchemeConfig kNvfp4{.scheme = Scheme::kNvfp4};
constexpr SchemeConfig kFp8{.scheme = Scheme::kFp8};
constexpr std::uint16_t kFp16Nan = 0x7E00;
constexpr std::uint16_t kFp16Infinity = 0x7C00;

MoeProblem make_problem(const SchemeConfig& scheme = kNvfp4, std::int64_t tokens = 5) {
  return synthetic_problem(kSeed, kShape, scheme, tokens,
                           make_routing({}, kSeed, tokens, 6, 2, false), calibrate(kSeed, kShape));
}

std::string rejection(const MoeProblem& problem) {
  try {
    validate(problem);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(std::string(error.what()), ::testing::Not(HasSubstr("\n")));
    return error.what();
  }
  return "";
}

TEST(SyntheticTokens, ArePrefixesOfLongerOnes) {
  const auto few = synthetic_tokens(kSeed, kShape, 3);
  auto many = synthetic_tokens(kSeed, kShape, 50);
  many.resize(few.size());
  EXPECT_EQ(few, many);
}

TEST(SyntheticTokens, HaveTheStatedSpreadInBothTypes) {
  MoeShape shape = kShape;
  for (const ActType act : {ActType::kFp16, ActType::kBf16}) {
    shape.act = act;
    const auto a = synthetic_tokens(kSeed, shape, 300);
    double squares = 0.0;
    for (const std::uint16_t bits : a) {
      const double value = static_cast<double>(decode_act(act, bits));
      ASSERT_LE(std::abs(value), 4.0);
      squares += value * value;
    }
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(a.size())), 1.15, 0.02) << name_of(act);
  }
}

TEST(Calibration, HasOnePositivePowerOfTwoBoundPerExpert) {
  const ActivationScales scales = calibrate(kSeed, kShape);
  ASSERT_EQ(scales.a1_global_scale.size(), 6U);
  ASSERT_EQ(scales.a2_global_scale.size(), 6U);
  EXPECT_THAT(scales.a1_global_scale, Each(448.0F * 6.0F / 4.0F));
  EXPECT_EQ(scales.a1_scale, 4.0F / 448.0F);
  const float a2_amax = 448.0F * 6.0F / scales.a2_global_scale[0];
  int exponent = 0;
  EXPECT_EQ(std::frexp(a2_amax, &exponent), 0.5F) << a2_amax;
  EXPECT_THAT(scales.a2_global_scale, Each(scales.a2_global_scale[0]));
}

TEST(Calibration, CoversWhatSyntheticTokensReachWithinAFactorOfFour) {
  // h of 64 other tokens in expert 0, from the unquantised weights.
  const std::int64_t k = kShape.hidden;
  const std::int64_t n = kShape.intermediate;
  const auto a = synthetic_tokens(kSeed, kShape, 64);
  std::vector<float> gate(static_cast<std::size_t>(k));
  std::vector<float> up(static_cast<std::size_t>(k));
  double amax = 0.0;
  for (std::int64_t row = 0; row < n; ++row) {
    synthetic_weight_row(kSeed, 0, false, row, k, gate.data());
    synthetic_weight_row(kSeed, 0, false, n + row, k, up.data());
    for (std::size_t token = 0; token < 64; ++token) {
      double g = 0.0;
      double u = 0.0;
      for (std::size_t i = 0; i < static_cast<std::size_t>(k); ++i) {
        const auto x =
            static_cast<double>(decode_act(kShape.act, a[token * static_cast<std::size_t>(k) + i]));
        g += x * static_cast<double>(gate[i]);
        u += x * static_cast<double>(up[i]);
      }
      amax = std::max(amax, std::abs(g / (1.0 + std::exp(-g)) * u));
    }
  }
  const double calibrated =
      448.0 * 6.0 / static_cast<double>(calibrate(kSeed, kShape).a2_global_scale[0]);
  EXPECT_GT(calibrated, amax / 2.0);
  EXPECT_LT(calibrated, amax * 4.0);
}

TEST(Calibration, DoesNotDependOnThreadsOrOnTheNumberOfExperts) {
  const ActivationScales all = calibrate(kSeed, kShape);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const ActivationScales one = calibrate(kSeed, kShape);
  omp_set_num_threads(threads);
  EXPECT_EQ(all.a2_global_scale, one.a2_global_scale);
  MoeShape more = kShape;
  more.num_experts = 100;
  EXPECT_EQ(calibrate(kSeed, more).a2_global_scale[99], all.a2_global_scale[0]);
}

TEST(Calibration, WorksForTheSmallestLayer) {
  const ActivationScales scales =
      calibrate(kSeed, {.num_experts = 1, .topk = 1, .hidden = 1, .intermediate = 1});
  ASSERT_EQ(scales.a2_global_scale.size(), 1U);
  EXPECT_GT(scales.a2_global_scale[0], 0.0F);
  EXPECT_TRUE(std::isfinite(scales.a2_global_scale[0]));
}

TEST(ProblemRules, AcceptZeroTokensAndEveryScheme) {
  for (const Scheme scheme : kAllSchemes) {
    for (const std::int64_t tokens : {0, 1, 17}) {
      EXPECT_EQ(rejection(make_problem({.scheme = scheme}, tokens)), "")
          << name_of(scheme) << " " << tokens;
    }
  }
}

TEST(ProblemRules, RejectTokensThatDoNotFitTheRouting) {
  MoeProblem problem = make_problem();
  problem.tokens = 4;
  EXPECT_THAT(rejection(problem), HasSubstr("made for 5 tokens and topk 2, the case has 4"));
}

TEST(ProblemRules, RejectAWrongNumberOfActivations) {
  MoeProblem problem = make_problem();
  problem.a.pop_back();
  EXPECT_THAT(rejection(problem), HasSubstr("479 values for 5 tokens of 96 columns"));
}

TEST(ProblemRules, RejectNanAndInfiniteTokensWithCountAndFirstPlace) {
  MoeProblem problem = make_problem();
  problem.a[2 * 96 + 7] = kFp16Nan;
  problem.a[3 * 96] = kFp16Infinity;
  EXPECT_THAT(rejection(problem),
              HasSubstr("2 NaN or infinite values, the first at token 2, column 7"));
}

TEST(ProblemRules, RejectBadRouting) {
  MoeProblem problem = make_problem();
  problem.routing.topk_ids[3] = 6;
  EXPECT_THAT(rejection(problem), HasSubstr("expert 6 at token 1, slot 1"));
}

TEST(ProblemRules, RejectMissingGlobalScales) {
  MoeProblem problem = make_problem();
  problem.scales.a2_global_scale.pop_back();
  EXPECT_THAT(rejection(problem), HasSubstr("a2_global_scale: 5 values for 6 experts"));
}

class BadScales : public ::testing::TestWithParam<float> {};
TEST_P(BadScales, AreRejectedWhereTheSchemeReadsThem) {
  MoeProblem nvfp4 = make_problem();
  nvfp4.scales.a1_global_scale[4] = GetParam();
  EXPECT_THAT(rejection(nvfp4), HasSubstr("a1_global_scale: expert 4 has"));
  nvfp4.scheme.scheme = Scheme::kNvfp4W4A16;
  EXPECT_EQ(rejection(nvfp4), "");

  MoeProblem fp8 = make_problem(kFp8);
  fp8.scales.a1_scale = GetParam();
  EXPECT_THAT(rejection(fp8), HasSubstr("a1_scale: is"));
  fp8.scheme.per_act_token = true;
  EXPECT_EQ(rejection(fp8), "");
}
INSTANTIATE_TEST_SUITE_P(Values, BadScales,
                         ::testing::Values(0.0F, -0.0F, -1.0F,
                                           std::numeric_limits<float>::infinity(),
                                           std::numeric_limits<float>::quiet_NaN()));

TEST(ProblemRules, RejectTokenCountsWhoseSizeOverflows) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max() / 8;
  try {
    static_cast<void>(synthetic_tokens(kSeed, kShape, kHuge));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  }
}

}  // namespace
}  // namespace moebench
