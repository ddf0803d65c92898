// The verdict. Order of the findings: damage around the output, unwritten elements, NaN and
// infinity, a reference that nothing can match, and then every checked element against its radius.
#include "moebench/moe/verify.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "moebench/core/checked.h"
#include "moebench/moe/philox.h"

namespace moebench {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

bool is_not_finite(ActType act, std::uint16_t bits) {
  constexpr std::uint16_t kFp16Exponent = 0x7C00;
  constexpr std::uint16_t kBf16Exponent = 0x7F80;
  const std::uint16_t exponent = act == ActType::kFp16 ? kFp16Exponent : kBf16Exponent;
  return (bits & exponent) == exponent;
}

/// Guard elements of [begin, end) that were written: how many, and the index of the first.
struct Damage {
  std::int64_t count = 0;
  std::int64_t first = -1;
};
Damage damage_in(const std::vector<std::uint16_t>& storage, std::int64_t begin, std::int64_t end) {
  Damage out;
  for (std::int64_t i = begin; i < end; ++i) {
    if (storage[at(i)] == kGuard) continue;
    if (out.count++ == 0) out.first = i;
  }
  return out;
}

/// The first row that has unwritten elements, or else the first with a NaN or infinity; empty if
/// there is none.
std::string invalid_row(const MoeProblem& problem, std::span<const std::uint16_t> y) {
  const std::int64_t k = problem.shape.hidden;
  std::string not_finite;
  for (std::int64_t row = 0; row < problem.tokens; ++row) {
    const auto elements = y.subspan(at(row * k), at(k));
    const auto unwritten = std::count(elements.begin(), elements.end(), kPoison);
    if (unwritten > 0) {
      const auto first = std::find(elements.begin(), elements.end(), kPoison) - elements.begin();
      return fmt::format("row {}: {} of {} elements never written, first at column {}", row,
                         unwritten, k, first);
    }
    if (!not_finite.empty()) continue;
    for (std::int64_t column = 0; column < k; ++column) {
      if (!is_not_finite(problem.shape.act, elements[at(column)])) continue;
      const float value = decode_act(problem.shape.act, elements[at(column)]);
      not_finite = fmt::format("row {}: {} at column {}", row,
                               std::isnan(value) ? "NaN"
                               : value < 0       ? "-Inf"
                                                 : "Inf",
                               column);
      break;
    }
  }
  return not_finite;
}

/// How far one row is off.
struct RowFinding {
  std::int64_t row = -1;  ///< index among the checked rows
  double error = 0.0;     ///< ||y - ref|| / ||ref||
  double bound_share = 0.0;
  std::int64_t outside = 0;  ///< elements further off than allowed
  std::int64_t column = -1;  ///< the element furthest outside, or else the furthest off
};

/// A share of an allowance of 0 is reported as this, so that the figure stays finite.
constexpr double kLargestShare = 1e6;

RowFinding examine_row(const ReferenceRows& reference, std::int64_t row, ActType act,
                       std::span<const std::uint16_t> y) {
  const auto k = static_cast<std::int64_t>(y.size());
  RowFinding out{.row = row};
  double squared_error = 0.0;
  double squared_norm = 0.0;
  double furthest = -1.0;
  double furthest_outside = 0.0;
  for (std::int64_t column = 0; column < k; ++column) {
    const double expected = reference.expected[at(row * k + column)];
    const double allowed = reference.radius[at(row * k + column)];
    const double off = std::abs(double{decode_act(act, y[at(column)])} - expected);
    squared_error += off * off;
    squared_norm += expected * expected;
    if (off > 0.0)
      out.bound_share = std::max(out.bound_share, std::min(off / allowed, kLargestShare));
    if (off > allowed) ++out.outside;
    const bool further = out.outside > 0 ? off - allowed > furthest_outside : off > furthest;
    if (!further) continue;
    out.column = column;
    furthest = off;
    furthest_outside = off - allowed;
  }
  // A row that should be all zeros has no scale to be measured by: any error counts as 100 %.
  out.error = squared_norm > 0.0    ? std::sqrt(squared_error / squared_norm)
              : squared_error > 0.0 ? 1.0
                                    : 0.0;
  return out;
}

bool worse(const RowFinding& a, const RowFinding& b) {
  if ((a.outside > 0) != (b.outside > 0)) return a.outside > 0;
  return a.error > b.error;
}

void require_sizes(const MoeProblem& problem, const ReferenceRows& reference,
                   std::span<const std::uint16_t> y) {
  const std::int64_t k = problem.shape.hidden;
  const std::size_t elements = reference.tokens.size() * at(k);
  const bool rows_exist =
      std::all_of(reference.tokens.begin(), reference.tokens.end(),
                  [&](std::int64_t token) { return token >= 0 && token < problem.tokens; });
  if (y.size() == at(problem.tokens * k) && reference.expected.size() == elements &&
      reference.radius.size() == elements && rows_exist) {
    return;
  }
  fail(ErrorCode::kInternal,
       "check: output of {} and reference of {} elements do not fit {} tokens of {} columns",
       y.size(), reference.expected.size(), problem.tokens, k);
}

}  // namespace

