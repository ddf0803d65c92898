// The narrow formats at named points: every code, ties, saturation, NaN, subnormals, single
// rounding of doubles.
#include "moebench/core/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/core/nearest_code.h"

namespace moebench {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kFloatMax = std::numeric_limits<float>::max();
constexpr float kFloatTiny = std::numeric_limits<float>::denorm_min();

float above(float x) { return std::nextafterf(x, kInf); }
float below(float x) { return std::nextafterf(x, -kInf); }

/// -0 and +0 differ, NaNs of one sign and payload agree.
std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

struct Rounding {
  float x;
  float expected;
};

class E2m1Rounds : public ::testing::TestWithParam<Rounding> {};
TEST_P(E2m1Rounds, ToNearestTiesToEven) {
  const auto [x, expected] = GetParam();
  EXPECT_EQ(bits_of(decode_e2m1(encode_e2m1(x))), bits_of(expected)) << "x=" << x;
  EXPECT_EQ(bits_of(decode_e2m1(encode_e2m1(-x))), bits_of(-expected)) << "x=" << -x;
}
INSTANTIATE_TEST_SUITE_P(
    Points, E2m1Rounds,
    ::testing::Values(Rounding{0.0F, 0.0F}, Rounding{kFloatTiny, 0.0F}, Rounding{0.25F, 0.0F},
                      Rounding{above(0.25F), 0.5F}, Rounding{below(0.75F), 0.5F},
                      Rounding{0.75F, 1.0F}, Rounding{1.25F, 1.0F}, Rounding{above(1.25F), 1.5F},
                      Rounding{below(1.75F), 1.5F}, Rounding{1.75F, 2.0F}, Rounding{2.5F, 2.0F},
                      Rounding{above(2.5F), 3.0F}, Rounding{below(3.5F), 3.0F},
                      Rounding{3.5F, 4.0F}, Rounding{5.0F, 4.0F}, Rounding{above(5.0F), 6.0F},
                      Rounding{6.0F, 6.0F}, Rounding{7.0F, 6.0F}, Rounding{8.0F, 6.0F},
                      Rounding{kFloatMax, 6.0F}, Rounding{kInf, 6.0F}));

TEST(E2m1, DecodesEveryCode) {
  const std::vector<float> magnitudes = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
  for (unsigned code = 0; code < 16; ++code) {
    const float magnitude = magnitudes[code % 8];
    const float expected = code < 8 ? magnitude : -magnitude;
    EXPECT_EQ(bits_of(decode_e2m1(static_cast<std::uint8_t>(code))), bits_of(expected)) << code;
    EXPECT_EQ(encode_e2m1(expected), code);
  }
}

TEST(E2m1, IgnoresTheHighNibbleOfACode) { EXPECT_EQ(decode_e2m1(0xF3), 1.5F); }

TEST(E2m1, EncodesNanOfEitherSignAsPlusSix) {
  EXPECT_EQ(encode_e2m1(kNan), 0x7);
  EXPECT_EQ(encode_e2m1(std::copysign(kNan, -1.0F)), 0x7);
  EXPECT_EQ(encode_e2m1(std::bit_cast<float>(0x7F800001U)), 0x7);
}

class E4m3Rounds : public ::testing::TestWithParam<Rounding> {};
TEST_P(E4m3Rounds, ToNearestTiesToEven) {
  const auto [x, expected] = GetParam();
  EXPECT_EQ(bits_of(decode_e4m3(encode_e4m3(x))), bits_of(expected)) << "x=" << x;
  EXPECT_EQ(bits_of(decode_e4m3(encode_e4m3(-x))), bits_of(-expected)) << "x=" << -x;
}
INSTANTIATE_TEST_SUITE_P(
    Points, E4m3Rounds,
    ::testing::Values(Rounding{0.0F, 0.0F}, Rounding{kFloatTiny, 0.0F}, Rounding{0x1p-10F, 0.0F},
                      Rounding{above(0x1p-10F), 0x1p-9F}, Rounding{0x1p-9F, 0x1p-9F},
                      Rounding{0x1.8p-9F, 0x1p-8F}, Rounding{0x1.4p-8F, 0x1p-8F},
                      Rounding{0x7p-9F, 0x7p-9F}, Rounding{0x7.8p-9F, 0x1p-6F},
                      Rounding{below(0x7.8p-9F), 0x7p-9F}, Rounding{0x1p-6F, 0x1p-6F},
                      Rounding{1.0F, 1.0F}, Rounding{1.0625F, 1.0F}, Rounding{1.1875F, 1.25F},
                      Rounding{above(1.0625F), 1.125F}, Rounding{17.0F, 16.0F},
                      Rounding{19.0F, 20.0F}, Rounding{432.0F, 416.0F + 32.0F},
                      Rounding{448.0F, 448.0F}, Rounding{464.0F, 448.0F}, Rounding{480.0F, 448.0F},
                      Rounding{above(464.0F), 448.0F}, Rounding{kFloatMax, 448.0F},
                      Rounding{kInf, 448.0F}));

TEST(E4m3, DecodesEveryCode) {
  for (unsigned code = 0; code < 256; ++code) {
    const float actual = decode_e4m3(static_cast<std::uint8_t>(code));
    const unsigned field = (code >> 3) & 15;
    const unsigned fraction = code & 7;
    if (field == 15 && fraction == 7) {
      EXPECT_TRUE(std::isnan(actual)) << code;
      EXPECT_EQ(std::signbit(actual), code >= 0x80) << code;
    } else {
      const double magnitude = field == 0
                                   ? fraction / 512.0
                                   : (8.0 + fraction) * std::exp2(static_cast<int>(field)) / 1024.0;
      EXPECT_EQ(actual, static_cast<float>(code < 0x80 ? magnitude : -magnitude)) << code;
      EXPECT_EQ(std::signbit(actual), code >= 0x80) << code;
    }
    EXPECT_EQ(encode_e4m3(actual), code);
  }
}

TEST(E4m3, KeepsNanAndItsSign) {
  EXPECT_EQ(encode_e4m3(kNan), 0x7F);
  EXPECT_EQ(encode_e4m3(std::copysign(kNan, -1.0F)), 0xFF);
  EXPECT_EQ(encode_e4m3(std::bit_cast<float>(0x7F800001U)), 0x7F);
}

TEST(E8m0, DecodesEveryCode) {
  for (int code = 0; code < 255; ++code) {
    const float expected = static_cast<float>(std::exp2(code - 127));
    EXPECT_EQ(decode_e8m0(static_cast<std::uint8_t>(code)), expected) << code;
    EXPECT_EQ(encode_e8m0(expected), code);
  }
  EXPECT_TRUE(std::isnan(decode_e8m0(0xFF)));
}

TEST(E8m0, RoundsUpToTheNextPowerOfTwo) {
  for (int code = 1; code < 254; ++code) {
    const float power = std::ldexp(1.0F, code - 127);
    EXPECT_EQ(encode_e8m0(above(power)), code + 1);
    EXPECT_EQ(encode_e8m0(below(power)), code);
    EXPECT_EQ(encode_e8m0(1.5F * power), code + 1);
  }
}

TEST(E8m0, ClampsToItsRange) {
  EXPECT_EQ(encode_e8m0(0.0F), 0);
  EXPECT_EQ(encode_e8m0(-0.0F), 0);
  EXPECT_EQ(encode_e8m0(kFloatTiny), 0);
  EXPECT_EQ(encode_e8m0(0x1p-127F), 0);
  EXPECT_EQ(encode_e8m0(above(0x1p-127F)), 1);
  EXPECT_EQ(encode_e8m0(0x1p127F), 254);
  EXPECT_EQ(encode_e8m0(kFloatMax), 254);
}

TEST(E8m0, GivesNanWhereNoScaleExists) {
  for (const float x : {kInf, -kInf, kNan, -1.0F, -kFloatTiny, -kFloatMax}) {
    EXPECT_EQ(encode_e8m0(x), 0xFF) << x;
  }
}

TEST(Fp16, DecodesAndReencodesEveryCode) {
  const auto table = testing::fp16_values();
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto code = static_cast<std::uint16_t>(bits);
    const unsigned magnitude = bits & 0x7FFF;
    const float actual = decode_fp16(code);
    ASSERT_EQ(std::signbit(actual), bits >= 0x8000) << bits;
    if (magnitude < 0x7C00) {
      ASSERT_EQ(std::fabs(static_cast<double>(actual)), table.values[magnitude]) << bits;
    } else if (magnitude == 0x7C00) {
      ASSERT_TRUE(std::isinf(actual)) << bits;
    } else {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    }
    const unsigned quieted = magnitude > 0x7C00 ? bits | 0x200 : bits;
    ASSERT_EQ(encode_fp16(actual), quieted);
    if (magnitude <= 0x7C00) {
      ASSERT_EQ(encode_act(ActType::kFp16, static_cast<double>(actual)), bits);
    }
  }
}

