#include "moebench/report/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "moebench/core/error.h"
#include "moebench/report/writers.h"
#include "tests/report/sample_results.h"

namespace moebench {
namespace {

using testing::HasSubstr;

class JournalFile : public testing::Test {
 protected:
  JournalFile() {
    char pattern[] = "journal_test_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/run.journal";
  }
  ~JournalFile() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string content() const {
    std::ifstream in(path_, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void write(const std::string& text) const {
    // A new file: some file systems flush one that is truncated and written again.
    std::filesystem::remove(path_);
    std::ofstream(path_, std::ios::binary) << text;
  }
  [[nodiscard]] std::string refusal() const {
    try {
      (void)read_journal(path_);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  std::string folder_;
  std::string path_;
};

CaseResult numbered(int i) {
  CaseResult r = test::timed_result();
  r.id = "case " + std::to_string(i);
  return r;
}

std::size_t result_line_bytes() { return result_to_json_line(numbered(1)).size() + 1; }

TEST_F(JournalFile, KeepsEachAppendedCaseInOrder) {
  Journal journal(path_);
  for (int i = 0; i < 5; ++i) {
    journal.append(numbered(i));
    const JournalContent read = read_journal(path_);
    ASSERT_EQ(read.results.size(), static_cast<std::size_t>(i + 1));
    EXPECT_EQ(read.results.back().id, numbered(i).id);
    EXPECT_EQ(read.warning, "");
  }
}

TEST_F(JournalFile, GoesOnInAnEarlierJournal) {
  Journal(path_).append(numbered(0));
  Journal(path_).append(numbered(1));
  EXPECT_EQ(read_journal(path_).results.size(), 2U);
}

const JournalMachine kMachine = {{"cpu.model", "\"Fast\" CPU"}, {"build.commit", "abc"}};

TEST_F(JournalFile, NamesTheMachineOfItsCases) {
  Journal(path_, kMachine).append(numbered(0));
  Journal(path_, kMachine).append(numbered(1));
  const JournalContent read = read_journal(path_);
  EXPECT_EQ(read.machine, kMachine);
  EXPECT_EQ(read.results.size(), 2U);
}

TEST_F(JournalFile, RefusesCasesOfAnotherMachine) {
  Journal(path_, kMachine).append(numbered(0));
  const std::string before = content();
  const JournalMachine other = {{"cpu.model", "Slow CPU\n"}, {"build.commit", "abd"}};
  try {
    Journal journal(path_, other);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr("cpu.model was '\"Fast\" CPU', here it is 'Slow CPU\\x0a' "
                                        "(1 more differ)"));
  }
  EXPECT_EQ(content(), before);
}

TEST_F(JournalFile, AFactThatOnlyOneSideKnowsIsNoDifference) {
  require_same_machine(path_, {}, kMachine);
  require_same_machine(path_, {{"cpu.colour", "green"}, {"build.commit", "abc"}}, kMachine);
}

TEST_F(JournalFile, ADamagedMachineIsRefused) {
  for (const char* machine : {"1", "[\"a\"]", R"({"cpu.model":1})"}) {
    write(fmt::format("{{\"schema_version\":1,\"tool\":\"moebench\",\"machine\":{}}}\n", machine));
    EXPECT_THAT(refusal(), HasSubstr("line 1: field 'machine' is no object of strings")) << machine;
  }
}

TEST_F(JournalFile, AHeaderThatIsCutOffHoldsNothing) {
  { const Journal journal(path_, kMachine); }
  const std::string whole = content();
  for (std::size_t length = 1; length < whole.size(); ++length) {
    write(whole.substr(0, length));
    ASSERT_TRUE(read_journal(path_).results.empty()) << "cut at " << length;
    Journal(path_, kMachine).append(numbered(0));
    ASSERT_EQ(read_journal(path_).machine, kMachine) << "cut at " << length;
    ASSERT_EQ(read_journal(path_).results.size(), 1U) << "cut at " << length;
  }
}

TEST_F(JournalFile, LeavesForeignFilesUntouched) {
  for (const char* foreign :
       {"my notes", "my notes\n", "{}\n", "{\"tool\":\"other\",\"schema_version\":1}\n",
        "{\"schema_version\":99,\"tool\":\"moebench\"}\n"}) {
    write(foreign);
    EXPECT_THROW(Journal{path_}, Error) << foreign;
    EXPECT_EQ(content(), foreign);
    EXPECT_NE(refusal(), "accepted") << foreign;
  }
}

TEST_F(JournalFile, EveryTruncationGivesTheFinishedCases) {
  {
    Journal journal(path_);
    journal.append(numbered(0));
    journal.append(numbered(1));
  }
  const std::string whole = content();
  std::vector<std::size_t> line_ends;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    if (whole[i] == '\n') line_ends.push_back(i + 1);
  }
  ASSERT_EQ(line_ends.size(), 3U);
  for (std::size_t length = 1; length < whole.size(); ++length) {
    write(whole.substr(0, length));
    const JournalContent read = read_journal(path_);
    const std::size_t finished = length >= line_ends[1] ? 1U : 0U;
    ASSERT_EQ(read.results.size(), finished) << "cut at " << length;
    const bool at_line_end = length == line_ends[0] || length == line_ends[1];
    ASSERT_EQ(read.warning.empty(), at_line_end) << "cut at " << length;
    // An append after the cut must not be swallowed by what the cut left.
    if (length % 197 == 0) {
      Journal(path_).append(numbered(7));
      ASSERT_EQ(read_journal(path_).results.back().id, numbered(7).id) << "cut at " << length;
      ASSERT_EQ(read_journal(path_).results.size(), finished + 1);
    }
  }
}

TEST_F(JournalFile, ReadsOneLargeCaseAmongSmall) {
  CaseResult large = numbered(1);
  large.noise = std::string(1 << 20, 'n');
  large.samples_s.assign(100'000, 1.0 / 3.0);
  Journal journal(path_);
  journal.append(numbered(0));
  journal.append(large);
  journal.append(numbered(2));
  const JournalContent read = read_journal(path_);
  ASSERT_EQ(read.results.size(), 3U);
  EXPECT_EQ(read.results[1].samples_s, large.samples_s);
  EXPECT_EQ(read.results[1].noise, large.noise);
}

/// What a flipped bit may do is to be refused, to be a cut-off last line, or to change a value: it
/// must not add a case, lose one silently or crash.
TEST_F(JournalFile, AFlippedBitIsNoOtherNumberOfCases) {
  {
    Journal journal(path_);
    journal.append(numbered(0));
    journal.append(numbered(1));
  }
  const std::string whole = content();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 7)));
    write(damaged);
    try {
      const JournalContent read = read_journal(path_);
      EXPECT_TRUE(read.results.size() == 2U || !read.warning.empty()) << "byte " << i;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput) << "byte " << i;
    }
  }
}

