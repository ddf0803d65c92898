// Every argument of a layer call that cannot be right is refused before a kernel runs, by one line
// that names it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "tests/api/caller_layer.h"

namespace moebench::testing {
namespace {

using ::testing::HasSubstr;

constexpr MoeShape kShape = {.num_experts = 4, .topk = 2, .hidden = 48, .intermediate = 32};
constexpr std::int64_t kTokens = 3;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::uint16_t kNanToken = 0x7E00;
constexpr std::uint16_t kInfiniteToken = 0x7C00;
constexpr std::uint8_t kNanE4m3 = 0x7F;
constexpr std::uint8_t kNegativeE4m3 = 0xB8;

struct BadCase {
  std::string name;
  SchemeConfig scheme;
  std::function<void(CallerLayer&)> spoil;
  std::string message;  ///< part of the one line
};
void PrintTo(const BadCase& bad, std::ostream* out) { *out << bad.name; }

const SchemeConfig kW4a4 = {.scheme = Scheme::kNvfp4};
const SchemeConfig kW4a16 = {.scheme = Scheme::kNvfp4W4A16};
const SchemeConfig kFp8 = {.scheme = Scheme::kFp8};
const SchemeConfig kFp8Block = {.scheme = Scheme::kFp8Block};

std::vector<BadCase> routing_cases(const std::string& prefix, const SchemeConfig& scheme) {
  const auto id = [](std::int32_t bad) {
    return [bad](CallerLayer& layer) { layer.source.problem.routing.topk_ids[3] = bad; };
  };
  const auto weight = [](float bad) {
    return [bad](CallerLayer& layer) { layer.source.problem.routing.topk_weights[2] = bad; };
  };
  const auto token = [](std::uint16_t bad) {
    return [bad](CallerLayer& layer) { layer.source.problem.a[50] = bad; };
  };
  return {
      {prefix + "NegativeId", scheme, id(-1), "topk_ids: expert -1 at token 1, slot 1"},
      {prefix + "IdPastTheLast", scheme, id(4), "topk_ids: expert 4 at token 1, slot 1"},
      {prefix + "LargestId", scheme, id(std::numeric_limits<std::int32_t>::max()), "2147483647"},
      {prefix + "SameExpertTwice", scheme,
       [](CallerLayer& layer) {
         auto& ids = layer.source.problem.routing.topk_ids;
         ids[5] = ids[4];
       },
       "a second time at token 2, slot 1"},
      {prefix + "NanRoutingWeight", scheme, weight(kNan), "topk_weights: nan at token 1, slot 0"},
      {prefix + "InfiniteRoutingWeight", scheme, weight(kInfinity), "topk_weights: inf"},
      {prefix + "NanToken", scheme, token(kNanToken), "1"},
      {prefix + "InfiniteToken", scheme, token(kInfiniteToken), "1"},
      {prefix + "TooFewIds", scheme,
       [](CallerLayer& layer) { layer.source.problem.routing.topk_ids.pop_back(); }, "topk_ids:"},
      {prefix + "TooFewRoutingWeights", scheme,
       [](CallerLayer& layer) { layer.source.problem.routing.topk_weights.pop_back(); },
       "topk_weights: holds 5 elements; give m * topk = 6"},
      {prefix + "TooFewTokens", scheme,
       [](CallerLayer& layer) { layer.source.problem.a.pop_back(); },
       "a: holds 143 elements; give m * k = 144"},
      {prefix + "NegativeTokenCount", scheme,
       [](CallerLayer& layer) { layer.source.problem.tokens = -1; }, "m = -1"},
      {prefix + "NoTokensButIds", scheme,
       [](CallerLayer& layer) { layer.source.problem.tokens = 0; }, "m = 0"},
  };
}

std::vector<BadCase> size_cases() {
  const auto sizes = [](MoeSizes bad) { return [bad](CallerLayer& layer) { layer.sizes = bad; }; };
  constexpr std::int64_t kHuge = std::int64_t{1} << 31;
  return {
      {"KNoMultipleOf16", kW4a4, sizes({.n = 32, .k = 47, .e = 4}), "47"},
      {"NNoMultipleOf16", kW4a4, sizes({.n = 31, .k = 48, .e = 4}), "31"},
      {"ZeroK", kW4a4, sizes({.n = 32, .k = 0, .e = 4}), "0"},
      {"NegativeN", kFp8, sizes({.n = -32, .k = 48, .e = 4}), "-32"},
      {"NoExperts", kFp8, sizes({.n = 32, .k = 48, .e = 0}), "num_experts is 0"},
      {"TopkAboveExperts", kFp8, sizes({.n = 32, .k = 48, .e = 1}), "topk"},
      {"DimensionPast31Bits", kFp8, sizes({.n = 32, .k = kHuge, .e = 4}), "2147483648"},
      {"ProductPast63Bits", kFp8, sizes({.n = kHuge - 1, .k = kHuge - 1, .e = kHuge - 1}), "2^63"},
      {"ProductPastTheBuffer", kW4a4, sizes({.n = 65536, .k = 65536, .e = 4}), "w1_fp4: holds"},
  };
}

std::vector<BadCase> nvfp4_cases(const std::string& prefix, const SchemeConfig& scheme) {
  const auto alpha = [](float bad) {
    return [bad](CallerLayer& layer) { layer.g1_alphas[2] = bad; };
  };
  const auto block = [](std::uint8_t bad) {
    return [bad](CallerLayer& layer) { layer.w2_blocks[1] = bad; };
  };
  return {
      {prefix + "ZeroAlpha", scheme, alpha(0.0F), "g1_alphas: is 0 for expert 2"},
      {prefix + "NegativeAlpha", scheme, alpha(-1.0F), "g1_alphas: is -1 for expert 2"},
      {prefix + "NanAlpha", scheme, alpha(kNan), "g1_alphas: is nan for expert 2"},
      {prefix + "InfiniteAlpha", scheme, alpha(kInfinity), "g1_alphas: is inf for expert 2"},
      {prefix + "WeightScaleAsAlpha", scheme,
       [](CallerLayer& layer) {
         for (float& value : layer.g2_alphas) value = 1.0F / value;
       },
       "g2_alphas:"},
      {prefix + "NanBlockScale", scheme, block(kNanE4m3),
       "w2_fp4 of expert 0: 1 block scales are NaN"},
      {prefix + "NegativeBlockScale", scheme, block(kNegativeE4m3), "1 block scales are negative"},
      {prefix + "ZeroScaleOverValues", scheme,
       [](CallerLayer& layer) {
         layer.w2[8] = 0x21;
         layer.w2_blocks[1] = 0;
       },
       "zero over a payload"},
      {prefix + "TooFewW1", scheme, [](CallerLayer& layer) { layer.w1.pop_back(); },
       "w1_fp4: holds 6143 elements; give e * 2n * k/2 = 6144"},
      {prefix + "TooManyW2", scheme, [](CallerLayer& layer) { layer.w2.push_back(0); },
       "w2_fp4: holds 3073 elements"},
      {prefix + "TooFewBlockScales", scheme, [](CallerLayer& layer) { layer.w1_blocks.pop_back(); },
       "w1_scale: holds 767 elements"},
      {prefix + "LinearScalesNamedSwizzled", scheme,
       [](CallerLayer& layer) { layer.layout = ScaleLayout::kSwizzled128x4; }, "w1_scale: holds"},
      {prefix + "TooFewAlphas", scheme, [](CallerLayer& layer) { layer.g2_alphas.pop_back(); },
       "g2_alphas: holds 3 elements; give e = 4"},
  };
}

std::vector<BadCase> activation_scale_cases() {
  const auto a2 = [](float bad) {
    return [bad](CallerLayer& layer) { layer.source.problem.scales.a2_global_scale[1] = bad; };
  };
  return {
      {"ZeroActivationScale", kW4a4, a2(0.0F), "a2_gscale: is 0 for expert 1"},
      {"NegativeActivationScale", kW4a4, a2(-2.0F), "a2_gscale: is -2 for expert 1"},
      {"NanActivationScale", kW4a4, a2(kNan), "a2_gscale: is nan for expert 1"},
      {"OneActivationScaleMissing", kW4a4,
       [](CallerLayer& layer) { layer.source.problem.scales.a1_global_scale.clear(); },
       "a1_gscale: holds 0 elements"},
  };
}

std::vector<BadCase> fp8_cases(const std::string& prefix, const SchemeConfig& scheme) {
  const auto scale = [](float bad) {
    return [bad](CallerLayer& layer) { layer.w1_scales[1] = bad; };
  };
  return {
      {prefix + "ZeroScale", scheme, scale(0.0F), "w1_fp8 of expert 1: 1 scales"},
      {prefix + "NegativeScale", scheme, scale(-1.0F), "w1_fp8 of expert 1: 1 scales"},
      {prefix + "NanScale", scheme, scale(kNan), "w1_fp8 of expert 1: 1 scales"},
      {prefix + "InfiniteScale", scheme, scale(kInfinity), "w1_fp8 of expert 1: 1 scales"},
      {prefix + "NanWeight", scheme, [](CallerLayer& layer) { layer.w2[5] = kNanE4m3; },
       "w2_fp8 of expert 0: 1 values are NaN"},
      {prefix + "TooFewWeights", scheme, [](CallerLayer& layer) { layer.w2.pop_back(); },
       "w2_fp8: holds 6143 elements; give e * k * n = 6144"},
      {prefix + "TooFewScales", scheme, [](CallerLayer& layer) { layer.w2_scales.pop_back(); },
       "w2_scale: holds 3 elements"},
  };
}

std::vector<BadCase> all_bad_cases() {
  std::vector<BadCase> all;
  const auto add = [&all](std::vector<BadCase> cases) {
    all.insert(all.end(), std::make_move_iterator(cases.begin()),
               std::make_move_iterator(cases.end()));
  };
  add(size_cases());
  add(routing_cases("Nvfp4", kW4a4));
  add(routing_cases("Fp8", kFp8));
  add(nvfp4_cases("W4A4", kW4a4));
  add(nvfp4_cases("W4A16", kW4a16));
  add(activation_scale_cases());
  add(fp8_cases("Fp8", kFp8));
  add(fp8_cases("Fp8Block", kFp8Block));
  for (const float bad : {-1.0F, kNan, kInfinity}) {
    all.push_back({fmt::format("Fp8TokenScale{}", all.size()), kFp8,
                   [bad](CallerLayer& layer) { layer.source.problem.scales.a1_scale = bad; },
                   "a1_scale: is"});
  }
  return all;
}

class ApiBadInput : public ::testing::TestWithParam<BadCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, ApiBadInput, ::testing::ValuesIn(all_bad_cases()),
                         [](const ::testing::TestParamInfo<BadCase>& bad) {
                           return bad.param.name;
                         });

TEST_P(ApiBadInput, IsRefusedByName) {
  const BadCase& bad = GetParam();
  CallerLayer layer =
      caller_layer(synthetic_case(3, kShape, bad.scheme, kTokens), ScaleLayout::kLinear);
  EXPECT_NO_THROW((void)layer.forward({})) << "before it was spoilt";
  bad.spoil(layer);
  try {
    (void)layer.forward({});
    FAIL() << "was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr(bad.message));
    EXPECT_THAT(error.what(), ::testing::Not(HasSubstr("\n")));
  }
}

TEST(ApiBadCalls, OutputOverTheTokensIsRefused) {
  CallerLayer layer = caller_layer(synthetic_case(3, kShape, kW4a4, kTokens), ScaleLayout::kLinear);
  MoeLayer packed = layer.make({});
  std::vector<std::uint16_t>& a = layer.source.problem.a;
  const Routing& routing = layer.problem().routing;
  EXPECT_THROW(packed.run(a, routing.topk_weights, routing.topk_ids, kTokens, a), Error);
}

TEST(ApiBadCalls, RefusedCallLeavesTheOutputAndTheLayerAsTheyWere) {
  const CallerLayer layer =
      caller_layer(synthetic_case(3, kShape, kW4a4, kTokens), ScaleLayout::kLinear);
  MoeLayer packed = layer.make({});
  const std::vector<std::uint16_t> before = layer.run(packed);
  constexpr std::uint16_t kUntouched = 0xABCD;
  std::vector<std::uint16_t> y(before.size(), kUntouched);
  Routing bad = layer.problem().routing;
  bad.topk_ids[0] = -7;
  EXPECT_THROW(packed.run(layer.problem().a, bad.topk_weights, bad.topk_ids, kTokens, y), Error);
  EXPECT_THAT(y, ::testing::Each(kUntouched));
  EXPECT_EQ(layer.run(packed), before);
}

TEST(ApiBadCalls, PerTokenScalesWithBlocksAreRefused) {
  const CallerLayer layer =
      caller_layer(synthetic_case(3, kShape, kFp8Block, kTokens), ScaleLayout::kLinear);
  Fp8MoeQuantConfig config = layer.fp8();
  config.per_act_token = true;
  EXPECT_THROW(MoeLayer(layer.w1, layer.w2, layer.sizes, config), Error);
}

TEST(ApiBadCalls, UnknownIsaIsRefused) {
  const CallerLayer layer =
      caller_layer(synthetic_case(3, kShape, kW4a4, kTokens), ScaleLayout::kLinear);
  try {
    (void)layer.make({.isa = "avx9000"});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(std::string(error.what()).find("options.isa: no ISA 'avx9000'"), 0U) << error.what();
  }
}

TEST(ApiTokenScale, ComesFromTheTokensWhereNoneIsGiven) {
  CallerLayer layer = caller_layer(synthetic_case(3, kShape, kFp8, kTokens), ScaleLayout::kLinear);
  float amax = 0.0F;
  for (const std::uint16_t bits : layer.problem().a) {
    amax = std::max(amax, std::abs(decode_fp16(bits)));
  }
  layer.source.problem.scales.a1_scale = amax / kE4m3Max;
  const std::vector<std::uint16_t> given = layer.forward({});
  layer.source.problem.scales.a1_scale = 0.0F;
  EXPECT_EQ(layer.forward({}), given);
}

}  // namespace
}  // namespace moebench::testing
