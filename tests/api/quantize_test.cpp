// Quantising into the caller's buffers: the same bits as the matrices of moebench/quant, bad input
// refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "moebench/api/moebench.h"
#include "moebench/quant/fp8.h"
#include "moebench/quant/nvfp4.h"

namespace moebench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

/// 130 rows and 5 groups: one full and one started tile of swizzled scales, both ways.
constexpr std::int64_t kRows = 130;
constexpr std::int64_t kCols = 80;

std::vector<float> values() {
  std::vector<float> x;
  for (std::int64_t i = 0; i < kRows * kCols; ++i) {
    x.push_back(std::sin(0.37F * static_cast<float>(i)) * static_cast<float>(1 + i / kCols % 7));
  }
  return x;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "no error";
}

struct Quantized {
  std::vector<std::uint8_t> payload, scales;
};
Quantized make_buffers(ScaleLayout layout) {
  constexpr std::uint8_t kUnwritten = 0xEE;
  return {std::vector<std::uint8_t>(kRows * kCols / 2, kUnwritten),
          std::vector<std::uint8_t>(
              static_cast<std::size_t>(nvfp4_scale_bytes(kRows, kCols, layout)), kUnwritten)};
}

std::string layout_name(const ::testing::TestParamInfo<ScaleLayout>& layout) {
  return layout.param == ScaleLayout::kLinear ? "Linear" : "Swizzled";
}
class QuantizeNvfp4 : public ::testing::TestWithParam<ScaleLayout> {};
INSTANTIATE_TEST_SUITE_P(Layouts, QuantizeNvfp4,
                         ::testing::Values(ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4),
                         layout_name);

TEST_P(QuantizeNvfp4, GivesTheBitsOfTheMatrix) {
  const std::vector<float> x = values();
  const Nvfp4Matrix matrix = quantize_nvfp4(x, kRows, kCols, GetParam());
  Quantized out = make_buffers(GetParam());
  ASSERT_EQ(nvfp4_global_scale(x), matrix.global_scale);
  quantize_nvfp4(x, kRows, kCols, matrix.global_scale, out.payload, out.scales, GetParam());
  EXPECT_THAT(out.payload, ElementsAreArray(matrix.payload.as<std::uint8_t>()));
  EXPECT_THAT(out.scales, ElementsAreArray(matrix.scales.as<std::uint8_t>()));
}

TEST_P(QuantizeNvfp4, Takes16BitValues) {
  for (const ActType type : {ActType::kFp16, ActType::kBf16}) {
    std::vector<float> rounded;
    std::vector<std::uint16_t> bits;
    for (const float value : values()) {
      bits.push_back(encode_act(type, value));
      rounded.push_back(decode_act(type, bits.back()));
    }
    Quantized from_bits = make_buffers(GetParam());
    Quantized from_floats = make_buffers(GetParam());
    const float global_scale = nvfp4_global_scale(bits, type);
    EXPECT_EQ(global_scale, nvfp4_global_scale(rounded));
    quantize_nvfp4(bits, type, kRows, kCols, global_scale, from_bits.payload, from_bits.scales,
                   GetParam());
    quantize_nvfp4(rounded, kRows, kCols, global_scale, from_floats.payload, from_floats.scales,
                   GetParam());
    EXPECT_EQ(from_bits.payload, from_floats.payload);
    EXPECT_EQ(from_bits.scales, from_floats.scales);
  }
}

TEST(QuantizeNvfp4BadInput, NamesWhatIsWrong) {
  const std::vector<float> x = values();
  Quantized out = make_buffers(ScaleLayout::kLinear);
  const auto quantize = [&](std::span<const float> in, std::int64_t rows, std::int64_t cols,
                            float global_scale) {
    return message_of(
        [&] { quantize_nvfp4(in, rows, cols, global_scale, out.payload, out.scales); });
  };
  EXPECT_THAT(quantize(x, kRows, 72, 1.0F), HasSubstr("130 rows x 72 columns"));
  EXPECT_THAT(quantize(x, 0, kCols, 1.0F), HasSubstr("0 rows"));
  EXPECT_THAT(quantize(x, -1, kCols, 1.0F), HasSubstr("-1 rows"));
  EXPECT_THAT(quantize(x, kRows + 1, kCols, 1.0F), HasSubstr("payload: holds 5200 elements"));
  EXPECT_THAT(quantize(std::span(x).first(16), kRows, kCols, 1.0F), HasSubstr("16"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {0.0F, -1.0F, nan, infinity}) {
    EXPECT_THAT(quantize(x, kRows, kCols, bad), HasSubstr("global_scale: is "));
  }
  for (const float bad : {nan, infinity, -infinity}) {
    std::vector<float> with_bad = x;
    with_bad[3 * kCols + 17] = bad;
    EXPECT_THAT(quantize(with_bad, kRows, kCols, 1.0F), AllOf(HasSubstr("3"), HasSubstr("17")));
    EXPECT_THAT(message_of([&] { (void)nvfp4_global_scale(with_bad); }), HasSubstr("amax"));
  }
  out.scales.pop_back();
  EXPECT_THAT(quantize(x, kRows, kCols, 1.0F), HasSubstr("scales: holds 649 elements; give"));
}

std::string scaling_name(const ::testing::TestParamInfo<Fp8WeightScaling>& scaling) {
  constexpr const char* kNames[] = {"PerExpert", "PerOutChannel", "Block128x128"};
  return kNames[static_cast<int>(scaling.param)];
}
class QuantizeFp8 : public ::testing::TestWithParam<Fp8WeightScaling> {};
INSTANTIATE_TEST_SUITE_P(Scalings, QuantizeFp8,
                         ::testing::Values(Fp8WeightScaling::kPerExpert,
                                           Fp8WeightScaling::kPerOutChannel,
                                           Fp8WeightScaling::kBlock128x128),
                         scaling_name);

TEST_P(QuantizeFp8, GivesTheBitsOfTheMatrix) {
  constexpr Fp8Scaling kInternal[] = {Fp8Scaling::kPerTensor, Fp8Scaling::kPerRow,
                                      Fp8Scaling::kBlock128x128};
  const std::vector<float> x = values();
  const Fp8Matrix matrix = quantize_fp8(x, kRows, kCols, kInternal[static_cast<int>(GetParam())]);
  std::vector<std::uint8_t> payload(kRows * kCols);
  std::vector<float> scales(static_cast<std::size_t>(fp8_weight_scales(kRows, kCols, GetParam())));
  quantize_fp8(x, kRows, kCols, GetParam(), payload, scales);
  EXPECT_THAT(payload, ElementsAreArray(matrix.payload.as<std::uint8_t>()));
  EXPECT_THAT(scales, ElementsAreArray(matrix.scales.as<float>()));
}

TEST_P(QuantizeFp8, RefusesBuffersOfTheWrongSize) {
  const std::vector<float> x = values();
  std::vector<std::uint8_t> payload(kRows * kCols);
  std::vector<float> scales(static_cast<std::size_t>(fp8_weight_scales(kRows, kCols, GetParam())));
  const auto quantize = [&] {
    return message_of([&] { quantize_fp8(x, kRows, kCols, GetParam(), payload, scales); });
  };
  payload.pop_back();
  EXPECT_THAT(quantize(), HasSubstr("payload: holds 10399 elements; give rows * cols = 10400"));
  payload.push_back(0);
  scales.push_back(0.0F);
  EXPECT_THAT(quantize(), HasSubstr("scales: holds"));
}

}  // namespace
}  // namespace moebench
