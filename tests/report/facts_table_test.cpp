#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  const std::string text = render_facts(std::vector{r});
  EXPECT_THAT(text, HasSubstr("2.00 ms"));
  EXPECT_THAT(text, HasSubstr("25.0"));   // GB/s
  EXPECT_THAT(text, HasSubstr("75 %"));   // of the floor
  EXPECT_THAT(text, HasSubstr("2.000"));  // TFLOP/s
  EXPECT_THAT(text, HasSubstr("6/8"));    // active experts
  EXPECT_THAT(text, HasSubstr("1.25 (1.20..1.30)"));
  EXPECT_THAT(text, HasSubstr("pass 4/4 rows, error 1.5e-04, noisy"));
  EXPECT_THAT(text, HasSubstr("speed-up: over cpu_moe_fp8"));
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
