// From a series of samples to a Measurement: median, spread, interval and the honest label.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "moebench/core/error.h"
#include "moebench/measure/measure.h"

namespace moebench {
namespace {

std::string spread_noise(const Measurement& m) {
  const double share = m.iqr_s / m.median_s;
  return share >= kNoisyIqrShare ? fmt::format("IQR {:.0f} % of the median", share * 100.0)
                                 : std::string{};
}

std::string unsettled_noise(const Measurement& m, const StopRule& rule) {
  if (settled(rule, m.samples_s)) return {};
  const double error = relative_standard_error(m.samples_s) * 100.0;
  if (std::ssize(m.samples_s) >= rule.max_samples) {
    return fmt::format("stopped at {} samples with {:.2g} % error", m.samples_s.size(), error);
  }
  return fmt::format("stopped by its time limit of {} s with {:.2g} % error after {} samples",
                     rule.max_seconds, error, m.samples_s.size());
}

/// Whether the halves differ beyond what their spread explains, by the Mann-Whitney rank test: no
/// assumption on the shape of the noise. Needs five a side; from there on complete separation
/// counts (chance 2/252 at five a side, falling five-fold with each further pair), else a z
/// of 3.29, which chance passes once in 1000 series.
bool halves_differ(std::span<const double> first, std::span<const double> second) {
  constexpr std::size_t kFewest = 5;
  constexpr double kCriticalZ = 3.29;
  if (first.size() < kFewest) return false;
  double first_wins = 0.0;
  for (const double a : first) {
    for (const double b : second) first_wins += a > b ? 1.0 : (a == b ? 0.5 : 0.0);
  }
  const auto n = static_cast<double>(first.size());
  const auto k = static_cast<double>(second.size());
  if (first_wins == 0.0 || first_wins == n * k) return true;
  const double z = std::abs(first_wins - n * k / 2.0) / std::sqrt(n * k * (n + k + 1.0) / 12.0);
  return z >= kCriticalZ;
}

std::string drift_noise(const Measurement& m) {
  // The test compares every pair; of a longer series, evenly spaced samples are enough to see a
  // drift.
  constexpr std::size_t kMostSamples = 2000;
  std::vector<double> series;
  const std::size_t step = (m.samples_s.size() + kMostSamples - 1) / kMostSamples;
  for (std::size_t i = 0; i < m.samples_s.size(); i += step) series.push_back(m.samples_s[i]);
  const std::span<const double> all = series;
  const auto first = all.first(all.size() / 2);
  const auto second = all.last(all.size() / 2);
  if (first.empty()) return {};
  const double share = (median(second) - median(first)) / m.median_s;
  if (std::abs(share) < kNoisyDriftShare || !halves_differ(first, second)) return {};
  return fmt::format("drift of {:+.1f} % from the first half to the second", share * 100.0);
}

std::string outlier_noise(const Measurement& m) {
  constexpr double kFences = 3.0;  // Tukey's outer fences
  const double low = quantile(m.samples_s, 0.25) - kFences * m.iqr_s;
  const double high = quantile(m.samples_s, 0.75) + kFences * m.iqr_s;
  std::size_t far = 0;
  double farthest = 1.0;
  for (const double sample : m.samples_s) {
    const double medians = sample / m.median_s;
    if ((sample < low || sample > high) && std::abs(medians - 1.0) >= kFarOutlierShare) {
      ++far;
      if (std::abs(medians - 1.0) > std::abs(farthest - 1.0)) farthest = medians;
    }
  }
  if (far == 0) return {};
  const double share = static_cast<double>(far) / static_cast<double>(m.samples_s.size());
  if (share <= kNoisyOutliers && farthest < kNoisySingleOutlier) return {};
  return fmt::format("{} of {} samples far off, one {:.2f} times the median", far,
                     m.samples_s.size(), farthest);
}

std::string clock_noise(const Measurement& m, double resolution_s) {
  const double steps = m.median_s * static_cast<double>(m.calls_per_sample) / resolution_s;
  if (steps >= kFewestClockSteps) return {};
  return fmt::format("a sample is only {:.0f} steps of the clock ({:.2g} s)", steps, resolution_s);
}

}  // namespace

Measurement summarize(std::vector<double> samples_s, std::int64_t calls_per_sample,
                      const StopRule& rule, double clock_resolution_s, std::uint64_t seed) {
  Measurement m;
  m.samples_s = std::move(samples_s);
  m.calls_per_sample = calls_per_sample;
  m.median_s = median(m.samples_s);
  m.iqr_s = interquartile_range(m.samples_s);
  m.ci = bootstrap_median(m.samples_s, seed);
  std::vector<std::string> reasons = {clock_noise(m, clock_resolution_s)};
  if (m.median_s >
      0.0) {  // else the clock saw nothing, which the first reason says; shares of it would be NaN
    reasons.push_back(spread_noise(m));
    reasons.push_back(unsettled_noise(m, rule));
    reasons.push_back(drift_noise(m));
    reasons.push_back(outlier_noise(m));
  }
  std::erase(reasons, std::string{});
  m.noisy = !reasons.empty();
  m.noise = fmt::format("{}", fmt::join(reasons, "; "));
  return m;
}

}  // namespace moebench
