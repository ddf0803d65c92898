// The two output streams: results on stdout, everything said on the way on stderr. Survives a
// closed or full stdout.
#pragma once

#include <string>
#include <string_view>

#include "moebench/cli/options.h"

namespace moebench::cli {

/// How writing to stdout went so far.
enum class StdoutState : unsigned char {
  kOpen,
  kClosed,  ///< its reader went away (EPIPE)
  kFailed,  ///< disk full or the like
};

class Console {
 public:
  Console(Verbosity verbosity, ColorMode color);

  /// To stdout, at once. A failure is remembered, never thrown; later calls then do nothing.
  void out(std::string_view text);
  [[nodiscard]] StdoutState stdout_state() const { return stdout_state_; }
  [[nodiscard]] const std::string& stdout_error() const { return stdout_error_; }

  /// One line to stderr: `detail` with -v only, `note` unless -q, `warn` and `error` always.
  void detail(std::string_view line);
  void note(std::string_view line);
  void warn(std::string_view line);
  void error(std::string_view line);
  /// Raw text to stderr unless -q.
  void aside(std::string_view text);

  /// One line that the next one overwrites; nothing where stderr is no terminal or -q.
  void status(std::string_view line);
  [[nodiscard]] bool shows_status() const { return shows_status_; }

  /// Colours on stdout: --color, else a terminal without NO_COLOR.
  [[nodiscard]] bool colored() const { return colored_; }

 private:
  void stderr_line(std::string_view prefix, std::string_view line);
  void clear_status();

  Verbosity verbosity_;
  bool colored_ = false;
  bool shows_status_ = false;
  bool status_shown_ = false;
  StdoutState stdout_state_ = StdoutState::kOpen;
  std::string stdout_error_;
};

/// Makes file descriptors 0 to 2 exist: a journal opened by a process without stdout must not
/// become its stdout.
void open_standard_descriptors();

/// The exit code of a command that has nothing but its text: 0, or where that could not be written
/// 6, after saying so. A reader that went away is no fault.
[[nodiscard]] int written(Console& console);

}  // namespace moebench::cli
