// Text forms of the stopping rules and when each ends a series.
#include "moebench/measure/stop_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <clocale>
#include <string>
#include <vector>

#include "moebench/core/error.h"

namespace moebench {
namespace {

using ::testing::HasSubstr;

TEST(StopRule, ReadsEveryForm) {
  EXPECT_EQ(parse_stop_rule("stdrel:0.5%").relative_error, 0.005);
  EXPECT_EQ(parse_stop_rule("stdrel:0.005").relative_error, 0.005);
  EXPECT_EQ(parse_stop_rule("stdrel:0.5%").kind, StopRule::Kind::kStdRel);
  EXPECT_EQ(parse_stop_rule("time:5s").seconds, 5.0);
  EXPECT_EQ(parse_stop_rule("time:200ms").seconds, 0.2);
  EXPECT_EQ(parse_stop_rule("time:1.5min").seconds, 90.0);
  EXPECT_EQ(parse_stop_rule("time:5s").kind, StopRule::Kind::kTime);
  EXPECT_EQ(parse_stop_rule("count:100").count, 100);
  EXPECT_EQ(parse_stop_rule("count:100").kind, StopRule::Kind::kCount);
}

class BadStopRule : public ::testing::TestWithParam<const char*> {};

TEST_P(BadStopRule, IsRefusedWithItsValue) {
  try {
    (void)parse_stop_rule(GetParam());
    FAIL() << "accepted: " << GetParam();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr("--stop: "));
    EXPECT_THAT(error.what(), HasSubstr(printable(GetParam())));
    EXPECT_THAT(error.what(), HasSubstr("; use "));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(
    StopRule, BadStopRule,
    ::testing::Values("", ":", "stdrel", "stdrel:", "stdrel:%", "stdrel:0", "stdrel:0%",
                      "stdrel:-1%", "stdrel:100%", "stdrel:1", "stdrel:nan", "stdrel:inf%",
                      "stdrel:0,5%", "stdrel:0.5%%", "stdrel: 0.5%", "time:", "time:5", "time:s",
                      "time:0s", "time:-1s", "time:infs", "time:nanms", "time:1e99s", "time:5 s",
                      "time:5h", "time:90000s", "count:", "count:0", "count:-5", "count:1.5",
                      "count:18446744073709551616", "count:1000001", "count:10x", "Count:10",
                      "median:5", "stdrel:0x1p-8", "count:10\nrm"));

class RoundTrip : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTrip, TextIsReadBackUnchanged) {
  EXPECT_EQ(to_string(parse_stop_rule(GetParam())), GetParam());
}

INSTANTIATE_TEST_SUITE_P(StopRule, RoundTrip,
                         ::testing::Values("stdrel:0.5%", "stdrel:0.7%", "stdrel:0.0001%",
                                           "stdrel:12.345%", "stdrel:33.3333333%", "time:5s",
                                           "time:0.2s", "time:86400s", "count:1", "count:1000000"));

TEST(StopRule, ReadsADecimalPointUnderACommaLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  bool comma = false;
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"}) {
    comma = comma || std::setlocale(LC_ALL, name) != nullptr;
  }
  if (!comma) GTEST_SKIP() << "no locale with a decimal comma is installed";
  EXPECT_EQ(parse_stop_rule("stdrel:0.5%").relative_error, 0.005);
  EXPECT_EQ(to_string(parse_stop_rule("time:0.5s")), "time:0.5s");
  std::setlocale(LC_ALL, before.c_str());
}

const std::vector<double> kSteady(5, 1.0);
const std::vector<double> kWild = {1.0, 2.0, 1.0, 2.0, 1.0};

TEST(StopRule, CountEndsAtExactlyItsCount) {
  const StopRule rule = parse_stop_rule("count:3");
  EXPECT_FALSE(enough(rule, std::span(kWild).first(2), 1e9));
  EXPECT_TRUE(enough(rule, std::span(kWild).first(3), 0.0));
}

TEST(StopRule, TimeNeedsItsTimeAndThreeSamples) {
  const StopRule rule = parse_stop_rule("time:2s");
  EXPECT_FALSE(enough(rule, kSteady, 1.99));
  EXPECT_TRUE(enough(rule, kSteady, 2.0));
  EXPECT_FALSE(enough(rule, std::span(kSteady).first(2), 100.0));
  EXPECT_TRUE(enough(rule, std::span(kSteady).first(3), 100.0));
}

TEST(StopRule, StdRelEndsWhenSettledButNotBeforeItsLeast) {
  const StopRule rule;
  EXPECT_TRUE(enough(rule, kSteady, 0.5));
  EXPECT_FALSE(enough(rule, kSteady, 0.49)) << "min_seconds";
  EXPECT_FALSE(enough(rule, std::span(kSteady).first(4), 5.0)) << "min_samples";
  EXPECT_FALSE(enough(rule, kWild, 5.0)) << "not settled";
}

TEST(StopRule, StdRelEndsAtItsBoundsWhateverTheNoise) {
  const StopRule rule;
  EXPECT_TRUE(enough(rule, kWild, 10.0));
  EXPECT_FALSE(settled(rule, kWild));
  std::vector<double> many;
  for (int i = 0; i < 200; ++i) many.push_back(kWild[static_cast<std::size_t>(i) % kWild.size()]);
  EXPECT_TRUE(enough(rule, many, 0.1));
  many.pop_back();
  EXPECT_FALSE(enough(rule, many, 0.1));
}

TEST(StopRule, SlowCallsEndAfterThreeSamples) {
  const StopRule rule;
  EXPECT_FALSE(enough(rule, std::span(kWild).first(2), 16.0));
  EXPECT_TRUE(enough(rule, std::span(kWild).first(3), 24.0));
}

/// Sampling time of one series whose every call takes `call_s` and that never settles.
double worst_sampling_s(double call_s) {
  const StopRule rule;
  std::vector<double> samples;
  double elapsed = 0.0;
  do {
    samples.push_back(call_s * (samples.size() % 2 == 0 ? 0.8 : 1.2));
    elapsed += samples.back();
  } while (!enough(rule, samples, elapsed));
  return elapsed;
}

TEST(StopRule, DefaultRunOfTwentySeriesTakesAtMostFiveMinutes) {
  double total = 0.0;
  for (const double call_s : {0.02, 0.04, 0.08, 0.16, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0})
    total += worst_sampling_s(call_s);
  EXPECT_LE(2.0 * total, 300.0);
}

TEST(StopRule, CompletionGrowsToOne) {
  for (const char* text : {"stdrel:0.5%", "time:2s", "count:7"}) {
    const StopRule rule = parse_stop_rule(text);
    std::vector<double> samples;
    EXPECT_EQ(completion(rule, samples, 0.0), 0.0) << text;
    double elapsed = 0.0;
    while (!enough(rule, samples, elapsed)) {
      EXPECT_LT(completion(rule, samples, elapsed), 1.0 + 1e-12) << text;
      samples.push_back(1.0 + 0.1 * static_cast<double>(samples.size() % 2));
      elapsed += samples.back();
    }
    EXPECT_EQ(completion(rule, samples, elapsed), 1.0) << text;
  }
}

}  // namespace
}  // namespace moebench
