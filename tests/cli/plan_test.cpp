// Options -> layers, comparisons and columns; ids, labels and reproduction commands.
#include "moebench/cli/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "moebench/core/error.h"
#include "tests/cli/fake_device.h"
#include "tests/cli/fake_kernel.h"

namespace moebench::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class PlanTest : public testing::Test {
 protected:
  Plan plan(const std::vector<std::string>& args) {
    options_ = parse_command_line(args).run;
    return make_plan(options_, kernels_);
  }
  std::string refusal(const std::vector<std::string>& args, ErrorCode code) {
    try {
      (void)plan(args);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "was accepted";
    return {};
  }
  std::string id(const Plan& plan, std::size_t comparison, std::size_t column) const {
    const Comparison& c = plan.comparisons.at(comparison);
    return case_id(options_, plan.layers.at(c.layer), c, plan.columns.at(column));
  }
  std::vector<std::string> ids(const Plan& plan) const {
    std::vector<std::string> all;
    for (std::size_t c = 0; c < plan.comparisons.size(); ++c) {
      for (std::size_t k = 0; k < plan.columns.size(); ++k) all.push_back(id(plan, c, k));
    }
    return all;
  }

  std::vector<std::unique_ptr<Kernel>> kernels_ = fake_kernels();
  RunOptions options_;
};

TEST_F(PlanTest, TheDefaultIsTheOriginalsTable) {
  const Plan p = plan({});
  ASSERT_EQ(p.layers.size(), 1U);
  EXPECT_EQ(p.layers[0].shape,
            (MoeShape{.num_experts = 256, .topk = 8, .hidden = 2048, .intermediate = 7168}));
  EXPECT_EQ(p.comparisons.size(), 10U);
  ASSERT_EQ(p.columns.size(), 2U);
  EXPECT_EQ(p.columns[0].name, "cpu_moe_fp8");
  EXPECT_EQ(p.columns[1].name, "cpu_moe_fp4");
  EXPECT_EQ(p.baseline, 0);
}

TEST_F(PlanTest, SubLabelIsTheOriginalsToTheByte) {
  const Plan p = plan({});
  EXPECT_EQ(
      sub_label(p.layers[0], p.comparisons[0]),
      "nvidia/DeepSeek-R1-FP4, num_experts=256, topk=8, per_act_token=False per_out_ch=False, "
      "MKN=((4, 2048, 7168))");
}

TEST_F(PlanTest, TpDividesN) {
  const Plan p = plan({"--tp-sizes", "1", "2", "4", "8", "--batch-sizes", "128"});
  ASSERT_EQ(p.layers.size(), 4U);
  EXPECT_EQ(p.layers[3].shape.intermediate, 896);
  EXPECT_TRUE(p.layers[3].runnable.ok);
}

TEST_F(PlanTest, ASplitThatIsNotWholeIsSkippedWithItsReason) {
  const Plan p = plan({"--tp-sizes", "3", "--batch-sizes", "4"});
  const Support support = case_support(p.layers[0], p.comparisons[0], p.columns[0]);
  EXPECT_FALSE(support.ok);
  EXPECT_THAT(support.reason, AllOf(HasSubstr("7168"), HasSubstr("3")));
}

TEST_F(PlanTest, ASplitThatBreaksTheGroupRuleIsSkippedForThatSchemeOnly) {
  // 768 / 32 = 24: no multiple of 16.
  const Plan p = plan({"--models", "qwen3-30b-a3b", "--tp-sizes", "32", "--batch-sizes", "4"});
  EXPECT_TRUE(case_support(p.layers[0], p.comparisons[0], p.columns[0]).ok);
  const Support support = case_support(p.layers[0], p.comparisons[0], p.columns[1]);
  EXPECT_FALSE(support.ok);
  EXPECT_THAT(support.reason, HasSubstr("24"));
}

TEST_F(PlanTest, MoreTokensThanAKernelTakesAreSkippedForThatKernelOnly) {
  dynamic_cast<FakeKernel&>(*kernels_.front()).most_tokens = 8;
  const Plan p = plan({"--schemes", "fp8", "nvfp4", "--batch-sizes", "8", "16"});
  ASSERT_EQ(p.columns[1].kernel, kernels_.front().get());
  EXPECT_TRUE(case_support(p.layers[0], p.comparisons[0], p.columns[1]).ok);
  EXPECT_EQ(case_support(p.layers[0], p.comparisons[1], p.columns[1]).reason, "too many tokens");
  EXPECT_TRUE(case_support(p.layers[0], p.comparisons[1], p.columns[0]).ok);
}

TEST_F(PlanTest, AModelThatNoKernelComputesIsSkippedWithItsReason) {
  const Plan p = plan({"--models", "gpt-oss-20b", "--batch-sizes", "4"});
  EXPECT_FALSE(case_support(p.layers[0], p.comparisons[0], p.columns[0]).ok);
}

TEST_F(PlanTest, LimitsFilterKAndNAfterTheSplit) {
  EXPECT_EQ(plan({"--limit-k", "2048", "--limit-n", "7168"}).layers.size(), 1U);
  const Plan p = plan({"--tp-sizes", "1", "2", "4", "--limit-n", "3584"});
  ASSERT_EQ(p.layers.size(), 1U);
  EXPECT_EQ(p.layers[0].tp, 2);
  EXPECT_THAT(refusal({"--limit-k", "2049"}, ErrorCode::kUnavailable), HasSubstr("--limit-k"));
}

TEST_F(PlanTest, ExpertCountsMakeOneLayerEach) {
  const Plan p = plan({"--limit-num-groups", "8", "32", "256", "--batch-sizes", "4"});
  ASSERT_EQ(p.layers.size(), 3U);
  EXPECT_EQ(p.layers[0].shape.num_experts, 8);
  EXPECT_THAT(sub_label(p.layers[1], p.comparisons[1]), HasSubstr("num_experts=32,"));
  EXPECT_EQ(id(p, 0, 0), "nvidia/DeepSeek-R1-FP4/tp1/e8/m4/fp8/cpu_moe_fp8");
  EXPECT_EQ(id(p, 2, 0), "nvidia/DeepSeek-R1-FP4/tp1/m4/fp8/cpu_moe_fp8");
}

TEST_F(PlanTest, ExpertsAboveTheModelOrBelowTopkAreRefusedWithBothNumbers) {
  EXPECT_THAT(refusal({"--limit-num-groups", "257"}, ErrorCode::kBadInput),
              AllOf(HasSubstr("257"), HasSubstr("256")));
  EXPECT_THAT(refusal({"--limit-num-groups", "7"}, ErrorCode::kBadInput),
              AllOf(HasSubstr("7"), HasSubstr("top-8")));
}

TEST_F(PlanTest, Fp8SwitchesMakeRowsAndLeaveOtherSchemesAlone) {
  const Plan p = plan(
      {"--limit-per-act-token", "0", "1", "--limit-per-out-ch", "0", "1", "--batch-sizes", "4"});
  ASSERT_EQ(p.comparisons.size(), 4U);
  EXPECT_THAT(sub_label(p.layers[0], p.comparisons[2]),
              HasSubstr("per_act_token=True per_out_ch=False"));
  EXPECT_EQ(scheme_config(p.comparisons[3], p.columns[0]),
            (SchemeConfig{Scheme::kFp8, true, true}));
  EXPECT_EQ(scheme_config(p.comparisons[3], p.columns[1]),
            (SchemeConfig{Scheme::kNvfp4, false, false}));
  const std::vector<std::string> all = ids(p);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 8U);
  EXPECT_EQ(id(p, 3, 0), "nvidia/DeepSeek-R1-FP4/tp1/m4/per_act_token/per_out_ch/fp8/cpu_moe_fp8");
}

