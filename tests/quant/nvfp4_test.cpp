// NVFP4 matrices: the formula by hand, round trips, whole matrices against rows, validation.
#include "moebench/quant/nvfp4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "moebench/core/dtype.h"
#include "moebench/core/error.h"

namespace moebench {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::uint64_t kSeed = 11;

template <typename Call>
std::string bad_input(Call call) {
  try {
    static_cast<void>(call());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

std::vector<float> normal_values(std::int64_t count, float deviation) {
  std::mt19937_64 random(kSeed);
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> x(static_cast<std::size_t>(count));
  std::generate(x.begin(), x.end(), [&] { return normal(random); });
  return x;
}

struct Block {
  std::vector<std::uint8_t> payload = std::vector<std::uint8_t>(8);
  std::uint8_t scale = 0;
};

Block quantize_block(const std::vector<float>& x, float global_scale) {
  Block block;
  quantize_nvfp4_row_scalar(x.data(), 16, global_scale, block.payload.data(), &block.scale);
  return block;
}

TEST(Nvfp4Row, PutsTheEvenColumnIntoTheLowNibble) {
  // gs = 1 and amax = 6 give a scale of one.
  const Block block =
      quantize_block({0.5F, 6, 1, -1.5F, 2, 3, 4, -6, 0, -0.5F, 0, 0, 0, 0, 0, 0}, 1.0F);
  EXPECT_EQ(block.scale, encode_e4m3(1.0F));
  EXPECT_EQ(block.payload, (std::vector<std::uint8_t>{0x71, 0xB2, 0x54, 0xF6, 0x90, 0, 0, 0}));
}

TEST(Nvfp4Row, FollowsTheFormulaStepByStep) {
  const auto x = normal_values(16, 0.02F);
  float amax = 0.0F;
  for (const float value : x) amax = std::max(amax, std::fabs(value));
  const float gs = 448.0F * 6.0F / 0.1F;
  const Block block = quantize_block(x, gs);
  const float sf = decode_e4m3(encode_e4m3(gs * (amax / 6.0F)));
  EXPECT_EQ(decode_e4m3(block.scale), sf);
  for (std::size_t i = 0; i < 16; ++i) {
    const auto byte = block.payload[i / 2];
    const int code = i % 2 == 0 ? byte & 0xF : byte >> 4;
    EXPECT_EQ(code, encode_e2m1(x[i] * (gs / sf))) << i;
  }
}

TEST(Nvfp4Row, GivesZeroScaleAndZerosForAZeroBlock) {
  const Block block = quantize_block(std::vector<float>(16, 0.0F), 100.0F);
  EXPECT_EQ(block.scale, 0);
  EXPECT_EQ(block.payload, std::vector<std::uint8_t>(8, 0));
}

TEST(Nvfp4Row, KeepsOnlySignsWhereTheScaleRoundsToZero) {
  std::vector<float> x(16, 1e-6F);
  x[1] = -1e-6F;
  const Block block = quantize_block(x, 1.0F);
  EXPECT_EQ(block.scale, 0);
  EXPECT_EQ(block.payload[0], 0x80);
  EXPECT_EQ(block.payload[1], 0x00);
}

TEST(Nvfp4Row, MarksABlockWithNanByItsScale) {
  std::vector<float> x(16, 1.0F);
  x[5] = -kNan;
  const Block block = quantize_block(x, 1.0F);
  EXPECT_EQ(block.scale, 0x7F);
  EXPECT_EQ(block.payload, std::vector<std::uint8_t>(8, 0x77));
}

TEST(Nvfp4Row, SaturatesInfinities) {
  std::vector<float> x(16, 1.0F);
  x[0] = kInf;
  x[1] = -kInf;
  const Block block = quantize_block(x, 1.0F);
  EXPECT_EQ(block.scale, 0x7E);
  EXPECT_EQ(block.payload[0], 0xF7);
  EXPECT_EQ(block.payload[1], 0x00) << "1/448 is below half of the smallest value";
}

TEST(Nvfp4Row, SubnormalBlocksQuantiseToZero) {
  const Block block =
      quantize_block(std::vector<float>(16, std::numeric_limits<float>::denorm_min()), 1.0F);
  EXPECT_EQ(block.scale, 0);
  EXPECT_EQ(block.payload, std::vector<std::uint8_t>(8, 0));
}

TEST(Nvfp4GlobalScale, MapsAmaxToTheLargestRepresentableProduct) {
  EXPECT_EQ(nvfp4_global_scale(1.0F), 2688.0F);
  EXPECT_EQ(nvfp4_global_scale(2688.0F), 1.0F);
  EXPECT_EQ(nvfp4_global_scale(0.3F), 2688.0F / 0.3F);
  EXPECT_EQ(nvfp4_global_scale(0.0F), 1.0F);
}

TEST(Nvfp4GlobalScale, StaysUsableAtTheEndsOfTheFloatRange) {
  for (const float amax : {std::numeric_limits<float>::denorm_min(), 1e-40F, 1e-35F, 1e-30F, 1e38F,
                           std::numeric_limits<float>::max()}) {
    const float gs = nvfp4_global_scale(amax);
    EXPECT_TRUE(std::isfinite(gs)) << amax;
    EXPECT_GT(gs, 0.0F) << amax;
    std::vector<float> x(32, 0.0F);
    x[3] = amax;
    const Nvfp4Matrix matrix = quantize_nvfp4(x, 1, 32);
    validate_nvfp4(view(matrix), "edge");
    std::vector<float> back(32);
    dequantize_nvfp4_row_unscaled(view(matrix), 0, back.data());
    for (std::size_t i = 0; i < back.size(); ++i) {
      if (i != 3) {
        EXPECT_EQ(back[i], 0.0F) << amax << " " << i;
      }
    }
    if (amax >= 1e-35F) {
      EXPECT_NEAR(
          static_cast<double>(back[3]) / static_cast<double>(gs) / static_cast<double>(amax), 1.0,
          0.07)
          << amax;
    }
  }
}

TEST(Nvfp4GlobalScale, RejectsAmaxThatIsNoMagnitude) {
  for (const float amax : {kNan, kInf, -kInf, -1.0F}) {
    EXPECT_THAT(bad_input([&] { return nvfp4_global_scale(amax); }), HasSubstr("amax is"));
  }
}

TEST(MakeNvfp4Matrix, AllocatesPayloadAndScales) {
  const Nvfp4Matrix linear = make_nvfp4_matrix(130, 80);
  EXPECT_EQ(linear.payload.size(), 130 * 40);
  EXPECT_EQ(linear.scales.size(), 130 * 5);
  const Nvfp4Matrix swizzled = make_nvfp4_matrix(130, 80, ScaleLayout::kSwizzled128x4);
  EXPECT_EQ(swizzled.scales.size(), 2 * 2 * 512);
  EXPECT_THROW(static_cast<void>(view(swizzled)), Error);
}

TEST(MakeNvfp4Matrix, RejectsSizesThatHaveNoBlocks) {
  for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 16}, {-1, 16}, {1, 0}, {1, -16}, {1, 8}, {4, 24}}) {
    const std::string message = bad_input([r = rows, c = cols] { return make_nvfp4_matrix(r, c); });
    EXPECT_THAT(message, AllOf(HasSubstr(std::to_string(rows) + " rows"),
                               HasSubstr(std::to_string(cols) + " columns"), HasSubstr("16")));
  }
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  EXPECT_THAT(bad_input([&] { return make_nvfp4_matrix(kHuge, kHuge); }), HasSubstr("2^63-1"));
}

