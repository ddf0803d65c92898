// The scalar steps of the CUDA kernels' quantisers, run on the host, against quant/ and core/.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "moebench/backend/cuda/quantize.h"
#include "moebench/core/dtype.h"
#include "moebench/quant/fp8.h"
#include "moebench/quant/nvfp4.h"

namespace moebench::cuda {
namespace {

/// Calls check(x) for every BF16 number, and for floats just beside it and beside the middle to the
/// next: all ties of E2M1 and E4M3 and their neighbours are among them.
template <typename Check>
void for_each_critical_float(Check check) {
  for (std::uint32_t high = 0; high <= 0xFFFF; ++high) {
    for (const std::uint32_t low : {0x0000U, 0x0001U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) {
      const auto x = std::bit_cast<float>(high << 16 | low);
      if (!std::isnan(x)) check(x);
    }
  }
}

std::vector<std::uint16_t> finite_halves(ActType type) {
  std::vector<std::uint16_t> all;
  for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if (std::isfinite(decode_act(type, half))) all.push_back(half);
  }
  return all;
}

TEST(CudaQuantize, RoundsToE2m1AsTheDefinitionDoes) {
  for_each_critical_float([](float x) {
    const std::uint8_t code = encode_e2m1(x);
    ASSERT_EQ(e2m1_code(x), code) << x;
    ASSERT_EQ(bits_of(round_to_e2m1(x)), bits_of(decode_e2m1(code))) << x;
  });
}

TEST(CudaQuantize, RoundsToE4m3AsTheDefinitionDoes) {
  for_each_critical_float([](float x) {
    ASSERT_EQ(rounded_e4m3_code(x), encode_e4m3(x)) << x;
    ASSERT_EQ(e4m3_codes(1.0F, x), encode_e4m3(x) * 256U + encode_e4m3(1.0F)) << x;
  });
}

TEST(CudaQuantize, DecodesEveryPositiveE4m3Code) {
  for (std::uint8_t code = 0; code < 0x7F; ++code) EXPECT_EQ(e4m3_value(code), decode_e4m3(code));
}

TEST(CudaQuantize, MakesTheScalesOfQuant) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100000; ++i) {
    const auto amax = std::bit_cast<float>(static_cast<std::uint32_t>(random() & 0x7FFFFFFF));
    if (!std::isfinite(amax)) continue;
    ASSERT_EQ(fp8_scale_of(amax), fp8_scale(amax)) << amax;
    ASSERT_EQ(nvfp4_global_scale_of(amax), nvfp4_global_scale(amax)) << amax;
  }
  for (const float amax :
       {0.0F, std::numeric_limits<float>::denorm_min(), 448.0F, 0x1p-149F * 300}) {
    EXPECT_EQ(fp8_scale_of(amax), fp8_scale(amax)) << amax;
    EXPECT_EQ(nvfp4_global_scale_of(amax), nvfp4_global_scale(amax)) << amax;
  }
}

/// Scales of all sizes, subnormal ones and those at the ends of the quick way of dividing among
/// them.
std::vector<float> critical_scales() {
  std::vector<float> scales = {std::numeric_limits<float>::denorm_min(),
                               std::numeric_limits<float>::max(), 1.0F, 4.0F / 448.0F};
  for (const float power : {0x1p-126F, 0x1p-91F, 0x1p-90F, 0x1p-24F, 0x1p-7F, 0x1p90F, 0x1p100F}) {
    scales.push_back(std::nextafter(power, 0.0F));
    scales.push_back(power);
    scales.push_back(std::nextafter(power, 2 * power));
  }
  std::mt19937_64 random(2);
  for (int i = 0; i < 40; ++i) {
    const float fraction = std::uniform_real_distribution<float>(1.0F, 2.0F)(random);
    scales.push_back(std::ldexp(fraction, static_cast<int>(random() % 40) - 30));
    scales.push_back(std::ldexp(fraction, static_cast<int>(random() % 250) - 126));
  }
  return scales;
}

class CudaScaleDivider : public ::testing::TestWithParam<ActType> {};

