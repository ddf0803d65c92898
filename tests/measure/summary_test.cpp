// Figures and label of a finished series: each kind of noise is named with its value, and a clean
// series has no label.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "moebench/measure/measure.h"

namespace moebench {
namespace {

using ::testing::HasSubstr;

constexpr double kFineClock = 1e-9;

StopRule counted(std::int64_t count) {
  StopRule rule;
  rule.kind = StopRule::Kind::kCount;
  rule.count = count;
  return rule;
}

Measurement summary_of(std::vector<double> samples) {
  const auto count = static_cast<std::int64_t>(samples.size());
  return summarize(std::move(samples), 1, counted(count), kFineClock, 1);
}

/// `count` samples around 1 s that differ by up to +-`spread`, in an order without a trend.
std::vector<double> steady(int count, double spread) {
  std::vector<double> samples;
  for (int i = 0; i < count; ++i) samples.push_back(1.0 + spread * (((i * 7) % 11) - 5) / 5.0);
  return samples;
}

TEST(Summary, GivesTheFiguresOfTheSamples) {
  const Measurement m = summarize({1.0, 1.0625, 1.125, 1.1875, 1.25}, 7, counted(5), kFineClock, 1);
  EXPECT_EQ(m.median_s, 1.125);
  EXPECT_EQ(m.iqr_s, 0.125);
  EXPECT_EQ(m.ci.low, 1.0);
  EXPECT_EQ(m.ci.high, 1.25);
  EXPECT_EQ(m.calls_per_sample, 7);
  EXPECT_EQ(m.samples_s.size(), 5U);
}

TEST(Summary, SteadySeriesHasNoLabel) {
  for (const int count : {1, 2, 3, 5, 20, 200}) {
    const Measurement m = summary_of(steady(count, 0.02));
    EXPECT_FALSE(m.noisy) << count << " samples: " << m.noise;
    EXPECT_EQ(m.noise, "");
  }
}

TEST(Summary, LabelsAWideSpread) {
  const Measurement m = summary_of(steady(40, 0.2));
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("IQR "));
  EXPECT_THAT(m.noise, HasSubstr("% of the median"));
}

TEST(Summary, LabelsASeriesThatItsTimeLimitEnded) {
  const StopRule rule;
  const Measurement m = summarize({8.0, 8.4, 8.0}, 1, rule, kFineClock, 1);
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("time limit of 10 s with 1.6 % error after 3 samples"));
}

TEST(Summary, LabelsASeriesThatItsSampleLimitEnded) {
  StopRule rule;
  rule.relative_error = 1e-4;
  const Measurement m = summarize(steady(200, 0.04), 1, rule, kFineClock, 1);
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("stopped at 200 samples with 0.18 % error"));
}

TEST(Summary, LabelsDriftWithItsSign) {
  std::vector<double> samples = steady(60, 0.01);
  for (std::size_t i = 0; i < samples.size(); ++i)
    samples[i] *= 1.0 + 0.001 * static_cast<double>(i);
  const Measurement up = summary_of(samples);
  EXPECT_TRUE(up.noisy);
  EXPECT_THAT(up.noise, HasSubstr("drift of +"));
  std::reverse(samples.begin(), samples.end());
  EXPECT_THAT(summary_of(samples).noise, HasSubstr("drift of -"));
}

TEST(Summary, LabelsAStepInTenSamples) {
  EXPECT_THAT(summary_of({1.0, 1.01, 1.0, 1.02, 1.01, 1.06, 1.05, 1.06, 1.07, 1.06}).noise,
              HasSubstr("drift of +"));
}

TEST(Summary, DoesNotTakeNoiseForDrift) {
  std::mt19937_64 generator(5);
  int labelled = 0;
  for (int series = 0; series < 500; ++series) {
    std::vector<double> samples;
    for (int i = 0; i < 40; ++i)
      samples.push_back(1.0 + 0.05 * static_cast<double>(generator() >> 11) * 0x1p-53);
    labelled += summary_of(samples).noise.find("drift") != std::string::npos ? 1 : 0;
  }
  EXPECT_LE(labelled, 4) << "of 500; seed 5";
}

TEST(Summary, LabelsOneSampleOfThreeMedians) {
  std::vector<double> samples = steady(100, 0.01);
  samples[50] = 3.0;
  EXPECT_THAT(summary_of(samples).noise,
              HasSubstr("1 of 100 samples far off, one 3.00 times the median"));
}

TEST(Summary, LabelsManyModerateOutliers) {
  std::vector<double> samples = steady(100, 0.01);
  for (std::size_t i = 5; i < 100; i += 12) samples[i] = 1.5;
  EXPECT_THAT(summary_of(samples).noise, HasSubstr("8 of 100 samples far off, one 1.50"));
}

TEST(Summary, OneModerateOutlierInAHundredIsNoLabel) {
  std::vector<double> samples = steady(100, 0.01);
  samples[50] = 1.5;
  EXPECT_FALSE(summary_of(samples).noisy);
}

TEST(Summary, LabelsASampleOfFewClockSteps) {
  const Measurement m = summarize({2e-3, 2e-3, 2e-3}, 4, counted(3), 1e-3, 1);
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("only 8 steps of the clock (0.001 s)"));
}

TEST(Summary, SurvivesAClockThatSawNothing) {
  const Measurement m = summarize({0.0, 0.0, 0.0}, 1, counted(3), 1e-3, 1);
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("only 0 steps"));
}

TEST(Summary, NamesSeveralReasons) {
  std::vector<double> samples = steady(40, 0.3);
  for (std::size_t i = 20; i < 40; ++i) samples[i] *= 2.0;
  const std::string noise = summary_of(samples).noise;
  EXPECT_THAT(noise, HasSubstr("IQR"));
  EXPECT_THAT(noise, HasSubstr("; drift"));
}

}  // namespace
}  // namespace moebench
