// Encoders against the independent definition in nearest_code.h, over a stratified sweep of float32
// inputs and around every rounding boundary. All 2^32 inputs run in
// tests/quant/all_floats_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "moebench/core/dtype.h"
#include "tests/core/nearest_code.h"

namespace moebench {
namespace {

constexpr std::uint64_t kSeed = 20260101;

struct Encoder {
  std::string name;
  std::uint32_t (*encode)(float);
  testing::ValueTable (*values)();
  std::uint32_t sign;
  std::uint32_t max_code;  ///< what overflow gives: the largest finite code, or infinity
  int strata_log2;         ///< 2^this inputs of the sweep
};

std::uint32_t e2m1(float x) { return encode_e2m1(x); }
std::uint32_t e4m3(float x) { return encode_e4m3(x); }
std::uint32_t fp16(float x) { return encode_fp16(x); }
std::uint32_t bf16(float x) { return encode_bf16(x); }
std::uint32_t fp16_of_double(float x) { return encode_act(ActType::kFp16, double{x}); }
std::uint32_t bf16_of_double(float x) { return encode_act(ActType::kBf16, double{x}); }

class EncoderSweep : public ::testing::TestWithParam<Encoder> {
 protected:
  void check(float x) const {
    if (std::isnan(x)) return;  // NaN has tests of its own
    const Encoder& encoder = GetParam();
    std::uint32_t expected =
        static_cast<std::uint32_t>(testing::nearest_code(table_, std::fabs(double{x})));
    expected = std::min(expected, encoder.max_code) | (std::signbit(x) ? encoder.sign : 0);
    ASSERT_EQ(encoder.encode(x), expected)
        << encoder.name << " of float bits 0x" << std::hex << std::bit_cast<std::uint32_t>(x);
  }

  testing::ValueTable table_ = GetParam().values();
};

TEST_P(EncoderSweep, AgreesWithTheNearestValueOnStratifiedInputs) {
  const int width_log2 = 32 - GetParam().strata_log2;
  std::mt19937_64 random(kSeed);
  for (std::uint64_t stratum = 0; stratum < std::uint64_t{1} << GetParam().strata_log2; ++stratum) {
    const std::uint64_t offset = random() >> (64 - width_log2);
    check(std::bit_cast<float>(static_cast<std::uint32_t>((stratum << width_log2) | offset)));
    if (HasFatalFailure()) FAIL() << "seed " << kSeed << ", stratum " << stratum;
  }
}

TEST_P(EncoderSweep, AgreesWithTheNearestValueAroundEveryBoundary) {
  constexpr int kNeighbours = 3;
  for (const float boundary : testing::rounding_boundaries(table_)) {
    const auto centre = static_cast<std::int64_t>(std::bit_cast<std::uint32_t>(boundary));
    for (std::int64_t bits = centre - kNeighbours; bits <= centre + kNeighbours; ++bits) {
      if (bits < 0) continue;
      const float x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
      check(x);
      check(-x);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(EncoderSweep, AgreesAtTheEndsOfTheFloatRange) {
  for (const float x :
       {0.0F, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::min(),
        std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()}) {
    check(x);
    check(-x);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, EncoderSweep,
    ::testing::Values(
        Encoder{"e2m1", e2m1, testing::e2m1_values, 0x8, 0x7, 22},
        Encoder{"e4m3", e4m3, testing::e4m3_values, 0x80, 0x7E, 22},
        Encoder{"fp16", fp16, testing::fp16_values, 0x8000, 0x7C00, 20},
        Encoder{"bf16", bf16, testing::bf16_values, 0x8000, 0x7F80, 20},
        Encoder{"fp16_of_double", fp16_of_double, testing::fp16_values, 0x8000, 0x7C00, 20},
        Encoder{"bf16_of_double", bf16_of_double, testing::bf16_values, 0x8000, 0x7F80, 20}),
    [](const auto& test_info) { return test_info.param.name; });

}  // namespace
}  // namespace moebench
