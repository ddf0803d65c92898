// Text to values for the command line and the environment: strict, the same in every locale, every
// message with the value. `source` opens each message: the flag or the environment variable that
// the text came from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moebench::cli {

/// Longest list that a flag may expand to: beyond the largest plan that anybody reads, and far
/// below what hurts.
inline constexpr std::int64_t kMaxListValues = 100'000;

/// A whole number in [low, high]: digits with an optional minus, nothing else. Throws kBadInput.
[[nodiscard]] std::int64_t parse_integer(std::string_view source, std::string_view text,
                                         std::int64_t low, std::int64_t high);
/// A whole number in 0..2^64-1. Throws kBadInput.
[[nodiscard]] std::uint64_t parse_unsigned(std::string_view source, std::string_view text);
/// 1/0, true/false, on/off, yes/no. Throws kBadInput.
[[nodiscard]] bool parse_switch(std::string_view source, std::string_view text);

/// Items separated by spaces or commas, in one word or several: {"16 32", "64,128"} -> 16, 32, 64,
/// 128.
[[nodiscard]] std::vector<std::string> split_list(std::span<const std::string> words);

/// Values and ranges: "16", "1:64" (step 1), "1:64:8" (1, 9, ..., 57), "1:4096:x2" (1, 2, 4, ...,
/// 4096); repeated values are kept once, first place first. Throws kBadInput (a bad number, an
/// empty range, more than kMaxListValues).
[[nodiscard]] std::vector<std::int64_t> parse_integer_list(std::string_view source,
                                                           std::span<const std::string> words,
                                                           std::int64_t low, std::int64_t high);

/// Index of `text` in `choices`; throws kBadInput that lists the choices and the closest one.
[[nodiscard]] std::size_t parse_choice(std::string_view source, std::string_view text,
                                       std::span<const std::string> choices);
/// "; did you mean X?" or nothing.
[[nodiscard]] std::string suggestion(std::string_view text,
                                     std::span<const std::string> candidates);

/// `word` as one word of a POSIX shell, quoted only where it needs to be.
[[nodiscard]] std::string shell_quote(std::string_view word);

}  // namespace moebench::cli
