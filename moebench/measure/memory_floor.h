// What this machine can read and multiply per second: measured at start, and briefly again around
// what it is compared with, because a virtual machine's speed changes within minutes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "moebench/backend/machine_rates.h"
#include "moebench/measure/rate_kernels.h"

namespace moebench {

/// The host's rates at one moment; 0: not measured.
struct RateReading {
  double read_bytes_per_s = 0.0;
  double flops_per_s = 0.0;  ///< peak of multiply-adds, of the faster of FP32 and BF16
};

/// Called between passes, some 0.1 s apart; what it throws ends the measuring and passes through.
using BetweenPasses = std::function<void()>;

/// Measures the host. `buffer_bytes` of memory are shared by the threads; 0 = 512 MiB or 32 MiB a
/// thread, whichever is more. It is capped to a quarter of the memory that is free. `threads` 0 =
/// all that this process may use.
class HostRates {
 public:
  /// Takes about a second, and keeps the memory that it streams through.
  explicit HostRates(int threads, std::int64_t buffer_bytes = 0, const BetweenPasses& between = {});
  ~HostRates();
  HostRates(HostRates&&) noexcept;
  HostRates& operator=(HostRates&&) noexcept;
  HostRates(const HostRates&) = delete;
  HostRates& operator=(const HostRates&) = delete;

  [[nodiscard]] const MachineRates& at_start() const { return at_start_; }

  /// The same rates now, in about 0.1 s: the best of a few short passes of the loops that were the
  /// fastest at start. Without memory to stream through only multiply-adds are measured.
  [[nodiscard]] RateReading read_now() const;

  /// Bytes of memory that it keeps.
  [[nodiscard]] std::int64_t held_bytes() const;
  void release_memory();

 private:
  class Stream;

  void measure_reading(const BetweenPasses& between);
  void measure_multiply_adds(const BetweenPasses& between);

  MachineRates at_start_;
  std::unique_ptr<Stream> stream_;
  std::vector<ReadKernel> readers_;       ///< the fastest at start, best first
  std::vector<FlopKernel> multipliers_;   ///< the widest of each kind
  std::vector<double> multiplier_rates_;  ///< operations per second at start; one per multiplier
};

/// HostRates(...).at_start(), with no memory kept.
[[nodiscard]] MachineRates measure_machine_rates(int threads, std::int64_t buffer_bytes = 0,
                                                 const BetweenPasses& between = {});

/// weight_bytes of the active experts / read rate: no kernel that streams its weights from memory
/// is faster. 0 where the rate is not known.
[[nodiscard]] double memory_floor_s(std::int64_t weight_bytes, double read_bytes_per_s);

}  // namespace moebench
