// The host's rates around a row of the table: readings just before and just after its kernels were
// measured, and which of them its shares go by.
#pragma once

#include <functional>

#include "moebench/measure/measure.h"
#include "moebench/measure/memory_floor.h"

namespace moebench {

/// Takes readings, at most one in kReadingLastsS: short rows, of which many fit between two
/// readings, share them, and cost nothing.
class RateWatch {
 public:
  using Probe = std::function<RateReading()>;
  static constexpr double kReadingLastsS = 0.5;

  /// `first` was taken just now.
  RateWatch(Probe probe, const RateReading& first, const Clock& clock = steady_clock());

  [[nodiscard]] RateReading now();

 private:
  Probe probe_;
  RateReading last_;
  Clock clock_;
  double last_s_;
};

/// The readings around a row and what its kernels showed themselves, each rate on its own. A
/// ceiling is what the machine could give meanwhile: the best of all.
struct RatesAround {
  RateReading best;    ///< 0 where nothing was read
  RateReading lowest;  ///< of the readings alone

  void add(const RateReading& reading);
  /// A kernel did this much: the readings fell into worse moments.
  void add_shown(const RateReading& shown);

  /// What shares go by: the best, or the rate at start where there is no reading, unless a kernel
  /// showed more; 0 where that is not known either.
  [[nodiscard]] RateReading ceilings(const MachineRates& at_start) const;
};

}  // namespace moebench
