// Waiting for a CPU: read from a made-up /proc, compared, and seen on this machine when two threads
// share one.
#include "moebench/measure/cpu_wait.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "moebench/measure/measure.h"

namespace moebench {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Optional;
using testing::Pair;

class CpuWaitTest : public testing::Test {
 protected:
  void SetUp() override { root_ = testing::TempDir() + "cpu_wait_" + std::to_string(getpid()); }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void task(const std::string& id, const std::string& schedstat) const {
    const std::filesystem::path folder = root_ + "/proc/self/task/" + id;
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "schedstat") << schedstat;
  }
  std::string root_;
};

TEST_F(CpuWaitTest, ReadsEachThread) {
  task("7", "1000000 2000000000 5\n");
  task("12", "1 500000000 1");
  EXPECT_THAT(read_cpu_waits(root_), ElementsAre(Pair(7, DoubleEq(2.0)), Pair(12, DoubleEq(0.5))));
}

TEST_F(CpuWaitTest, WhatIsNotCountedOrMalformedIsNothing) {
  EXPECT_THAT(read_cpu_waits(root_), IsEmpty());
  task("1", "0 0 0\n");
  task("2", "none");
  task("3", "");
  task("x", "1 1 1");
  std::filesystem::create_directories(root_ + "/proc/self/task/4");
  EXPECT_THAT(read_cpu_waits(root_), IsEmpty());
}

TEST_F(CpuWaitTest, TheThreadThatWaitedMostCounts) {
  EXPECT_THAT(largest_wait_share({{1, 5.0}, {2, 1.0}}, {{1, 5.1}, {2, 1.5}, {3, 0.2}}, 2.0),
              Optional(DoubleEq(0.25)));
  EXPECT_THAT(largest_wait_share({{1, 5.0}}, {{1, 5.0}, {3, 1.0}}, 2.0), Optional(DoubleEq(0.5)));
  EXPECT_THAT(largest_wait_share({{1, 0.0}}, {{1, 9.0}}, 2.0), Optional(DoubleEq(1.0)));
  EXPECT_EQ(largest_wait_share({}, {{1, 1.0}}, 2.0), std::nullopt);
  EXPECT_EQ(largest_wait_share({{1, 1.0}}, {}, 2.0), std::nullopt);
  EXPECT_EQ(largest_wait_share({{1, 1.0}}, {{1, 1.0}}, 0.0), std::nullopt);
}

void spin(double seconds) {
  const double end = steady_clock().now_s() + seconds;
  while (steady_clock().now_s() < end) {
  }
}

TEST_F(CpuWaitTest, SeesTwoThreadsOnOneCpu) {
  if (read_cpu_waits("").empty()) GTEST_SKIP() << "this system does not count waiting";
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const CpuWait wait;
  std::thread other([] { spin(0.4); });  // inherits the affinity
  spin(0.4);
  other.join();
  const std::optional<double> share = wait.share();
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  ASSERT_TRUE(share.has_value());
  EXPECT_GT(*share, 0.2);
}

}  // namespace
}  // namespace moebench
