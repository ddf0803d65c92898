#include "moebench/cli/values.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <system_error>
#include <unordered_set>

#include "moebench/core/error.h"
#include "moebench/model/presets.h"

namespace moebench::cli {
namespace {

/// from_chars knows no locale and takes neither blanks nor a plus sign.
template <typename T>
std::optional<T> whole_number(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

/// Digits, with a sign or without: wrong only in its size.
bool looks_whole(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// `low` and `high` are the limits that `text` is outside of.
template <typename T>
[[noreturn]] void refuse_integer(std::string_view source, std::string_view text, T low, T high) {
  if (looks_whole(text)) {
    fail(ErrorCode::kBadInput, "{}: '{}' is out of range; use {} to {}", source, printable(text),
         low, high);
  }
  fail(ErrorCode::kBadInput, "{}: '{}' is no whole number from {} to {}; use digits only", source,
       printable(text), low, high);
}

/// Appends first, first+step, ... or first, first*factor, ... up to `last`.
void append_range(std::string_view source, std::string_view text, std::int64_t low,
                  std::int64_t high, std::vector<std::int64_t>& values) {
  const std::string part = fmt::format("{}: range '{}'", source, printable(text));
  const std::size_t colon = text.find(':');
  const std::string_view rest = text.substr(colon + 1);
  const std::size_t second_colon = rest.find(':');
  const std::int64_t first = parse_integer(part, text.substr(0, colon), low, high);
  const std::int64_t last = parse_integer(part, rest.substr(0, second_colon), low, high);
  std::string_view step_text = second_colon == std::string_view::npos
                                   ? std::string_view("1")
                                   : rest.substr(second_colon + 1);
  const bool geometric = step_text.starts_with('x');
  if (geometric) step_text.remove_prefix(1);
  const std::int64_t step =
      parse_integer(part, step_text, geometric ? 2 : 1, std::numeric_limits<std::int64_t>::max());
  if (first > last) {
    fail(ErrorCode::kBadInput, "{} is empty; write the smaller end first", part);
  }
  if (geometric && first < 1) {
    fail(ErrorCode::kBadInput, "{} multiplies {} and never ends; start at 1 or more", part, first);
  }
  for (std::int64_t value = first;;) {
    if (std::ssize(values) >= kMaxListValues) {
      fail(ErrorCode::kBadInput, "{}: '{}' makes more than {} values; use a larger step", source,
           printable(text), kMaxListValues);
    }
    values.push_back(value);
    const bool overflow = geometric ? __builtin_mul_overflow(value, step, &value)
                                    : __builtin_add_overflow(value, step, &value);
    if (overflow || value > last) return;
  }
}

}  // namespace

std::int64_t parse_integer(std::string_view source, std::string_view text, std::int64_t low,
                           std::int64_t high) {
  const std::optional<std::int64_t> value = whole_number<std::int64_t>(text);
  if (!value || *value < low || *value > high) refuse_integer(source, text, low, high);
  return *value;
}

std::uint64_t parse_unsigned(std::string_view source, std::string_view text) {
  const std::optional<std::uint64_t> value = whole_number<std::uint64_t>(text);
  if (!value) {
    refuse_integer(source, text, std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max());
  }
  return *value;
}

bool parse_switch(std::string_view source, std::string_view text) {
  for (const std::string_view yes : {"1", "true", "on", "yes"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"0", "false", "off", "no"}) {
    if (text == no) return false;
  }
  fail(ErrorCode::kBadInput, "{}: '{}' is neither on nor off; use 1 or 0", source, printable(text));
}

std::vector<std::string> split_list(std::span<const std::string> words) {
  constexpr std::string_view kSeparators = " \t\n,";
  std::vector<std::string> items;
  for (const std::string_view word : words) {
    std::size_t at = 0;
    while ((at = word.find_first_not_of(kSeparators, at)) != std::string_view::npos) {
      const std::size_t end = std::min(word.find_first_of(kSeparators, at), word.size());
      items.emplace_back(word.substr(at, end - at));
      at = end;
    }
  }
  return items;
}

std::vector<std::int64_t> parse_integer_list(std::string_view source,
                                             std::span<const std::string> words, std::int64_t low,
                                             std::int64_t high) {
  std::vector<std::int64_t> values;
  for (const std::string& item : split_list(words)) {
    if (item.find(':') != std::string::npos) {
      append_range(source, item, low, high, values);
    } else {
      values.push_back(parse_integer(source, item, low, high));
    }
    if (std::ssize(values) > kMaxListValues) {
      fail(ErrorCode::kBadInput, "{}: more than {} values; split the run", source, kMaxListValues);
    }
  }
  if (values.empty()) {
    fail(ErrorCode::kBadInput, "{}: no value given; list at least one", source);
  }
  std::unordered_set<std::int64_t> seen;
  std::erase_if(values, [&seen](std::int64_t value) { return !seen.insert(value).second; });
  return values;
}

std::size_t parse_choice(std::string_view source, std::string_view text,
                         std::span<const std::string> choices) {
  const auto found = std::find(choices.begin(), choices.end(), text);
  if (found == choices.end()) {
    fail(ErrorCode::kBadInput, "{}: '{}' is none of {}{}", source, printable(text),
         fmt::join(choices, ", "), suggestion(text, choices));
  }
  return static_cast<std::size_t>(found - choices.begin());
}

std::string suggestion(std::string_view text, std::span<const std::string> candidates) {
  const std::string closest = closest_name(text, candidates);
  return closest.empty() ? std::string() : fmt::format("; did you mean {}?", closest);
}

std::string shell_quote(std::string_view word) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kSafe) == std::string_view::npos) {
    return std::string(word);
  }
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

}  // namespace moebench::cli
