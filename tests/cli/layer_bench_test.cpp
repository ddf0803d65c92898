// The rule of the design: no speed for an answer that was not verified. And: one case's fault is
// that case's alone.
#include "moebench/cli/layer_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <new>

#include "moebench/core/buffer.h"
#include "tests/cli/tampered_kernel.h"

namespace moebench::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr MoeShape kShape{.num_experts = 4, .topk = 2, .hidden = 64, .intermediate = 32};

/// Two columns on one tiny layer: `first` is the one that tests spoil, `second` stays sound.
class LayerBenchTest : public testing::Test {
 protected:
  LayerBenchTest() : console_(Verbosity::kQuiet, ColorMode::kNever), progress_(console_, 0.0) {
    options_ = parse_command_line({"--stop", "count:3", "--runs-per-call", "1"}).run;
    rates_.read_bytes_per_s = 1e10;
    use(Scheme::kNvfp4, Scheme::kFp8);
  }

  void use(Scheme first, Scheme second) {
    first_ = tampered_cpu_kernel(first, "first");
    second_ = tampered_cpu_kernel(second, "second");
    plan_.columns = {{first_.get(), false, "first"}, {second_.get(), false, "second"}};
    Layer layer;
    layer.model = &find_model("qwen3-30b-a3b");
    layer.shape = kShape;
    layer.renormalize = true;
    layer.comparisons = 1;
    plan_.layers = {layer};
    plan_.comparisons = {{.layer = 0, .tokens = 5}};
  }

  std::vector<CaseResult> compare() {
    const BenchContext context{options_,
                               plan_,
                               stop_,
                               progress_,
                               [this](Device*) -> const MachineRates& { return rates_; },
                               1,
                               [this] { ++measured_again_; },
                               host_rates_now_};
    LayerBench bench(context, plan_.layers[0]);
    const WeightFormat formats[] = {weight_format({first_->scheme()}),
                                    weight_format({second_->scheme()})};
    bench.pack(formats);
    const std::size_t columns[] = {0, 1};
    std::vector<CaseResult> results;
    for (Outcome& outcome : bench.compare(plan_.comparisons[0], columns)) {
      errors_.push_back(outcome.error);
      results.push_back(std::move(outcome.result));
    }
    return results;
  }

  static void expect_sound(const CaseResult& result) {
    EXPECT_EQ(result.status, Status::kOk) << result.reason;
    EXPECT_EQ(result.verdict, "pass");
    EXPECT_EQ(result.samples_s.size(), 3U);
    EXPECT_GT(result.median_s, 0.0);
  }
  static void expect_no_times(const CaseResult& result) {
    EXPECT_TRUE(result.samples_s.empty());
    EXPECT_EQ(result.median_s, 0.0);
    EXPECT_EQ(result.ci_high_s, 0.0);
    EXPECT_TRUE(result.phases_s.empty());
  }

  RunOptions options_;
  Plan plan_;
  StopFlag stop_{false};
  Console console_;
  Progress progress_;
  MachineRates rates_;
  int measured_again_ = 0;
  std::function<RateReading()> host_rates_now_;
  std::unique_ptr<TamperedKernel> first_, second_;
  std::vector<ErrorCode> errors_;
};

TEST_F(LayerBenchTest, RightAnswersAreMeasuredWithTheirFacts) {
  const std::vector<CaseResult> results = compare();
  ASSERT_EQ(results.size(), 2U);
  for (const CaseResult& result : results) {
    expect_sound(result);
    EXPECT_EQ(result.rows_checked, 5);
    EXPECT_GE(result.active_experts, 2);
    EXPECT_GE(result.largest_group, 3);  // 10 pairs on 4 experts
    EXPECT_EQ(result.weight_bytes,
              result.active_experts *
                  expert_weight_bytes(kShape, weight_format({*scheme_from(result.scheme)})));
    EXPECT_DOUBLE_EQ(result.floor_s, static_cast<double>(result.weight_bytes) / 1e10);
    EXPECT_EQ(result.flops, layer_flops(kShape, 5));
    EXPECT_GT(result.format_error, 0.0);
  }
}

double fastest_s(const CaseResult& result) {
  return *std::min_element(result.samples_s.begin(), result.samples_s.end());
}

TEST_F(LayerBenchTest, SharesGoByTheBestReadingAroundTheRow) {
  rates_.flops_per_s = 1e15;
  std::vector<int> runs;  // of the first kernel, at each reading
  host_rates_now_ = [&]() -> RateReading {
    runs.push_back(first_->runs);
    // The second reading falls into a bad moment for memory, the first into one for arithmetic.
    if (runs.size() == 1) return {.read_bytes_per_s = 8e11, .flops_per_s = 3e14};
    return {.read_bytes_per_s = 5e11, .flops_per_s = 4e14};
  };
  for (const CaseResult& result : compare()) {
    expect_sound(result);
    EXPECT_EQ(result.floor_bytes_per_s, 8e11);
    EXPECT_EQ(result.floor_low_bytes_per_s, 5e11);
    EXPECT_EQ(result.peak_flops_per_s, 4e14);
    EXPECT_EQ(result.peak_low_flops_per_s, 3e14);
    EXPECT_DOUBLE_EQ(result.floor_s, static_cast<double>(result.weight_bytes) / 8e11);
    EXPECT_DOUBLE_EQ(result.peak_s, result.flops / 4e14);
  }
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0], 1) << "read after the kernels were measured, or before they were verified";
  EXPECT_EQ(runs[1], first_->runs);
}

