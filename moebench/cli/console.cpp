#include "moebench/cli/console.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "moebench/core/error.h"

namespace moebench::cli {
namespace {

/// All of `text`, through interruptions; the errno of a failure, else 0.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

bool no_color() {
  const char* value = std::getenv("NO_COLOR");
  return value != nullptr && *value != '\0';
}

std::size_t terminal_columns() {
  constexpr std::size_t kUsual = 80;
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace

Console::Console(Verbosity verbosity, ColorMode color)
    : verbosity_(verbosity),
      colored_(color == ColorMode::kAlways ||
               (color == ColorMode::kAuto && !no_color() && ::isatty(STDOUT_FILENO) == 1)),
      shows_status_(verbosity != Verbosity::kQuiet && ::isatty(STDERR_FILENO) == 1) {}

void Console::out(std::string_view text) {
  if (stdout_state_ != StdoutState::kOpen) return;
  clear_status();
  const int error = write_all(STDOUT_FILENO, text);
  if (error == 0) return;
  stdout_state_ = error == EPIPE ? StdoutState::kClosed : StdoutState::kFailed;
  stdout_error_ = std::strerror(error);
}

void Console::detail(std::string_view line) {
  if (verbosity_ == Verbosity::kVerbose) stderr_line("", line);
}
void Console::note(std::string_view line) {
  if (verbosity_ != Verbosity::kQuiet) stderr_line("note: ", line);
}
void Console::warn(std::string_view line) { stderr_line("warning: ", line); }
void Console::error(std::string_view line) { stderr_line("moebench: ", line); }

void Console::aside(std::string_view text) {
  if (verbosity_ == Verbosity::kQuiet) return;
  clear_status();
  (void)write_all(STDERR_FILENO, text);
}

void Console::status(std::string_view line) {
  if (!shows_status_) return;
  (void)write_all(STDERR_FILENO, fmt::format("\r{}\x1b[K", line.substr(0, terminal_columns() - 1)));
  status_shown_ = true;
}

void Console::stderr_line(std::string_view prefix, std::string_view line) {
  clear_status();
  (void)write_all(STDERR_FILENO, fmt::format("{}{}\n", prefix, line));
}

void Console::clear_status() {
  if (!status_shown_) return;
  status_shown_ = false;
  (void)write_all(STDERR_FILENO, "\r\x1b[K");
}

int written(Console& console) {
  if (console.stdout_state() != StdoutState::kFailed) return 0;
  console.error(fmt::format("stdout: not written ({})", console.stdout_error()));
  return static_cast<int>(ErrorCode::kIo);
}

void open_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // open() takes the lowest free number, which is `fd`.
    if (::open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) != fd) std::_Exit(2);
  }
}

}  // namespace moebench::cli
