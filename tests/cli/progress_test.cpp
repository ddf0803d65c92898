// The progress line's text.
#include "moebench/cli/progress.h"

#include <gtest/gtest.h>

namespace moebench::cli {
namespace {

TEST(Progress, ShowsShareStepAndTimeLeft) {
  EXPECT_EQ(progress_line(0.5, 65.0, "measuring x"),
            "[############------------]  50 %  ETA 1:05  measuring x");
  EXPECT_EQ(progress_line(1.0, 10.0, "done"), "[########################] 100 %  ETA 0:00  done");
}

TEST(Progress, GivesHoursWhereItTakesHours) {
  EXPECT_EQ(progress_line(0.25, 3600.0, "s"), "[######------------------]  25 %  ETA 3:00:00  s");
}

TEST(Progress, GuessesNothingFromNothing) {
  EXPECT_EQ(progress_line(0.0, 3.0, "packing"), "[------------------------]   0 %  packing");
}

}  // namespace
}  // namespace moebench::cli
