// The sampling loop on a virtual clock: which calls are made, in which order, what is timed, when
// it ends.
#include "moebench/measure/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "moebench/core/error.h"
#include "tests/measure/virtual_machine.h"

namespace moebench {
namespace {

using ::testing::ElementsAre;
using testing::FakeMoe;
using ::testing::HasSubstr;
using testing::VirtualMachine;

std::function<double(std::int64_t)> always(double seconds) {
  return [seconds](std::int64_t) { return seconds; };
}

class MeasureTest : public ::testing::Test {
 protected:
  Contestant contestant(std::vector<PreparedMoe*> variants) {
    return {"kernel", std::move(variants), y_};
  }

  std::vector<Measurement> run(std::vector<Contestant> contestants) {
    return measure(contestants, spec_, stop_, progress_, machine_.clock());
  }

  void count(std::int64_t samples) {
    spec_.stop = parse_stop_rule("count:" + std::to_string(samples));
  }

  /// Events from index `first` on.
  [[nodiscard]] std::vector<std::string> events_after(std::size_t first) const {
    return {machine_.events.begin() + static_cast<std::ptrdiff_t>(first), machine_.events.end()};
  }

  VirtualMachine machine_;
  MeasureSpec spec_;
  StopFlag stop_{false};
  std::function<void(double)> progress_;
  std::vector<std::uint16_t> y_ = std::vector<std::uint16_t>(4);
};

TEST_F(MeasureTest, WarmsUpAtLeastOnceThenForTheWarmUpTime) {
  FakeMoe slow(machine_, "S", always(1.0));
  FakeMoe quick(machine_, "Q", always(0.05));
  count(1);
  (void)run({contestant({&slow}), contestant({&quick})});
  EXPECT_EQ(slow.calls(), 1 + 1);
  EXPECT_EQ(quick.calls(), 4 + 1);  // 4 * 0.05 = 0.2 s
}

TEST_F(MeasureTest, WarmUpIsNotAmongTheSamples) {
  FakeMoe first_call_slow(machine_, "A", [](std::int64_t n) { return n == 0 ? 9.0 : 1.0; });
  count(4);
  const auto results = run({contestant({&first_call_slow})});
  EXPECT_THAT(results[0].samples_s, ::testing::Each(::testing::DoubleEq(1.0)));
}

TEST_F(MeasureTest, InterleavesRoundsAndRotatesTheirOrder) {
  FakeMoe a(machine_, "A", always(1.0));
  FakeMoe b(machine_, "B", always(1.0));
  FakeMoe c(machine_, "C", always(1.0));
  count(4);
  (void)run({contestant({&a}), contestant({&b}), contestant({&c})});
  EXPECT_THAT(events_after(3),
              ElementsAre("A", "B", "C", "B", "C", "A", "C", "A", "B", "A", "B", "C"));
}

TEST_F(MeasureTest, SettledContestantLeavesAndTheOthersGoOnInTurn) {
  // A is steady and settles after 5 samples; B and C alternate by 20 % and end at their time limit
  // (10 s).
  FakeMoe a(machine_, "A", always(1.0));
  const auto noisy = [](std::int64_t n) { return n % 2 == 0 ? 0.8 : 1.2; };
  FakeMoe b(machine_, "B", noisy);
  FakeMoe c(machine_, "C", noisy);
  const auto results = run({contestant({&a}), contestant({&b}), contestant({&c})});
  EXPECT_EQ(results[0].samples_s.size(), 5U);
  EXPECT_EQ(results[1].samples_s.size(), 10U);
  EXPECT_EQ(results[2].samples_s.size(), 10U);
  EXPECT_FALSE(results[0].noisy) << results[0].noise;
  EXPECT_TRUE(results[1].noisy);
  EXPECT_THAT(results[1].noise, HasSubstr("time limit"));
  // The last rounds: B and C alone, still alternating in rotated order.
  EXPECT_THAT(events_after(3 + 15), ElementsAre("C", "B", "B", "C", "B", "C", "C", "B", "B", "C"));
}

TEST_F(MeasureTest, SlowCallsTakeThreeSamples) {
  FakeMoe slow(machine_, "S", [](std::int64_t n) { return n % 2 == 0 ? 8.0 : 8.8; });
  const auto results = run({contestant({&slow})});
  EXPECT_EQ(results[0].samples_s.size(), 3U);
  EXPECT_TRUE(results[0].noisy);
}

TEST_F(MeasureTest, OneCallIsASampleWhereItIsLongEnough) {
  FakeMoe a(machine_, "A", always(150e-6));
  count(3);
  EXPECT_EQ(run({contestant({&a})})[0].calls_per_sample, 1);
}

TEST_F(MeasureTest, ShortCallsAreGroupedIntoSamplesOfAHundredMicroseconds) {
  FakeMoe a(machine_, "A", always(7e-6));
  count(6);
  const Measurement m = run({contestant({&a})})[0];
  const double sample_s = 7e-6 * static_cast<double>(m.calls_per_sample);
  EXPECT_GE(sample_s, kShortestSample);
  EXPECT_LE(sample_s, 2.0 * kShortestSample);
  EXPECT_NEAR(m.median_s, 7e-6, 1e-12) << "per call, not per sample";
}

TEST_F(MeasureTest, CoarseClockGetsSamplesOfAThousandSteps) {
  machine_.tick_s = 50e-6;
  FakeMoe a(machine_, "A", always(7e-6));
  count(6);
  const Measurement m = run({contestant({&a})})[0];
  EXPECT_GE(7e-6 * static_cast<double>(m.calls_per_sample), kClockSteps * 50e-6);
  EXPECT_NEAR(m.median_s, 7e-6, 7e-6 / 500.0);
  EXPECT_FALSE(m.noisy) << m.noise;
}

TEST_F(MeasureTest, ClockTooCoarseForAnySampleIsLabelled) {
  machine_.tick_s = 0.04;
  FakeMoe a(machine_, "A", always(0.001));
  count(5);
  const Measurement m = run({contestant({&a})})[0];
  EXPECT_GE(0.001 * static_cast<double>(m.calls_per_sample), 0.9 * kLongestChosenSample);
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("steps of the clock"));
}

TEST_F(MeasureTest, CallThatTakesNoTimeEndsAndIsLabelled) {
  FakeMoe a(machine_, "A", [](std::int64_t) { return 0.0; });
  spec_.warmup_s = 0.0;
  count(1);
  machine_.tick_s = 1e-3;
  // Ten million calls: the record would only cost memory.
  machine_.on_event = [this] { machine_.events.clear(); };
  const Measurement m = run({contestant({&a})})[0];
  EXPECT_TRUE(m.noisy);
  EXPECT_THAT(m.noise, HasSubstr("only 0 steps of the clock"));
}

TEST_F(MeasureTest, GivenCallsPerSampleAreTakenAsTheyAre) {
  FakeMoe a(machine_, "A", always(1.0));
  spec_.runs_per_call = 25;
  count(2);
  const Measurement m = run({contestant({&a})})[0];
  EXPECT_EQ(m.calls_per_sample, 25);
  EXPECT_EQ(a.calls(), 1 + 2 * 25);
  EXPECT_DOUBLE_EQ(m.median_s, 1.0);
}

TEST_F(MeasureTest, ColdFlushesBeforeEveryCallOutsideTheTimedSpan) {
  FakeMoe a(machine_, "A", always(2e-6));
  FakeMoe b(machine_, "B", always(1.0));
  spec_.cache = CacheMode::kCold;
  spec_.runs_per_call = 8;  // does not apply: only the first call after a flush is cold
  count(3);
  const auto results = run({contestant({&a}), contestant({&b})});
  for (std::size_t i = 0; i < machine_.events.size(); ++i) {
    EXPECT_EQ(machine_.events[i] == "flush", i % 2 == 0)
        << "event " << i << ": " << machine_.events[i];
  }
  EXPECT_EQ(results[0].calls_per_sample, 1);
  EXPECT_NEAR(results[0].median_s, 2e-6, 1e-12);
  EXPECT_NEAR(results[1].median_s, 1.0, 1e-12);
}

TEST_F(MeasureTest, RotateCyclesVariantsFromTheFirst) {
  FakeMoe a0(machine_, "A0", always(1.0));
  FakeMoe a1(machine_, "A1", always(1.0));
  FakeMoe a2(machine_, "A2", always(1.0));
  FakeMoe b0(machine_, "B0", always(1.0));
  FakeMoe b1(machine_, "B1", always(1.0));
  spec_.cache = CacheMode::kRotate;
  count(4);
  (void)run({contestant({&a0, &a1, &a2}), contestant({&b0, &b1})});
  EXPECT_THAT(events_after(5), ElementsAre("A0", "B0", "B1", "A1", "A2", "B0", "B1", "A0"));
}

TEST_F(MeasureTest, RotateWarmsEveryVariantUp) {
  FakeMoe a0(machine_, "A0", always(1.0));
  FakeMoe a1(machine_, "A1", always(1.0));
  spec_.cache = CacheMode::kRotate;
  count(1);
  (void)run({contestant({&a0, &a1})});
  EXPECT_THAT(machine_.events, ElementsAre("A0", "A1", "A0"));
}

TEST_F(MeasureTest, RotateSamplesHoldEveryVariantEquallyOften) {
  FakeMoe a0(machine_, "A0", always(10e-6));
  FakeMoe a1(machine_, "A1", always(30e-6));
  FakeMoe a2(machine_, "A2", always(50e-6));
  spec_.cache = CacheMode::kRotate;
  count(5);
  const Measurement m = run({contestant({&a0, &a1, &a2})})[0];
  EXPECT_GT(m.calls_per_sample, 1);
  EXPECT_EQ(m.calls_per_sample % 3, 0);
  EXPECT_THAT(m.samples_s, ::testing::Each(::testing::DoubleNear(30e-6, 1e-11)));
}

TEST_F(MeasureTest, WarmUsesTheFirstVariantOnly) {
  FakeMoe a0(machine_, "A0", always(1.0));
  FakeMoe a1(machine_, "A1", always(1.0));
  count(3);
  (void)run({contestant({&a0, &a1})});
  EXPECT_EQ(a1.calls(), 0);
}

TEST_F(MeasureTest, QuickWarmCallsFollowAnUntimedOneOfTheirOwn) {
  // Each call of the other kernel evicts: the next call takes three times as long.
  const auto evicted_by_other = [this](const std::string& self) {
    return [this, self](std::int64_t) {
      return !machine_.events.empty() && machine_.events.back() != self ? 3e-3 : 1e-3;
    };
  };
  FakeMoe a(machine_, "A", evicted_by_other("A"));
  FakeMoe b(machine_, "B", evicted_by_other("B"));
  count(5);
  for (const Measurement& m : run({contestant({&a}), contestant({&b})})) {
    EXPECT_THAT(m.samples_s, ::testing::Each(::testing::DoubleNear(1e-3, 1e-9)));
  }
}

TEST_F(MeasureTest, TimeRuleCountsFlushes) {
  FakeMoe a(machine_, "A", always(0.07));  // and 0.03 s of flush before each
  spec_.cache = CacheMode::kCold;
  spec_.stop = parse_stop_rule("time:1.95s");
  EXPECT_EQ(run({contestant({&a})})[0].samples_s.size(), 20U);
}

TEST_F(MeasureTest, TimeRuleLengthensSamplesInsteadOfTakingMillions) {
  FakeMoe a(machine_, "A", always(20e-6));
  spec_.stop = parse_stop_rule("time:5s");
  const Measurement m = run({contestant({&a})})[0];
  EXPECT_LE(m.samples_s.size(), 1000U);
  EXPECT_GE(m.samples_s.size(), 400U);
}

TEST_F(MeasureTest, StopFlagThatIsSetEndsBeforeAnyCall) {
  FakeMoe a(machine_, "A", always(1.0));
  stop_ = true;
  EXPECT_THROW((void)run({contestant({&a})}), Interrupted);
  EXPECT_EQ(a.calls(), 0);
}

TEST_F(MeasureTest, StopFlagEndsAfterTheCurrentCallWhereverItIsSet) {
  // One warm-up call, then samples of three calls each: the flag is set during warm-up, mid-sample
  // and between samples.
  for (const std::size_t call : {1U, 3U, 4U, 6U}) {
    VirtualMachine machine;
    FakeMoe a(machine, "A", always(1.0));
    StopFlag stop{false};
    machine.on_event = [&] { stop = machine.events.size() == call; };
    spec_.runs_per_call = 3;
    std::vector<Contestant> contestants = {contestant({&a})};
    EXPECT_THROW((void)measure(contestants, spec_, stop, {}, machine.clock()), Interrupted)
        << "call " << call;
    EXPECT_EQ(machine.events.size(), call);
  }
}

TEST_F(MeasureTest, WhatAContestantThrowsPassesThrough) {
  FakeMoe a(machine_, "A", [](std::int64_t n) -> double {
    if (n == 2) fail(ErrorCode::kOutOfMemory, "device: out of memory");
    return 1.0;
  });
  EXPECT_THROW((void)run({contestant({&a})}), Error);
}

TEST_F(MeasureTest, ProgressNeverFallsAndEndsAtOne) {
  FakeMoe a(machine_, "A", [](std::int64_t n) { return 0.1 + 0.01 * static_cast<double>(n % 5); });
  FakeMoe b(machine_, "B", always(0.2));
  std::vector<double> seen;
  progress_ = [&](double fraction) { seen.push_back(fraction); };
  (void)run({contestant({&a}), contestant({&b})});
  ASSERT_GT(seen.size(), 5U);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_GE(seen.front(), 0.0);
  EXPECT_EQ(seen.back(), 1.0);
  EXPECT_LT(seen[seen.size() / 2], 1.0);
}

TEST_F(MeasureTest, ProgressIsCalledAtMostTwentyTimesASecond) {
  FakeMoe a(machine_, "A", always(200e-6));
  std::int64_t calls = 0;
  progress_ = [&](double) { ++calls; };
  spec_.stop = parse_stop_rule("time:2s");
  (void)run({contestant({&a})});
  EXPECT_LE(calls, 41);
  EXPECT_GE(calls, 30);
}

TEST_F(MeasureTest, RefusesAContestantWithoutAPreparedCase) {
  EXPECT_THROW((void)run({contestant({})}), Error);
  EXPECT_THROW((void)run({contestant({nullptr})}), Error);
}

TEST_F(MeasureTest, NobodyToMeasureGivesNothing) { EXPECT_TRUE(run({}).empty()); }

TEST(CacheModes, ReadBackTheirNames) {
  for (const CacheMode mode : {CacheMode::kWarm, CacheMode::kCold, CacheMode::kRotate}) {
    EXPECT_EQ(parse_cache_mode(name_of(mode)), mode);
  }
  for (const char* bad : {"", "Warm", "hot", "cold "})
    EXPECT_THROW((void)parse_cache_mode(bad), Error) << bad;
}

TEST(SteadyClock, TellsItsResolution) {
  EXPECT_GT(clock_resolution_s(), 0.0);
  EXPECT_LT(clock_resolution_s(), 0.02);
  const double before = steady_clock().now_s();
  EXPECT_GE(steady_clock().now_s(), before);
}

TEST(SteadyClock, MeasuresRealTime) {
  // A call that spins for a millisecond of the real clock.
  VirtualMachine machine;
  FakeMoe spin(machine, "S", [](std::int64_t) {
    const double end = steady_clock().now_s() + 1e-3;
    while (steady_clock().now_s() < end) {
    }
    return 0.0;
  });
  std::vector<std::uint16_t> y(1);
  std::vector<Contestant> contestants = {{"spin", {&spin}, y}};
  MeasureSpec spec;
  spec.warmup_s = 0.01;
  spec.stop = parse_stop_rule("count:20");
  const StopFlag stop{false};
  const Measurement m = measure(contestants, spec, stop, {})[0];
  EXPECT_GE(*std::min_element(m.samples_s.begin(), m.samples_s.end()), 1e-3);
  EXPECT_LT(m.median_s, 3e-3);
}

TEST_F(MeasureTest, AQueueIsTimedByItsOwnClock) {
  testing::FakeQueue queue(machine_);
  FakeMoe a(machine_, "A", always(0.5));
  a.on_queue = &queue;
  count(2);
  spec_.runs_per_call = 2;
  const auto results = run({contestant({&a})});
  EXPECT_THAT(results[0].samples_s, ::testing::Each(::testing::DoubleEq(0.5)));
  EXPECT_EQ(results[0].calls_per_sample, 2);
  EXPECT_THAT(machine_.events,
              ElementsAre("start", "A+", "stop",  // warm-up
                          "start", "A+", "A+", "stop", "start", "A+", "A+", "stop"));
}

TEST_F(MeasureTest, AQueuesFlushComesBeforeItsClockStarts) {
  testing::FakeQueue queue(machine_);
  FakeMoe a(machine_, "A", always(0.5));
  a.on_queue = &queue;
  count(1);
  spec_.cache = CacheMode::kCold;
  const auto results = run({contestant({&a})});
  EXPECT_THAT(events_after(4), ElementsAre("flush", "start", "A+", "stop"));
  EXPECT_THAT(results[0].samples_s, ElementsAre(0.5));
}

TEST_F(MeasureTest, AQueuesSamplesAreLongEnoughForItsClock) {
  testing::FakeQueue queue(machine_);
  FakeMoe a(machine_, "A", always(100e-6));
  a.on_queue = &queue;
  count(3);
  const auto results = run({contestant({&a})});
  EXPECT_GE(results[0].calls_per_sample, 10);  // 1000 steps of 1 us
  EXPECT_THAT(results[0].samples_s, ::testing::Each(::testing::DoubleNear(100e-6, 1e-12)));
}

TEST_F(MeasureTest, AQueuesUntimedCallBeforeASampleIsEnqueuedToo) {
  testing::FakeQueue queue(machine_);
  FakeMoe a(machine_, "A", always(0.001));
  FakeMoe b(machine_, "B", always(0.001));
  a.on_queue = b.on_queue = &queue;
  count(1);
  spec_.runs_per_call = 1;
  (void)run({contestant({&a}), contestant({&b})});
  const std::vector<std::string> last(machine_.events.end() - 8, machine_.events.end());
  EXPECT_THAT(last, ElementsAre("A+", "start", "A+", "stop", "B+", "start", "B+", "stop"));
}

TEST_F(MeasureTest, AQueueBesideAKernelOfTheHostKeepsTheirTimesApart) {
  testing::FakeQueue queue(machine_);
  FakeMoe a(machine_, "A", always(0.5));
  FakeMoe b(machine_, "B", always(0.125));
  b.on_queue = &queue;
  count(2);
  const auto results = run({contestant({&a}), contestant({&b})});
  EXPECT_THAT(results[0].samples_s, ::testing::Each(::testing::DoubleEq(0.5)));
  EXPECT_THAT(results[1].samples_s, ::testing::Each(::testing::DoubleEq(0.125)));
}

}  // namespace
}  // namespace moebench