TEST(QuantizeNvfp4, EqualsTheScalarRowsInEitherLayout) {
  constexpr std::int64_t kRows = 133;
  constexpr std::int64_t kCols = 336;
  const auto x = normal_values(kRows * kCols, 0.05F);
  const Nvfp4Matrix linear = quantize_nvfp4(x, kRows, kCols);
  const Nvfp4Matrix swizzled = quantize_nvfp4(x, kRows, kCols, ScaleLayout::kSwizzled128x4);
  float amax = 0.0F;
  for (const float value : x) amax = std::max(amax, std::fabs(value));
  EXPECT_EQ(linear.global_scale, nvfp4_global_scale(amax));
  EXPECT_EQ(swizzled.global_scale, linear.global_scale);

  std::vector<std::uint8_t> payload(kRows * kCols / 2);
  std::vector<std::uint8_t> scales(kRows * kCols / 16);
  for (std::int64_t row = 0; row < kRows; ++row) {
    quantize_nvfp4_row_scalar(x.data() + row * kCols, kCols, linear.global_scale,
                              payload.data() + row * kCols / 2, scales.data() + row * kCols / 16);
  }
  EXPECT_TRUE(std::ranges::equal(linear.payload.as<std::uint8_t>(), payload));
  EXPECT_TRUE(std::ranges::equal(linear.scales.as<std::uint8_t>(), scales));
  EXPECT_TRUE(std::ranges::equal(swizzled.payload.as<std::uint8_t>(), payload));
  std::vector<std::uint8_t> expected(static_cast<std::size_t>(swizzled.scales.size()));
  swizzle_scales(scales, kRows, kCols / 16, expected);
  EXPECT_TRUE(std::ranges::equal(swizzled.scales.as<std::uint8_t>(), expected));
}

