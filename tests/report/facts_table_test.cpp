#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "moebench/report/table.h"
#include "tests/report/sample_results.h"

namespace moebench {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(FactsTable, ShowsBandwidthFloorAndVerdict) {
  CaseResult r = test::timed_result();
  r.median_s = 2e-3;
  r.weight_bytes = 50'000'000;
  r.floor_s = 1.5e-3;
  r.flops = 4e9;
  r.peak_s = 0.5e-3;
  r.baseline = "triton_moe";
  const std::string text = render_facts(std::vector{r});
  EXPECT_THAT(text, HasSubstr("2.00 ms"));
  EXPECT_THAT(text, HasSubstr("25.0"));          // GB/s
  EXPECT_THAT(text, HasSubstr("75 %"));          // of the floor
  EXPECT_THAT(text, HasSubstr("2.000"));         // TFLOP/s
  EXPECT_THAT(text, HasSubstr("25 %"));          // of the peak
  EXPECT_THAT(text, HasSubstr("6/8"));           // active experts
  EXPECT_THAT(text, HasSubstr("1.10..333 ms"));  // the interval in one unit
  EXPECT_THAT(text, HasSubstr("1.25 (1.20..1.30)"));
  EXPECT_THAT(text, HasSubstr("pass 4/4, 1.5e-04, noisy"));
  EXPECT_THAT(text, HasSubstr("speed-up: over triton_moe"));
}

TEST(FactsTable, SaysWhenTheRatesWereMeasuredAndHowFarTheyMoved) {
  CaseResult first = test::timed_result();
  first.floor_low_bytes_per_s = 20e9;
  first.floor_bytes_per_s = 30e9;
  CaseResult second = first;
  second.floor_low_bytes_per_s = 25e9;
  second.floor_bytes_per_s = 41e9;
  second.peak_low_flops_per_s = 500e9;
  CaseResult at_start = first;
  at_start.floor_low_bytes_per_s = at_start.peak_low_flops_per_s = 0.0;
  at_start.floor_bytes_per_s = 4e12;
  const std::string around = render_facts(std::vector{first, second});
  EXPECT_THAT(around, HasSubstr("at the rate measured around each row, over"));
  EXPECT_THAT(around, HasSubstr("peak measured around each row ("));
  EXPECT_THAT(around,
              HasSubstr("rates around the rows: 20.0..41.0 GB/s read, 0.500..0.750 TFLOP/s."));
  EXPECT_THAT(render_facts(std::vector{first, at_start}),
              HasSubstr("around each row (devices, older files: at start)"));
  const std::string start = render_facts(std::vector{at_start});
  EXPECT_THAT(start, HasSubstr("at the rate measured at start, over"));
  EXPECT_THAT(start, Not(HasSubstr("rates around")));
}

TEST(FactsTable, NamesTheBaselineInsteadOfASpeedUpOverItself) {
  CaseResult r = test::timed_result();
  r.kernel = r.baseline;
  r.speedup = r.speedup_low = r.speedup_high = 1.0;
  EXPECT_THAT(render_facts(std::vector{r}), HasSubstr("baseline"));
  EXPECT_THAT(render_facts(std::vector{r}), Not(HasSubstr("1.00 (1.00")));
}

TEST(FactsTable, FitsIn160Columns) {
  std::vector<CaseResult> results;
  for (const std::int64_t tokens : {1, 2048}) {
    CaseResult r = test::timed_result();
    r.model = "nvidia/DeepSeek-R1-FP4";
    r.kernel = "cutlass_moe_fp4_cuda_graphs";
    r.num_experts = r.active_experts = 256;
    r.weight_bytes = 11'274'289'152;
    r.tokens = tokens;
    r.rows_checked = 1;
    r.median_s = 1.234e-3 * static_cast<double>(tokens);
    r.ci_low_s = 0.99 * r.median_s;
    r.ci_high_s = 1.01 * r.median_s;
    r.flops = 2.0 * 3 * 8 * 2048 * 7168 * static_cast<double>(tokens);
    r.speedup = r.speedup_high = 12.34;
    r.speedup_low = 11.11;
    results.push_back(r);
  }
  std::istringstream lines(render_facts(results));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 160U) << line;
}

