// write_file_atomically: whatever fails, an earlier report stays whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
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
  for (std::size_t room = 0; room < text.size(); room += 111) {
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

TEST_F(AtomicFile, AFailedRenameKeepsTheTargetAndNoTemporaryFile) {
  fs::create_directories(path_ + "/occupied");
  EXPECT_THROW(write_file_atomically(path_, "x"), Error);
  EXPECT_TRUE(fs::is_directory(path_));
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
