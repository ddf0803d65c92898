// `list`, `env` and `check` as commands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "tests/cli/command.h"

namespace moebench::cli {
namespace {

using Json = nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

Json parse(const std::vector<std::string>& args) {
  const CommandResult result = run_command(args);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return Json::parse(result.out);
}

TEST(Listing, ModelsHoldTheOriginalsRow) {
  const Json models = parse({"list", "models", "--json"});
  const auto row = std::find_if(models.begin(), models.end(), [](const Json& m) {
    return m["name"] == "nvidia/DeepSeek-R1-FP4";
  });
  ASSERT_NE(row, models.end());
  EXPECT_EQ((*row)["num_experts"], 256);
  EXPECT_EQ((*row)["hidden"], 2048);
  EXPECT_EQ((*row)["intermediate"], 7168);
  for (const Json& model : models)
    EXPECT_TRUE(model["available"].get<bool>() || !model["reason"].get<std::string>().empty());
}

TEST(Listing, BackendsSayWhyOneIsNotHere) {
  const Json backends = parse({"list", "backends", "--json"});
  bool cpu = false;
  for (const Json& backend : backends) {
    EXPECT_NE(backend["available"].get<bool>(), !backend["reason"].get<std::string>().empty());
    if (backend["name"] == "cpu") {
      cpu = true;
      EXPECT_TRUE(backend["available"].get<bool>());
      EXPECT_EQ(backend["kernels"].size(), 4U);
    }
  }
  EXPECT_TRUE(cpu);
}

TEST(Listing, SchemesAndRoutingsAreNamed) {
  EXPECT_EQ(parse({"list", "schemes", "--json"}).size(), 4U);
  EXPECT_EQ(parse({"list", "routings", "--json"}).size(), 6U);
  const CommandResult text = run_command({"list", "schemes"});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.out, AllOf(HasSubstr("nvfp4-w4a16"), HasSubstr("fp8-block")));
}

TEST(Listing, EnvTellsTheMachineButNotItsName) {
  const Json env = parse({"env", "--json"});
  EXPECT_TRUE(env.contains("cpu.model"));
  EXPECT_TRUE(env.contains("build.compiler"));
  EXPECT_FALSE(env.contains("rates.read_bytes_per_s"));
  EXPECT_TRUE(parse({"env", "--json", "--rates"}).contains("rates.read_bytes_per_s"));
}

TEST(Checking, EveryKernelPassesItsBoundaryShapes) {
  const CommandResult result = run_command({"check", "--schemes", "nvfp4", "--threads", "1"});
  EXPECT_EQ(result.exit_code, 0) << result.out;
  const std::string last = lines_of(result.out).back();
  std::smatch match;
  ASSERT_TRUE(
      std::regex_match(last, match, std::regex("([0-9]+) passed, 0 failed, ([0-9]+) skipped")))
      << last;
  EXPECT_GE(std::stoi(match[1]), 24);
  EXPECT_THAT(result.out,
              HasSubstr("cpu/portable cpu_moe_fp4 nvfp4 E=1 top-1 K=16 N=16 fp16 exact"));
}

TEST(Checking, HonoursModelsAndBatchSizes) {
  const CommandResult result =
      run_command({"check", "--models", "qwen3-30b-a3b", "--limit-num-groups", "8", "--batch-sizes",
                   "1", "--schemes", "nvfp4", "--isa", "portable"});
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("E=8 top-8 K=2048 N=768"), HasSubstr("2 passed, 0 failed")));
}

TEST(Checking, SkipsWhatDoesNotFitAndEndsWithFive) {
  const CommandResult result =
      run_command({"check", "--models", "qwen3-30b-a3b", "--limit-num-groups", "8", "--batch-sizes",
                   "1", "100000000", "--schemes", "nvfp4", "--isa", "portable"});
  EXPECT_EQ(result.exit_code, 5) << result.out;
  EXPECT_THAT(result.out, AllOf(HasSubstr("100000000 tokens need"),
                                HasSubstr("2 passed, 0 failed, 2 skipped")));
}

TEST(Listing, BackendsAreThoseAskedFor) {
  const nlohmann::json backends = parse({"list", "backends", "--backend", "cpu", "--json"});
  ASSERT_EQ(backends.size(), 1U);
  EXPECT_EQ(backends[0]["name"], "cpu");
}

TEST(Listing, AFullStdoutIsReported) {
  EXPECT_EQ(run_command({"list", "models"}, {.stdout_kind = Stdout::kFull}).exit_code, 6);
}

TEST(Listing, AVariableThatNoFlagHasIsWarnedOf) {
  const CommandSetup slip = {.environment = {{"MOEBENCH_ISSA", "avx2"}}};
  const CommandResult result = run_command({"list", "schemes", "-q"}, slip);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err,
            "warning: MOEBENCH_ISSA: no such variable, its value 'avx2' is ignored; "
            "did you mean MOEBENCH_ISA?\n");
  EXPECT_EQ(run_command({"--version"}, slip).err, "");
}

}  // namespace
}  // namespace moebench::cli