TEST(FactsTable, LeavesCellsWithoutANumberEmpty) {
  CaseResult r = test::timed_result();
  r.samples_s = {0.0, 0.0};
  r.median_s = r.iqr_s = r.ci_low_s = r.ci_high_s = r.speedup = r.floor_s = r.peak_s = 0.0;
  const std::string text = render_facts(std::vector{r});
  EXPECT_THAT(text, Not(HasSubstr("nan")));
  EXPECT_THAT(text, Not(HasSubstr("inf")));
}

TEST(FactsTable, OneSampleHasNoInterval) {
  CaseResult r = test::timed_result();
  r.samples_s.resize(1);
  r.baseline = "another";
  r.speedup = r.speedup_low = r.speedup_high = 1.25;
  r.ci_low_s = r.ci_high_s = r.median_s;
  const std::string text = render_facts(std::vector{r});
  const std::size_t row = text.find("cpu_moe_fp8");
  ASSERT_NE(row, std::string::npos);
  const std::string line = text.substr(row, text.find('\n', row) - row);
  EXPECT_THAT(line, HasSubstr("  1.25  "));
  EXPECT_THAT(line, Not(HasSubstr("..")));
}

TEST(FactsTable, ListsWhatDidNotRunWithItsReason) {
  CaseResult failed = test::timed_result();
  failed.samples_s.clear();
  failed.status = Status::kFailed;
  failed.verdict = "fail";
  failed.reason = "row 3: NaN at column 12";
  const std::string text = render_facts(std::vector{test::skipped_result(), failed});
  EXPECT_THAT(text, HasSubstr("skipped  m/tp7/m4/nvfp4/cpu_moe_fp4: N=232 is no multiple of 16"));
  EXPECT_THAT(text, HasSubstr("failed   " + failed.id + ": row 3: NaN at column 12"));
  EXPECT_THAT(text, HasSubstr("again: moebench --models qwen3-30b-a3b"));
  EXPECT_THAT(text, Not(HasSubstr("median")));
}

TEST(FactsTable, GroupsByLayer) {
  CaseResult other = test::timed_result();
  other.model = "other";
  const std::string text =
      render_facts(std::vector{test::timed_result(), other, test::timed_result()});
  EXPECT_LT(text.find("qwen3-30b-a3b, "), text.find("other, "));
  EXPECT_EQ(text.find("qwen3-30b-a3b, ", text.find("other, ")), std::string::npos);
}

TEST(FactsTable, CannotBeBrokenByNames) {
  CaseResult r = test::skipped_result();
  r.reason = "two\nlines";
  EXPECT_THAT(render_facts(std::vector{r}), Not(HasSubstr("two\nlines")));
}

TEST(TableEntries, CannotBreakTheTableOrTheTerminal) {
  CaseResult r = test::timed_result();
  r.label = "two\nlines";
  r.sub_label = "\033[2Jcleared";
  r.kernel = std::string(1 << 20, 'k');
  const std::string text = render_compare(table_entries(std::vector{r}), {});
  EXPECT_THAT(text, HasSubstr("two\\x0alines"));
  EXPECT_THAT(text, Not(HasSubstr("\033")));
  EXPECT_LT(text.size(), 10'000U);
}

TEST(TableEntries, HoldTimedCasesOnly) {
  const std::vector<CaseResult> results{test::timed_result(), test::skipped_result()};
  const std::vector<TableEntry> entries = table_entries(results);
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].description, "cpu_moe_fp8");
  EXPECT_EQ(entries[0].num_threads, 2);
  EXPECT_EQ(entries[0].raw_times, results[0].samples_s);
}

}  // namespace
}  // namespace moebench
