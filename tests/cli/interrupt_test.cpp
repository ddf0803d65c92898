// Class 20: SIGINT, SIGTERM and SIGKILL at random times. No finished case is lost, whatever comes
// when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/cli/command.h"

namespace moebench::cli {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

/// Many short cases: about ten a second.
std::vector<std::string> many_cases(const std::string& journal) {
  return {"--models",
          "qwen3-next-80b-a3b",
          "--limit-num-groups",
          "10",
          "--batch-sizes",
          "1:200",
          "--schemes",
          "nvfp4",
          "--stop",
          "count:2",
          "--check",
          "sample:2",
          "--journal",
          journal};
}

/// The ids of the whole lines of a journal; the first line is the header. A torn last line is what
/// SIGKILL may leave.
std::vector<std::string> journal_ids(const std::string& path) {
  const std::string text = read_text(path);
  std::vector<std::string> lines = lines_of(text);
  if (!text.empty() && text.back() != '\n') lines.pop_back();
  std::vector<std::string> ids;
  for (std::size_t i = 1; i < lines.size(); ++i)
    ids.push_back(Json::parse(lines[i])["id"].get<std::string>());
  return ids;
}

class Interrupted : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(Interrupted, LosesNoFinishedCase) {
  const auto [signal_number, round] = GetParam();
  const auto seed = static_cast<unsigned>(1000 * signal_number + round);
  std::mt19937 random(seed);
  const double after = std::uniform_real_distribution<double>(0.0, 1.5)(random);
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", signal " << signal_number << " after "
                                  << after << " s");
  const ScratchFolder folder;
  const std::string journal = folder.file("cases.journal");
  // From the second case on, so that there is something to lose.
  const CommandResult run = run_command(
      many_cases(journal),
      {.signal_number = signal_number, .signal_after_s = after, .signal_after_text = "MKN=((2, "});
  const std::vector<std::string> ids = journal_ids(journal);
  EXPECT_GE(ids.size(), 1U);
  EXPECT_LT(ids.size(), 200U);
  if (signal_number == SIGKILL) {
    EXPECT_EQ(run.ended_by_signal, SIGKILL);
  } else {
    EXPECT_EQ(run.exit_code, 128 + signal_number) << run.err;
    EXPECT_THAT(run.out, HasSubstr("Times are in"));
    // Each case that the journal holds is in the printed table.
    for (const std::string& id : ids) {
      const std::string tokens =
          id.substr(id.find("/m") + 2, id.find("/nvfp4") - id.find("/m") - 2);
      EXPECT_THAT(run.out, HasSubstr("MKN=((" + tokens + ", ")) << id;
    }
  }
  // The journal can be gone on with: finished cases are not run again.
  const CommandResult resumed = run_command(
      {"--models", "qwen3-next-80b-a3b", "--limit-num-groups", "10", "--batch-sizes", "1", "2",
       "--schemes", "nvfp4", "--stop", "count:2", "--resume", journal, "-o", "jsonl"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(lines_of(resumed.out).size(), 2U);
  const std::vector<std::string> after_resume = journal_ids(journal);
  EXPECT_EQ(std::set<std::string>(after_resume.begin(), after_resume.end()).size(),
            after_resume.size())
      << "a finished case was run again";
}

INSTANTIATE_TEST_SUITE_P(Command, Interrupted,
                         testing::Combine(testing::Values(SIGINT, SIGTERM, SIGKILL),
                                          testing::Range(0, 2)),
                         [](const testing::TestParamInfo<std::tuple<int, int>>& test) {
                           const int number = std::get<0>(test.param);
                           return std::string(number == SIGINT    ? "Int"
                                              : number == SIGTERM ? "Term"
                                                                  : "Kill") +
                                  std::to_string(std::get<1>(test.param));
                         });

TEST(Interrupt, WritesOutWithWhatIsFinished) {
  const ScratchFolder folder;
  std::vector<std::string> args = many_cases(folder.file("cases.journal"));
  args.insert(args.end(), {"--out", folder.file("r.json")});
  const CommandResult run =
      run_command(args, {.signal_number = SIGINT, .signal_after_text = "MKN=((3, "});
  EXPECT_EQ(run.exit_code, 130);
  const Json report = Json::parse(read_text(folder.file("r.json")));
  EXPECT_GE(report["results"].size(), 2U);
  EXPECT_EQ(report["results"].size(), journal_ids(folder.file("cases.journal")).size());
}

TEST(Interrupt, StopsWhileWeightsArePacked) {
  // 128 experts: packing begins when the rates are known, after a second or so, and lasts longer.
  const CommandResult run =
      run_command({"--models", "qwen3-30b-a3b", "--batch-sizes", "1:100", "--stop", "count:2"},
                  {.signal_number = SIGINT,
                   .signal_after_s = 1.8,
                   .signal_after_text = "Benchmarking models:"});
  EXPECT_EQ(run.exit_code, 130) << run.err;
  if (!kSanitized) {
    EXPECT_LT(run.seconds, 5.0);
  }
}

TEST(Interrupt, StopsWhileTheReadRateIsMeasured) {
  // The header is printed just before. A signal that comes later than meant ends in the same way.
  const ScratchFolder folder;
  const CommandResult run =
      run_command(many_cases(folder.file("cases.journal")),
                  {.signal_number = SIGINT, .signal_after_text = "Benchmarking models:"});
  EXPECT_EQ(run.exit_code, 130) << run.err;
  EXPECT_THAT(run.err, HasSubstr("note: interrupted; what is finished follows\n"));
  if (!kSanitized) {
    EXPECT_LT(run.seconds, 5.0);
  }
}

TEST(Interrupt, ASecondInterruptEndsAtOnce) {
  const CommandResult run = run_command({"--models", "qwen3-30b-a3b", "--batch-sizes", "1:64"},
                                        {.signal_number = SIGINT,
                                         .signal_after_s = 0.1,
                                         .second_signal_after_s = 0.0,
                                         .signal_after_text = "Benchmarking models:"});
  EXPECT_EQ(run.exit_code, 130);
  if (!kSanitized) {
    EXPECT_LT(run.seconds, 5.0);
  }
}

}  // namespace
}  // namespace moebench::cli