TEST_F(LayerBenchTest, NoShareOfAReadRateIsAboveWhatTheRowShowedItself) {
  host_rates_now_ = [] { return RateReading{.read_bytes_per_s = 1.0, .flops_per_s = 1.0}; };
  rates_.flops_per_s = 1.0;
  const std::vector<CaseResult> results = compare();
  double most_bytes = 0.0;
  for (const CaseResult& result : results) {
    most_bytes = std::max(most_bytes, static_cast<double>(result.weight_bytes) / fastest_s(result));
  }
  for (const CaseResult& result : results) {
    EXPECT_DOUBLE_EQ(result.floor_bytes_per_s, most_bytes);
    EXPECT_LE(result.floor_s, result.median_s);
    EXPECT_EQ(result.floor_low_bytes_per_s, 1.0);
    // Only the second, FP8, multiplies in floating point for certain.
    EXPECT_DOUBLE_EQ(result.peak_flops_per_s, results[1].flops / fastest_s(results[1]));
  }
  EXPECT_EQ(measured_again_, 0);
}

TEST_F(LayerBenchTest, WhatACacheMayHoldCanBeFasterThanMemory) {
  host_rates_now_ = [] { return RateReading{.read_bytes_per_s = 1.0, .flops_per_s = 1.0}; };
  rates_.buffer_bytes = std::int64_t{1} << 40;
  for (const CaseResult& result : compare()) {
    EXPECT_EQ(result.floor_bytes_per_s, 1.0);
    EXPECT_EQ(result.floor_s, static_cast<double>(result.weight_bytes));
  }
}

TEST_F(LayerBenchTest, WithoutReadingsTheRatesAtStartCount) {
  rates_.flops_per_s = 1e15;
  for (const CaseResult& result : compare()) {
    EXPECT_EQ(result.floor_bytes_per_s, 1e10);
    EXPECT_EQ(result.peak_flops_per_s, 1e15);
    EXPECT_EQ(result.floor_low_bytes_per_s, 0.0);
    EXPECT_EQ(result.peak_low_flops_per_s, 0.0);
  }
}

TEST_F(LayerBenchTest, AProfiledCallHasNoReadingsAroundIt) {
  int read = 0;
  host_rates_now_ = [&read] {
    ++read;
    return RateReading{};
  };
  options_.profile = true;
  for (const CaseResult& result : compare()) EXPECT_EQ(result.floor_bytes_per_s, 1e10);
  EXPECT_EQ(read, 0);
}

struct Damage {
  const char* name;
  std::function<void(std::span<std::uint16_t>)> spoil;
  const char* reason;
};

class WrongAnswer : public LayerBenchTest, public testing::WithParamInterface<Damage> {};

TEST_P(WrongAnswer, IsFailedAndNeverTimedWhileTheOtherIs) {
  first_->tampering.after_run = [](std::span<std::uint16_t> y, int) { GetParam().spoil(y); };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kFailed);
  EXPECT_EQ(results[0].verdict, "fail");
  EXPECT_THAT(results[0].reason, HasSubstr(GetParam().reason));
  EXPECT_EQ(first_->runs, 1) << "a wrong kernel was run again, to be timed";
  expect_no_times(results[0]);
  expect_sound(results[1]);
}

INSTANTIATE_TEST_SUITE_P(
    LayerBench, WrongAnswer,
    testing::Values(
        Damage{"OneWrongElement", [](std::span<std::uint16_t> y) { y[2 * 64 + 7] ^= 0x1000; }, "2"},
        Damage{
            "AZeroRow",
            [](std::span<std::uint16_t> y) { std::fill_n(y.begin() + 64, 64, std::uint16_t{0}); },
            "1"},
        Damage{"NotANumber", [](std::span<std::uint16_t> y) { y[5] = 0x7E00; }, "0"},
        Damage{"AnInfinity", [](std::span<std::uint16_t> y) { y[5] = 0x7C00; }, "0"},
        Damage{"AnUnwrittenElement", [](std::span<std::uint16_t> y) { y[4 * 64 + 63] = kPoison; },
               "4"},
        Damage{"AWritePastTheEnd", [](std::span<std::uint16_t> y) { y.data()[y.size()] = 0; },
               "past the end"},
        Damage{"AWriteBeforeTheBegin", [](std::span<std::uint16_t> y) { y.data()[-1] = 0; },
               "before"}),
    [](const testing::TestParamInfo<Damage>& test) { return test.param.name; });

TEST_F(LayerBenchTest, AnAnswerThatChangesWhileItIsTimedIsFailed) {
  first_->tampering.after_run = [](std::span<std::uint16_t> y, int run) {
    if (run > 1) y[70] ^= 1;
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kFailed);
  EXPECT_THAT(results[0].reason, AllOf(HasSubstr("token 1"), HasSubstr("column 6")));
  expect_no_times(results[0]);
  expect_sound(results[1]);
}

