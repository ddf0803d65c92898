// Keys that results files rely on, and what must never be among the values.
#include "moebench/measure/fingerprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include "moebench/measure/build_info.h"

namespace moebench {
namespace {

using ::testing::ElementsAre;
using ::testing::MatchesRegex;

std::string value_of(const std::string& key) {
  for (const auto& [name, value] : fingerprint()) {
    if (name == key) return value;
  }
  return "(no such key)";
}

TEST(FingerprintTest, HasItsKeysInOrder) {
  std::vector<std::string> keys;
  for (const auto& entry : fingerprint()) keys.push_back(entry.first);
  EXPECT_THAT(
      keys,
      ElementsAre("cpu.model", "cpu.vendor", "cpu.architecture", "cpu.family", "cpu.model_number",
                  "cpu.stepping", "cpu.microcode", "cpu.threads", "cpu.online", "cpu.quota",
                  "cpu.isa", "cpu.l1d_bytes", "cpu.l2_bytes", "cpu.l3_bytes", "cpu.governor",
                  "memory.total_bytes", "memory.available_bytes", "memory.cgroup_limit_bytes",
                  "memory.huge_pages", "os.kernel", "build.version", "build.commit",
                  "build.compiler", "build.flags", "build.type", "build.sanitizers",
                  "build.thread_library", "build.cuda"));
}

TEST(FingerprintTest, ComparableFactsAreTheCpuAndTheBuild) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : comparable_facts()) {
    keys.push_back(key);
    EXPECT_EQ(value, value_of(key)) << key;
  }
  EXPECT_THAT(keys,
              ElementsAre("cpu.model", "cpu.vendor", "cpu.architecture", "cpu.family",
                          "cpu.model_number", "cpu.stepping", "cpu.threads", "cpu.quota", "cpu.isa",
                          "build.version", "build.commit", "build.compiler", "build.flags",
                          "build.type", "build.sanitizers", "build.thread_library", "build.cuda"));
}

TEST(FingerprintTest, EveryValueIsOneNonEmptyLine) {
  for (const auto& [key, value] : fingerprint()) {
    EXPECT_NE(value, "") << key;
    EXPECT_EQ(value.find_first_of("\r\n"), std::string::npos) << key;
  }
}

TEST(FingerprintTest, NamesNeitherHostNorUserNorPlace) {
  std::vector<std::string> secrets = {MOEBENCH_SOURCE_DIR};
  std::array<char, 256> host{};
  // A short host name ("a", "linux") may occur in any word.
  constexpr std::size_t kTellingLength = 6;
  if (gethostname(host.data(), host.size() - 1) == 0) secrets.emplace_back(host.data());
  for (const char* variable : {"USER", "HOME", "LOGNAME"}) {
    if (const char* value = std::getenv(variable)) secrets.emplace_back(value);
  }
  for (const auto& [key, value] : fingerprint()) {
    EXPECT_EQ(value.find(" /"), std::string::npos) << key << " = " << value;
    for (const std::string& secret : secrets) {
      if (secret.size() < kTellingLength) continue;
      EXPECT_EQ(value.find(secret), std::string::npos) << key << " = " << value;
    }
  }
}

TEST(FingerprintTest, ThreadsFollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(allowed_cpus(), 1);
  EXPECT_EQ(value_of("cpu.threads"), "1");
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(allowed_cpus(), CPU_COUNT(&before));
}

TEST(FingerprintTest, IsaNamesAreTheProjects) {
  EXPECT_THAT(value_of("cpu.isa"),
              MatchesRegex("portable|(avx2|avx512|avx512_bf16|avx512_fp16|amx_bf16)"
                           "(,(avx512|avx512_bf16|avx512_fp16|amx_bf16))*"));
#if defined(__x86_64__)
  EXPECT_EQ(value_of("cpu.isa").find("avx512_bf16") != std::string::npos,
            __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512vl") != 0);
#endif
}

TEST(FingerprintTest, MemoryIsPlausible) {
  EXPECT_GT(available_memory_bytes(), 0);
  EXPECT_LE(available_memory_bytes(), std::stoll(value_of("memory.total_bytes")));
}

TEST(FingerprintTest, BuildIsDescribed) {
  EXPECT_THAT(value_of("build.commit"), MatchesRegex("unknown|[0-9a-f]{12,40}(-dirty)?"));
  EXPECT_THAT(value_of("build.version"), MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_THAT(value_of("build.compiler"), MatchesRegex("[A-Za-z]+ [0-9.]+"));
  EXPECT_THAT(value_of("build.thread_library"), MatchesRegex("OpenMP .*"));
}

}  // namespace
}  // namespace moebench
