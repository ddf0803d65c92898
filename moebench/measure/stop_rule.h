// When enough samples have been taken. One text form per rule: stdrel:0.5%, time:5s, count:100.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moebench {

struct StopRule {
  enum class Kind : std::uint8_t { kStdRel, kTime, kCount };
  Kind kind = Kind::kStdRel;
  double relative_error = 0.005;    ///< kStdRel: relative standard error of the mean
  double seconds = 5.0;             ///< kTime: sampling time of one kernel and case
  std::int64_t count = 20;          ///< kCount
  // Bounds that hold for kStdRel whatever the noise; a series that ends on one of them unsettled is labelled noisy.
  std::int64_t min_samples = 5;
  std::int64_t max_samples = 200;
  double max_seconds = 10.0;
};
[[nodiscard]] StopRule parse_stop_rule(std::string_view text);  ///< throws kBadInput with the value
[[nodiscard]] std::string to_string(const StopRule& rule);
/// `elapsed_s`: time spent sampling this kernel so far.
[[nodiscard]] bool enough(const StopRule& rule, std::span<const double> samples, double elapsed_s);
/// True if the rule's own goal holds (not merely its bounds).
[[nodiscard]] bool settled(const StopRule& rule, std::span<const double> samples);

}  // namespace moebench
