// Which rates a row's shares go by on a machine whose speed changes from moment to moment.
#include "moebench/measure/rates_around.h"

#include <gtest/gtest.h>

namespace moebench {
namespace {

/// A machine whose rates change with its clock, and how often it was asked.
class ChangingMachine {
 public:
  double now_s = 0.0;
  double speed = 1.0;
  int asked = 0;

  [[nodiscard]] RateReading rates() const {
    return {.read_bytes_per_s = 40e9 * speed, .flops_per_s = 2e12 * speed};
  }
  [[nodiscard]] RateWatch watch() {
    return {[this] {
              ++asked;
              now_s += 0.1;
              return rates();
            },
            rates(),
            {[this] { return now_s; }, 1e-9}};
  }
};

TEST(RateWatchTest, ReadsAnewOnlyWhatIsOld) {
  ChangingMachine machine;
  RateWatch watch = machine.watch();
  machine.speed = 0.5;
  EXPECT_EQ(watch.now().read_bytes_per_s, 40e9);  // just taken, at start
  EXPECT_EQ(machine.asked, 0);
  machine.now_s += RateWatch::kReadingLastsS;
  EXPECT_EQ(watch.now().read_bytes_per_s, 20e9);
  machine.speed = 2.0;
  machine.now_s += 0.9 * RateWatch::kReadingLastsS;
  EXPECT_EQ(watch.now().flops_per_s, 1e12);
  EXPECT_EQ(machine.asked, 1);
  machine.now_s += RateWatch::kReadingLastsS;
  EXPECT_EQ(watch.now().flops_per_s, 4e12);
  EXPECT_EQ(machine.asked, 2);
}

TEST(RateWatchTest, ManyShortRowsCostFewReadings) {
  ChangingMachine machine;
  RateWatch watch = machine.watch();
  for (int row = 0; row < 1000; ++row) {
    (void)watch.now();
    machine.now_s += 1e-3;
    (void)watch.now();
  }
  EXPECT_LE(machine.asked, 2);
}

TEST(RatesAroundTest, TheBestReadingCountsForEachRateOnItsOwn) {
  RatesAround around;
  around.add({.read_bytes_per_s = 30e9, .flops_per_s = 2e12});
  around.add({.read_bytes_per_s = 40e9, .flops_per_s = 1e12});
  const RateReading ceilings = around.ceilings({});
  EXPECT_EQ(ceilings.read_bytes_per_s, 40e9);
  EXPECT_EQ(ceilings.flops_per_s, 2e12);
  EXPECT_EQ(around.lowest.read_bytes_per_s, 30e9);
  EXPECT_EQ(around.lowest.flops_per_s, 1e12);
}

TEST(RatesAroundTest, AFastOrSlowStartDoesNotCountWhereThereAreReadings) {
  RatesAround around;
  around.add({.read_bytes_per_s = 30e9, .flops_per_s = 2e12});
  for (const double speed : {0.1, 10.0}) {
    MachineRates start;
    start.read_bytes_per_s = 30e9 * speed;
    start.flops_per_s = 2e12 * speed;
    EXPECT_EQ(around.ceilings(start).read_bytes_per_s, 30e9);
    EXPECT_EQ(around.ceilings(start).flops_per_s, 2e12);
  }
}

TEST(RatesAroundTest, AKernelThatDidMoreRaisesTheCeilingAndNotTheLowestReading) {
  RatesAround around;
  around.add({.read_bytes_per_s = 30e9, .flops_per_s = 2e12});
  around.add_shown({.read_bytes_per_s = 35e9, .flops_per_s = 1e12});
  EXPECT_EQ(around.ceilings({}).read_bytes_per_s, 35e9);
  EXPECT_EQ(around.ceilings({}).flops_per_s, 2e12);
  EXPECT_EQ(around.lowest.read_bytes_per_s, 30e9);
}

TEST(RatesAroundTest, WithoutAReadingTheRateAtStartCountsUnlessMoreWasShown) {
  MachineRates start;
  start.read_bytes_per_s = 30e9;
  start.flops_per_s = 2e12;
  RatesAround around;
  around.add({.flops_per_s = 1e12});  // no memory to stream through
  EXPECT_EQ(around.ceilings(start).read_bytes_per_s, 30e9);
  EXPECT_EQ(around.ceilings(start).flops_per_s, 1e12);
  EXPECT_EQ(around.lowest.read_bytes_per_s, 0.0);
  around.add_shown({.read_bytes_per_s = 31e9});
  EXPECT_EQ(around.ceilings(start).read_bytes_per_s, 31e9);
  // A machine that could not be measured has no ceiling, whatever its kernels show.
  EXPECT_EQ(around.ceilings({}).read_bytes_per_s, 0.0);
}

}  // namespace
}  // namespace moebench
