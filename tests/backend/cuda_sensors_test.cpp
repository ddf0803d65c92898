// What is read through NVML and how it is told; NVML itself is a library of this test's.
#include "moebench/backend/cuda/sensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace moebench::cuda {
namespace {

using ::testing::HasSubstr;

TEST(Sensors, AMissingLibraryIsToldAndGivesNoWatch) {
  const Sensors sensors("libnvidia-ml-that-nobody-has.so.1", "0000:01:00.0");
  EXPECT_EQ(sensors.missing(), "no libnvidia-ml-that-nobody-has.so.1");
  EXPECT_EQ(sensors.watch(), nullptr);
  EXPECT_EQ(sensors.read().sm_clock_mhz, 0U);
  EXPECT_EQ(sensors.driver(), "");
}

TEST(Sensors, ALibraryWithoutTheFunctionsIsNone) {
  const Sensors sensors("libc.so.6", "0000:01:00.0");
  EXPECT_THAT(sensors.missing(), HasSubstr("lacks functions"));
  EXPECT_EQ(sensors.watch(), nullptr);
}

TEST(Sensors, ADeviceThatNvmlDoesNotKnowHasNone) {
  const Sensors sensors(MOEBENCH_FAKE_NVML, "0000:02:00.0");
  EXPECT_THAT(sensors.missing(), HasSubstr("NVML error 6"));
}

TEST(Sensors, ReadsWhatTheDeviceGives) {
  const Sensors sensors(MOEBENCH_FAKE_NVML, "0000:01:00.0");
  ASSERT_EQ(sensors.missing(), "");
  EXPECT_EQ(sensors.driver(), "580.65.06");
  EXPECT_EQ(sensors.power_limit_w(), 700.0);
  const SensorReading reading = sensors.read();
  EXPECT_EQ(reading.sm_clock_mhz, 1755U);
  EXPECT_EQ(reading.memory_clock_mhz, 2619U);
  EXPECT_EQ(reading.temperature_c, 55U);
  EXPECT_EQ(reading.power_mw, 0U);  // not supported
}

TEST(Sensors, AWatchReadsAtLeastOnceAndInTheBackground) {
  const Sensors sensors(MOEBENCH_FAKE_NVML, "0000:01:00.0");
  EXPECT_GE(sensors.watch()->stop().readings, 1);
  const std::unique_ptr<SensorWatch> watch = sensors.watch();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const SensorReport report = watch->stop();
  EXPECT_GE(report.readings, 2);
  EXPECT_EQ(report.sm_clock_mhz, 1755.0);
  EXPECT_THAT(report.throttled, HasSubstr("sw power cap in "));
}

TEST(Sensors, OneThatIsNotAskedEndsQuietly) {
  const Sensors sensors(MOEBENCH_FAKE_NVML, "0000:01:00.0");
  (void)sensors.watch();
}

TEST(SensorReport, HasTheMedianClockTheLowestAndTheHighestHeat) {
  const std::vector<SensorReading> readings = {{1980, 2619, 50, 400'000, 0},
                                               {1200, 2619, 60, 699'000, 0x4 | 0x20},
                                               {1755, 2619, 58, 500'000, 0x4}};
  const SensorReport report = summarize_sensors(readings);
  EXPECT_EQ(report.readings, 3);
  EXPECT_EQ(report.sm_clock_mhz, 1755.0);
  EXPECT_EQ(report.sm_clock_low_mhz, 1200.0);
  EXPECT_EQ(report.temperature_c, 60.0);
  EXPECT_EQ(report.power_w, 699.0);
  EXPECT_EQ(report.throttled,
            "sw power cap in 2 of 3 readings, sw thermal slowdown in 1 of 3 readings");
}

TEST(SensorReport, IdlenessAndSetClocksAreNoThrottling) {
  EXPECT_EQ(throttle_text(0x1 | 0x2), "");
  EXPECT_EQ(throttle_text(0x4 | 0x80), "sw power cap, hw power brake");
  EXPECT_EQ(summarize_sensors(std::vector<SensorReading>{{1980, 2619, 50, 0, 0x1}}).throttled, "");
  EXPECT_EQ(summarize_sensors({}).readings, 0);
}

}  // namespace
}  // namespace moebench::cuda
