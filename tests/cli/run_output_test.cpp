// What a run prints and writes: the original's text and table, the machine-readable formats, --out,
// --journal, --resume.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "tests/cli/command.h"

namespace moebench::cli {
namespace {

using Json = nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kSub1 =
    "qwen3-30b-a3b, num_experts=8, topk=8, per_act_token=False per_out_ch=False, MKN=((1, 2048, "
    "96))";
constexpr const char* kSub4 =
    "qwen3-30b-a3b, num_experts=8, topk=8, per_act_token=False per_out_ch=False, MKN=((4, 2048, "
    "96))";

TEST(RunOutput, StdoutIsTheSeedsTextThenTheTableThenTheFacts) {
  const CommandResult run = run_command(small_run({"--batch-sizes", "1", "4"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const std::vector<std::string> lines = lines_of(run.out);
  ASSERT_GT(lines.size(), 12U) << run.out;
  EXPECT_EQ(lines[0], "Benchmarking models:");
  EXPECT_EQ(lines[1], "[0]  qwen3-30b-a3b");
  EXPECT_EQ(lines[2], std::string("Testing: ") + kSub1);
  EXPECT_EQ(lines[3], std::string("Testing: ") + kSub4);
  EXPECT_THAT(lines[4],
              AllOf(StartsWith("[---"),
                    HasSubstr(" NVFP4 Blockscaled CUTLASS MOE vs FP8 Tensor Scaled Triton ")));
  EXPECT_TRUE(std::regex_match(lines[5], std::regex(" *\\|  *cpu_moe_fp8 *\\|  *cpu_moe_fp4 *")))
      << lines[5];
  EXPECT_TRUE(std::regex_match(lines[6], std::regex("[0-9]+ threads: -+"))) << lines[6];
  EXPECT_THAT(lines[7], StartsWith(std::string("      ") + kSub1 + "  |"));
  EXPECT_THAT(lines[8], StartsWith(std::string("      ") + kSub4 + "  |"));
  EXPECT_EQ(lines[9], "");
  EXPECT_TRUE(std::regex_match(lines[10], std::regex("Times are in .*seconds \\(.+\\)\\.")))
      << lines[10];
  EXPECT_THAT(run.out, Not(HasSubstr("\x1b[")));
}

TEST(RunOutput, JsonCarriesEveryFieldAndNothingElse) {
  const CommandResult run = run_command(small_run({"--batch-sizes", "1", "4", "--format", "json"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json report = Json::parse(run.out);
  for (const char* key : {"schema_version", "tool", "argv", "env", "results"})
    EXPECT_TRUE(report.contains(key)) << key;
  EXPECT_THAT(report["argv"].dump(), HasSubstr("--limit-num-groups"));
  ASSERT_EQ(report["results"].size(), 4U);
  for (const Json& result : report["results"]) {
    for (const char* key : {"id",
                            "model",
                            "num_experts",
                            "topk",
                            "hidden",
                            "intermediate",
                            "tp",
                            "tokens",
                            "scheme",
                            "kernel",
                            "graph",
                            "median_s",
                            "iqr_s",
                            "ci_low_s",
                            "ci_high_s",
                            "samples",
                            "calls_per_sample",
                            "active_experts",
                            "weight_bytes",
                            "floor_s",
                            "verdict",
                            "worst_row_error",
                            "status",
                            "reason",
                            "repro"}) {
      EXPECT_TRUE(result.contains(key)) << key;
    }
    EXPECT_EQ(result["status"], "ok");
    EXPECT_EQ(result["verdict"], "pass");
    EXPECT_EQ(result["num_experts"], 8);
    EXPECT_GT(result["median_s"].get<double>(), 0.0);
    EXPECT_GT(result["floor_s"].get<double>(), 0.0);
    EXPECT_EQ(result["samples"], 3);
    EXPECT_EQ(result["samples_s"].size(), 3U);
    EXPECT_EQ(result["active_experts"], 8);
    EXPECT_GE(result["threads"].get<int>(), 1);
  }
  EXPECT_EQ(report["results"][0]["id"], "qwen3-30b-a3b/tp8/e8/m1/fp8/cpu_moe_fp8");
  EXPECT_EQ(report["results"][0]["weight_bytes"].get<double>() * 9,
            // FP8: 1 byte a weight and one scale a matrix; NVFP4: 9/16.
            (report["results"][1]["weight_bytes"].get<double>() - 8 * 2 * 4) * 16 + 8 * 2 * 4 * 9);
  // The original's lines are not lost: they are beside the data, on stderr.
  EXPECT_THAT(run.err, AllOf(HasSubstr("Benchmarking models:"), HasSubstr(kSub4)));
}

TEST(RunOutput, JsonlIsOneResultALine) {
  const CommandResult run = run_command(small_run({"--batch-sizes", "1", "-o", "jsonl", "-q"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const std::vector<std::string> lines = lines_of(run.out);
  ASSERT_EQ(lines.size(), 2U);
  for (const std::string& line : lines) EXPECT_EQ(Json::parse(line)["status"], "ok");
  EXPECT_EQ(run.err, "");
}

TEST(RunOutput, CsvAndMarkdownHaveARowPerCase) {
  const CommandResult csv =
      run_command(small_run({"--batch-sizes", "0", "-o", "csv", "--schemes", "nvfp4"}));
  ASSERT_EQ(csv.exit_code, 0) << csv.err;
  EXPECT_EQ(lines_of(csv.out).size(), 2U);
  EXPECT_THAT(csv.out, HasSubstr("qwen3-30b-a3b/tp8/e8/m0/nvfp4/cpu_moe_fp4"));
  const CommandResult md =
      run_command(small_run({"--batch-sizes", "0", "-o", "md", "--schemes", "nvfp4"}));
  ASSERT_EQ(md.exit_code, 0) << md.err;
  EXPECT_THAT(md.out, HasSubstr("|"));
}

TEST(RunOutput, OutHoldsTheReportAndItsJournalGoesAway) {
  const ScratchFolder folder;
  const CommandResult run = run_command(
      small_run({"--batch-sizes", "1", "--schemes", "fp8", "--out", folder.file("r.json")}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("Times are in"));
  EXPECT_EQ(Json::parse(read_text(folder.file("r.json")))["results"].size(), 1U);
  EXPECT_FALSE(std::filesystem::exists(folder.file("r.json.journal")));
}

/// `text` with what stands between `before` and the next quote replaced.
std::string with_other_value(std::string text, const std::string& before,
                             const std::string& value) {
  const std::size_t at = text.find(before);
  if (at == std::string::npos) return "no " + before;
  const std::size_t from = at + before.size();
  return text.replace(from, text.find('"', from) - from, value);
}

TEST(RunOutput, CasesOfAnotherMachineOrBuildAreNotResumed) {
  const ScratchFolder folder;
  const std::string journal = folder.file("cases.journal");
  const std::vector<std::string> args =
      small_run({"--batch-sizes", "1", "--schemes", "fp8", "-o", "jsonl"});
  const auto with = [&](const std::string& flag) {
    std::vector<std::string> more = args;
    more.insert(more.end(), {flag, journal});
    return run_command(more);
  };
  ASSERT_EQ(with("--journal").exit_code, 0);
  const std::string own = read_text(journal);
  const std::pair<const char*, const char*> changes[] = {
      {"\"cpu.model\":\"", "cpu.model was 'Other', here it is '"},
      {"\"cpu.threads\":\"", "cpu.threads was 'Other', here it is '"},
      {"\"build.commit\":\"", "build.commit was 'Other', here it is '"},
      {"\"kernel_detail\":\"", "/cpu_moe_fp8 was measured with 'Other', here it is '"}};
  for (const auto& [before, expected] : changes) {
    const std::string other = with_other_value(own, before, "Other");
    std::ofstream(journal) << other;
    const CommandResult resumed = with("--resume");
    EXPECT_EQ(resumed.exit_code, 2);
    EXPECT_EQ(resumed.out, "");
    EXPECT_EQ(lines_of(resumed.err).size(), 1U) << resumed.err;
    EXPECT_THAT(resumed.err, AllOf(HasSubstr(journal), HasSubstr(expected)));
    EXPECT_EQ(read_text(journal), other);
  }
  // Nor are new cases appended to those of another machine.
  std::ofstream(journal) << with_other_value(own, "\"cpu.model\":\"", "Other");
  const CommandResult appended = with("--journal");
  EXPECT_EQ(appended.exit_code, 2);
  EXPECT_THAT(appended.err, HasSubstr("cpu.model was 'Other'"));
}

TEST(RunOutput, AJournalThatNamesNoMachineIsResumedWithAWarning) {
  const ScratchFolder folder;
  const std::string journal = folder.file("cases.journal");
  const std::vector<std::string> args = {"--batch-sizes", "1", "--schemes", "fp8", "-o", "jsonl"};
  const auto with = [&](const std::string& flag) {
    std::vector<std::string> more = args;
    more.insert(more.end(), {flag, journal});
    return run_command(small_run(more));
  };
  ASSERT_EQ(with("--journal").exit_code, 0);
  const std::string own = read_text(journal);
  std::ofstream(journal) << "{\"schema_version\":1,\"tool\":\"moebench\"}\n"
                         << own.substr(own.find('\n') + 1);
  const CommandResult resumed = with("--resume");
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err,
              AllOf(HasSubstr("does not say what machine"), HasSubstr("note: cases taken from ")));
}

TEST(RunOutput, ResumeSkipsFinishedCasesAndGoesOnInTheJournal) {
  const ScratchFolder folder;
  const std::string journal = folder.file("cases.journal");
  const CommandResult first = run_command(
      small_run({"--batch-sizes", "1", "--schemes", "fp8", "--journal", journal, "-o", "jsonl"}));
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const double median = Json::parse(first.out)["median_s"].get<double>();
  const CommandResult second = run_command(small_run(
      {"--batch-sizes", "1", "2", "--schemes", "fp8", "--resume", journal, "-o", "jsonl"}));
  ASSERT_EQ(second.exit_code, 0) << second.err;
  const std::vector<std::string> lines = lines_of(second.out);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(Json::parse(lines[0])["median_s"].get<double>(), median);  // not measured again
  EXPECT_EQ(lines_of(read_text(journal)).size(), 3U);                  // header and two cases
  EXPECT_THAT(second.err, AllOf(HasSubstr("note: cases taken from "), HasSubstr("written: 1\n")));
}

TEST(RunOutput, NumbersHaveADecimalPointInEveryLocale) {
  const CommandResult run =
      run_command(small_run({"--batch-sizes", "1", "--schemes", "nvfp4", "-o", "json"}),
                  {.environment = {{"LC_ALL", "de_DE.UTF-8"}, {"LC_NUMERIC", "de_DE"}}});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_TRUE(Json::accept(run.out)) << run.out;
}

TEST(RunOutput, ColorIsForTerminalsAndForThoseWhoAsk) {
  const std::vector<std::string> args = small_run({"--batch-sizes", "1", "2"});
  std::vector<std::string> always = args;
  always.insert(always.end(), {"--color", "always"});
  EXPECT_THAT(run_command(always).out, HasSubstr("\x1b["));
}

TEST(RunOutput, ReproRunsTheSameCaseAgain) {
  const CommandResult run =
      run_command(small_run({"--batch-sizes", "2", "--schemes", "nvfp4", "--routing", "hot:1@0.5",
                             "--act", "bf16", "-o", "jsonl"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json result = Json::parse(run.out);
  std::string repro = result["repro"].get<std::string>();
  ASSERT_THAT(repro, StartsWith("moebench "));
  std::vector<std::string> words;
  std::istringstream stream(repro);
  for (std::string word; stream >> word;) words.push_back(word);
  words.erase(words.begin());
  words.insert(words.end(), {"-o", "jsonl"});
  const CommandResult again = run_command(words);
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(Json::parse(again.out)["id"], result["id"]);
}

TEST(RunOutput, ProfileMakesOneCallAndSaysSo) {
  const CommandResult run = run_command(
      small_run({"--batch-sizes", "1", "--schemes", "nvfp4", "--profile", "-o", "jsonl"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json result = Json::parse(run.out);
  EXPECT_EQ(result["samples"], 1);
  EXPECT_TRUE(result["noisy"].get<bool>());
}

TEST(RunOutput, PhasesHaveSharesASumAndItsDifferenceToTheWhole) {
  const CommandResult run = run_command(
      small_run({"--batch-sizes", "4", "--schemes", "nvfp4", "--phases", "-o", "jsonl"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json result = Json::parse(run.out);
  ASSERT_TRUE(result.contains("phases_s"));
  EXPECT_FALSE(result["phases_s"].empty());
  double sum = 0.0;
  for (const Json& seconds : result["phases_s"]) sum += seconds.get<double>();
  EXPECT_GT(sum, 0.0);
  double shares = 0.0;
  for (const Json& share : result["phases_share"]) shares += share.get<double>();
  EXPECT_NEAR(shares, 1.0, 1e-9);
  EXPECT_DOUBLE_EQ(result["phases_sum_s"].get<double>(), sum);
  // Members of an object come in another order than the phases: another sum in the last place.
  EXPECT_NEAR(result["phases_difference_s"].get<double>(), sum - result["median_s"].get<double>(),
              1e-9 * sum);
}

TEST(RunOutput, RotateAndColdRunVerified) {
  for (const char* cache : {"rotate", "cold"}) {
    const CommandResult run =
        run_command(small_run({"--batch-sizes", "2", "--cache", cache, "-o", "jsonl"}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    for (const std::string& line : lines_of(run.out))
      EXPECT_EQ(Json::parse(line)["verdict"], "pass");
  }
}

TEST(RunOutput, UncheckedAnswersSaySo) {
  const CommandResult run = run_command(
      small_run({"--batch-sizes", "2", "--check", "off", "--schemes", "fp8", "-o", "jsonl"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(Json::parse(run.out)["verdict"], "unchecked");
  EXPECT_THAT(run.err, HasSubstr("--check off"));
}

TEST(RunOutput, DryRunPrintsThePlanAndItsMemory) {
  const CommandResult run =
      run_command({"--batch-sizes", "4", "--limit-num-groups", "8", "--dry-run"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("1 layers, 1 comparisons, 2 cases"), HasSubstr("GB"),
                             HasSubstr("nvidia/DeepSeek-R1-FP4/tp1/e8/m4/nvfp4/cpu_moe_fp4")));
  EXPECT_THAT(run.out, Not(HasSubstr("Testing")));
}

TEST(RunOutput, AHundredThousandCasesCanBePlanned) {
  const CommandResult run =
      run_command({"--models", "qwen3-30b-a3b", "--tp-sizes", "1", "2", "4", "8", "16",
                   "--limit-num-groups", "8:17", "--limit-per-act-token", "0", "1",
                   "--limit-per-out-ch", "0", "1", "--batch-sizes", "1:250", "--dry-run"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("50 layers, 50000 comparisons, 100000 cases"));
  EXPECT_EQ(lines_of(run.out).size(), 100'051U);
  if (!kSanitized) {
    EXPECT_LT(run.seconds, 10.0);
  }
}

}  // namespace
}  // namespace moebench::cli
