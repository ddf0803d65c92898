#include "moebench/measure/cpu_wait.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <system_error>

#include "moebench/measure/limits.h"
#include "moebench/measure/measure.h"

namespace moebench {

std::map<int, double> read_cpu_waits(const std::string& root) {
  constexpr double kNanosecond = 1e-9;
  std::map<int, double> waits;
  std::error_code error;
  std::filesystem::directory_iterator tasks(root + "/proc/self/task", error);
  for (const std::filesystem::directory_iterator end; !error && tasks != end;
       tasks.increment(error)) {
    const std::string name = tasks->path().filename();
    int id = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), id).ec != std::errc{}) continue;
    // A thread may have ended since it was listed.
    const std::optional<std::string> text = read_small_file(tasks->path() / "schedstat");
    if (!text) continue;
    std::istringstream fields(*text);  // nanoseconds run, nanoseconds waited, time slices
    double run_ns = 0.0;
    double waited_ns = 0.0;
    // A system that counts nothing gives zeros: whoever reads this has run.
    if (fields >> run_ns >> waited_ns && run_ns > 0.0) waits[id] = waited_ns * kNanosecond;
  }
  return waits;
}

std::optional<double> largest_wait_share(const std::map<int, double>& before,
                                         const std::map<int, double>& after, double elapsed_s) {
  if (before.empty() || after.empty() || !(elapsed_s > 0.0)) return std::nullopt;
  double largest = 0.0;
  for (const auto& [thread, waited] : after) {
    const auto known = before.find(thread);
    largest = std::max(largest, waited - (known != before.end() ? known->second : 0.0));
  }
  // A wait is counted when it ends, and may have begun before the first reading.
  return std::min(largest / elapsed_s, 1.0);
}

CpuWait::CpuWait() : before_(read_cpu_waits("")), start_s_(steady_clock().now_s()) {}

std::optional<double> CpuWait::share() const {
  const double elapsed = steady_clock().now_s() - start_s_;
  return largest_wait_share(before_, read_cpu_waits(""), elapsed);
}

}  // namespace moebench