TEST_F(PlanTest, IdsNameWhatDiffersFromTheDefault) {
  const Plan p =
      plan({"--batch-sizes", "4", "--act", "bf16", "--seed", "7", "--cache", "cold", "--routing",
            "single", "--threads", "1", "--renormalize", "--stop", "count:3"});
  EXPECT_EQ(id(p, 0, 1),
            "nvidia/DeepSeek-R1-FP4/tp1/m4/nvfp4/cpu_moe_fp4/act=bf16/routing=single/seed=7/"
            "cache=cold/threads=1/"
            "renormalize");
}

TEST_F(PlanTest, ReproRunsExactlyThisCase) {
  const Plan p = plan({"--models",
                       "qwen3-30b-a3b",
                       "--tp-sizes",
                       "1",
                       "2",
                       "--batch-sizes",
                       "1",
                       "4",
                       "--limit-num-groups",
                       "8",
                       "16",
                       "--limit-per-act-token",
                       "0",
                       "1",
                       "--routing",
                       "trace:my file's",
                       "--no-renormalize",
                       "--stop",
                       "count:3",
                       "--seed",
                       "9"});
  const std::vector<std::string> all = ids(p);
  // Splits the command as a shell would, quotes included.
  const auto split = [](const std::string& command) {
    std::vector<std::string> words(1);
    bool quoted = false;
    for (std::size_t i = 0; i < command.size(); ++i) {
      if (!quoted && command[i] == '\\') {
        words.back() += command[++i];
      } else if (command[i] == '\'') {
        quoted = !quoted;
      } else if (!quoted && command[i] == ' ') {
        words.emplace_back();
      } else {
        words.back() += command[i];
      }
    }
    return words;
  };
  std::size_t next = 0;
  for (const Comparison& comparison : p.comparisons) {
    for (const Column& column : p.columns) {
      const std::string command =
          repro_command(options_, p.layers[comparison.layer], comparison, column);
      std::vector<std::string> words = split(command);
      ASSERT_EQ(words.front(), "moebench");
      words.erase(words.begin());
      const RunOptions again = parse_command_line(words).run;
      const Plan one = make_plan(again, kernels_);
      ASSERT_EQ(one.cases(), 1U) << command;
      EXPECT_EQ(case_id(again, one.layers[0], one.comparisons[0], one.columns[0]), all[next++])
          << command;
      EXPECT_EQ(to_string(again.stop), to_string(options_.stop));
    }
  }
}

