#include "tests/cli/command.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

extern char** environ;

namespace moebench::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  return {ends[0], ends[1]};
}

/// The caller's environment without its own MOEBENCH_ variables, and the test's.
std::vector<std::string> environment_of(const CommandSetup& setup) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string_view(*variable).starts_with("MOEBENCH_")) variables.emplace_back(*variable);
  }
  for (const auto& [name, value] : setup.environment) variables.push_back(name + "=" + value);
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

/// Between fork and exec: system calls only.
[[noreturn]] void become_command(const CommandSetup& setup, char* const* argv, char* const* envp,
                                 int out, int err) {
  ::dup2(err, STDERR_FILENO);
  switch (setup.stdout_kind) {
    case Stdout::kNone:
      ::close(STDOUT_FILENO);
      break;
    case Stdout::kFull:
      ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO);
      break;
    case Stdout::kCaptured:
    case Stdout::kGoneReader:
      ::dup2(out, STDOUT_FILENO);
      break;
  }
  if (setup.file_size_limit >= 0) {
    const auto limit = static_cast<rlim_t>(setup.file_size_limit);
    const rlimit limits{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &limits);
  }
  ::execve(argv[0], argv, envp);
  ::_exit(127);
}

/// Reads both pipes to their ends; sends the signals and the final SIGKILL when their time has
/// come.
class Supervisor {
 public:
  Supervisor(pid_t child, const CommandSetup& setup, CommandResult& result)
      : child_(child), setup_(setup), result_(result), start_(SteadyClock::now()) {
    armed_ = setup.signal_number != 0 && setup.signal_after_text.empty();
    armed_at_ = 0.0;
  }

  void watch(int out, int err) {
    std::array<pollfd, 2> fds = {{{out, POLLIN, 0}, {err, POLLIN, 0}}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
      constexpr int kTick = 5;  // ms
      ::poll(fds.data(), fds.size(), kTick);
      for (std::size_t i = 0; i < fds.size(); ++i) {
        if (fds[i].fd >= 0 && fds[i].revents != 0)
          read_some(fds[i], i == 0 ? result_.out : result_.err);
      }
      send_signals();
    }
  }

 private:
  [[nodiscard]] double elapsed() const {
    return std::chrono::duration<double>(SteadyClock::now() - start_).count();
  }

  static void read_some(pollfd& fd, std::string& text) {
    std::array<char, 65536> buffer{};
    const ssize_t count = ::read(fd.fd, buffer.data(), buffer.size());
    if (count > 0) text.append(buffer.data(), static_cast<std::size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) fd.fd = -1;
  }

  void send_signals() {
    const double now = elapsed();
    if (now > setup_.timeout_s) ::kill(child_, SIGKILL);
    if (!armed_ && setup_.signal_number != 0 &&
        (result_.out + result_.err).find(setup_.signal_after_text) != std::string::npos) {
      armed_ = true;
      armed_at_ = now;
    }
    if (armed_ && sent_ == 0 && now >= armed_at_ + setup_.signal_after_s) {
      ::kill(child_, setup_.signal_number);
      sent_ = 1;
      armed_at_ = now;
    }
    if (sent_ == 1 && setup_.second_signal_after_s >= 0.0 &&
        now >= armed_at_ + setup_.second_signal_after_s) {
      ::kill(child_, setup_.signal_number);
      sent_ = 2;
    }
  }

  pid_t child_;
  const CommandSetup& setup_;
  CommandResult& result_;
  SteadyClock::time_point start_;
  bool armed_ = false;
  double armed_at_ = 0.0;
  int sent_ = 0;
};

}  // namespace

CommandResult run_command(const std::vector<std::string>& args, const CommandSetup& setup) {
  std::vector<std::string> words = {MOEBENCH_BINARY};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<std::string> variables = environment_of(setup);
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> envp = pointers(variables);
  const Pipe out = make_pipe();
  const Pipe err = make_pipe();

  CommandResult result;
  const auto start = SteadyClock::now();
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    if (setup.stdout_kind == Stdout::kGoneReader) ::close(out.read_end);
    become_command(setup, argv.data(), envp.data(), out.write_end, err.write_end);
  }
  ::close(out.write_end);
  ::close(err.write_end);
  if (setup.stdout_kind == Stdout::kGoneReader) ::close(out.read_end);
  Supervisor(child, setup, result)
      .watch(setup.stdout_kind == Stdout::kGoneReader ? -1 : out.read_end, err.read_end);
  int status = 0;
  rusage usage{};
  while (::wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  if (setup.stdout_kind != Stdout::kGoneReader) ::close(out.read_end);
  ::close(err.read_end);
  result.seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  result.peak_bytes = static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.ended_by_signal = WTERMSIG(status);
  return result;
}

std::vector<std::string> small_run(std::vector<std::string> more) {
  std::vector<std::string> args = {"--models", "qwen3-30b-a3b", "--limit-num-groups",
                                   "8",        "--tp-sizes",    "8",
                                   "--stop",   "count:3"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "moebench-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace moebench::cli
