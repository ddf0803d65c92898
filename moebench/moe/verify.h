// The verdict on one kernel's answer: per token row, then per element. No speed is reported without
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "moebench/moe/problem.h"
#include "moebench/moe/reference.h"

namespace moebench {

/// Output is filled with this before the run: a NaN in FP16 and in BF16 that no kernel writes, so
/// that an unwritten element is told from a computed NaN.
inline constexpr std::uint16_t kPoison = 0xFFA5;
/// Elements before and after the output that must still be kGuard afterwards.
inline constexpr std::int64_t kGuardElements = 64;
inline constexpr std::uint16_t kGuard = 0x5AA5;

/// Output buffer with poison and guards.
class GuardedOutput {
 public:
  GuardedOutput(std::int64_t tokens, std::int64_t hidden);
  void poison();
  [[nodiscard]] std::span<std::uint16_t> y();
  [[nodiscard]] std::span<const std::uint16_t> y() const;
  /// Empty if intact, else "wrote N elements past the end, first at +3" and the like.
  [[nodiscard]] std::string guard_damage() const;

 private:
  std::int64_t elements_;
  std::vector<std::uint16_t> storage_;
};

struct CheckSpec {
  enum class Kind : std::uint8_t { kFull, kSample, kOff };
  Kind kind = Kind::kSample;
  std::int64_t sample_rows = 8;
};
[[nodiscard]] CheckSpec parse_check(
    std::string_view text);  ///< "full", "sample:16", "off"; throws kBadInput
[[nodiscard]] std::string to_string(const CheckSpec& spec);

struct Verdict {
  enum class Kind : std::uint8_t { kPass, kFail, kUnchecked };
  Kind kind = Kind::kUnchecked;
  std::int64_t rows_checked = 0;
  std::int64_t rows_total = 0;
  double worst_row_error = 0.0;   ///< max over rows of ||y - ref|| / ||ref||
  std::int64_t worst_token = -1;  ///< its row; then the worst element of that row
  std::int64_t worst_column = -1;
  double worst_got = 0.0;
  double worst_expected = 0.0;
  double worst_bound_share = 0.0;  ///< max over elements of |y - ref| / allowed
  std::string reason;              ///< one line with coordinates and both values when failed
  [[nodiscard]] bool passed() const { return kind == Kind::kPass; }
};
[[nodiscard]] const char* name_of(Verdict::Kind kind);  ///< "pass", "fail", "unchecked"

/// The reference of one problem, made once and used for every kernel of the same scheme.
/// Rows: all (kFull), or a seeded sample without repetition that contains row 0 and the last row,
/// and the claim's token.
[[nodiscard]] std::vector<std::int64_t> rows_to_check(const CheckSpec& spec, std::uint64_t seed,
                                                      std::int64_t tokens,
                                                      std::optional<std::int64_t> must_contain);

/// Judges `y` [tokens, hidden]: (1) no poison, NaN or infinity in any row, checked rows or not; (2)
/// every checked element within its radius; (3) worst row reported. `guard_damage` non-empty fails.
[[nodiscard]] Verdict judge(const MoeProblem& problem, const ReferenceRows& reference,
                            std::span<const std::uint16_t> y, const std::string& guard_damage);

/// Root-mean-square relative error of `rows` against the unquantised forward: the scheme's format
/// error, a property of the format and not of the kernel.
[[nodiscard]] double format_error(const std::vector<double>& unquantized,
                                  const std::vector<double>& quantized);

}  // namespace moebench
