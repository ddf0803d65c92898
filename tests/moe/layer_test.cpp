// Names, size rules and byte counts of a layer.
#include "moebench/moe/layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "moebench/core/error.h"
#include "moebench/moe/weights.h"

namespace moebench {
namespace {

using ::testing::HasSubstr;

constexpr WeightFormat kAllFormats[] = {WeightFormat::kNvfp4, WeightFormat::kFp8PerTensor,
                                        WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block};
constexpr MoeShape kSeedShape{.num_experts = 256, .topk = 8, .hidden = 2048, .intermediate = 7168};

std::string rejection(const MoeShape& shape, WeightFormat format) {
  try {
    validate(shape, format);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "";
}

TEST(Schemes, NamesGoBothWays) {
  for (const Scheme scheme : kAllSchemes) {
    EXPECT_EQ(scheme_from(name_of(scheme)), scheme);
    EXPECT_NE(std::string(summary_of(scheme)), "unknown");
  }
  EXPECT_EQ(scheme_from("NVFP4"), std::nullopt);
  EXPECT_EQ(scheme_from(""), std::nullopt);
}

TEST(Schemes, ShareWeightsByFormat) {
  EXPECT_EQ(weight_format({.scheme = Scheme::kNvfp4}), WeightFormat::kNvfp4);
  EXPECT_EQ(weight_format({.scheme = Scheme::kNvfp4W4A16}), WeightFormat::kNvfp4);
  EXPECT_EQ(weight_format({.scheme = Scheme::kFp8}), WeightFormat::kFp8PerTensor);
  EXPECT_EQ(weight_format({.scheme = Scheme::kFp8, .per_act_token = true}),
            WeightFormat::kFp8PerTensor);
  EXPECT_EQ(weight_format({.scheme = Scheme::kFp8, .per_out_ch = true}),
            WeightFormat::kFp8PerChannel);
  EXPECT_EQ(weight_format({.scheme = Scheme::kFp8Block}), WeightFormat::kFp8Block);
}

TEST(Schemes, Nvfp4HasNoFp8Scaling) {
  EXPECT_EQ(fp8_scaling(WeightFormat::kFp8PerChannel), Fp8Scaling::kPerRow);
  EXPECT_EQ(fp8_scaling(WeightFormat::kFp8Block), Fp8Scaling::kBlock128x128);
  EXPECT_THROW(static_cast<void>(fp8_scaling(WeightFormat::kNvfp4)), Error);
}

TEST(LayerBytes, OfTheSeedsLayer) {
  // 44.04 M weights an expert: 9/16 byte each in NVFP4 and one in FP8, and two 4-byte scales.
  EXPECT_EQ(expert_weight_bytes(kSeedShape, WeightFormat::kNvfp4), 44040192 * 9 / 16 + 8);
  EXPECT_EQ(expert_weight_bytes(kSeedShape, WeightFormat::kFp8PerTensor), 44040192 + 8);
  EXPECT_EQ(expert_weight_bytes(kSeedShape, WeightFormat::kFp8PerChannel),
            44040192 + 4 * (14336 + 2048));
  EXPECT_EQ(expert_weight_bytes(kSeedShape, WeightFormat::kFp8Block),
            44040192 + 4 * (112 * 16 + 16 * 56));
  EXPECT_EQ(layer_weight_bytes(kSeedShape, WeightFormat::kFp8PerTensor), 256 * (44040192LL + 8));
}

TEST(LayerBytes, AreThoseOfTheAllocatedExpert) {
  const MoeShape shape{.num_experts = 2, .topk = 1, .hidden = 144, .intermediate = 272};
  for (const WeightFormat format : kAllFormats) {
    const ExpertWeights weights = make_expert_weights(shape, format);
    const bool nvfp4 = format == WeightFormat::kNvfp4;
    const std::int64_t global_scales = nvfp4 ? 2 * static_cast<std::int64_t>(sizeof(float)) : 0;
    const std::int64_t held = weights.nvfp4_w1.payload.size() + weights.nvfp4_w1.scales.size() +
                              weights.nvfp4_w2.payload.size() + weights.nvfp4_w2.scales.size() +
                              weights.fp8_w1.payload.size() + weights.fp8_w1.scales.size() +
                              weights.fp8_w2.payload.size() + weights.fp8_w2.scales.size();
    EXPECT_EQ(expert_weight_bytes(shape, format), held + global_scales) << name_of(format);
  }
}

TEST(LayerFlops, CountMultiplyAndAdd) {
  EXPECT_EQ(layer_flops(kSeedShape, 4), 2.0 * 4 * 8 * 3 * 2048 * 7168);
}

struct BadShape {
  const char* name;
  MoeShape shape;
  WeightFormat format;
  const char* message;
};
class ShapeRules : public ::testing::TestWithParam<BadShape> {};

TEST_P(ShapeRules, RejectsAndNamesTheValue) {
  EXPECT_THAT(rejection(GetParam().shape, GetParam().format), HasSubstr(GetParam().message));
}

constexpr std::int64_t kBig = std::numeric_limits<std::int32_t>::max();
INSTANTIATE_TEST_SUITE_P(
    Bad, ShapeRules,
    ::testing::Values(
        BadShape{"NoExperts", {0, 1, 16, 16}, WeightFormat::kFp8PerTensor, "num_experts is 0"},
        BadShape{
            "NegativeExperts", {-1, 1, 16, 16}, WeightFormat::kFp8PerTensor, "num_experts is -1"},
        BadShape{"TopkZero", {4, 0, 16, 16}, WeightFormat::kFp8PerTensor, "topk is 0"},
        BadShape{"TopkAboveExperts",
                 {4, 5, 16, 16},
                 WeightFormat::kFp8PerTensor,
                 "topk is 5; it must lie in 1..4"},
        BadShape{"HiddenZero", {4, 1, 0, 16}, WeightFormat::kFp8Block, "hidden is 0"},
        BadShape{"IntermediateNegative",
                 {4, 1, 16, -16},
                 WeightFormat::kFp8Block,
                 "intermediate is -16"},
        BadShape{
            "Hidden31", {4, 1, 31, 16}, WeightFormat::kNvfp4, "hidden is 31, no multiple of 16"},
        BadShape{"IntermediateAfterSplit",
                 {32, 4, 2880, 360},
                 WeightFormat::kNvfp4,
                 "intermediate is 360, no multiple"},
        BadShape{"HiddenPast32Bits",
                 {4, 1, kBig + 1, 16},
                 WeightFormat::kFp8PerTensor,
                 "hidden is 2147483648"},
        BadShape{"MinInt64",
                 {4, 1, std::numeric_limits<std::int64_t>::min(), 16},
                 WeightFormat::kFp8PerTensor,
                 "hidden is -"},
        BadShape{"BytesPast63Bits",
                 {kBig, 1, kBig, kBig},
                 WeightFormat::kFp8PerTensor,
                 "more than 2^63-1"}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(ShapeRules, AcceptsSmallAndOddSizesInFp8) {
  for (const std::int64_t size : {1, 15, 17, 31, 33, 127, 129}) {
    const MoeShape shape{.num_experts = 1, .topk = 1, .hidden = size, .intermediate = size};
    for (const WeightFormat format :
         {WeightFormat::kFp8PerTensor, WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block}) {
      EXPECT_EQ(rejection(shape, format), "") << size << " " << name_of(format);
    }
  }
}

TEST(ShapeRules, SizesPast32BitsOfBytesAreCountedExactly) {
  const MoeShape shape{
      .num_experts = 1 << 20, .topk = 1, .hidden = 1 << 16, .intermediate = 1 << 16};
  EXPECT_EQ(layer_weight_bytes(shape, WeightFormat::kFp8PerTensor),
            (std::int64_t{3} << 52) + (std::int64_t{8} << 20));
}

}  // namespace
}  // namespace moebench
