// Quantiles by numpy's rule and a bootstrap on std::mt19937_64, whose output the standard fixes;
// the draw of an index is our own, because std::uniform_int_distribution differs between standard
// libraries.
#include "moebench/measure/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "moebench/core/error.h"

namespace moebench {
namespace {

constexpr double kTail = 0.025;  // each side of a 95 % interval

/// From 10,000 samples on, fewer resamples keep the cost at this many draws (about 0.2 s); 200
/// always remain.
constexpr std::int64_t kMaxDraws = 20'000'000;
constexpr std::int64_t kFewestResamples = 200;

void require_values(std::span<const double> values) {
  if (values.empty()) fail(ErrorCode::kInternal, "statistics: no values");
  for (const double value : values) {
    if (std::isnan(value)) fail(ErrorCode::kInternal, "statistics: a value is NaN");
  }
}

/// The value at position `index` + `share` of sorted order; both forms of the interpolation, as
/// numpy has them, so that the result never passes either neighbour.
double interpolate(double below, double above, double share) {
  const double step = above - below;
  return share >= 0.5 ? above - step * (1.0 - share) : below + step * share;
}

/// Median of values that may be reordered.
double median_in_place(std::span<double> values) {
  const std::size_t upper = values.size() / 2;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(upper);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return interpolate(*std::max_element(values.begin(), middle), *middle, 0.5);
}

class IndexDraw {
 public:
  explicit IndexDraw(std::uint64_t seed) : generator_(seed) {}
  /// Uniform in [0, count) up to a bias of count / 2^32, far below what 2000 resamples can show.
  std::size_t operator()(std::size_t count) {
    return static_cast<std::size_t>(((generator_() >> 32) * count) >> 32);
  }

 private:
  std::mt19937_64 generator_;
};

std::size_t resamples_for(std::size_t values) {
  return static_cast<std::size_t>(std::clamp<std::int64_t>(
      kMaxDraws / static_cast<std::int64_t>(values), kFewestResamples, kBootstrapResamples));
}

void resample(std::span<const double> from, IndexDraw& draw, std::vector<double>& to) {
  to.resize(from.size());
  for (double& value : to) value = from[draw(from.size())];
}

Interval range_of(std::span<const double> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {*low, *high};
}

Interval percentile_interval(std::span<const double> estimates) {
  return {quantile(estimates, kTail), quantile(estimates, 1.0 - kTail)};
}

}  // namespace

double quantile(std::span<const double> values, double q) {
  require_values(values);
  if (!(q >= 0.0 && q <= 1.0))
    fail(ErrorCode::kInternal, "statistics: quantile {} is outside 0..1", q);
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return interpolate(sorted[below], sorted[above], position - static_cast<double>(below));
}

double median(std::span<const double> values) { return quantile(values, 0.5); }

double interquartile_range(std::span<const double> values) {
  return quantile(values, 0.75) - quantile(values, 0.25);
}

double relative_standard_error(std::span<const double> values) {
  require_values(values);
  if (values.size() < 2) return std::numeric_limits<double>::infinity();
  const auto count = static_cast<double>(values.size());
  double sum = 0.0;
  for (const double value : values) sum += value;
  const double mean = sum / count;
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  if (squares == 0.0) return 0.0;
  const double standard_error = std::sqrt(squares / (count - 1.0) / count);
  return mean > 0.0 ? standard_error / mean : std::numeric_limits<double>::infinity();
}

Interval bootstrap_median(std::span<const double> values, std::uint64_t seed) {
  require_values(values);
  if (std::ssize(values) <= kRangeSamples) return range_of(values);
  IndexDraw draw(seed);
  std::vector<double> drawn;
  std::vector<double> medians(resamples_for(values.size()));
  for (double& estimate : medians) {
    resample(values, draw, drawn);
    estimate = median_in_place(drawn);
  }
  return percentile_interval(medians);
}

Interval bootstrap_ratio(std::span<const double> baseline, std::span<const double> values,
                         std::uint64_t seed) {
  require_values(baseline);
  require_values(values);
  const Interval baseline_range = range_of(baseline);
  const Interval values_range = range_of(values);
  if (!(baseline_range.low > 0.0 && values_range.low > 0.0)) {
    fail(ErrorCode::kInternal, "statistics: a ratio needs positive values, not {} / {}",
         baseline_range.low, values_range.low);
  }
  if (std::min(std::ssize(baseline), std::ssize(values)) <= kRangeSamples) {
    return {baseline_range.low / values_range.high, baseline_range.high / values_range.low};
  }
  const bool paired = baseline.size() == values.size();
  IndexDraw draw(seed);
  std::vector<double> drawn_baseline(baseline.size());
  std::vector<double> drawn_values(values.size());
  std::vector<double> ratios(resamples_for(std::max(baseline.size(), values.size())));
  for (double& ratio : ratios) {
    if (paired) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        const std::size_t round = draw(values.size());
        drawn_baseline[i] = baseline[round];
        drawn_values[i] = values[round];
      }
    } else {
      resample(baseline, draw, drawn_baseline);
      resample(values, draw, drawn_values);
    }
    ratio = median_in_place(drawn_baseline) / median_in_place(drawn_values);
  }
  return percentile_interval(ratios);
}

}  // namespace moebench
