// Order statistics and a bootstrap, on plain vectors of seconds.
#pragma once

#include <cstdint>
#include <span>

namespace moebench {

/// Linear interpolation between order statistics, as numpy.percentile and torch's Measurement do; q in [0, 1].
[[nodiscard]] double quantile(std::span<const double> values, double q);
[[nodiscard]] double median(std::span<const double> values);
[[nodiscard]] double interquartile_range(std::span<const double> values);
/// Standard error of the mean over the mean.
[[nodiscard]] double relative_standard_error(std::span<const double> values);

struct Interval {
  double low = 0.0;
  double high = 0.0;
};
/// 95 % percentile bootstrap of the median; seeded, so the same samples give the same interval.
[[nodiscard]] Interval bootstrap_median(std::span<const double> values, std::uint64_t seed);
/// 95 % bootstrap interval of median(baseline)/median(values): pairs are resampled together when sizes are equal
/// (interleaved rounds), each on its own otherwise.
[[nodiscard]] Interval bootstrap_ratio(std::span<const double> baseline, std::span<const double> values, std::uint64_t seed);

}  // namespace moebench
