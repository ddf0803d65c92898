// Which arrangement a layer gets in how much memory; decided before anything is allocated.
#include "moebench/cli/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/fake_device.h"
#include "tests/cli/fake_kernel.h"

namespace moebench::cli {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kGb = 1'000'000'000;

TEST(Memory, AllFormatsTogetherWhereTheyFit) {
  const LayerMemory memory{
      {WeightFormat::kFp8PerTensor, WeightFormat::kNvfp4}, {11 * kGb, 6 * kGb}, {kGb, 2 * kGb}};
  const std::int64_t all = 19 * kGb + kMemoryReserve;
  EXPECT_EQ(decide(memory, all).arrangement, Arrangement::kTogether);
  EXPECT_EQ(decide(memory, all).needed, all);
  EXPECT_EQ(decide(memory, all - 1).arrangement, Arrangement::kOneByOne);
}

TEST(Memory, OneByOneNeedsTheLargestFormatAndTheSmallestComparison) {
  const LayerMemory memory{
      {WeightFormat::kFp8PerTensor, WeightFormat::kNvfp4}, {11 * kGb, 6 * kGb}, {kGb, 2 * kGb}};
  const std::int64_t least = 12 * kGb + kMemoryReserve;
  const MemoryDecision decision = decide(memory, least);
  EXPECT_EQ(decision.arrangement, Arrangement::kOneByOne);
  EXPECT_EQ(decision.working_limit, kGb);  // the 2 GB comparison is refused on its own
  EXPECT_EQ(decide(memory, least - 1).arrangement, Arrangement::kRefused);
  EXPECT_EQ(decide(memory, least - 1).needed, least);
}

TEST(Memory, ACaseTooLargeForTheMachineDoesNotSplitTheOthers) {
  const LayerMemory memory{
      {WeightFormat::kFp8PerTensor, WeightFormat::kNvfp4}, {2 * kGb, kGb}, {kGb, 1000 * kGb}};
  const MemoryDecision decision = decide(memory, 10 * kGb);
  EXPECT_EQ(decision.arrangement, Arrangement::kTogether);
  EXPECT_LT(decision.working_limit, 1000 * kGb);
}

TEST(Memory, ALayerWithoutRunnableCasesNeedsNothing) {
  EXPECT_EQ(decide({}, 0).arrangement, Arrangement::kTogether);
}

TEST(Memory, WhatIsKeptBesideALayerIsGivenUpOnlyWhereTheLayerNeedsIt) {
  Place host;
  host.decision = {.arrangement = Arrangement::kTogether, .needed = 7 * kGb, .available = 8 * kGb};
  EXPECT_TRUE(has_room_for(kGb, {host}));
  EXPECT_FALSE(has_room_for(kGb + 1, {host}));
  host.decision = {.arrangement = Arrangement::kRefused, .needed = 9 * kGb, .available = 8 * kGb};
  EXPECT_TRUE(has_room_for(kGb, {host}));
}

class LayerMemoryTest : public testing::Test {
 protected:
  void plan(const std::vector<std::string>& args) {
    options_ = parse_command_line(args).run;
    plan_ = make_plan(options_, kernels_);
  }
  LayerMemory memory() const { return layer_memory(options_, plan_, plan_.layers.at(0)); }