TEST_F(PlanTest, GraphsOnTheCpuAreSkippedWithAReason) {
  EXPECT_EQ(plan({"--graph", "both"}).columns.size(), 2U);
  const Plan p = plan({"--graph", "on"});
  ASSERT_EQ(p.columns.size(), 2U);
  EXPECT_EQ(p.columns[0].name, "cpu_moe_fp8_cuda_graphs");
  EXPECT_THAT(case_support(p.layers[0], p.comparisons[0], p.columns[0]).reason, HasSubstr("graph"));
}

/// fake_kernels() with an fp8 and an nvfp4 kernel of a device, which have graphs, behind them.
class DevicePlanTest : public PlanTest {
 protected:
  DevicePlanTest() {
    for (const auto& [name, scheme] :
         {std::pair{"fake_moe_fp8", Scheme::kFp8}, std::pair{"fake_moe_fp4", Scheme::kNvfp4}}) {
      auto kernel = std::make_unique<FakeKernel>(name, scheme);
      kernel->on_device = &device_;
      kernels_.push_back(std::move(kernel));
    }
  }
  static std::vector<std::string> names(const Plan& plan) {
    std::vector<std::string> all;
    for (const Column& column : plan.columns) all.push_back(column.name);
    return all;
  }
  FakeDevice device_;
};

TEST_F(DevicePlanTest, GraphsAreColumnsBesideTheirKernel) {
  EXPECT_THAT(names(plan({})),
              ElementsAre("cpu_moe_fp8", "fake_moe_fp8", "fake_moe_fp8_cuda_graphs", "cpu_moe_fp4",
                          "fake_moe_fp4", "fake_moe_fp4_cuda_graphs"));
  EXPECT_THAT(names(plan({"--graph", "off"})),
              ElementsAre("cpu_moe_fp8", "fake_moe_fp8", "cpu_moe_fp4", "fake_moe_fp4"));
  const Plan on = plan({"--graph", "on", "--schemes", "fp8"});
  EXPECT_THAT(names(on), ElementsAre("cpu_moe_fp8_cuda_graphs", "fake_moe_fp8_cuda_graphs"));
  EXPECT_FALSE(case_support(on.layers[0], on.comparisons[0], on.columns[0]).ok);
  EXPECT_TRUE(case_support(on.layers[0], on.comparisons[0], on.columns[1]).ok);
}

