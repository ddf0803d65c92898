// Bad input and faults, by the classes of the reliability catalogue: the right exit code, one line
// with the value, quickly and in little memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/cli/command.h"

namespace moebench::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr double kSecondsForBadInput = 2.0;
constexpr std::int64_t kBytesForBadInput = std::int64_t{256} << 20;

/// One line on stderr that holds `expected`, nothing on stdout, within the limits.
void expect_refused(const CommandResult& result, int exit_code, const std::string& expected) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  EXPECT_THAT(result.err, HasSubstr(expected));
  if (!kSanitized) {
    EXPECT_LT(result.seconds, kSecondsForBadInput);
    EXPECT_LT(result.peak_bytes, kBytesForBadInput);
  }
}

struct BadInput {
  const char* name;
  std::vector<std::string> args;
  int exit_code;
  const char* expected;
};

class BadInputs : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputs, AreRefusedInOneLine) {
  const BadInput& bad = GetParam();
  expect_refused(run_command(bad.args), bad.exit_code, bad.expected);
}

// Class 14: top-k against the number of experts. Class 15: sizes that the format's rule refuses are
// skipped by the plan (see SkipsWithReason). Class 16: products past 2^31, 2^32, 2^63. Class 19: a
// forced ISA. Class 26: the command line itself.
INSTANTIATE_TEST_SUITE_P(
    Command, BadInputs,
    testing::Values(
        BadInput{"Class14FewerExpertsThanTopk", {"--limit-num-groups", "7"}, 2, "top-8"},
        BadInput{"Class14MoreExpertsThanTheModel", {"--limit-num-groups", "257"}, 2, "256 experts"},
        BadInput{"Class15NoTokensLeft", {"--batch-sizes", "-1"}, 2, "'-1'"},
        BadInput{"Class16PairsPast31Bits", {"--batch-sizes", "268435456"}, 2, "needs"},
        BadInput{"Class16TokensPast32Bits", {"--batch-sizes", "4294967296"}, 2, "needs"},
        BadInput{"Class16BytesPast63Bits", {"--batch-sizes", "4611686018427387904"}, 2, "needs"},
        BadInput{"CheckOfAnUnknownModel", {"check", "--models", "foo"}, 2, "no model \"foo\""},
        BadInput{"Class19UnknownIsa", {"--isa", "sse9"}, 2, "moebench: --isa: no ISA 'sse9'"},
        BadInput{"Class26UnknownFlag", {"--batch-sise", "4"}, 2, "--batch-sizes"},
        BadInput{"Class26MissingValue", {"--tp-sizes"}, 2, "--tp-sizes"},
        BadInput{
            "Class26SeedPast64Bits", {"--seed", "18446744073709551616"}, 2, "18446744073709551616"},
        BadInput{"Class26BatchPast64Bits",
                 {"--batch-sizes", "18446744073709551616"},
                 2,
                 "18446744073709551616"},
        BadInput{"Class26DecimalComma", {"--stop", "stdrel:0,5%"}, 2, "0,5"},
        BadInput{"Class26MillionValues", {"--batch-sizes", "1:1000000"}, 2, "100000"},
        BadInput{"Class26UnknownCommand", {"rnu"}, 2, "did you mean run?"},
        BadInput{"Class26UnknownModel", {"--models", "deepseek-r9"}, 2, "deepseek-r"},
        BadInput{"Class26HugeModelName", {"--models", std::string(100'000, 'x')}, 2, "xxx"},
        BadInput{"Class26HugeFlag", {"--" + std::string(100'000, 'x')}, 2, "xxx"},
        BadInput{"UnknownBaseline", {"--baseline", "triton_moe", "--dry-run"}, 2, "triton_moe"},
        BadInput{"AutoBesideABackend", {"--backend", "auto,cpu"}, 2, "auto"},
        BadInput{"UnknownBackend", {"--backend", "cpu,cudo"}, 2, "did you mean cuda"},
        BadInput{"NoDeviceTimeout", {"--device-timeout", "0"}, 2, "--device-timeout"},
        BadInput{"FilterLeavesNothing", {"--limit-k", "1"}, 4, "--limit-k"},
        BadInput{"OutIsAFolder", {"--out", "/"}, 2, "--out: /"},
        BadInput{"OutIsADevice", {"--out", "/dev/full"}, 2, "/dev/full"},
        BadInput{"OutInNoFolder", {"--out", "/no/such/folder/r.json"}, 2, "/no/such/folder/"},
        BadInput{"ResumeFromNothing", {"--resume", "/no/such/journal"}, 2, "/no/such/"},
        BadInput{"TraceIsNotThere", {"--routing", "trace:/no/such/trace"}, 2, "/no/such/trace"}),
    [](const testing::TestParamInfo<BadInput>& test) { return test.param.name; });

// Class 18: no driver, no device, the wrong architecture. A machine with a usable device cannot
// show it.
TEST(ExitCode, Class18CudaThatIsNotHereIsRefusedWithTheCause) {
  const nlohmann::json backends =
      nlohmann::json::parse(run_command({"list", "backends", "--json"}).out);
  for (const nlohmann::json& backend : backends) {
    if (backend["name"] != "cuda") continue;
    if (backend["available"].get<bool>()) GTEST_SKIP() << "there is a device";
    const std::string cause = backend["reason"].get<std::string>();
    EXPECT_FALSE(cause.empty());
    expect_refused(run_command({"--backend", "cuda"}), 4,
                   "--backend: cuda is not available (" + cause);
    expect_refused(run_command({"--backend", "cpu,cuda"}), 4, cause);
    expect_refused(run_command({"env", "--backend", "cuda"}), 4, cause);
    const CommandResult automatic =
        run_command({"--dry-run", "--batch-sizes", "4", "--limit-num-groups", "8"});
    EXPECT_EQ(automatic.exit_code, 0) << automatic.err;
    EXPECT_THAT(automatic.err, HasSubstr("cuda: not available (" + cause + ")"));
    EXPECT_THAT(automatic.err, HasSubstr("); using cpu"));
    return;
  }
  FAIL() << "no cuda entry";
}

TEST(ExitCode, AForcedIsaThatThisCpuLacksIsUnavailable) {
  // No CPU that runs this test need lack anything: ask for each, and judge only those that are not
  // here.
  int missing = 0;
  for (const char* isa : {"avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"}) {
    const CommandResult result =
        run_command({"--dry-run", "--batch-sizes", "4", "--limit-num-groups", "8"},
                    {.environment = {{"MOEBENCH_ISA", isa}}});
    if (result.exit_code == 0) continue;
    ++missing;
    expect_refused(result, 4, isa);
    EXPECT_THAT(result.err, HasSubstr("moebench: MOEBENCH_ISA: this "));
    expect_refused(run_command({"--isa", isa}), 4, "moebench: --isa: this ");
  }
  if (missing == 0) GTEST_SKIP() << "this CPU has every ISA of the build";
}

TEST(ExitCode, TheForcedPathIsTheOneThatRuns) {
  const CommandResult result =
      run_command(small_run({"--batch-sizes", "1", "--schemes", "nvfp4", "-o", "jsonl"}),
                  {.environment = {{"MOEBENCH_ISA", "portable"}}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json line = nlohmann::json::parse(result.out);
  EXPECT_THAT(line["kernel_detail"].get<std::string>(), HasSubstr("portable"));
  EXPECT_THAT(line["id"].get<std::string>(), HasSubstr("isa=portable"));
}

// Class 12: no tokens, one token, all tokens to the same experts, experts without tokens.
TEST(ExitCode, Class12ExtremeLoadsRun) {
  for (const std::vector<std::string>& load : std::vector<std::vector<std::string>>{
           {"--batch-sizes", "0", "1"}, {"--batch-sizes", "5", "--routing", "single"}}) {
    std::vector<std::string> args = {"--models", "mixtral-8x7b", "--tp-sizes", "64",
                                     "--stop",   "count:2",      "-o",         "jsonl"};
    args.insert(args.end(), load.begin(), load.end());
    const CommandResult result = run_command(args);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    for (const std::string& line : lines_of(result.out)) {
      EXPECT_EQ(nlohmann::json::parse(line)["status"], "ok") << line;
    }
  }
}

struct BadTrace {
  const char* name;
  const char* text;
  const char* expected;
};

class BadTraces : public testing::TestWithParam<BadTrace> {};

// Class 13: expert ids outside the layer, the same expert twice, NaN weights; class 11 for the
// weights of the routing.
TEST_P(BadTraces, AreRefusedBeforeAnyKernelRuns) {
  const ScratchFolder folder;
  const std::string trace = folder.file("trace.txt");
  std::ofstream(trace) << GetParam().text;
  const CommandResult result = run_command(
      {"--models", "mixtral-8x7b", "--batch-sizes", "2", "--routing", "trace:" + trace});
  expect_refused(result, 2, GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Command, BadTraces,
    testing::Values(BadTrace{"NegativeId", "0 1\n-1 2\n", "-1"},
                    BadTrace{"IdIsE", "0 1\n8 2\n", "8"},
                    BadTrace{"IdIsIntMax", "0 1\n2147483647 2\n", "2147483647"},
                    BadTrace{"IdPastInt", "0 1\n4294967296 2\n", "4294967296"},
                    BadTrace{"SameExpertTwice", "0 1\n3 3\n", "3"},
                    BadTrace{"NanWeight", "0:0.5 1:0.5\n0:nan 1:0.5\n", "2"},
                    BadTrace{"TooFewLines", "0 1\n", "trace.txt"},
                    BadTrace{"Empty", "", "trace.txt"}, BadTrace{"NotANumber", "0 1\nx y\n", "x"}),
    [](const testing::TestParamInfo<BadTrace>& test) { return test.param.name; });

/// small_run() with other splits.
std::vector<std::string> tp_run(const std::vector<std::string>& splits,
                                std::vector<std::string> more) {
  std::vector<std::string> args = {"--models", "qwen3-30b-a3b", "--limit-num-groups", "8",
                                   "--stop",   "count:3",       "--tp-sizes"};
  args.insert(args.end(), splits.begin(), splits.end());
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// Class 15: splits that are not whole or break the format's group rule.
TEST(ExitCode, Class15SkipsWithReasonAndRunsTheRest) {
  // 768/3 = 256 runs, 768/5 is not whole, 768/32 = 24 is no multiple of 16.
  const CommandResult result = run_command(
      tp_run({"3", "5", "32"}, {"--batch-sizes", "2", "--schemes", "nvfp4", "-o", "jsonl"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 3U);
  const std::vector<nlohmann::json> results = {nlohmann::json::parse(lines[0]),
                                               nlohmann::json::parse(lines[1]),
                                               nlohmann::json::parse(lines[2])};
  EXPECT_EQ(results[0]["status"], "ok");
  EXPECT_EQ(results[1]["status"], "skipped");
  EXPECT_THAT(results[1]["reason"].get<std::string>(), AllOf(HasSubstr("768"), HasSubstr("5")));
  EXPECT_EQ(results[2]["status"], "skipped");
  EXPECT_THAT(results[2]["reason"].get<std::string>(), HasSubstr("24"));
}

TEST(ExitCode, NothingThatRunsIsFour) {
  const CommandResult result = run_command(tp_run({"5"}, {"--batch-sizes", "2", "-q"}));
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, AllOf(HasSubstr("nothing ran"), HasSubstr("768")));
  EXPECT_THAT(result.out, HasSubstr("768"));
}

TEST(ExitCode, GraphsOnTheCpuAreSkipped) {
  const CommandResult result =
      run_command(small_run({"--graph", "on", "--batch-sizes", "2", "-q"}));
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("graph"));
}

// Exit 5 in every form: nothing is allocated before the refusal.
TEST(ExitCode, ALayerThatCannotFitIsRefusedWithWhatItNeeds) {
  const CommandResult refused =
      run_command({"--models", "kimi-k2", "--batch-sizes", "67108864", "-q"});
  EXPECT_EQ(refused.exit_code, 5) << refused.err;
  EXPECT_THAT(refused.err, AllOf(HasSubstr("kimi-k2: needs "), HasSubstr(" GB available; ")));
  if (!kSanitized) {
    EXPECT_LT(refused.seconds, kSecondsForBadInput);
    EXPECT_LT(refused.peak_bytes, kBytesForBadInput);
  }
}

TEST(ExitCode, TheNumberOfExpertsThatFitsDoesFit) {
  // The largest layer there is, with ever more tokens until it fits no longer on this machine.
  const std::string flag = "--limit-num-groups ";
  for (std::int64_t tokens = 4; tokens <= (std::int64_t{1} << 27); tokens *= 2) {
    std::vector<std::string> args = {"--models", "kimi-k2", "--dry-run", "--batch-sizes",
                                     std::to_string(tokens)};
    const CommandResult refused = run_command(args);
    if (refused.exit_code == 0) continue;
    ASSERT_EQ(refused.exit_code, 5) << refused.err;
    const std::size_t at = refused.err.find(flag);
    ASSERT_NE(at, std::string::npos) << refused.err;
    const std::int64_t experts = std::stoll(refused.err.substr(at + flag.size()));
    EXPECT_GE(experts, 8);
    EXPECT_LT(experts, 384);
    // Free memory moves while other programs run: half of that must fit.
    args.insert(args.end(),
                {"--limit-num-groups", std::to_string(std::max<std::int64_t>(8, experts / 2))});
    EXPECT_EQ(run_command(args).exit_code, 0);
    return;
  }
  FAIL() << "even 2^27 tokens were said to fit";
}

// Class 21: the disk is full. Results are printed all the same, an earlier report stays whole.
TEST(ExitCode, Class21AFullDiskCostsTheFilesOnly) {
  if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer maps a file that the limit cuts off";
  const ScratchFolder folder;
  const std::string out = folder.file("r.json");
  std::ofstream(out) << "earlier report";
  // Less than one record of the journal, but enough for libomp, which maps a file of this size.
  constexpr std::int64_t kFileSizeLimit = 1024;
  const CommandResult result = run_command(small_run({"--batch-sizes", "1", "2", "--out", out}),
                                           {.file_size_limit = kFileSizeLimit});
  EXPECT_EQ(result.exit_code, 6) << result.err;
  EXPECT_THAT(result.out, HasSubstr("Times are in"));
  EXPECT_THAT(result.err, HasSubstr("journal"));
  EXPECT_EQ(read_text(out), "earlier report");
}

TEST(ExitCode, Class21AFullStdoutIsReportedAndOutIsKept) {
  const ScratchFolder folder;
  const CommandResult result =
      run_command(small_run({"--batch-sizes", "1", "--out", folder.file("r.json")}),
                  {.stdout_kind = Stdout::kFull});
  EXPECT_EQ(result.exit_code, 6) << result.err;
  EXPECT_THAT(result.err, HasSubstr("stdout"));
  EXPECT_EQ(nlohmann::json::parse(read_text(folder.file("r.json")))["results"].size(), 2U);
}

TEST(ExitCode, Class21AFullStdoutIsReportedByWhatOnlyPrints) {
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"--help"}, {"--version"}, {"--dry-run"}, {"env"}}) {
    const CommandResult result = run_command(args, {.stdout_kind = Stdout::kFull});
    EXPECT_EQ(result.exit_code, 6) << args.front();
    EXPECT_THAT(result.err, HasSubstr("stdout: not written"));
  }
}

// Class 26: stdout closed, in each of the ways that happens.
TEST(ExitCode, Class26AGoneReaderLosesNoResultThatIsKeptElsewhere) {
  const ScratchFolder folder;
  const CommandResult result =
      run_command(small_run({"--batch-sizes", "1", "--out", folder.file("r.json")}),
                  {.stdout_kind = Stdout::kGoneReader});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(nlohmann::json::parse(read_text(folder.file("r.json")))["results"].size(), 2U);
}

TEST(ExitCode, Class26AGoneReaderStopsARunThatNobodyWouldSee) {
  const CommandResult result =
      run_command(small_run({"--batch-sizes", "1:64"}), {.stdout_kind = Stdout::kGoneReader});
  EXPECT_EQ(result.exit_code, 6) << result.err;
  EXPECT_THAT(result.err, HasSubstr("stdout"));
  if (!kSanitized) {
    EXPECT_LT(result.seconds, 5.0);
  }
}

TEST(ExitCode, Class26NoStdoutAtAllIsNoFault) {
  const ScratchFolder folder;
  const CommandResult result =
      run_command(small_run({"--batch-sizes", "1", "--out", folder.file("r.json")}),
                  {.stdout_kind = Stdout::kNone});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(nlohmann::json::parse(read_text(folder.file("r.json")))["results"].size(), 2U);
}

// Class 25: what is measured badly carries a label.
TEST(ExitCode, Class25ASingleSampleIsLabelledNoisy) {
  const CommandResult result =
      run_command({"--models", "qwen3-30b-a3b", "--limit-num-groups", "8", "--batch-sizes", "1",
                   "--schemes", "nvfp4", "--stop", "count:1", "-o", "jsonl"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(nlohmann::json::parse(result.out)["noisy"].get<bool>()) << result.out;
}

// More threads than CPUs: all samples are late alike, and only the scheduler knows.
TEST(ExitCode, Class25ThreadsThatWaitForACpuAreLabelled) {
  std::ifstream schedstat("/proc/self/schedstat");
  if (std::string run; !(schedstat >> run) || run == "0") {
    GTEST_SKIP() << "this system does not count waiting";
  }
  const unsigned threads = std::min(4 * std::thread::hardware_concurrency(), 1024U);
  const CommandResult result =
      run_command(small_run({"--batch-sizes", "32", "--schemes", "nvfp4", "--threads",
                             std::to_string(threads), "-o", "jsonl"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(nlohmann::json::parse(result.out)["noise"].get<std::string>(),
              HasSubstr("of the time for a CPU"));
}

TEST(ExitCode, ThreadsThatOpenMpWouldNotStartAreRefused) {
  const CommandSetup limited = {.environment = {{"OMP_THREAD_LIMIT", "1"}}};
  expect_refused(run_command({"--threads", "2"}, limited), 2, "OMP_THREAD_LIMIT is 1");
  const CommandResult plan = run_command({"list", "backends", "--backend", "cpu"}, limited);
  EXPECT_THAT(plan.out, HasSubstr(", 1 thread\n"));
}

TEST(ExitCode, WhatIsNoJournalIsNotResumed) {
  const ScratchFolder folder;
  for (const char* text : {"not a journal\n", "{\"schema_version\":99,\"tool\":\"moebench\"}\n",
                           "{\"a\":1,\"a\":2}\n"}) {
    std::ofstream(folder.file("j")) << text;
    const CommandResult result = run_command(small_run({"--resume", folder.file("j")}));
    expect_refused(result, 2, folder.file("j"));
    EXPECT_EQ(read_text(folder.file("j")), text) << "was written to";
  }
}

TEST(ExitCode, AReportDoesNotReplaceTheJournalOrTraceOfItsOwnRun) {
  const ScratchFolder folder;
  const std::string file = folder.file("r.jsonl");
  for (const char* const flag : {"--journal", "--resume"}) {
    expect_refused(run_command(small_run({"--out", file, flag, file})), 2, "is the file of");
  }
  std::ofstream(file) << "0 1 2 3 4 5 6 7\n";
  const std::string roundabout = (folder.path() / "." / "r.jsonl").string();
  expect_refused(run_command(small_run(
                     {"--batch-sizes", "1", "--out", roundabout, "--routing", "trace:" + file})),
                 2, "is the file of --routing trace");
  EXPECT_EQ(read_text(file), "0 1 2 3 4 5 6 7\n");
}

TEST(ExitCode, AReportIsNotTakenForAJournal) {
  const ScratchFolder folder;
  std::ofstream(folder.file("r.json")) << "{\n \"schema_version\": 1,\n";
  expect_refused(run_command(small_run({"--resume", folder.file("r.json")})), 2,
                 "the FILE.journal of an --out FILE");
}

TEST(ExitCode, ARoutingThatNoTokenCanHaveIsRefusedBeforeAnythingIsBuilt) {
  expect_refused(run_command({"--models", "qwen3-30b-a3b", "--routing", "hot:9@0.5", "--quiet"}), 2,
                 "9 hot experts; they must lie in 1..8");
}

TEST(ExitCode, AnUnfinishedJournalIsNotMixedWithANewRun) {
  const ScratchFolder folder;
  std::ofstream(folder.file("r.json.journal")) << "{}\n";
  expect_refused(run_command(small_run({"--out", folder.file("r.json")})), 2, "r.json.journal");
}

TEST(ExitCode, HelpIsThereAtOnce) {
  double best = 1.0;
  for (int i = 0; i < 5; ++i) {
    const CommandResult help = run_command({"--help"});
    ASSERT_EQ(help.exit_code, 0);
    ASSERT_THAT(help.out, HasSubstr("--batch-sizes"));
    best = std::min(best, help.seconds);
  }
  if (!kSanitized) {
    EXPECT_LT(best, 0.05);
  }
}

}  // namespace
}  // namespace moebench::cli