TEST(Bf16, DecodesAndReencodesEveryCode) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto code = static_cast<std::uint16_t>(bits);
    const float actual = decode_bf16(code);
    ASSERT_EQ(bits_of(actual), bits << 16);
    const bool nan = (bits & 0x7FFF) > 0x7F80;
    ASSERT_EQ(encode_bf16(actual), nan ? bits | 0x40 : bits);
    if (!nan) {
      ASSERT_EQ(encode_act(ActType::kBf16, static_cast<double>(actual)), bits);
    }
  }
}

TEST(Fp16, OverflowsToInfinityFromTheTie) {
  EXPECT_EQ(encode_fp16(65504.0F), 0x7BFF);
  EXPECT_EQ(encode_fp16(below(65520.0F)), 0x7BFF);
  EXPECT_EQ(encode_fp16(65520.0F), 0x7C00);
  EXPECT_EQ(encode_fp16(-65520.0F), 0xFC00);
  EXPECT_EQ(encode_fp16(kFloatMax), 0x7C00);
  EXPECT_EQ(encode_fp16(kInf), 0x7C00);
}

TEST(Fp16, RoundsSubnormals) {
  EXPECT_EQ(encode_fp16(0x1p-25F), 0);
  EXPECT_EQ(encode_fp16(above(0x1p-25F)), 1);
  EXPECT_EQ(encode_fp16(0x1.8p-24F), 2);
  EXPECT_EQ(encode_fp16(-kFloatTiny), 0x8000);
  EXPECT_EQ(encode_fp16(0x1.FFCp-15F), 0x400) << "largest subnormal's tie carries into the normals";
}