TEST(QuantizeNvfp4, ReproducesValuesThatTheFormatHolds) {
  // amax = 2688 gives gs = 1; each block's largest value is 6 * sf, so that nothing is rounded.
  constexpr std::int64_t kRows = 3;
  constexpr std::int64_t kCols = 64;
  std::vector<float> x;
  for (std::int64_t i = 0; i < kRows * kCols; ++i) {
    const float sf = i < 16 ? 448.0F : std::exp2(static_cast<float>(i / 16 % 9 - 4));
    const float value = decode_e2m1(static_cast<std::uint8_t>((i * 7) % 16));
    x.push_back(i % 16 == 0 ? 6.0F * sf : value * sf);
  }
  const Nvfp4Matrix matrix = quantize_nvfp4(x, kRows, kCols);
  ASSERT_EQ(matrix.global_scale, 1.0F);
  std::vector<float> back(kCols);
  for (std::int64_t row = 0; row < kRows; ++row) {
    dequantize_nvfp4_row_unscaled(view(matrix), row, back.data());
    for (std::int64_t col = 0; col < kCols; ++col) {
      EXPECT_EQ(back[static_cast<std::size_t>(col)], x[static_cast<std::size_t>(row * kCols + col)])
          << row << " " << col;
    }
  }
}

TEST(QuantizeNvfp4, StaysWithinTheFormatsErrorOnNormalValues) {
  constexpr std::int64_t kRows = 8;
  constexpr std::int64_t kCols = 1024;
  const auto x = normal_values(kRows * kCols, 0.02F);
  const Nvfp4Matrix matrix = quantize_nvfp4(x, kRows, kCols);
  std::vector<float> back(kCols);
  for (std::int64_t row = 0; row < kRows; ++row) {
    dequantize_nvfp4_row_unscaled(view(matrix), row, back.data());
    for (std::size_t block = 0; block < kCols / 16; ++block) {
      const auto first = static_cast<std::size_t>(row * kCols) + block * 16;
      float amax = 0.0F;
      for (std::size_t i = 0; i < 16; ++i) amax = std::max(amax, std::fabs(x[first + i]));
      for (std::size_t i = 0; i < 16; ++i) {
        const float value = back[block * 16 + i] / matrix.global_scale;
        // Half the widest step, 1/6 of amax, and E4M3's 1/16 in the scale.
        EXPECT_NEAR(value, x[first + i], amax * (1.0F / 6.0F + 1.0F / 16.0F));
      }
    }
  }
}

TEST(QuantizeNvfp4, TakesAMatrixOfZeros) {
  const std::vector<float> x(64, 0.0F);
  const Nvfp4Matrix matrix = quantize_nvfp4(x, 2, 32);
  EXPECT_EQ(matrix.global_scale, 1.0F);
  validate_nvfp4(view(matrix), "zeros");
  for (const std::uint8_t byte : matrix.payload.as<std::uint8_t>()) EXPECT_EQ(byte, 0);
  for (const std::uint8_t byte : matrix.scales.as<std::uint8_t>()) EXPECT_EQ(byte, 0);
}

