// Takes samples of prepared, verified cases: warm-up, interleaved rounds, a stopping rule, several
// calls per sample where one is shorter than the clock can tell.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/measure/statistics.h"
#include "moebench/measure/stop_rule.h"

namespace moebench {

enum class CacheMode : std::uint8_t {
  kWarm,    ///< calls back to back
  kCold,    ///< caches flushed before every call, outside the timed span (one call per sample)
  kRotate,  ///< a different copy of tokens and routing each call, so that active experts change
            ///< from call to call
};
[[nodiscard]] CacheMode parse_cache_mode(std::string_view text);  ///< throws kBadInput
[[nodiscard]] const char* name_of(CacheMode mode);

struct MeasureSpec {
  StopRule stop;
  CacheMode cache = CacheMode::kWarm;
  std::int64_t runs_per_call =
      0;  ///< calls per sample (kCold: always one); 0 = as many as the clock needs
  double warmup_s =
      0.2;  ///< per contestant: at least one call, then until this much time has passed
  std::uint64_t seed = 0;  ///< of the bootstrap
};

/// One competitor of a case. `variants` are prepared on the same shape; kRotate cycles through
/// them, the others use [0].
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
  Interval ci;         ///< 95 % of the median
  bool noisy = false;  ///< see `noise`
  std::string noise;   ///< why: "IQR 14 % of the median", "stopped by its time limit at 3.1 %
                       ///< error", "drift 8 %"
};

/// Set by signal handlers; sampling stops after the current call and what is finished is kept.
using StopFlag = std::atomic<bool>;
struct Interrupted {};

/// Where time comes from: the steady clock, or a virtual one in tests. Samples of contestants with
/// a DeviceQueue are timed by that; warm-up and stopping rules go by this clock for all.
struct Clock {
  std::function<double()> now_s;  ///< monotonic seconds
  double resolution_s = 0.0;      ///< the least difference that two readings can show
};
[[nodiscard]] const Clock& steady_clock();

// A sample is at least kClockSteps clock steps and kShortestSample long where the number of calls
// is ours to choose, yet no longer than kLongestChosenSample on a clock so coarse that kClockSteps
// would take minutes.
inline constexpr double kClockSteps = 1000.0;
inline constexpr double kShortestSample = 100e-6;
inline constexpr double kLongestChosenSample = 1.0;
/// A kTime series has at most about this many samples: its samples grow instead.
inline constexpr double kMostTimedSamples = 1000.0;
/// kWarm: a contestant whose call is shorter than this makes one untimed call before each sample,
/// because the calls of the others in between have taken its cache lines. Longer calls stream far
/// more than a cache holds.
inline constexpr double kRewarmBelow = 0.01;

// A measurement is noisy when one of these is passed; `noise` names each with its value.
inline constexpr double kNoisyIqrShare = 0.10;  ///< IQR over median, as torch.utils.benchmark warns
inline constexpr double kNoisyDriftShare =
    0.02;  ///< medians of first and second half, if a rank test agrees
inline constexpr double kFarOutlierShare =
    0.10;  ///< beyond three IQR from the quartiles and this far from the median...
inline constexpr double kNoisyOutliers = 0.05;      ///< ... by more than this share of the samples
inline constexpr double kNoisySingleOutlier = 2.0;  ///< or one sample of this many medians
inline constexpr double kNoisyCpuWaitShare =
    0.02;  ///< of the time one CPU thread waited for a CPU (cpu_wait.h)
inline constexpr double kFewestClockSteps =
    100.0;  ///< a median sample shorter than this is a reading of the clock

/// Measures the contestants in interleaved rounds (A B C, A B C, ...; order rotated per round), so
/// that drift of the machine meets all of them alike. A contestant leaves the rounds when its own
/// stopping rule holds. Returns one Measurement per contestant, in order; on `stop`, which is
/// looked at between calls, throws Interrupted. What a contestant throws passes through. `progress`
/// (may be empty) is called at most 20 times a second, outside the timed spans.
[[nodiscard]] std::vector<Measurement> measure(
    std::vector<Contestant>& contestants, const MeasureSpec& spec, const StopFlag& stop,
    const std::function<void(double fraction)>& progress);
[[nodiscard]] std::vector<Measurement> measure(std::vector<Contestant>& contestants,
                                               const MeasureSpec& spec, const StopFlag& stop,
                                               const std::function<void(double fraction)>& progress,
                                               const Clock& clock);

/// The figures of a finished series of per-call samples (in the order they were taken), label
/// included.
[[nodiscard]] Measurement summarize(std::vector<double> samples_s, std::int64_t calls_per_sample,
                                    const StopRule& rule, double clock_resolution_s,
                                    std::uint64_t seed);

/// Seconds that the steady clock needs to tell two readings apart (minimum over many pairs).
[[nodiscard]] double clock_resolution_s();

}  // namespace moebench
