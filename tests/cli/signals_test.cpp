// Weights that are being read stop when the run is asked to.
#include "moebench/cli/signals.h"

#include <gtest/gtest.h>

namespace moebench::cli {
namespace {

TEST(Signals, AnInterruptibleSourceThrowsOnceStopped) {
  const MoeShape shape{.num_experts = 2, .topk = 1, .hidden = 16, .intermediate = 16};
  StopFlag stop{false};
  const WeightSource source =
      interruptible(synthetic_weights(0, shape, WeightFormat::kNvfp4), stop);
  int seen = 0;
  source.with_expert(0, [&seen](const ExpertWeightsView&) { ++seen; });
  EXPECT_EQ(seen, 1);
  stop.store(true);
  EXPECT_THROW(source.with_expert(1, [&seen](const ExpertWeightsView&) { ++seen; }), Interrupted);
  float row[16];
  EXPECT_THROW(source.unquantized_row(0, false, 0, row), Interrupted);
  EXPECT_EQ(seen, 1);
}

}  // namespace
}  // namespace moebench::cli
