// How much memory and CPU time the system leaves to this process: /proc/meminfo and the cgroup
// hierarchies, v1 and v2. Files that are missing or malformed give no limit; nothing here throws
// for what the system says.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace moebench {

struct MemoryLimits {
  std::int64_t total_bytes = 0;  ///< MemTotal; 0 if unknown
  /// What this process may still take, cgroups included.
  std::optional<std::int64_t> available_bytes;
  /// The tightest limit on the way to the root that is below total_bytes.
  std::optional<std::int64_t> cgroup_limit_bytes;
};
/// `root` is put before every path: "" for this system, a folder with a made-up /proc and /sys in
/// tests.
[[nodiscard]] MemoryLimits read_memory_limits(const std::string& root);

/// CPUs' worth of time that the cgroups grant (quota over period, the tightest); nothing where
/// there is no quota.
[[nodiscard]] std::optional<double> read_cpu_quota(const std::string& root);

/// Threads that get a CPU each: no more than `cpus`, nor than a quota pays for (what it does not
/// pay for stands still, and the others wait for it), nor than `most`; at least 1.
[[nodiscard]] int threads_within(int cpus, std::optional<double> quota, int most);

/// First bytes of a small text file (of /proc or /sys), trailing white space removed; nothing if it
/// cannot be read.
[[nodiscard]] std::optional<std::string> read_small_file(const std::string& path);

/// `key<separator>value` lines: white space around both removed, the first value of a repeated key.
[[nodiscard]] std::map<std::string, std::string> read_key_values(const std::string& path,
                                                                 char separator);

/// A whole non-negative number at the start of `text` ("16 kB"); nothing otherwise, or if it does
/// not fit.
[[nodiscard]] std::optional<std::int64_t> leading_number(std::string_view text);

}  // namespace moebench
