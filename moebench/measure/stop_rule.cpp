// Text forms and decisions of the stopping rules. Numbers are read with std::from_chars, which
// knows no locale.
#include "moebench/measure/stop_rule.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <system_error>

#include "moebench/core/error.h"
#include "moebench/measure/statistics.h"

namespace moebench {
namespace {

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stopped_at != end) return std::nullopt;
  return value;
}

bool remove_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

/// NaN fails every comparison here and is thus refused with the rest.
std::optional<double> parse_relative_error(std::string_view text) {
  const bool percent = remove_suffix(text, "%");
  std::optional<double> value = parse_number<double>(text);
  if (value && percent) *value /= 100.0;
  if (!value || !(*value > 0.0 && *value < 1.0)) return std::nullopt;
  return value;
}

std::optional<double> parse_seconds(std::string_view text) {
  double unit_s = 1.0;
  double units_per_s = 1.0;
  if (remove_suffix(text, "ms")) {
    units_per_s = 1000.0;  // a division: 0.2 s is 200 / 1000, but not 200 * 0.001
  } else if (remove_suffix(text, "min")) {
    unit_s = 60.0;
  } else if (!remove_suffix(text, "s")) {
    return std::nullopt;
  }
  std::optional<double> value = parse_number<double>(text);
  if (value) *value = *value * unit_s / units_per_s;
  if (!value || !(*value > 0.0 && *value <= kLongestTimeRule)) return std::nullopt;
  return value;
}

/// The shortest decimal percentage that reads back as exactly `fraction`.
std::string shortest_percent(double fraction) {
  constexpr int kExactDigits = 17;
  for (int digits = 1; digits < kExactDigits; ++digits) {
    const std::string text = fmt::format("{:.{}g}", fraction * 100.0, digits);
    const std::optional<double> back = parse_number<double>(text);
    if (back && *back / 100.0 == fraction) return text + "%";
  }
  return fmt::format("{}", fraction);
}

}  // namespace

StopRule parse_stop_rule(std::string_view text) {
  StopRule rule;
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const std::string_view value =
      colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1);
  if (name == "stdrel") {
    rule.kind = StopRule::Kind::kStdRel;
    const std::optional<double> error = parse_relative_error(value);
    if (!error) {
      fail(ErrorCode::kBadInput,
           "--stop: '{}' is no relative standard error above 0 and below 100%; use for instance "
           "stdrel:0.5%",
           printable(text));
    }
    rule.relative_error = *error;
  } else if (name == "time") {
    rule.kind = StopRule::Kind::kTime;
    const std::optional<double> seconds = parse_seconds(value);
    if (!seconds) {
      fail(ErrorCode::kBadInput,
           "--stop: '{}' is no time above 0 and up to {} s with the unit s, ms or min; use for "
           "instance time:5s",
           printable(text), kLongestTimeRule);
    }
    rule.seconds = *seconds;
  } else if (name == "count") {
    rule.kind = StopRule::Kind::kCount;
    const std::optional<std::int64_t> count = parse_number<std::int64_t>(value);
    if (!count || *count < 1 || *count > kLargestCountRule) {
      fail(ErrorCode::kBadInput,
           "--stop: '{}' is no whole number of samples from 1 to {}; use for instance count:100",
           printable(text), kLargestCountRule);
    }
    rule.count = *count;
  } else {
    fail(ErrorCode::kBadInput, "--stop: unknown rule '{}'; use stdrel:0.5%, time:5s or count:100",
         printable(text));
  }
  return rule;
}

std::string to_string(const StopRule& rule) {
  switch (rule.kind) {
    case StopRule::Kind::kStdRel:
      return "stdrel:" + shortest_percent(rule.relative_error);
    case StopRule::Kind::kTime:
      return fmt::format("time:{}s", rule.seconds);
    case StopRule::Kind::kCount:
      return fmt::format("count:{}", rule.count);
  }
  fail(ErrorCode::kInternal, "stop rule: kind {}", static_cast<int>(rule.kind));
}

bool enough(const StopRule& rule, std::span<const double> samples, double elapsed_s) {
  const std::int64_t taken = std::ssize(samples);
  switch (rule.kind) {
    case StopRule::Kind::kCount:
      return taken >= rule.count;
    case StopRule::Kind::kTime:
      return taken >= rule.min_slow_samples && elapsed_s >= rule.seconds;
    case StopRule::Kind::kStdRel:
      break;
  }
  if (taken >= rule.max_samples) return true;
  if (elapsed_s >= rule.max_seconds && taken >= std::min(rule.min_slow_samples, rule.min_samples))
    return true;
  return taken >= rule.min_samples && elapsed_s >= rule.min_seconds && settled(rule, samples);
}

bool settled(const StopRule& rule, std::span<const double> samples) {
  if (samples.empty()) return false;
  if (rule.kind != StopRule::Kind::kStdRel) return true;
  return relative_standard_error(samples) <= rule.relative_error;
}

double completion(const StopRule& rule, std::span<const double> samples, double elapsed_s) {
  if (enough(rule, samples, elapsed_s)) return 1.0;
  const auto taken = static_cast<double>(samples.size());
  double share = 0.0;
  switch (rule.kind) {
    case StopRule::Kind::kCount:
      share = taken / static_cast<double>(rule.count);
      break;
    case StopRule::Kind::kTime:
      share =
          std::min(elapsed_s / rule.seconds, taken / static_cast<double>(rule.min_slow_samples));
      break;
    case StopRule::Kind::kStdRel: {
      // Whichever ends the series first: a bound, or the error, of which n samples at e need n * (e
      // / goal)^2.
      share = std::max(taken / static_cast<double>(rule.max_samples), elapsed_s / rule.max_seconds);
      if (samples.size() >= 2) {
        const double excess = relative_standard_error(samples) / rule.relative_error;
        const double by_error = excess > 1.0 ? 1.0 / (excess * excess) : 1.0;
        const double by_least =
            std::min(taken / static_cast<double>(rule.min_samples), elapsed_s / rule.min_seconds);
        share = std::max(share, std::min(by_error, by_least));
      }
      break;
    }
  }
  return std::clamp(share, 0.0, 1.0);
}

}  // namespace moebench
