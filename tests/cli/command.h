// Starts the moebench binary as a user would, and keeps what it printed, how it ended and what it
// took.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace moebench::cli {

// GCC says which sanitizer it compiles for by a macro, Clang by a feature.
#if defined(__has_feature)
#define MOEBENCH_HAS_FEATURE(x) __has_feature(x)
#else
#define MOEBENCH_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || MOEBENCH_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
/// Time and memory limits hold for the real program, not for an instrumented one.
#if defined(__SANITIZE_ADDRESS__) || MOEBENCH_HAS_FEATURE(address_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = kThreadSanitizer;
#endif

enum class Stdout : std::uint8_t {
  kCaptured,
  kNone,        ///< descriptor 1 does not exist (>&-)
  kGoneReader,  ///< a pipe whose reader has closed it
  kFull,        ///< /dev/full
};

struct CommandSetup {
  std::vector<std::pair<std::string, std::string>> environment = {};
  Stdout stdout_kind = Stdout::kCaptured;
  std::int64_t file_size_limit = -1;  ///< RLIMIT_FSIZE
  int signal_number = 0;
  double signal_after_s = 0.0;
  double second_signal_after_s = -1.0;  ///< after the first
  /// The signal waits for this text on stdout or stderr, then for signal_after_s.
  std::string signal_after_text = {};
  double timeout_s = kSanitized ? 280.0 : 120.0;  ///< ctest gives a test 300
};

struct CommandResult {
  int exit_code = -1;  ///< -1 where a signal ended it
  int ended_by_signal = 0;
  std::string out, err;
  double seconds = 0.0;
  std::int64_t peak_bytes = 0;
};

[[nodiscard]] CommandResult run_command(const std::vector<std::string>& args,
                                        const CommandSetup& setup = {});

/// Flags of a run that takes about two seconds: 8 experts of an eighth of a small layer, three
/// samples. Most of it is the machine's read rate and the warm-up.
[[nodiscard]] std::vector<std::string> small_run(std::vector<std::string> more = {});

[[nodiscard]] std::vector<std::string> lines_of(const std::string& text);
[[nodiscard]] std::string read_text(const std::filesystem::path& path);

/// A fresh folder that goes away with the test.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace moebench::cli