GuardedOutput::GuardedOutput(std::int64_t tokens, std::int64_t hidden)
    : elements_(checked_product("output", {tokens, hidden})),
      storage_(at(elements_ + 2 * kGuardElements), kGuard) {
  poison();
}

void GuardedOutput::poison() {
  std::fill(storage_.begin(), storage_.end(), kGuard);
  std::fill_n(storage_.begin() + kGuardElements, elements_, kPoison);
}

std::span<std::uint16_t> GuardedOutput::y() {
  return std::span(storage_).subspan(at(kGuardElements), at(elements_));
}

std::span<const std::uint16_t> GuardedOutput::y() const {
  return std::span(storage_).subspan(at(kGuardElements), at(elements_));
}

std::string GuardedOutput::guard_damage() const {
  const Damage before = damage_in(storage_, 0, kGuardElements);
  const std::int64_t end = kGuardElements + elements_;
  const Damage after = damage_in(storage_, end, end + kGuardElements);
  std::string out;
  if (before.count > 0) {
    out = fmt::format("wrote {} elements before the start, first at -{}", before.count,
                      kGuardElements - before.first);
  }
  if (after.count > 0) {
    out += fmt::format("{}wrote {} elements past the end, first at +{}", out.empty() ? "" : "; ",
                       after.count, after.first - end);
  }
  return out;
}

CheckSpec parse_check(std::string_view text) {
  constexpr std::string_view kSamplePrefix = "sample:";
  if (text == "full") return {CheckSpec::Kind::kFull, 0};
  if (text == "off") return {CheckSpec::Kind::kOff, 0};
  if (text.starts_with(kSamplePrefix)) {
    const std::string_view digits = text.substr(kSamplePrefix.size());
    CheckSpec spec{CheckSpec::Kind::kSample, 0};
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), spec.sample_rows);
    if (error == std::errc{} && end == digits.data() + digits.size() && spec.sample_rows > 0)
      return spec;
  }
  fail(ErrorCode::kBadInput,
       "--check: '{}' is none of full, sample:N (N >= 1), off; use one of them", printable(text));
}

std::string to_string(const CheckSpec& spec) {
  switch (spec.kind) {
    case CheckSpec::Kind::kFull:
      return "full";
    case CheckSpec::Kind::kOff:
      return "off";
    case CheckSpec::Kind::kSample:
      break;
  }
  return fmt::format("sample:{}", spec.sample_rows);
}

const char* name_of(Verdict::Kind kind) {
  switch (kind) {
    case Verdict::Kind::kPass:
      return "pass";
    case Verdict::Kind::kFail:
      return "fail";
    case Verdict::Kind::kUnchecked:
      break;
  }
  return "unchecked";
}