  std::vector<std::unique_ptr<Kernel>> kernels_ = fake_kernels();
  RunOptions options_;
  Plan plan_;
};

TEST_F(LayerMemoryTest, CountsEachFormatOnceTheBaselinesFirst) {
  plan({"--schemes", "nvfp4", "nvfp4-w4a16", "fp8", "--batch-sizes", "4", "8"});
  const LayerMemory m = memory();
  EXPECT_THAT(m.formats, testing::ElementsAre(WeightFormat::kFp8PerTensor, WeightFormat::kNvfp4));
  const MoeShape& shape = plan_.layers[0].shape;
  EXPECT_THAT(m.weights,
              testing::ElementsAre(layer_weight_bytes(shape, WeightFormat::kFp8PerTensor),
                                   layer_weight_bytes(shape, WeightFormat::kNvfp4)));
  EXPECT_EQ(m.working.size(), 2U);
}

TEST_F(LayerMemoryTest, AColumnWhoseFirstCaseCannotRunCountsForItsOthers) {
  for (const auto& kernel : kernels_) dynamic_cast<FakeKernel&>(*kernel).most_tokens = 8;
  plan({"--schemes", "nvfp4", "fp8", "--batch-sizes", "16", "4"});
  EXPECT_THAT(memory().formats,
              testing::UnorderedElementsAre(WeightFormat::kFp8PerTensor, WeightFormat::kNvfp4));
  plan({"--schemes", "nvfp4", "fp8", "--batch-sizes", "16"});
  EXPECT_THAT(memory().formats, testing::IsEmpty());
}

TEST_F(LayerMemoryTest, OutputChannelScalesAreAFormatOfTheirOwn) {
  plan({"--limit-per-out-ch", "0", "1", "--schemes", "fp8", "--batch-sizes", "4"});
  EXPECT_THAT(memory().formats,
              testing::ElementsAre(WeightFormat::kFp8PerTensor, WeightFormat::kFp8PerChannel));
}

TEST_F(LayerMemoryTest, GrowsWithTokensAndRotatedCopies) {
  plan({"--batch-sizes", "4", "2048"});
  const LayerMemory warm = memory();
  EXPECT_LT(warm.working[0], warm.working[1]);
  plan({"--batch-sizes", "4", "2048", "--cache", "rotate"});
  EXPECT_GT(memory().working[1], warm.working[1]);
}

TEST_F(LayerMemoryTest, TheRefusalNamesTheExpertsThatFit) {
  plan({"--models", "kimi-k2", "--batch-sizes", "4"});
  const std::int64_t available = 4 * kGb;
  const MemoryDecision decision = decide(memory(), available);
  ASSERT_EQ(decision.arrangement, Arrangement::kRefused);
  const std::optional<std::int64_t> experts =
      experts_that_fit(options_, plan_, plan_.layers[0], available);
  ASSERT_TRUE(experts.has_value());
  const std::string line = refusal(options_, plan_, plan_.layers[0], decision);
  EXPECT_THAT(line, HasSubstr("4.00 GB available"));
  EXPECT_THAT(line, HasSubstr(fmt::format("--limit-num-groups {} would fit", *experts)));
  // Exactly the boundary: that many fit, one more does not.
  for (const std::int64_t more : {0, 1}) {
    plan({"--models", "kimi-k2", "--batch-sizes", "4", "--limit-num-groups",
          fmt::to_string(*experts + more)});
    EXPECT_EQ(decide(memory(), available).arrangement == Arrangement::kRefused, more == 1);
  }
}

TEST_F(LayerMemoryTest, ADevicesColumnsTakeItsMemoryAndNotTheHosts) {
  FakeDevice device;
  auto kernel = std::make_unique<FakeKernel>("fake_moe_fp8", Scheme::kFp8);
  kernel->on_device = &device;
  kernel->scratch_per_token = 1000;
  kernels_.push_back(std::move(kernel));
  plan({"--schemes", "fp8,nvfp4", "--batch-sizes", "4", "2048", "--graph", "both"});
  const Layer& layer = plan_.layers[0];
  const std::int64_t fp8 = layer_weight_bytes(layer.shape, WeightFormat::kFp8PerTensor);
  const std::int64_t fp4 = layer_weight_bytes(layer.shape, WeightFormat::kNvfp4);
  EXPECT_THAT(memory().weights, testing::ElementsAre(fp8, fp4));  // the CPU's kernels
  const LayerMemory there = layer_memory(options_, plan_, layer, &device);
  EXPECT_THAT(there.weights, testing::ElementsAre(fp8, 0));
  EXPECT_THAT(there.working, testing::ElementsAre(2 * 4 * 1000, 2 * 2048 * 1000));

  device.room.available = fp8 + kMemoryReserve + 10'000;
  std::vector<Place> places = layer_places(options_, plan_, layer, 1000 * kGb);
  ASSERT_EQ(places.size(), 2U);
  EXPECT_EQ(arrangement_of(places), Arrangement::kTogether);
  const Column& direct = plan_.columns[1];
  ASSERT_EQ(direct.name, "fake_moe_fp8");
  EXPECT_EQ(memory_refusal(plan_, layer, places, 0, direct), "");
  EXPECT_THAT(memory_refusal(plan_, layer, places, 1, direct),
              testing::AllOf(HasSubstr("2048 tokens"), HasSubstr("on fake")));
  EXPECT_EQ(memory_refusal(plan_, layer, places, 1, plan_.columns[0]), "");

  device.room.available = fp8;
  places = layer_places(options_, plan_, layer, 1000 * kGb);
  EXPECT_THAT(memory_refusal(plan_, layer, places, 0, direct),
              testing::AllOf(HasSubstr("available on fake"), HasSubstr("--limit-num-groups")));
  EXPECT_EQ(memory_refusal(plan_, layer, places, 0, plan_.columns[0]), "");
  EXPECT_NE(arrangement_of(places), Arrangement::kRefused);

  device.cause = "lost";  // its cases shall end with that, not with a word on memory
  places = layer_places(options_, plan_, layer, 1000 * kGb);
  EXPECT_EQ(memory_refusal(plan_, layer, places, 1, direct), "");
}

TEST_F(LayerMemoryTest, SaysSoWhereNoNumberOfExpertsFits) {
  plan({"--models", "kimi-k2", "--batch-sizes", "4"});
  EXPECT_FALSE(experts_that_fit(options_, plan_, plan_.layers[0], kMemoryReserve).has_value());
  EXPECT_THAT(refusal(options_, plan_, plan_.layers[0], decide(memory(), kMemoryReserve)),
              HasSubstr("top-k"));
}

}  // namespace
}  // namespace moebench::cli
