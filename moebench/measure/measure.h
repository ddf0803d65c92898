// Takes samples of prepared, verified cases: warm-up, interleaved rounds, a stopping rule, several calls per sample where
// one is shorter than the clock can tell.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <span>
#include <string_view>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/measure/statistics.h"
#include "moebench/measure/stop_rule.h"

namespace moebench {

enum class CacheMode : std::uint8_t {
  kWarm,    ///< calls back to back
  kCold,    ///< caches flushed before every call, outside the timed span (one call per sample)
  kRotate,  ///< a different copy of tokens and routing each call, so that active experts change from call to call
};
[[nodiscard]] CacheMode parse_cache_mode(std::string_view text);  ///< throws kBadInput
[[nodiscard]] const char* name_of(CacheMode mode);

struct MeasureSpec {
  StopRule stop;
  CacheMode cache = CacheMode::kWarm;
  std::int64_t runs_per_call = 0;  ///< calls per sample; 0 = as many as the clock needs
  double warmup_s = 0.2;           ///< at least one call, then until this much time has passed
  std::uint64_t seed = 0;          ///< of the bootstrap
};

/// One competitor of a case. `variants` are prepared on the same shape; kRotate cycles through them, the others use [0].
struct Contestant {
  std::string kernel;
  std::vector<PreparedMoe*> variants;
  std::span<std::uint16_t> y;
};

struct Measurement {
  std::vector<double> samples_s;  ///< per call: sample time over calls per sample
  std::int64_t calls_per_sample = 1;
  double median_s = 0.0;
  double iqr_s = 0.0;
  Interval ci;                    ///< 95 % of the median
  bool noisy = false;             ///< see `noise`
  std::string noise;              ///< why: "IQR 14 % of the median", "stopped by its time limit at 3.1 % error", "drift 8 %"
};

/// Set by signal handlers; sampling stops after the current call and what is finished is kept.
using StopFlag = std::atomic<bool>;

/// Measures the contestants in interleaved rounds (A B C, A B C, ...; order rotated per round), so that drift of the
/// machine meets all of them alike. Returns one Measurement per contestant, in order; on `stop`, throws Interrupted.
[[nodiscard]] std::vector<Measurement> measure(std::vector<Contestant>& contestants, const MeasureSpec& spec,
                                               const StopFlag& stop,
                                               const std::function<void(double fraction)>& progress);
struct Interrupted {};

/// Seconds that the steady clock needs to tell two readings apart (minimum over many pairs).
[[nodiscard]] double clock_resolution_s();

}  // namespace moebench
