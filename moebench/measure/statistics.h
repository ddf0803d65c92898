// Order statistics and a bootstrap, on plain vectors of seconds. Every function needs at least one
// value and no NaN, and throws Error(kInternal) otherwise: a summary of nothing is a fault of the
// caller.
#pragma once

#include <cstdint>
#include <span>

namespace moebench {

/// Linear interpolation between order statistics, as numpy.percentile and torch's Measurement do; q
/// in [0, 1].
[[nodiscard]] double quantile(std::span<const double> values, double q);
[[nodiscard]] double median(std::span<const double> values);
[[nodiscard]] double interquartile_range(std::span<const double> values);
/// Standard error of the mean over the mean; infinite for a single value, which says nothing about
/// its own error.
[[nodiscard]] double relative_standard_error(std::span<const double> values);

struct Interval {
  double low = 0.0;
  double high = 0.0;
};

inline constexpr int kBootstrapResamples = 2000;
/// Up to here an interval is the range of the samples: for n values the range itself covers the
/// median with probability 1 - 2^(1-n), which is 94 % for n = 5 (88 % for 4, 75 % for 3), so
/// nothing narrower could claim 95 %.
inline constexpr std::int64_t kRangeSamples = 5;

/// 95 % percentile bootstrap of the median; seeded, so the same samples give the same interval on
/// every machine and standard library. The range of the values for kRangeSamples or fewer.
[[nodiscard]] Interval bootstrap_median(std::span<const double> values, std::uint64_t seed);
/// 95 % bootstrap interval of median(baseline)/median(values): pairs are resampled together when
/// sizes are equal (interleaved rounds), each on its own otherwise. Where either side has
/// kRangeSamples or fewer: every ratio that the two ranges allow. Values must be positive.
[[nodiscard]] Interval bootstrap_ratio(std::span<const double> baseline,
                                       std::span<const double> values, std::uint64_t seed);

}  // namespace moebench
