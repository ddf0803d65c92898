// FP8 matrices: scale geometry, the formula by hand, whole matrices against rows, validation.
#include "moebench/quant/fp8.h"

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
constexpr std::uint64_t kSeed = 13;

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

std::vector<float> normal_values(std::int64_t count) {
  std::mt19937_64 random(kSeed);
  std::normal_distribution<float> normal(0.0F, 0.3F);
  std::vector<float> x(static_cast<std::size_t>(count));
  std::generate(x.begin(), x.end(), [&] { return normal(random); });
  return x;
}

/// The block of (row, col) as the scalings define it, by counting blocks one by one.
struct Region {
  std::int64_t row_size;
  std::int64_t col_size;
};
Region region_of(Fp8Scaling scaling, std::int64_t rows, std::int64_t cols) {
  switch (scaling) {
    case Fp8Scaling::kPerTensor:
      return {rows, cols};
    case Fp8Scaling::kPerRow:
      return {1, cols};
    case Fp8Scaling::kBlock128x128:
      return {128, 128};
    case Fp8Scaling::kBlock1x128:
      return {1, 128};
  }
  return {0, 0};
}

struct MatrixCase {
  Fp8Scaling scaling;
  std::int64_t rows;
  std::int64_t cols;
};

class Fp8Matrices : public ::testing::TestWithParam<MatrixCase> {
 protected:
  const Fp8Scaling scaling_ = GetParam().scaling;
  const std::int64_t rows_ = GetParam().rows;
  const std::int64_t cols_ = GetParam().cols;
};

TEST_P(Fp8Matrices, NumberTheirScalesBlockByBlock) {
  const Region region = region_of(scaling_, rows_, cols_);
  std::int64_t next = 0;
  for (std::int64_t row = 0; row < rows_; row += region.row_size) {
    for (std::int64_t col = 0; col < cols_; col += region.col_size, ++next) {
      const std::int64_t last_row = std::min(row + region.row_size, rows_) - 1;
      const std::int64_t last_col = std::min(col + region.col_size, cols_) - 1;
      ASSERT_EQ(fp8_scale_index(row, col, cols_, scaling_), next);
      ASSERT_EQ(fp8_scale_index(last_row, last_col, cols_, scaling_), next);
    }
  }
  EXPECT_EQ(fp8_scale_count(rows_, cols_, scaling_), next);
}

TEST_P(Fp8Matrices, QuantiseEachBlockByItsOwnAmax) {
  auto x = normal_values(rows_ * cols_);
  // Magnitudes that differ from block to block: a scale taken from a neighbour shows.
  for (std::int64_t i = 0; i < rows_ * cols_; ++i) {
    const std::int64_t row = i / cols_;
    const std::int64_t col = i % cols_;
    x[static_cast<std::size_t>(i)] *=
        std::exp2(static_cast<float>(row / 128 * 3 + col / 128 * 2 - row % 5));
  }
  const Fp8Matrix matrix = quantize_fp8(x, rows_, cols_, scaling_);
  validate_fp8(view(matrix), "quantised");
  ASSERT_EQ(matrix.payload.size(), rows_ * cols_);
  ASSERT_EQ(matrix.scales.size(), 4 * fp8_scale_count(rows_, cols_, scaling_));
  const Region region = region_of(scaling_, rows_, cols_);
  std::vector<float> amax(static_cast<std::size_t>(fp8_scale_count(rows_, cols_, scaling_)), 0.0F);
  const std::int64_t per_row = (cols_ + region.col_size - 1) / region.col_size;
  const auto block_of = [&](std::int64_t row, std::int64_t col) {
    return static_cast<std::size_t>(row / region.row_size * per_row + col / region.col_size);
  };
  for (std::int64_t i = 0; i < rows_ * cols_; ++i) {
    float& largest = amax[block_of(i / cols_, i % cols_)];
    largest = std::max(largest, std::fabs(x[static_cast<std::size_t>(i)]));
  }
  const auto scales = matrix.scales.as<float>();
  for (std::size_t b = 0; b < amax.size(); ++b) ASSERT_EQ(scales[b], amax[b] / 448.0F) << b;
  const auto payload = matrix.payload.as<std::uint8_t>();
  for (std::int64_t i = 0; i < rows_ * cols_; ++i) {
    const auto at = static_cast<std::size_t>(i);
    ASSERT_EQ(payload[at], encode_e4m3(x[at] / scales[block_of(i / cols_, i % cols_)]))
        << "seed " << kSeed << " row " << i / cols_ << " col " << i % cols_;
  }
}

