// Philox against published vectors, and every vector form of philox_row against the scalar one.
#include "moebench/moe/philox.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "moebench/moe/philox_kernels.h"

namespace moebench {
namespace {

TEST(Philox, MatchesTheRandom123KnownAnswers) {
  constexpr std::uint32_t kOnes = 0xFFFFFFFF;
  EXPECT_EQ(philox4x32(0, {0, 0, 0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32(~std::uint64_t{0}, {kOnes, kOnes, kOnes, kOnes}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(IrwinHall, IsTheCentredSumOfBytes) {
  EXPECT_EQ(irwin_hall(0), -510);
  EXPECT_EQ(irwin_hall(0xFFFFFFFF), 510);
  EXPECT_EQ(irwin_hall(0x01020304), 10 - 510);
  EXPECT_EQ(irwin_hall(0xFF00FF00), 0);
}

TEST(PhiloxRow, FollowsTheCounterLayout) {
  constexpr std::uint64_t kSeed = 0x123456789ABCDEF0;
  std::vector<float> row(10);
  philox_row_scalar(kSeed, Stream::kDown, 7, 9, 0.5F, 10, row.data());
  for (std::uint32_t i = 0; i < 10; ++i) {
    const PhiloxBlock block =
        philox4x32(kSeed, {i / 4, 9, static_cast<std::uint32_t>(Stream::kDown), 7});
    EXPECT_EQ(row[i], static_cast<float>(irwin_hall(block[i % 4])) * 0.5F) << i;
  }
}

TEST(PhiloxRow, EachPartOfTheCounterMatters) {
  const auto first = [](std::uint64_t seed, Stream stream, std::uint32_t tag, std::uint32_t row) {
    std::vector<float> values(64);
    philox_row(seed, stream, tag, row, 1.0F, 64, values.data());
    return values;
  };
  std::set<std::vector<float>> rows;
  rows.insert(first(1, Stream::kGateUp, 0, 0));
  rows.insert(first(2, Stream::kGateUp, 0, 0));
  rows.insert(first(1 + (std::uint64_t{1} << 32), Stream::kGateUp, 0, 0));
  rows.insert(first(1, Stream::kDown, 0, 0));
  rows.insert(first(1, Stream::kGateUp, 1, 0));
  rows.insert(first(1, Stream::kGateUp, 0, 1));
  EXPECT_EQ(rows.size(), 6U);
}

TEST(PhiloxRow, HasTheMomentsOfIrwinHall) {
  constexpr std::int64_t kCount = 1 << 18;
  std::vector<float> values(kCount);
  philox_row(3, Stream::kGateUp, 0, 0, 1.0F, kCount, values.data());
  double sum = 0.0;
  double squares = 0.0;
  for (const float value : values) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const double sigma = std::sqrt(4.0 * (256.0 * 256.0 - 1.0) / 12.0);  // four uniform bytes
  EXPECT_NEAR(sum / kCount, 0.0, 5.0 * sigma / std::sqrt(static_cast<double>(kCount)));
  EXPECT_NEAR(std::sqrt(squares / kCount), sigma, 0.01 * sigma);
}

class PhiloxForms : public ::testing::TestWithParam<philox::Isa> {
 protected:
  void SetUp() override {
    fill_ = philox::fill_for(GetParam());
    if (fill_ == nullptr) {
      GTEST_SKIP() << "this build or CPU has no " << philox::name_of(GetParam());
    }
  }
  philox::Fill fill_ = nullptr;

  void expect_like_scalar(const philox::RowKey& key, std::int64_t first, std::int64_t count) const {
    constexpr float kUntouched = 12345.0F;
    constexpr std::size_t kGuards = 40;
    const auto n = static_cast<std::size_t>(count);
    std::vector<float> scalar(n + kGuards, kUntouched);
    std::vector<float> vector(n + kGuards, kUntouched);
    philox::fill_values(philox::fill_for(philox::Isa::kPortable), key, first, count, scalar.data());
    philox::fill_values(fill_, key, first, count, vector.data());
    ASSERT_EQ(scalar, vector) << "seed " << key.seed << " stream " << key.stream << " tag "
                              << key.tag << " row " << key.row << " first " << first << " count "
                              << count;
    for (std::size_t i = n; i < vector.size(); ++i) {
      ASSERT_EQ(vector[i], kUntouched) << "wrote past the end at +" << i - n;
    }
  }
};

TEST_P(PhiloxForms, EqualScalarForEveryLength) {
  for (std::int64_t count = 0; count <= 80; ++count) {
    expect_like_scalar({0xDEADBEEF12345678, 1, 5, 3, 0x1p-13F}, 0, count);
  }
}

TEST_P(PhiloxForms, EqualScalarForLongRowsAndExtremeKeys) {
  constexpr std::uint32_t kMax = 0xFFFFFFFF;
  for (const std::uint64_t seed :
       {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 63, std::uint64_t{42}}) {
    expect_like_scalar({seed, 2, kMax, kMax, 0x1p-7F}, 0, 7168);
    expect_like_scalar({seed, kMax, 0, 0, 3.0F}, 0, 16384 + 13);
  }
}

TEST_P(PhiloxForms, EqualScalarFromTheMiddleOfARow) {
  for (const std::int64_t first : {4, 128, 4096, 65536 - 4}) {
    expect_like_scalar({99, 1, 2, 3, 1.0F}, first, 200);
  }
}

TEST_P(PhiloxForms, PartsJoinToTheWholeRow) {
  const philox::RowKey key{7, 1, 2, 3, 1.0F};
  std::vector<float> whole(1000);
  std::vector<float> parts(1000);
  philox::fill_values(fill_, key, 0, 1000, whole.data());
  for (std::int64_t first = 0; first < 1000; first += 128) {
    philox::fill_values(fill_, key, first, std::min<std::int64_t>(128, 1000 - first),
                        parts.data() + first);
  }
  EXPECT_EQ(whole, parts);
}

INSTANTIATE_TEST_SUITE_P(Isa, PhiloxForms, ::testing::ValuesIn(philox::kAllIsas),
                         [](const auto& param_info) {
                           return std::string(philox::name_of(param_info.param));
                         });

}  // namespace
}  // namespace moebench
