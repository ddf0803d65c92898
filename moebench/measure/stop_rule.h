// When enough samples have been taken. One text form per rule: stdrel:0.5%, time:5s, count:100.
//
// How the default bounds were chosen: ten batch sizes and two kernels are twenty series. A series
// that settles ends at once after min_samples and min_seconds; one that does not ends at
// max_seconds. Where a single call takes more than max_seconds / min_samples (2 s), min_samples
// would cost far more than max_seconds, so past max_seconds min_slow_samples suffice. Calls of
// 0.02, 0.04, ... 4, 8 s then cost at most 8 * 10 + 3 * 4 + 3 * 8 = 116 s of sampling a kernel, 232
// s for two, and settle sooner as a rule.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moebench {

struct StopRule {
  enum class Kind : std::uint8_t { kStdRel, kTime, kCount };
  Kind kind = Kind::kStdRel;
  double relative_error = 0.005;  ///< kStdRel: relative standard error of the mean
  double seconds = 5.0;           ///< kTime: sampling time of one kernel and case
  std::int64_t count = 20;        ///< kCount
  // Bounds that hold for kStdRel whatever the noise; a series that ends on one of them unsettled is
  // labelled noisy.
  std::int64_t min_samples = 5;
  std::int64_t max_samples = 200;
  double max_seconds = 10.0;
  std::int64_t min_slow_samples =
      3;  ///< suffice once max_seconds are over; kTime takes at least as many, too
  double min_seconds = 0.5;  ///< kStdRel: five quick samples that agree by chance are not a result
};

inline constexpr double kLongestTimeRule = 86'400.0;  ///< seconds; more is taken for a slip
inline constexpr std::int64_t kLargestCountRule = 1'000'000;

/// Forms: `stdrel:<fraction>` or `stdrel:<percent>%` (above 0, below 100 %), `time:<number>` with
/// unit s, ms or min, `count:<whole number>`. A decimal point whatever the locale. Throws kBadInput
/// with the value.
[[nodiscard]] StopRule parse_stop_rule(std::string_view text);
/// The form that parse_stop_rule() reads back to the same rule (bounds not included).
[[nodiscard]] std::string to_string(const StopRule& rule);
/// `elapsed_s`: time spent sampling this kernel so far, cache flushes included.
[[nodiscard]] bool enough(const StopRule& rule, std::span<const double> samples, double elapsed_s);
/// True if the rule's own goal holds (not merely its bounds). A kTime or kCount series that ended
/// is always settled.
[[nodiscard]] bool settled(const StopRule& rule, std::span<const double> samples);
/// Share of the way to enough() in 0..1, for a progress bar. For kStdRel an estimate: the error
/// falls as 1/sqrt(samples).
[[nodiscard]] double completion(const StopRule& rule, std::span<const double> samples,
                                double elapsed_s);

}  // namespace moebench