TEST_F(JournalFile, ABrokenLineInTheMiddleIsNamed) {
  {
    Journal journal(path_);
    journal.append(numbered(0));
    journal.append(numbered(1));
  }
  std::string text = content();
  text[text.find('\n') + 1] = '[';
  write(text);
  EXPECT_THAT(refusal(), HasSubstr("line 2"));
}

TEST_F(JournalFile, RefusesWhatIsNoFile) {
  EXPECT_THAT(refusal(), HasSubstr("cannot be opened"));
  write("");
  EXPECT_THAT(refusal(), HasSubstr("empty"));
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_THAT(refusal(), HasSubstr("not a regular file"));
  std::filesystem::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(refusal(), HasSubstr("not a regular file"));
}

TEST_F(JournalFile, ReportsAFolderThatIsNotThere) {
  try {
    Journal journal(folder_ + "/no/such/run.journal");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("No such file"));
  }
}

TEST_F(JournalFile, LosesNoFinishedCaseToSigkill) {
  for (int round = 0; round < 10; ++round) {
    std::filesystem::remove(path_);
    int acknowledged[2];
    ASSERT_EQ(::pipe(acknowledged), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Journal journal(path_);
      for (int i = 0;; ++i) {
        journal.append(numbered(i));
        if (::write(acknowledged[1], "x", 1) != 1) ::_exit(1);
      }
    }
    ::close(acknowledged[1]);
    char byte = 0;
    std::size_t finished = 0;
    for (; finished < static_cast<std::size_t>(1 + round); ++finished)
      ASSERT_EQ(::read(acknowledged[0], &byte, 1), 1);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(acknowledged[0], &byte, 1) == 1) ++finished;
    ::close(acknowledged[0]);
    const JournalContent read = read_journal(path_);
    ASSERT_GE(read.results.size(), finished);
    for (std::size_t i = 0; i < read.results.size(); ++i)
      ASSERT_EQ(read.results[i].id, numbered(static_cast<int>(i)).id);
  }
}

/// Limits the size of files in a child, as a full disk would, at every point of an append.
TEST_F(JournalFile, AFullDiskAtAnyByteKeepsEarlierCasesAndReportsOnce) {
  {
    Journal journal(path_);
    journal.append(numbered(0));
  }
  const std::string whole = content();
  const std::size_t line = result_line_bytes();
  for (std::size_t room = 0; room < line; room += room < line - 40 ? 37 : 1) {
    write(whole);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{whole.size() + room, whole.size() + room};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      int errors = 0;
      Journal journal(path_);
      for (int i = 1; i < 3; ++i) {
        try {
          journal.append(numbered(i));
        } catch (const Error& error) {
          errors += error.code() == ErrorCode::kIo ? 1 : 100;
        }
      }
      ::_exit(errors);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 1)
        << "the first failure throws kIo, later appends are no-ops; room " << room;
    const JournalContent read = read_journal(path_);
    ASSERT_EQ(read.results.size(), 1U) << room;
    EXPECT_EQ(read.results[0].id, numbered(0).id);
  }
}

TEST(JournalWithoutFile, KeepsNothing) {
  Journal journal;
  journal.append(numbered(0));
  Journal moved = std::move(journal);
  moved.append(numbered(1));
}

}  // namespace
}  // namespace moebench
