// Memory and CPU limits on made-up /proc and /sys trees: cgroup v1 and v2, ancestors, containers,
// missing files.
#include "moebench/measure/limits.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace moebench {
namespace {

constexpr std::int64_t kMib = std::int64_t{1} << 20;

class LimitsTest : public ::testing::Test {
 protected:
  LimitsTest()
      : root_(std::filesystem::temp_directory_path() /
              ("moebench_limits_" + std::to_string(getpid()))) {
    std::filesystem::remove_all(root_);
    write("/proc/meminfo",
          "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:   4194304 kB\n");
  }
  ~LimitsTest() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_.string() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void mount_v2(const std::string& group, const std::string& shown_root = "/") const {
    write("/proc/self/cgroup", "0::" + group + "\n");
    write("/proc/self/mountinfo",
          "24 1 0:22 / /proc rw - proc proc rw\n"
          "30 24 0:26 " +
              shown_root + " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void mount_v1(const std::string& group) const {
    write("/proc/self/cgroup", "5:memory:" + group + "\n2:cpu,cpuacct:" + group + "\n0::/\n");
    write("/proc/self/mountinfo",
          "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
          "36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n");
  }
  [[nodiscard]] MemoryLimits memory() const { return read_memory_limits(root_.string()); }
  [[nodiscard]] std::optional<double> quota() const { return read_cpu_quota(root_.string()); }

  std::filesystem::path root_;
};

TEST_F(LimitsTest, WithoutCgroupsIsMemAvailable) {
  const MemoryLimits limits = memory();
  EXPECT_EQ(limits.total_bytes, 8192 * kMib);
  EXPECT_EQ(limits.available_bytes, 4096 * kMib);
  EXPECT_FALSE(limits.cgroup_limit_bytes);
  EXPECT_FALSE(quota());
}

TEST_F(LimitsTest, Version2LimitLessUsageButNotItsIdleFilePages) {
  mount_v2("/job");
  write("/sys/fs/cgroup/job/memory.max", std::to_string(1000 * kMib) + "\n");
  write("/sys/fs/cgroup/job/memory.current", std::to_string(700 * kMib) + "\n");
  write("/sys/fs/cgroup/job/memory.stat",
        "anon 1\ninactive_file " + std::to_string(200 * kMib) + "\n");
  EXPECT_EQ(memory().cgroup_limit_bytes, 1000 * kMib);
  EXPECT_EQ(memory().available_bytes, 500 * kMib);
}

TEST_F(LimitsTest, Version2LimitOfAnAncestorHolds) {
  mount_v2("/outer/inner");
  write("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
  write("/sys/fs/cgroup/outer/memory.max", std::to_string(256 * kMib));
  write("/sys/fs/cgroup/outer/memory.current", "0");
  EXPECT_EQ(memory().available_bytes, 256 * kMib);
}

TEST_F(LimitsTest, ContainerThatSeesOnlyItsOwnPart) {
  mount_v2("/machine/c1/job", "/machine/c1");
  write("/sys/fs/cgroup/job/memory.max", std::to_string(512 * kMib));
  EXPECT_EQ(memory().available_bytes, 512 * kMib);
}

TEST_F(LimitsTest, GroupOutsideOfWhatIsMountedFallsBackToTheMountPoint) {
  mount_v2("/../../elsewhere");
  write("/sys/fs/cgroup/memory.max", std::to_string(128 * kMib));
  EXPECT_EQ(memory().available_bytes, 128 * kMib);
}

TEST_F(LimitsTest, Version1LimitLessUsage) {
  mount_v1("/job");
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", std::to_string(1000 * kMib));
  write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", std::to_string(900 * kMib));
  write("/sys/fs/cgroup/memory/job/memory.stat",
        "inactive_file 1\ntotal_inactive_file " + std::to_string(50 * kMib) + "\n");
  EXPECT_EQ(memory().available_bytes, 150 * kMib);
}

TEST_F(LimitsTest, Version1NumberNear2To63IsNoLimit) {
  mount_v1("/");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5");
  EXPECT_FALSE(memory().cgroup_limit_bytes);
  EXPECT_EQ(memory().available_bytes, 4096 * kMib);
}

TEST_F(LimitsTest, LimitAboveWhatIsFreeDoesNotAddMemory) {
  mount_v2("/");
  write("/sys/fs/cgroup/memory.max", std::to_string(6000 * kMib));
  EXPECT_EQ(memory().available_bytes, 4096 * kMib);
}

TEST_F(LimitsTest, UsageAboveTheLimitLeavesNothing) {
  mount_v2("/");
  write("/sys/fs/cgroup/memory.max", "1000");
  write("/sys/fs/cgroup/memory.current", "2000");
  EXPECT_EQ(memory().available_bytes, 0);
  mount_v2("/job");
  write("/sys/fs/cgroup/job/memory.max",
        "500");  // room in an inner group is none where the outer one is full
  write("/sys/fs/cgroup/job/memory.current", "100");
  EXPECT_EQ(memory().available_bytes, 0);
}

TEST_F(LimitsTest, MalformedFilesAreNoLimit) {
  mount_v2("/");
  for (const char* text : {"", "\n", "-5", "lots", "99999999999999999999999"}) {
    write("/sys/fs/cgroup/memory.max", text);
    EXPECT_EQ(memory().available_bytes, 4096 * kMib) << "memory.max: " << text;
  }
  write("/proc/self/mountinfo", "nonsense\n - \n1 2 3 - cgroup2\n");
  write("/proc/self/cgroup", "nonsense\n::\n");
  EXPECT_EQ(memory().available_bytes, 4096 * kMib);
}

TEST_F(LimitsTest, NothingReadableIsUnknown) {
  const MemoryLimits limits = read_memory_limits((root_ / "nowhere").string());
  EXPECT_EQ(limits.total_bytes, 0);
  EXPECT_FALSE(limits.available_bytes);
}

TEST_F(LimitsTest, CpuQuotaOfVersion2) {
  mount_v2("/a/b");
  write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_FALSE(quota());
  write("/sys/fs/cgroup/a/cpu.max", "250000 100000\n");
  EXPECT_EQ(quota(), 2.5);
}

TEST_F(LimitsTest, CpuQuotaOfVersion1) {
  mount_v1("/a");
  write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
  write("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_FALSE(quota());
  write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "50000\n");
  EXPECT_EQ(quota(), 0.5);
}

TEST_F(LimitsTest, KeyValuesKeepTheFirstOfARepeatedKey) {
  write("/cpuinfo", "processor : 0\nmodel name\t: X  \n\nprocessor : 1\nno separator\n");
  const auto values = read_key_values(root_.string() + "/cpuinfo", ':');
  EXPECT_EQ(values.at("processor"), "0");
  EXPECT_EQ(values.at("model name"), "X");
  EXPECT_EQ(values.size(), 2U);
}

TEST(Threads, StayWithinCpusQuotaAndLimit) {
  constexpr int kNoLimit = std::numeric_limits<int>::max();
  EXPECT_EQ(threads_within(8, std::nullopt, kNoLimit), 8);
  EXPECT_EQ(threads_within(64, 4.0, kNoLimit), 4);
  EXPECT_EQ(threads_within(64, 2.5, kNoLimit), 2);
  EXPECT_EQ(threads_within(64, 0.25, kNoLimit), 1);
  EXPECT_EQ(threads_within(8, 1e18, kNoLimit), 8);
  EXPECT_EQ(threads_within(8, 6.0, 3), 3);
  EXPECT_EQ(threads_within(8, std::nullopt, 0), 1);
}

}  // namespace
}  // namespace moebench