TEST_P(Fp8Matrices, AgreeBetweenViewAndMatrix) {
  const Fp8Matrix matrix = make_fp8_matrix(rows_, cols_, scaling_);
  const Fp8View seen = view(matrix);
  EXPECT_EQ(seen.rows, rows_);
  EXPECT_EQ(seen.cols, cols_);
  EXPECT_EQ(seen.scaling, scaling_);
  EXPECT_EQ(seen.payload, matrix.payload.as<std::uint8_t>().data());
  EXPECT_EQ(seen.scales, matrix.scales.as<float>().data());
}

std::string name_of_case(const ::testing::TestParamInfo<MatrixCase>& test_info) {
  const char* const names[] = {"PerTensor", "PerRow", "Block128x128", "Block1x128"};
  return std::string(names[static_cast<int>(test_info.param.scaling)]) + "_" +
         std::to_string(test_info.param.rows) + "x" + std::to_string(test_info.param.cols);
}

std::vector<MatrixCase> matrix_cases() {
  std::vector<MatrixCase> cases;
  for (const Fp8Scaling scaling : {Fp8Scaling::kPerTensor, Fp8Scaling::kPerRow,
                                   Fp8Scaling::kBlock128x128, Fp8Scaling::kBlock1x128}) {
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {1, 128}, {5, 127}, {128, 128}, {129, 129}, {300, 272}, {256, 640}}) {
      cases.push_back({scaling, rows, cols});
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Shapes, Fp8Matrices, ::testing::ValuesIn(matrix_cases()), name_of_case);

TEST(MakeFp8Matrix, RejectsSizesThatAreNotPositiveOrTooLarge) {
  for (const auto& [rows, cols] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 4}, {4, 0}, {-1, 4}, {4, -7}}) {
    EXPECT_THAT(
        bad_input([r = rows, c = cols] { return make_fp8_matrix(r, c, Fp8Scaling::kPerTensor); }),
        AllOf(HasSubstr(std::to_string(rows) + " rows"),
              HasSubstr(std::to_string(cols) + " columns")));
  }
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  EXPECT_THAT(bad_input([&] { return make_fp8_matrix(kHuge, kHuge, Fp8Scaling::kPerRow); }),
              HasSubstr("2^63-1"));
}

TEST(Fp8ScaleCount, IsZeroForAnEmptyMatrixOfBlocksAndNeverDividesByZero) {
  EXPECT_EQ(fp8_scale_count(0, 128, Fp8Scaling::kBlock128x128), 0);
  EXPECT_EQ(fp8_scale_count(0, 0, Fp8Scaling::kPerTensor), 0);
}

TEST(Fp8Scale, DividesAmaxByTheLargestCode) {
  EXPECT_EQ(fp8_scale(448.0F), 1.0F);
  EXPECT_EQ(fp8_scale(1.0F), 1.0F / 448.0F);
  EXPECT_EQ(fp8_scale(0.0F), 1.0F);
}

TEST(Fp8Scale, IsNeverZero) {
  const std::vector<float> x = {0.0F, std::numeric_limits<float>::denorm_min()};
  EXPECT_GT(fp8_scale(x[1]), 0.0F);
  const Fp8Matrix matrix = quantize_fp8(x, 1, 2, Fp8Scaling::kPerTensor);
  validate_fp8(view(matrix), "tiny");
  EXPECT_EQ(matrix.payload.as<std::uint8_t>()[0], 0);
  EXPECT_EQ(decode_e4m3(matrix.payload.as<std::uint8_t>()[1]), 1.0F);
}

TEST(Fp8Scale, RejectsAmaxThatIsNoMagnitude) {
  for (const float amax : {kNan, kInf, -kInf, -1.0F}) {
    EXPECT_THAT(bad_input([&] { return fp8_scale(amax); }), HasSubstr("amax is"));
  }
}

TEST(Fp8Row, DividesSaturatesAndKeepsSigns) {
  const std::vector<float> x = {0.0F, -0.0F, 2.0F, -3.0F, 1000.0F, -kInf, kInf, 1e-30F};
  std::vector<std::uint8_t> payload(x.size());
  quantize_fp8_row_scalar(x.data(), static_cast<std::int64_t>(x.size()), 2.0F, payload.data());
  EXPECT_EQ(payload,
            (std::vector<std::uint8_t>{0x00, 0x80, 0x38, encode_e4m3(-1.5F), 0x7E, 0xFE, 0x7E, 0}));
}

TEST(Fp8Row, GivesOneNanForEveryKindOfNan) {
  const std::vector<float> x = {kNan, -kNan, 0.0F, -0.0F};
  std::vector<std::uint8_t> payload(x.size());
  quantize_fp8_row_scalar(x.data(), 4, 0.0F, payload.data());
  EXPECT_EQ(payload, (std::vector<std::uint8_t>(4, 0x7F)));
}