TEST_P(CudaScaleDivider, GivesTheCodesOfIeeeDivision) {
  const auto halves = finite_halves(GetParam());
  std::vector<float> values;
  for (const std::uint16_t half : halves) values.push_back(decode_act(GetParam(), half));
  std::vector<std::uint8_t> expected(values.size());
  for (const float scale : critical_scales()) {
    quantize_fp8_row(values.data(), static_cast<std::int64_t>(values.size()), scale,
                     expected.data());
    const ScaleDivider divide_by_scale(scale);
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(e4m3_code(divide_by_scale(values[i])), expected[i]) << values[i] << " / " << scale;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaScaleDivider, ::testing::Values(ActType::kFp16, ActType::kBf16),
                         [](const auto& type) { return name_of(type.param); });

TEST(CudaQuantize, SixthsAreThoseOfIeeeDivision) {
  for (const std::uint16_t half : finite_halves(ActType::kFp16)) {
    const float amax = std::fabs(decode_fp16(half));
    ASSERT_EQ(bits_of(sixth_of<true>(amax)), bits_of(amax / 6.0F)) << amax;
  }
  for (const std::uint16_t half : finite_halves(ActType::kBf16)) {
    const float amax = std::fabs(decode_bf16(half));
    ASSERT_EQ(bits_of(sixth_of<false>(amax)), bits_of(amax / 6.0F)) << amax;
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(sixth_of<true>(infinity), infinity);
  EXPECT_EQ(sixth_of<false>(infinity), infinity);
}

TEST(CudaQuantize, QuotientsOfE4m3ScalesAreThoseOfIeeeDivision) {
  // From a reciprocal that is off by an ulp or two, as the device's is before its one step.
  std::mt19937_64 random(5);
  for (std::uint8_t code = 1; code < 0x7F; ++code) {
    const float scale = decode_e4m3(code);
    for (int i = 0; i < 2000; ++i) {
      const float fraction = std::uniform_real_distribution<float>(1.0F, 2.0F)(random);
      const float global_scale = std::ldexp(fraction, static_cast<int>(random() % 180) - 90);
      ASSERT_TRUE(divides_by_reciprocal(global_scale));
      const float near = float_of(bits_of(1.0F / scale) + static_cast<std::uint32_t>(i % 5) - 2);
      const float reciprocal = std::fma(std::fma(-scale, near, 1.0F), near, near);
      ASSERT_EQ(reciprocal, 1.0F / scale) << scale;
      ASSERT_EQ(refined_quotient(global_scale, scale, reciprocal), global_scale / scale)
          << global_scale << " / " << scale;
    }
  }
}

TEST(CudaQuantize, QuantizesNvfp4BlocksAsQuantDoes) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  for (int round = 0; round < 20000; ++round) {
    std::vector<float> values(kNvfp4BlockSize);
    const float size = std::ldexp(1.0F, static_cast<int>(random() % 60) - 30);
    float amax = 0.0F;
    for (float& value : values) {
      value = decode_fp16(encode_fp16(normal(random))) * size;
      amax = std::max(amax, std::fabs(value));
    }
    if (round % 50 == 0) values.assign(values.size(), amax = 0.0F);
    const float global_scale = round % 3 == 0 ? nvfp4_global_scale(2 * amax)
                                              : std::ldexp(1.0F + normal(random) / 8,
                                                           static_cast<int>(random() % 60) - 20);
    std::vector<std::uint8_t> payload(values.size() / 2);
    std::uint8_t scale_code = 0;
    quantize_nvfp4_row_scalar(values.data(), kNvfp4BlockSize, global_scale, payload.data(),
                              &scale_code);

    const Nvfp4Scale scale = nvfp4_scale(amax, global_scale);
    ASSERT_EQ(scale.code, scale_code);
    ASSERT_EQ(scale.value, decode_e4m3(scale_code));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint8_t code = payload[i / 2] >> (i % 2 * 4) & 0xF;
      ASSERT_EQ(e2m1_code(multiply(values[i], scale.factor)), code);
      const float product = multiply(round_to_e2m1(multiply(values[i], scale.factor)), scale.value);
      ASSERT_EQ(bits_of(product), bits_of(decode_e2m1(code) * decode_e4m3(scale_code)));
      for (const ActType type : {ActType::kFp16, ActType::kBf16}) {
        ASSERT_EQ(decode_act(type, encode_act(type, product)), product);
      }
    }
  }
}

}  // namespace
}  // namespace moebench::cuda