TEST(Bf16, OverflowsToInfinityFromTheTie) {
  EXPECT_EQ(encode_bf16(std::bit_cast<float>(0x7F7F7FFFU)), 0x7F7F);
  EXPECT_EQ(encode_bf16(std::bit_cast<float>(0x7F7F8000U)), 0x7F80);
  EXPECT_EQ(encode_bf16(std::bit_cast<float>(0xFF7F8000U)), 0xFF80);
  EXPECT_EQ(encode_bf16(kInf), 0x7F80);
}

TEST(SixteenBits, KeepNanQuietWithSign) {
  // A payload in the lowest bits only must not turn into an infinity.
  for (const std::uint32_t nan : {0x7F800001U, 0x7FC00000U, 0x7FFFFFFFU}) {
    EXPECT_EQ(encode_fp16(std::bit_cast<float>(nan)), 0x7E00 | ((nan >> 13) & 0x3FF));
    EXPECT_EQ(encode_bf16(std::bit_cast<float>(nan)), 0x7FC0 | ((nan >> 16) & 0x7F));
    EXPECT_EQ(encode_fp16(std::bit_cast<float>(nan | 0x80000000U)) & 0x8000, 0x8000);
    EXPECT_EQ(encode_bf16(std::bit_cast<float>(nan | 0x80000000U)) & 0x8000, 0x8000);
  }
  const double nan = std::bit_cast<double>(std::uint64_t{0x7FF0000000000001});
  EXPECT_EQ(encode_act(ActType::kFp16, nan), 0x7E00);
  EXPECT_EQ(encode_act(ActType::kBf16, nan), 0x7FC0);
}

TEST(SixteenBits, RoundDoublesOnlyOnce) {
  // Just above a tie, by less than a float can hold: rounding through float would fall onto the tie
  // and then to even.
  const double fp16_tie = 1.0 + 0x1p-11;
  EXPECT_EQ(encode_act(ActType::kFp16, fp16_tie), 0x3C00);
  EXPECT_EQ(encode_act(ActType::kFp16, fp16_tie + 0x1p-40), 0x3C01);
  EXPECT_EQ(encode_fp16(static_cast<float>(fp16_tie + 0x1p-40)), 0x3C00);
  const double bf16_tie = 1.0 + 0x1p-8;
  EXPECT_EQ(encode_act(ActType::kBf16, bf16_tie), 0x3F80);
  EXPECT_EQ(encode_act(ActType::kBf16, bf16_tie + 0x1p-40), 0x3F81);
  EXPECT_EQ(encode_bf16(static_cast<float>(bf16_tie + 0x1p-40)), 0x3F80);
}

TEST(SixteenBits, TakeDoublesOutsideTheFloatRange) {
  EXPECT_EQ(encode_act(ActType::kFp16, 1e300), 0x7C00);
  EXPECT_EQ(encode_act(ActType::kBf16, -1e300), 0xFF80);
  EXPECT_EQ(encode_act(ActType::kFp16, -1e-320), 0x8000);
  EXPECT_EQ(encode_act(ActType::kBf16, 1e-320), 0);
  EXPECT_EQ(encode_act(ActType::kBf16, 0x1p-134), 0);
  EXPECT_EQ(encode_act(ActType::kBf16, std::nextafter(0x1p-134, 1.0)), 1);
  EXPECT_EQ(encode_act(ActType::kBf16, 0x1.FFp127), 0x7F80);
  EXPECT_EQ(encode_act(ActType::kBf16, std::nextafter(0x1.FFp127, 0.0)), 0x7F7F);
}

TEST(ActType, SelectsTheFormatAndItsName) {
  EXPECT_EQ(std::string(name_of(ActType::kFp16)), "fp16");
  EXPECT_EQ(std::string(name_of(ActType::kBf16)), "bf16");
  EXPECT_EQ(encode_act(ActType::kFp16, 1.5F), 0x3E00);
  EXPECT_EQ(encode_act(ActType::kBf16, 1.5F), 0x3FC0);
  EXPECT_EQ(decode_act(ActType::kFp16, 0x3E00), 1.5F);
  EXPECT_EQ(decode_act(ActType::kBf16, 0x3FC0), 1.5F);
}

}  // namespace
}  // namespace moebench