TEST(Fp8Row, UsesTrueDivisionNotAReciprocal) {
  // Quotients near a tie, where the last bit decides: a product with the reciprocal gives other
  // codes for some of them.
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<float> values(0.1F, 400.0F);
  int differing = 0;
  for (int i = 0; i < 2000; ++i) {
    const float scale = values(random);
    // On a tie of E4M3 times the scale: the last bit of the quotient decides.
    const float x = 17.0F * scale;
    std::uint8_t code = 0;
    quantize_fp8_row_scalar(&x, 1, scale, &code);
    ASSERT_EQ(code, encode_e4m3(x / scale)) << "seed " << kSeed << " scale " << scale;
    differing += code != encode_e4m3(x * (1.0F / scale)) ? 1 : 0;
  }
  EXPECT_GT(differing, 0);
}

TEST(AmaxOf, IsZeroForNothingAndNanForNan) {
  EXPECT_EQ(amax_of({}), 0.0F);
  EXPECT_EQ(amax_of(std::vector<float>{-0.0F}), 0.0F);
  EXPECT_EQ(amax_of(std::vector<float>{1.0F, -5.0F, 3.0F}), 5.0F);
  EXPECT_EQ(amax_of(std::vector<float>{1.0F, -kInf}), kInf);
  EXPECT_TRUE(std::isnan(amax_of(std::vector<float>{kInf, -kNan, 3.0F})));
}

TEST(QuantizeFp8, TakesAMatrixOfZeros) {
  const std::vector<float> x(6, 0.0F);
  for (const Fp8Scaling scaling : {Fp8Scaling::kPerTensor, Fp8Scaling::kPerRow,
                                   Fp8Scaling::kBlock128x128, Fp8Scaling::kBlock1x128}) {
    const Fp8Matrix matrix = quantize_fp8(x, 2, 3, scaling);
    for (const float scale : matrix.scales.as<float>()) EXPECT_EQ(scale, 1.0F);
    for (const std::uint8_t byte : matrix.payload.as<std::uint8_t>()) EXPECT_EQ(byte, 0);
  }
}

TEST(QuantizeFp8, CountsNonFiniteValuesAndNamesTheFirst) {
  auto x = normal_values(50 * 33);
  x[49 * 33 + 32] = kInf;
  x[20 * 33 + 1] = -kNan;
  for (const Fp8Scaling scaling : {Fp8Scaling::kPerTensor, Fp8Scaling::kPerRow,
                                   Fp8Scaling::kBlock128x128, Fp8Scaling::kBlock1x128}) {
    EXPECT_THAT(bad_input([&] { return quantize_fp8(x, 50, 33, scaling); }),
                AllOf(HasSubstr("2 of 1650 values"), HasSubstr("first at (row 20, col 1)")));
  }
}

TEST(QuantizeFp8, RejectsAWrongNumberOfValues) {
  const std::vector<float> x(7, 1.0F);
  EXPECT_THAT(bad_input([&] { return quantize_fp8(x, 2, 3, Fp8Scaling::kPerRow); }),
              AllOf(HasSubstr("7 values"), HasSubstr("exactly 6")));
}

std::string validation_message(const Fp8Matrix& matrix) {
  return bad_input([&] {
    validate_fp8(view(matrix), "w2");
    return 0;
  });
}

TEST(ValidateFp8, NamesNanValues) {
  Fp8Matrix matrix = quantize_fp8(normal_values(30 * 40), 30, 40, Fp8Scaling::kPerRow);
  matrix.payload.as<std::uint8_t>()[29 * 40 + 39] = 0x7F;
  matrix.payload.as<std::uint8_t>()[7 * 40 + 11] = 0xFF;
  EXPECT_THAT(validation_message(matrix),
              AllOf(HasSubstr("w2: 2 values are NaN"), HasSubstr("first at (row 7, col 11)")));
}

TEST(ValidateFp8, NamesBadScalesByTheirFirstElement) {
  for (const float bad : {kNan, kInf, 0.0F, -1.0F}) {
    Fp8Matrix matrix = quantize_fp8(normal_values(200 * 300), 200, 300, Fp8Scaling::kBlock128x128);
    matrix.scales.as<float>()[5] = bad;
    EXPECT_THAT(validation_message(matrix),
                AllOf(HasSubstr("w2: 1 scales are"), HasSubstr("first at (row 128, col 256)")))
        << bad;
  }
}

}  // namespace
}  // namespace moebench
