// Quantiles and bootstrap against values worked out by hand with the rules of numpy.percentile
// (linear) and numpy.std (ddof 1).
#include "moebench/measure/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "moebench/core/error.h"

namespace moebench {
namespace {

struct QuantileCase {
  const char* name;
  std::vector<double> values;
  double q;
  double expected;
};
class Quantile : public ::testing::TestWithParam<QuantileCase> {};

TEST_P(Quantile, IsTheOneOfNumpy) {
  EXPECT_EQ(quantile(GetParam().values, GetParam().q), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Statistics, Quantile,
    ::testing::Values(QuantileCase{"OneValue", {7.0}, 0.3, 7.0},
                      QuantileCase{"MiddleOfTwo", {1.0, 2.0}, 0.5, 1.5},
                      QuantileCase{"LowerQuartileOfFour", {4.0, 1.0, 3.0, 2.0}, 0.25, 1.75},
                      QuantileCase{"UpperQuartileOfFour", {4.0, 1.0, 3.0, 2.0}, 0.75, 3.25},
                      QuantileCase{"Least", {5.0, -1.0, 3.0}, 0.0, -1.0},
                      QuantileCase{"Largest", {5.0, -1.0, 3.0}, 1.0, 5.0},
                      QuantileCase{"MiddleOfThree", {5.0, -1.0, 3.0}, 0.5, 3.0},
                      // Position 3.6 lies nearer to the upper neighbour, from which numpy
                      // interpolates: 0.7 - 0.3 * 0.4.
                      QuantileCase{"InterpolatedFromAbove",
                                   {0.1, 0.2, 0.3, 0.4, 0.7},
                                   0.9,
                                   0.7 - (0.7 - 0.4) * (1.0 - (0.9 * 4.0 - 3.0))},
                      QuantileCase{"Ties", {2.0, 2.0, 2.0, 9.0}, 0.5, 2.0}),
    [](const auto& test_case) { return test_case.param.name; });

TEST(Statistics, NeverPassesTheNeighboursOfAQuantile) {
  const std::vector<double> values = {0.1, 0.1, 0.1};
  for (int i = 0; i <= 1000; ++i)
    EXPECT_EQ(quantile(values, i / 1000.0), 0.1) << "q = " << i / 1000.0;
}

TEST(Statistics, MedianAndInterquartileRangeByHand) {
  const std::vector<double> values = {9.0, 1.0, 5.0, 3.0, 7.0};
  EXPECT_EQ(median(values), 5.0);
  EXPECT_EQ(interquartile_range(values), 4.0);
}

TEST(Statistics, RelativeStandardErrorByHand) {
  // Mean 3, squares 4+1+0+1+4 = 10, variance 10/4, standard error sqrt(2.5/5).
  const std::vector<double> values = {1.0, 2.0, 3.0, 4.0, 5.0};
  EXPECT_DOUBLE_EQ(relative_standard_error(values), std::sqrt(0.5) / 3.0);
}

TEST(Statistics, OneValueKnowsNothingOfItsError) {
  EXPECT_TRUE(std::isinf(relative_standard_error(std::vector<double>{1.0})));
  EXPECT_EQ(relative_standard_error(std::vector<double>{1.0, 1.0}), 0.0);
}

TEST(Statistics, RefusesNoValuesAndNan) {
  const std::vector<double> nan = {1.0, std::numeric_limits<double>::quiet_NaN()};
  EXPECT_THROW((void)median({}), Error);
  EXPECT_THROW((void)median(nan), Error);
  EXPECT_THROW((void)bootstrap_median({}, 1), Error);
  EXPECT_THROW((void)bootstrap_ratio(nan, nan, 1), Error);
  EXPECT_THROW((void)quantile(std::vector<double>{1.0}, 1.5), Error);
}

TEST(Statistics, RefusesARatioOverZero) {
  EXPECT_THROW((void)bootstrap_ratio(std::vector<double>{1.0}, std::vector<double>{0.0}, 1), Error);
}

class FewSamples : public ::testing::TestWithParam<int> {};

TEST_P(FewSamples, GiveTheirRangeAsTheInterval) {
  std::vector<double> values;
  for (int i = 0; i < GetParam(); ++i) values.push_back(2.0 + i);
  const Interval interval = bootstrap_median(values, 3);
  EXPECT_EQ(interval.low, 2.0);
  EXPECT_EQ(interval.high, 1.0 + GetParam());
}

TEST_P(FewSamples, GiveEveryRatioThatTheRangesAllow) {
  std::vector<double> values;
  for (int i = 0; i < GetParam(); ++i) values.push_back(2.0 + i);
  const std::vector<double> baseline(20, 8.0);
  const Interval interval = bootstrap_ratio(baseline, values, 3);
  EXPECT_EQ(interval.low, 8.0 / (1.0 + GetParam()));
  EXPECT_EQ(interval.high, 4.0);
}

INSTANTIATE_TEST_SUITE_P(Statistics, FewSamples, ::testing::Values(1, 2, 3, 5));

std::vector<double> ramp(int count) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) values.push_back(1.0 + 0.01 * i);
  return values;
}

TEST(Statistics, SameSeedGivesTheSameInterval) {
  const std::vector<double> values = ramp(40);
  const Interval a = bootstrap_median(values, 11);
  const Interval b = bootstrap_median(values, 11);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
}

// Pins the drawn indices: std::mt19937_64 is fixed by the standard and the index draw is ours, so
// every compiler and standard library must find exactly these order statistics.
TEST(Statistics, IntervalIsTheSameOnEveryStandardLibrary) {
  std::vector<double> values;
  for (int i = 1; i <= 99; ++i) values.push_back(i * i);
  const Interval interval = bootstrap_median(values, 42);
  EXPECT_EQ(interval.low, 1681.0);
  EXPECT_EQ(interval.high, 3481.0);
}

TEST(Statistics, IntervalHoldsTheMedianAndNarrowsWithSamples) {
  const Interval few = bootstrap_median(ramp(10), 5);
  std::vector<double> many;
  for (int i = 0; i < 30; ++i) {
    for (const double value : ramp(10)) many.push_back(value);
  }
  const Interval narrow = bootstrap_median(many, 5);
  EXPECT_LE(few.low, median(ramp(10)));
  EXPECT_GE(few.high, median(ramp(10)));
  EXPECT_LT(narrow.high - narrow.low, few.high - few.low);
}

TEST(Statistics, PairedRatioIgnoresDriftThatBothShare) {
  std::vector<double> baseline;
  std::vector<double> values;
  for (int i = 0; i < 40; ++i) {
    baseline.push_back(1.0 + 0.05 * i);
    values.push_back(baseline.back() / 1.25);
  }
  const Interval paired = bootstrap_ratio(baseline, values, 1);
  EXPECT_NEAR(paired.low, 1.25, 1e-12);
  EXPECT_NEAR(paired.high, 1.25, 1e-12);
  values.push_back(values.back());
  const Interval unpaired = bootstrap_ratio(baseline, values, 1);
  EXPECT_GT(unpaired.high - unpaired.low, 0.1);
}

TEST(Statistics, TwoHundredSamplesTakeLessThanFiftyMilliseconds) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
  GTEST_SKIP() << "a bound on time holds for optimised builds without sanitizers only";
#endif
  double best_s = 1.0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto start = std::chrono::steady_clock::now();
    (void)bootstrap_median(ramp(200), 1);
    best_s = std::min(
        best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  EXPECT_LT(best_s, 0.05);
}

TEST(Statistics, AHundredThousandSamplesEndInReasonableTime) {
  const Interval interval = bootstrap_median(ramp(100'000), 1);
  EXPECT_LT(interval.low, interval.high);
}

}  // namespace
}  // namespace moebench