std::vector<std::int64_t> rows_to_check(const CheckSpec& spec, std::uint64_t seed,
                                        std::int64_t tokens,
                                        std::optional<std::int64_t> must_contain) {
  std::set<std::int64_t> rows;
  if (spec.kind == CheckSpec::Kind::kOff || tokens <= 0) return {};
  if (spec.kind == CheckSpec::Kind::kFull || spec.sample_rows >= tokens) {
    for (std::int64_t row = 0; row < tokens; ++row) rows.insert(row);
    return {rows.begin(), rows.end()};
  }
  rows = {0, tokens - 1};
  if (must_contain && *must_contain >= 0 && *must_contain < tokens) rows.insert(*must_contain);
  for (std::uint32_t draw = 0; static_cast<std::int64_t>(rows.size()) < spec.sample_rows; ++draw) {
    const PhiloxBlock word =
        philox4x32(seed, {draw, 0, static_cast<std::uint32_t>(Stream::kSampleRows), 0});
    const std::uint64_t wide = (std::uint64_t{word[0]} << 32) | word[1];
    rows.insert(static_cast<std::int64_t>(wide % static_cast<std::uint64_t>(tokens)));
  }
  return {rows.begin(), rows.end()};
}

Verdict judge(const MoeProblem& problem, const ReferenceRows& reference,
              std::span<const std::uint16_t> y, const std::string& guard_damage) {
  require_sizes(problem, reference, y);
  const std::int64_t k = problem.shape.hidden;
  Verdict out;
  out.rows_checked = static_cast<std::int64_t>(reference.tokens.size());
  out.rows_total = problem.tokens;
  out.reason = guard_damage;
  if (out.reason.empty()) out.reason = invalid_row(problem, y);
  if (out.reason.empty()) out.reason = reference.defect;
  if (!out.reason.empty()) {
    out.kind = Verdict::Kind::kFail;
    return out;
  }
  if (out.rows_checked == 0) {
    out.kind = problem.tokens == 0 ? Verdict::Kind::kPass : Verdict::Kind::kUnchecked;
    return out;
  }
  RowFinding worst;
  std::int64_t rows_outside = 0;
  for (std::int64_t row = 0; row < out.rows_checked; ++row) {
    const auto elements = y.subspan(at(reference.tokens[at(row)] * k), at(k));
    const RowFinding finding = examine_row(reference, row, problem.shape.act, elements);
    rows_outside += finding.outside > 0 ? 1 : 0;
    out.worst_row_error = std::max(out.worst_row_error, finding.error);
    out.worst_bound_share = std::max(out.worst_bound_share, finding.bound_share);
    if (worst.row < 0 || worse(finding, worst)) worst = finding;
  }
  const std::int64_t element = worst.row * k + worst.column;
  out.worst_token = reference.tokens[at(worst.row)];
  out.worst_column = worst.column;
  out.worst_got = decode_act(problem.shape.act, y[at(out.worst_token * k + worst.column)]);
  out.worst_expected = reference.expected[at(element)];
  out.kind = worst.outside > 0 ? Verdict::Kind::kFail : Verdict::Kind::kPass;
  if (worst.outside > 0) {
    out.reason = fmt::format(
        "row {}: element {}: got {:.6g}, expected {:.6g} (off by {:.3g}, allowed {:.3g}); {} of {} "
        "elements of the row are "
        "off, row error {:.2g}; {} of {} checked rows",
        out.worst_token, worst.column, out.worst_got, out.worst_expected,
        std::abs(out.worst_got - out.worst_expected), reference.radius[at(element)], worst.outside,
        k, worst.error, rows_outside, out.rows_checked);
  }
  return out;
}

double format_error(const std::vector<double>& unquantized, const std::vector<double>& quantized) {
  if (unquantized.size() != quantized.size()) {
    fail(ErrorCode::kInternal, "format error: {} and {} values; give the same rows twice",
         unquantized.size(), quantized.size());
  }
  double squared_error = 0.0;
  double squared_norm = 0.0;
  for (std::size_t i = 0; i < unquantized.size(); ++i) {
    squared_error += (quantized[i] - unquantized[i]) * (quantized[i] - unquantized[i]);
    squared_norm += unquantized[i] * unquantized[i];
  }
  if (squared_norm > 0.0) return std::sqrt(squared_error / squared_norm);
  return squared_error > 0.0 ? 1.0 : 0.0;
}

}  // namespace moebench
