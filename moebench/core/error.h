// The one exception type of the project and its exit codes. Thrown for bad input, a missing
// environment, I/O and device faults; caught once per case and once in main. "This kernel cannot do
// this shape" is not an error but a Support.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace moebench {

/// What went wrong; the values are the process exit codes that docs and scripts rely on.
enum class ErrorCode : int {
  kCheckFailed = 1,  ///< a kernel's answer failed its check
  kBadInput = 2,     ///< usage, flags, files, values
  kRegression = 3,   ///< `compare` found a slower result
  kUnavailable = 4,  ///< the asked-for backend, ISA or device is not here
  kOutOfMemory = 5,  ///< host or device memory does not suffice
  kIo = 6,  ///< a write failed (disk full, closed pipe); reported, never fatal to finished results
  kInternal = 7,  ///< a broken promise of our own
};

/// Message form, one line: `<file or flag>: <what is wrong, with the values>; <what to do>`.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const { return code_; }
  [[nodiscard]] int exit_code() const { return static_cast<int>(code_); }

 private:
  ErrorCode code_;
};

/// Throws Error(code) with a fmt-formatted message.
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Whether a kernel can run a case, and if not, why: the text that `list` and skipped results show.
struct Support {
  bool ok = true;
  std::string reason;
  [[nodiscard]] static Support yes() { return {}; }
  [[nodiscard]] static Support no(std::string why) { return {false, std::move(why)}; }
};

/// `text` made safe for a one-line message: control characters escaped, at most `limit` bytes kept.
[[nodiscard]] std::string printable(std::string_view text, std::size_t limit = 120);

}  // namespace moebench