TEST_F(LayerBenchTest, AnErrorWhilePreparingIsThatCasesResult) {
  first_->tampering.on_prepare = [] { fail(ErrorCode::kUnavailable, "device: gone"); };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kError);
  EXPECT_EQ(results[0].reason, "device: gone");
  EXPECT_EQ(errors_[0], ErrorCode::kUnavailable);
  expect_no_times(results[0]);
  expect_sound(results[1]);
}

TEST_F(LayerBenchTest, AnErrorWhilePackingIsTheErrorOfItsCases) {
  first_->tampering.on_pack = [] { throw std::bad_alloc(); };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kError);
  EXPECT_EQ(errors_[0], ErrorCode::kOutOfMemory);
  expect_sound(results[1]);
}

TEST_F(LayerBenchTest, AnErrorWhileTimingSparesTheOtherKernels) {
  first_->tampering.after_run = [](std::span<std::uint16_t>, int run) {
    if (run == 3) throw std::bad_alloc();
    if (run > 3) fail(ErrorCode::kIo, "still broken");
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kError);
  EXPECT_EQ(results[0].reason, "still broken");
  expect_no_times(results[0]);
  expect_sound(results[1]);
}

// Class 17: memory runs out at every n-th allocation. The case is an error or sound, never
// something else, and the next comparison works.
TEST_F(LayerBenchTest, MemoryRunningOutAtAnyAllocationCostsNoOtherCase) {
  options_.profile = true;  // one call a case: this is about memory, not time
  bool failed_once = false;
  constexpr int kMoreThanThereAre = 500;
  for (int n = 1; n <= kMoreThanThereAre; ++n) {
    fail_nth_allocation_for_testing(n);
    const std::vector<CaseResult> results = compare();
    fail_nth_allocation_for_testing(0);
    bool all_sound = true;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i].status == Status::kOk) continue;
      all_sound = false;
      EXPECT_EQ(results[i].status, Status::kError)
          << "allocation " << n << ": " << results[i].reason;
      EXPECT_EQ(errors_.at(errors_.size() - results.size() + i), ErrorCode::kOutOfMemory);
      expect_no_times(results[i]);
    }
    failed_once |= !all_sound;
    if (all_sound) {
      EXPECT_TRUE(failed_once);
      return;
    }
  }
  FAIL() << "the " << kMoreThanThereAre << "th allocation still failed a case";
}

TEST_F(LayerBenchTest, RotatedCopiesAreVerifiedEachOnItsOwn) {
  options_.cache = CacheMode::kRotate;
  int prepared = 0;
  first_->tampering.on_prepare = [&prepared] { ++prepared; };
  // The third copy's answer is wrong, the others' are right.
  first_->tampering.after_run = [&prepared](std::span<std::uint16_t> y, int) {
    if (prepared == 3) y[3] ^= 0x4000;
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kFailed);
  EXPECT_EQ(prepared, 3);
  expect_sound(results[1]);
}

TEST_F(LayerBenchTest, ProfileCallsOnceAfterTheVerifiedRun) {
  options_.profile = true;
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(first_->runs, 2);
  EXPECT_EQ(second_->runs, 2);
  EXPECT_EQ(results[0].samples_s.size(), 1U);
  EXPECT_TRUE(results[0].noisy);
}

TEST_F(LayerBenchTest, WithoutCheckTheVerdictSaysUnchecked) {
  options_.check = parse_check("off");
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].status, Status::kOk);
  EXPECT_EQ(results[0].verdict, "unchecked");
  EXPECT_EQ(results[0].rows_checked, 0);
}

TEST_F(LayerBenchTest, EvenUncheckedAnswersMayNotBeUnwritten) {
  options_.check = parse_check("off");
  first_->tampering.after_run = [](std::span<std::uint16_t> y, int) { y[9] = kPoison; };
  EXPECT_EQ(compare()[0].status, Status::kFailed);
}

TEST_F(LayerBenchTest, NoTokensAreVerifiedAndTimed) {
  plan_.comparisons[0].tokens = 0;
  for (const CaseResult& result : compare()) {
    EXPECT_EQ(result.status, Status::kOk) << result.reason;
    EXPECT_EQ(result.verdict, "pass");
    EXPECT_EQ(result.active_experts, 0);
  }
}

TEST_F(LayerBenchTest, AStopLeavesWithoutAResult) {
  first_->tampering.after_run = [this](std::span<std::uint16_t>, int run) {
    if (run == 2) stop_.store(true);
  };
  EXPECT_THROW((void)compare(), Interrupted);
}

TEST_F(LayerBenchTest, SchemesOfOneComparisonGetTheSameRouting) {
  use(Scheme::kFp8Block, Scheme::kNvfp4W4A16);
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[0].active_experts, results[1].active_experts);
  EXPECT_EQ(results[0].largest_group, results[1].largest_group);
}

}  // namespace
}  // namespace moebench::cli
