// Each flag has its effect, from the command line and from the environment; what is wrong is
// refused in one line.
#include "moebench/cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "moebench/core/error.h"

namespace moebench::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

RunOptions parse(const std::vector<std::string>& args) { return parse_command_line(args).run; }

std::string refusal(const std::vector<std::string>& args) {
  try {
    (void)parse_command_line(args);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "was accepted: " << testing::PrintToString(args);
  return {};
}

/// An environment variable for the length of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

TEST(Options, BackendsAreAListWithoutRepeats) {
  EXPECT_EQ(parse({}).backend, "auto");
  EXPECT_EQ(parse({"--backend", "cuda", "cpu", "cuda"}).backend, "cuda,cpu");
  EXPECT_EQ(parse({"--backend", "cpu,cuda"}).backend, "cpu,cuda");
  EXPECT_EQ(parse({"--device-timeout", "5"}).device_timeout_s, 5.0);
}

TEST(Options, DefaultsAreTheOriginals) {
  const RunOptions options = parse({});
  EXPECT_THAT(options.models, ElementsAre("nvidia/DeepSeek-R1-FP4"));
  EXPECT_THAT(options.tp_sizes, ElementsAre(1));
  EXPECT_THAT(options.batch_sizes, ElementsAre(4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048));
  EXPECT_THAT(options.schemes, ElementsAre(Scheme::kFp8, Scheme::kNvfp4));
  EXPECT_THAT(options.per_act_token, ElementsAre(0));
  EXPECT_THAT(options.per_out_ch, ElementsAre(0));
  EXPECT_EQ(options.act, ActType::kFp16);
  EXPECT_FALSE(options.renormalize.has_value());
}

TEST(Options, TheOriginalsCommandLinesParse) {
  const RunOptions custom = parse({"--models", "nvidia/DeepSeek-R1-FP4", "--batch-sizes", "16",
                                   "32", "64", "128", "--tp-sizes", "1"});
  EXPECT_THAT(custom.batch_sizes, ElementsAre(16, 32, 64, 128));
  const RunOptions limited = parse({"--limit-k", "2048", "--limit-n", "7168"});
  EXPECT_THAT(limited.limit_k, ElementsAre(2048));
  EXPECT_THAT(limited.limit_n, ElementsAre(7168));
  const RunOptions split =
      parse({"--tp-sizes", "1", "2", "4", "8", "--batch-sizes", "128", "512", "1024"});
  EXPECT_THAT(split.tp_sizes, ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(split.batch_sizes, ElementsAre(128, 512, 1024));
  const RunOptions rest = parse({"--limit-num-groups", "8", "16", "--limit-per-act-token", "0", "1",
                                 "--limit-per-out-ch", "1"});
  EXPECT_THAT(rest.limit_num_groups, ElementsAre(8, 16));
  EXPECT_THAT(rest.per_act_token, ElementsAre(0, 1));
  EXPECT_THAT(rest.per_out_ch, ElementsAre(1));
}

TEST(Options, RunIsTheDefaultCommand) {
  EXPECT_EQ(parse_command_line({}).command, Command::kRun);
  EXPECT_EQ(parse_command_line({"run", "--seed", "3"}).run.seed, 3U);
  EXPECT_EQ(parse_command_line({"--seed", "3"}).run.seed, 3U);
  EXPECT_EQ(parse_command_line({"check"}).command, Command::kCheck);
  EXPECT_EQ(parse_command_line({"env", "--json"}).command, Command::kEnv);
  const Invocation list = parse_command_line({"list", "models", "--json"});
  EXPECT_EQ(list.command, Command::kList);
  EXPECT_EQ(list.list_what, "models");
  EXPECT_TRUE(list.json);
}

TEST(Options, EveryFurtherFlagHasItsEffect) {
  const RunOptions options = parse({"--backend",
                                    "cpu",
                                    "--schemes",
                                    "nvfp4-w4a16,fp8-block",
                                    "--baseline",
                                    "x",
                                    "--threads",
                                    "2",
                                    "--isa",
                                    "avx2",
                                    "--graph",
                                    "off",
                                    "--routing",
                                    "zipf:1.5",
                                    "--no-renormalize",
                                    "--act",
                                    "bf16",
                                    "--seed",
                                    "7",
                                    "--cache",
                                    "cold",
                                    "--stop",
                                    "count:9",
                                    "--runs-per-call",
                                    "25",
                                    "--phases",
                                    "--profile",
                                    "--check",
                                    "full",
                                    "-o",
                                    "csv",
                                    "--out",
                                    "a.json",
                                    "--journal",
                                    "j",
                                    "--resume",
                                    "r",
                                    "--dry-run",
                                    "--color",
                                    "never",
                                    "-q"});
  EXPECT_EQ(options.backend, "cpu");
  EXPECT_THAT(options.schemes, ElementsAre(Scheme::kNvfp4W4A16, Scheme::kFp8Block));
  EXPECT_EQ(options.baseline, "x");
  EXPECT_EQ(options.threads, 2);
  EXPECT_EQ(options.isa, "avx2");
  EXPECT_EQ(options.graph, GraphMode::kOff);
  EXPECT_EQ(options.routing.kind, RoutingSpec::Kind::kZipf);
  EXPECT_EQ(options.renormalize, std::optional<bool>(false));
  EXPECT_EQ(options.act, ActType::kBf16);
  EXPECT_EQ(options.seed, 7U);
  EXPECT_EQ(options.cache, CacheMode::kCold);
  EXPECT_EQ(options.stop.kind, StopRule::Kind::kCount);
  EXPECT_EQ(options.stop.count, 9);
  EXPECT_EQ(options.runs_per_call, 25);
  EXPECT_TRUE(options.phases);
  EXPECT_TRUE(options.profile);
  EXPECT_EQ(options.check.kind, CheckSpec::Kind::kFull);
  EXPECT_EQ(options.format, Format::kCsv);
  EXPECT_EQ(options.out, "a.json");
  EXPECT_EQ(options.journal, "j");
  EXPECT_EQ(options.resume, "r");
  EXPECT_TRUE(options.dry_run);
  EXPECT_EQ(options.color, ColorMode::kNever);
  EXPECT_EQ(options.verbosity, Verbosity::kQuiet);
}

TEST(Options, RenormalizeHasBothSenses) {
  EXPECT_EQ(parse({"--renormalize"}).renormalize, std::optional<bool>(true));
  EXPECT_EQ(parse({"--no-renormalize"}).renormalize, std::optional<bool>(false));
}

TEST(Options, TheEnvironmentSetsWhatNoFlagDoes) {
  const Variable sizes("MOEBENCH_BATCH_SIZES", "16 32,64");
  const Variable schemes("MOEBENCH_SCHEMES", "nvfp4");
  const Variable renormalize("MOEBENCH_RENORMALIZE", "0");
  const Variable phases("MOEBENCH_PHASES", "1");
  const Variable isa("MOEBENCH_ISA", "portable");
  const Variable format("MOEBENCH_FORMAT", "json");
  const RunOptions options = parse({"--schemes", "fp8"});
  EXPECT_THAT(options.batch_sizes, ElementsAre(16, 32, 64));
  EXPECT_THAT(options.schemes, ElementsAre(Scheme::kFp8));
  EXPECT_EQ(options.renormalize, std::optional<bool>(false));
  EXPECT_TRUE(options.phases);
  EXPECT_EQ(options.isa, "portable");
  EXPECT_EQ(options.isa_source, "MOEBENCH_ISA");
  EXPECT_EQ(parse({"--isa", "avx2"}).isa_source, "--isa");
  EXPECT_EQ(options.format, Format::kJson);
}

TEST(Options, AnEmptyVariableIsNoValue) {
  const Variable sizes("MOEBENCH_BATCH_SIZES", "");
  EXPECT_EQ(parse({}).batch_sizes.size(), 10U);
}

TEST(Options, ABadVariableIsNamed) {
  const Variable sizes("MOEBENCH_TP_SIZES", "0");
  EXPECT_THAT(refusal({}), HasSubstr("MOEBENCH_TP_SIZES: '0'"));
}

std::vector<std::string> unknown_of(std::vector<const char*> environment) {
  environment.push_back(nullptr);
  return unknown_variables(environment.data());
}

TEST(Options, AnUnknownVariableIsNamedWithItsValueAndTheClosestName) {
  EXPECT_THAT(unknown_of({"MOEBENCH_ISSA=avx2"}),
              ElementsAre("MOEBENCH_ISSA: no such variable, its value 'avx2' is ignored; "
                          "did you mean MOEBENCH_ISA?"));
  EXPECT_THAT(unknown_of({"MOEBENCH_BATCHSIZES=1 2", "MOEBENCH_WORKING_FOLDER=/x\n"}),
              ElementsAre(HasSubstr("MOEBENCH_BATCH_SIZES?"),
                          AllOf(HasSubstr("MOEBENCH_WORKING_FOLDER: "), HasSubstr("'/x\\x0a'"),
                                HasSubstr("see moebench --help"))));
}

TEST(Options, VariablesOfAnyCommandAndOfTheTestsAreKnown) {
  EXPECT_THAT(unknown_of({"MOEBENCH_ISA=avx2", "MOEBENCH_RATES=1", "MOEBENCH_JSON=1",
                          "MOEBENCH_PHASES=1", "MOEBENCH_TEST_ROUNDS=3",
                          "MOEBENCH_SLIP=", "MOEBENCH_SLIP", "MOEBENCHED=1", "PATH=/bin"}),
              testing::IsEmpty());
  EXPECT_THAT(unknown_variables(nullptr), testing::IsEmpty());
}

TEST(Options, AnUnknownFlagGetsASuggestion) {
  EXPECT_THAT(refusal({"--batch-size", "4"}),
              AllOf(HasSubstr("--batch-size: unknown flag"), HasSubstr("--batch-sizes")));
  EXPECT_THAT(refusal({"--limitk=4"}),
              AllOf(HasSubstr("--limitk: unknown flag"), HasSubstr("--limit-k")));
  EXPECT_THAT(refusal({"--xyzzyxyzzy"}), HasSubstr("see moebench --help"));
}

TEST(Options, AnUnknownCommandGetsASuggestion) {
  EXPECT_THAT(refusal({"chek"}),
              AllOf(HasSubstr("chek: unknown command"), HasSubstr("did you mean check?")));
  EXPECT_THAT(refusal({"list", "modles"}), HasSubstr("did you mean models?"));
  EXPECT_THAT(refusal({"list"}), HasSubstr("models, backends, schemes, routings"));
}

struct BadArgs {
  const char* name;
  std::vector<std::string> args;
  const char* expected;
};

class BadCommandLine : public testing::TestWithParam<BadArgs> {};

TEST_P(BadCommandLine, IsRefusedWithTheFlagAndValue) {
  EXPECT_THAT(refusal(GetParam().args), HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Options, BadCommandLine,
    testing::Values(
        BadArgs{"MissingValue", {"--seed"}, "--seed: no value given"},
        BadArgs{"MissingList", {"--batch-sizes"}, "--batch-sizes: no value given"},
        BadArgs{"FlagForAValue", {"--out", "--quiet"}, "--out: no value given, --quiet follows"},
        BadArgs{"FlagForAListsValue",
                {"--batch-sizes", "--dry-run"},
                "--batch-sizes: no value given, --dry-run follows"},
        BadArgs{"ShortFlagForAValue", {"--journal", "-q"}, "--journal: no value given, -q follows"},
        BadArgs{"TwoValues", {"--seed", "1", "--seed", "2"}, "--seed: given more than once"},
        BadArgs{"StrayWord", {"--seed", "1", "2"}, "2: unexpected argument"},
        BadArgs{"SeedOverflow", {"--seed", "18446744073709551616"}, "'18446744073709551616'"},
        BadArgs{
            "BatchOverflow", {"--batch-sizes", "18446744073709551616"}, "'18446744073709551616'"},
        BadArgs{"NegativeBatch", {"--batch-sizes", "-4"}, "'-4'"},
        BadArgs{"ZeroTp", {"--tp-sizes", "0"}, "'0' is out of range; use 1 to 1048576"},
        BadArgs{"NoNumber", {"--tp-sizes", "two"}, "'two' is no whole number from 1 to 1048576"},
        BadArgs{"PieceOfARange",
                {"--batch-sizes", "1:64:x1"},
                "--batch-sizes: range '1:64:x1': '1' is out of range"},
        BadArgs{"ZeroExperts", {"--limit-num-groups", "0"}, "'0'"},
        BadArgs{"NotABool", {"--limit-per-out-ch", "2"}, "'2'"},
        BadArgs{"TooManyThreads", {"--threads", "100000"}, "'100000'"},
        BadArgs{"BadScheme", {"--schemes", "nvfp5"}, "did you mean nvfp4?"},
        BadArgs{"BadBackend", {"--backend", "cud"}, "did you mean cuda?"},
        BadArgs{"BadRouting", {"--routing", "zipf:x"}, "--routing"},
        BadArgs{"BadCache", {"--cache", "hot"}, "--cache"},
        BadArgs{"BadStop", {"--stop", "count:0"}, "--stop"},
        BadArgs{"BadCheck", {"--check", "sample:-1"}, "--check"},
        BadArgs{"BadFormat", {"--format", "xml"}, "'xml'"},
        BadArgs{"BadAct", {"--act", "fp8"}, "'fp8'"},
        BadArgs{"BadColor", {"--color", "red"}, "'red'"},
        BadArgs{"EmptyOut", {"--out", ""}, "--out: empty; name a file"},
        BadArgs{"EmptyIsa", {"--isa", ""}, "--isa: empty; name an ISA"},
        BadArgs{"EmptyBaseline", {"--baseline", ""}, "name a kernel or a scheme"},
        BadArgs{"CheckWithNothingToFilter",
                {"check", "--limit-num-groups", "8"},
                "--limit-num-groups: check's own shapes have none"},
        BadArgs{"CheckWithNothingToRoute", {"check", "--routing", "single"}, "add --batch-sizes"},
        BadArgs{"NoModel", {"--models", ","}, "--models"},
        BadArgs{"Newline", {"--seed", "1\n2"}, "--seed"}),
    [](const testing::TestParamInfo<BadArgs>& test) { return test.param.name; });

TEST(Options, HelpIsShortAndGrouped) {
  const Invocation help = parse_command_line({"--help"});
  EXPECT_EQ(help.command, Command::kPrint);
  EXPECT_LT(std::count(help.text.begin(), help.text.end(), '\n'), 80);
  for (const char* part : {"Layers:", "Kernels:", "Input:", "Measuring:", "Output:",
                           "--limit-num-groups", "Exit codes"}) {
    EXPECT_THAT(help.text, HasSubstr(part));
  }
  EXPECT_THAT(parse_command_line({"check", "--help"}).text, testing::Not(HasSubstr("--stop")));
}

TEST(Options, HelpTellsEachCommandsOwnDefaults) {
  const std::string run = parse_command_line({"--help"}).text;
  const std::string check = parse_command_line({"check", "--help"}).text;
  EXPECT_THAT(run, AllOf(HasSubstr("Usage: moebench [OPTIONS]"), HasSubstr("(4 8 16 ... 2048)"),
                         HasSubstr("per tensor or both (0)"), HasSubstr("type (fp16)")));
  EXPECT_THAT(check, AllOf(HasSubstr("Usage: moebench check [OPTIONS]"), HasSubstr("(0 to 48;"),
                           HasSubstr("per tensor or both (0 1)"), HasSubstr("type (both;")));
  EXPECT_THAT(parse_command_line({"list", "--help"}).text, HasSubstr("Usage: moebench list"));
}

TEST(Options, WhatCheckNeedsModelsForIsTakenWithThem) {
  const Invocation check = parse_command_line({"check", "--models", "mixtral-8x7b", "--tp-sizes",
                                               "2", "--routing", "single", "--act", "bf16"});
  EXPECT_THAT(check.run.tp_sizes, ElementsAre(2));
  EXPECT_TRUE(check.given.act);
  EXPECT_FALSE(parse_command_line({"check"}).given.act);
}

TEST(Options, VersionNamesTheTool) {
  EXPECT_EQ(parse_command_line({"--version"}).text,
            std::string("moebench ") + tool_version() + "\n");
}

TEST(Options, TheExtensionOfOutChoosesItsFormat) {
  EXPECT_EQ(format_of_path("a.json"), Format::kJson);
  EXPECT_EQ(format_of_path("a.jsonl"), Format::kJsonl);
  EXPECT_EQ(format_of_path("a.csv"), Format::kCsv);
  EXPECT_EQ(format_of_path("a.md"), Format::kMarkdown);
  EXPECT_EQ(format_of_path("a.txt"), Format::kTable);
  EXPECT_EQ(format_of_path("results"), Format::kJson);
}

}  // namespace
}  // namespace moebench::cli