TEST(QuantizeNvfp4, CountsNonFiniteValuesAndNamesTheFirst) {
  auto x = normal_values(40 * 32, 1.0F);
  x[37 * 32 + 4] = kNan;
  x[5 * 32 + 17] = -kInf;
  x[5 * 32 + 18] = kInf;
  EXPECT_THAT(bad_input([&] { return quantize_nvfp4(x, 40, 32); }),
              AllOf(HasSubstr("3 of 1280 values"), HasSubstr("first at (row 5, col 17)")));
}

TEST(QuantizeNvfp4, RejectsAWrongNumberOfValues) {
  const std::vector<float> x(100, 1.0F);
  EXPECT_THAT(bad_input([&] { return quantize_nvfp4(x, 2, 32); }),
              AllOf(HasSubstr("100 values"), HasSubstr("exactly 64")));
}

TEST(DequantizeNvfp4, DecodesEveryByteUnderEveryScale) {
  for (unsigned scale = 0; scale < 0x7F; ++scale) {
    Nvfp4Matrix matrix = make_nvfp4_matrix(2, 256);
    for (std::size_t i = 0; i < 256; ++i)
      matrix.payload.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i);
    for (auto& byte : matrix.scales.as<std::uint8_t>()) byte = static_cast<std::uint8_t>(scale);
    std::vector<float> out(256);
    for (std::int64_t row = 0; row < 2; ++row) {
      dequantize_nvfp4_row_unscaled(view(matrix), row, out.data());
      for (std::size_t col = 0; col < 256; ++col) {
        const std::size_t byte = static_cast<std::size_t>(row) * 128 + col / 2;
        const auto code = static_cast<std::uint8_t>(col % 2 == 0 ? byte & 0xF : byte >> 4);
        const float expected = decode_e2m1(code) * decode_e4m3(static_cast<std::uint8_t>(scale));
        ASSERT_EQ(out[col], expected) << scale << " " << byte;
        // The promise of the header: exact in 16 bits too.
        ASSERT_EQ(decode_fp16(encode_fp16(expected)), expected);
        ASSERT_EQ(decode_bf16(encode_bf16(expected)), expected);
      }
    }
  }
}

class ValidateNvfp4 : public ::testing::Test {
 protected:
  void SetUp() override {
    matrix_ = quantize_nvfp4(normal_values(20 * 64, 1.0F), 20, 64);
    validate_nvfp4(view(matrix_), "before");
  }
  std::uint8_t& scale(std::size_t row, std::size_t group) {
    return matrix_.scales.as<std::uint8_t>()[row * 4 + group];
  }
  std::string message() const {
    return bad_input([&] {
      validate_nvfp4(view(matrix_), "w1.weight_scale");
      return 0;
    });
  }
  Nvfp4Matrix matrix_;
};

TEST_F(ValidateNvfp4, NamesNanScales) {
  scale(17, 0) = 0xFF;
  scale(3, 2) = 0x7F;
  EXPECT_THAT(message(), AllOf(HasSubstr("w1.weight_scale: 2 block scales are NaN"),
                               HasSubstr("first at (row 3, col 32)")));
}

TEST_F(ValidateNvfp4, NamesNegativeScales) {
  scale(19, 3) = 0x81;
  EXPECT_THAT(message(),
              AllOf(HasSubstr("1 block scales are negative"), HasSubstr("(row 19, col 48)")));
}

TEST_F(ValidateNvfp4, NamesZeroScalesOverValues) {
  scale(0, 1) = 0;
  EXPECT_THAT(message(), AllOf(HasSubstr("1 block scales are zero over a payload"),
                               HasSubstr("(row 0, col 16)")));
}

TEST_F(ValidateNvfp4, AllowsZeroScalesOverZerosOfEitherSign) {
  scale(0, 1) = 0;
  auto payload = matrix_.payload.as<std::uint8_t>();
  for (std::size_t i = 8; i < 16; ++i) payload[i] = i % 2 == 0 ? 0x88 : 0x08;
  EXPECT_NO_THROW(validate_nvfp4(view(matrix_), "x"));
}

TEST_F(ValidateNvfp4, NamesABadGlobalScale) {
  for (const float bad : {0.0F, -1.0F, kNan, kInf}) {
    matrix_.global_scale = bad;
    EXPECT_THAT(message(), HasSubstr("w1.weight_scale: global scale is "));
  }
}

}  // namespace
}  // namespace moebench
