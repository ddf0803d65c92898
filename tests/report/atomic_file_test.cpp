// write_file_atomically: whatever fails, an earlier report stays whole.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "moebench/core/error.h"
#include "moebench/report/writers.h"

namespace moebench {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class AtomicFile : public testing::Test {
 protected:
  AtomicFile() {
    char pattern[] = "atomic_test_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/report.json";
  }
  ~AtomicFile() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string content() const {
    std::ifstream in(path_);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  [[nodiscard]] std::ptrdiff_t files() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

  std::string folder_;
  std::string path_;
};

TEST_F(AtomicFile, WritesAndReplaces) {
  write_file_atomically(path_, "one");
  EXPECT_EQ(content(), "one");
  write_file_atomically(path_, std::string(3 << 20, 'y'));
  EXPECT_EQ(content().size(), 3U << 20);
  write_file_atomically(path_, "");
  EXPECT_EQ(content(), "");
  EXPECT_EQ(files(), 1) << "no temporary file stays";
}

TEST_F(AtomicFile, AFullDiskAtAnyByteKeepsTheEarlierFile) {
  const std::string text(1000, 'n');
  for (std::size_t room = 0; room < text.size(); room += 37) {
    write_file_atomically(path_, "earlier");
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{room, room};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      try {
        write_file_atomically(path_, text);
      } catch (const Error& error) {
        ::_exit(error.code() == ErrorCode::kIo ? 0 : 1);
      }
      ::_exit(2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_EQ(content(), "earlier");
    EXPECT_EQ(files(), 1);
  }
}

TEST_F(AtomicFile, KeepsPermissionsOfTheEarlierFile) {
  write_file_atomically(path_, "one");
  fs::permissions(path_, fs::perms::owner_read | fs::perms::owner_write);
  write_file_atomically(path_, "two");
  EXPECT_EQ(fs::status(path_).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(AtomicFile, ReplacesTheTargetOfALinkAndKeepsTheLink) {
  const std::string target = folder_ + "/target.json";
  write_file_atomically(target, "one");
  fs::create_symlink("target.json", path_);
  write_file_atomically(path_, "two");
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_EQ(content(), "two");
  EXPECT_EQ(files(), 2);
}

TEST_F(AtomicFile, TakesTheLongestNameThatAFileMayHave) {
  path_ = folder_ + "/" + std::string(255, 'n');
  write_file_atomically(path_, "long");
  EXPECT_EQ(content(), "long");
}

TEST_F(AtomicFile, FollowsNobodysLinkForItsTemporaryFile) {
  const std::string victim = folder_ + "/victim";
  write_file_atomically(victim, "precious");
  fs::create_symlink("victim", fmt::format("{}/.moebench.{}.tmp", folder_, ::getpid()));
  write_file_atomically(path_, "report");
  std::ifstream in(victim);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "precious");
  EXPECT_EQ(content(), "report");
}

/// A real full disk: a small tmpfs in a mount namespace of its own, which ends with the child.
TEST_F(AtomicFile, AFullFileSystemKeepsTheEarlierFile) {
  enum Outcome : int { kKept, kNoMount, kNoError, kWrongError, kDamaged };
  constexpr std::size_t kDiskBytes = 64 << 10;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, fmt::format("size={}", kDiskBytes).c_str()) !=
            0) {
      ::_exit(kNoMount);
    }
    write_file_atomically(path_, "earlier");
    int outcome = kNoError;
    try {
      write_file_atomically(path_, std::string(2 * kDiskBytes, 'n'));
    } catch (const Error& error) {
      const bool says_why = std::string(error.what()).find("No space left") != std::string::npos;
      outcome = error.code() == ErrorCode::kIo && says_why ? kKept : kWrongError;
    }
    if (outcome == kKept && (content() != "earlier" || files() != 1)) outcome = kDamaged;
    ::_exit(outcome);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNoMount) GTEST_SKIP() << "mounting a tmpfs needs more rights";
  EXPECT_EQ(WEXITSTATUS(status), kKept);
}

TEST_F(AtomicFile, AFailedRenameKeepsTheTargetAndNoTemporaryFile) {
  fs::create_directories(path_ + "/occupied");
  EXPECT_THROW(write_file_atomically(path_, "x"), Error);
  EXPECT_TRUE(fs::is_directory(path_));
  EXPECT_EQ(files(), 1);
}

TEST_F(AtomicFile, ReportsAMissingFolderWithTheCause) {
  try {
    write_file_atomically(folder_ + "/no/report.json", "x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("No such file"));
  }
}

TEST_F(AtomicFile, AFullDeviceIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  try {
    write_file_atomically("/dev/full", "x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("No space left"));
  }
  EXPECT_FALSE(fs::is_regular_file("/dev/full")) << "a device must not be replaced by a file";
}

}  // namespace
}  // namespace moebench