TEST_F(DevicePlanTest, ReplaysAreComparedWithTheBaselinesReplay) {
  kernels_.erase(kernels_.begin(), kernels_.begin() + 4);  // the CPU's
  const Plan p = plan({});
  ASSERT_EQ(names(p)[0], "fake_moe_fp8");
  EXPECT_EQ(baseline_of(options_, p, 0), 0U);
  EXPECT_EQ(baseline_of(options_, p, 1), 1U);
  EXPECT_EQ(baseline_of(options_, p, 2), 0U);
  EXPECT_EQ(baseline_of(options_, p, 3), 1U);
  const Plan named = plan({"--baseline", "fake_moe_fp8"});
  EXPECT_EQ(baseline_of(options_, named, 3), 0U);
  EXPECT_EQ(baseline_of(options_, plan({"--schemes", "nvfp4"}), 0), std::nullopt);
}

TEST_F(DevicePlanTest, ReproNamesTheColumnsOwnBackend) {
  const Plan p = plan({"--backend", "cuda", "cpu", "--batch-sizes", "4"});
  const auto repro = [&](std::size_t column) {
    return repro_command(options_, p.layers[0], p.comparisons[0], p.columns[column]);
  };
  EXPECT_THAT(repro(0), HasSubstr("--graph off --backend cpu"));
  EXPECT_THAT(repro(2), HasSubstr("--graph on --backend fake"));
}

TEST_F(DevicePlanTest, ThreadsAreShownWhereTheyAreTheCpus) {
  EXPECT_EQ(shown_threads(plan({}), 7), 7);
  kernels_.erase(kernels_.begin(), kernels_.begin() + 4);
  EXPECT_EQ(shown_threads(plan({}), 7), 1);
}

TEST_F(PlanTest, BaselineIsAKernelOrAScheme) {
  EXPECT_EQ(plan({"--baseline", "cpu_moe_fp4"}).baseline, 1);
  EXPECT_EQ(plan({"--baseline", "nvfp4"}).baseline, 1);
  EXPECT_EQ(plan({"--schemes", "nvfp4"}).baseline, -1);
  EXPECT_THAT(refusal({"--baseline", "cpu_moe_fp9"}, ErrorCode::kBadInput),
              HasSubstr("did you mean cpu_moe_fp"));
}

TEST_F(PlanTest, AnUnknownModelIsRefused) {
  EXPECT_THAT(refusal({"--models", "deepseek-r2"}, ErrorCode::kBadInput), HasSubstr("deepseek-r1"));
}

TEST_F(PlanTest, ASchemeWithoutKernelIsUnavailable) {
  kernels_.resize(1);
  EXPECT_THAT(refusal({"--schemes", "fp8"}, ErrorCode::kUnavailable), HasSubstr("fp8"));
}

TEST_F(PlanTest, TokensThatOverflowAreRefusedWithBytes) {
  for (const char* tokens :
       {"268435456", "2147483648", "4294967296", "4611686018427387904", "9223372036854775807"}) {
    const std::string message = refusal({"--batch-sizes", tokens}, ErrorCode::kBadInput);
    EXPECT_THAT(message, AllOf(HasSubstr(tokens), HasSubstr("bytes"))) << tokens;
  }
}

TEST_F(PlanTest, TokensMayBeZero) {
  const Plan p = plan({"--batch-sizes", "0"});
  EXPECT_TRUE(case_support(p.layers[0], p.comparisons[0], p.columns[0]).ok);
}

TEST_F(PlanTest, ARepeatedModelIsPlannedOnce) {
  EXPECT_EQ(plan({"--models", "qwen3-30b-a3b", "QWEN3-30B-A3B"}).layers.size(), 1U);
}

TEST_F(PlanTest, AHundredThousandCasesAreQuick) {
  const auto start = std::chrono::steady_clock::now();
  const Plan p = plan({"--batch-sizes", "1:50000"});
  EXPECT_EQ(p.cases(), 100'000U);
  const std::vector<std::string> all = ids(p);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 20.0);  // quadratic work would take hours
}

TEST_F(PlanTest, MoreThanAMillionCasesAreRefused) {
  EXPECT_THAT(refusal({"--batch-sizes", "1:100000", "--tp-sizes", "1", "2", "4", "8", "16", "32"},
                      ErrorCode::kBadInput),
              HasSubstr("1200000 cases"));
}

}  // namespace
}  // namespace moebench::cli
