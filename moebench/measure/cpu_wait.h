// How long this process's threads could have run but had no CPU, as the scheduler counts it: other
// work on the machine, or more threads than CPUs. Kernels meet at barriers, so that one thread that
// waits makes all of them late, in every sample alike: no spread of the samples shows it.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace moebench {

/// Seconds that each thread, by its id, has waited for a CPU since it was started. Empty where the
/// system does not say. `root` is put before /proc: "" for this system, a made-up one in tests.
[[nodiscard]] std::map<int, double> read_cpu_waits(const std::string& root);

/// The largest share of `elapsed_s` that one thread waited between two readings; nothing where
/// either is empty.
[[nodiscard]] std::optional<double> largest_wait_share(const std::map<int, double>& before,
                                                       const std::map<int, double>& after,
                                                       double elapsed_s);

/// From its construction on.
class CpuWait {
 public:
  CpuWait();
  /// largest_wait_share() until now.
  [[nodiscard]] std::optional<double> share() const;

 private:
  std::map<int, double> before_;
  double start_s_;
};

}  // namespace moebench
