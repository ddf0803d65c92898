// The fast quantiser loops of every ISA against the scalar truth, bit for bit, on rows with planted
// specials.
#include "moebench/quant/quant_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "moebench/core/dtype.h"
#include "moebench/quant/fp8.h"
#include "moebench/quant/nvfp4.h"
#include "tests/core/nearest_code.h"

namespace moebench {
namespace {

constexpr std::uint64_t kSeed = 7;
constexpr std::uint8_t kGuard = 0xC3;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kMax = std::numeric_limits<float>::max();

enum class Content { kOrdinary, kSpecials, kAnyBits, kTies, kSubnormal, kSparse };
constexpr Content kContents[] = {Content::kOrdinary, Content::kSpecials,  Content::kAnyBits,
                                 Content::kTies,     Content::kSubnormal, Content::kSparse};

std::vector<float> make_row(Content content, std::int64_t cols, std::mt19937_64& random) {
  const std::vector<float> specials = {kNan,   -kNan, kInf,  -kInf, 0.0F,    -0.0F,    kTiny,
                                       -kTiny, kMax,  -kMax, 6.0F,  -448.0F, 0x1p-126F};
  const auto ties = testing::rounding_boundaries(testing::e4m3_values());
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<float> row(static_cast<std::size_t>(cols));
  for (float& x : row) {
    const auto any_bits = static_cast<std::uint32_t>(random());
    switch (content) {
      case Content::kOrdinary:
        x = normal(random);
        break;
      case Content::kSpecials:
        x = random() % 24 == 0 ? specials[random() % specials.size()] : normal(random);
        break;
      case Content::kAnyBits:
        x = std::bit_cast<float>(any_bits);
        break;
      case Content::kTies:
        x = ties[random() % ties.size()] * ((any_bits & 1) != 0 ? 1.0F : -1.0F);
        break;
      case Content::kSubnormal:
        x = std::bit_cast<float>(any_bits & 0x80FFFFFF);
        break;
      case Content::kSparse:
        x = random() % 40 == 0 ? normal(random) : std::copysign(0.0F, normal(random));
        break;
    }
  }
  return row;
}

/// Scales that a caller means, then those that nobody should pass: the bits must agree all the
/// same.
std::vector<float> scales_to_try(std::mt19937_64& random) {
  std::vector<float> scales = {1.0F,  448.0F, 26880.0F, 0.0003F, 0x1p118F, 0x1p-126F,
                               kTiny, kMax,   0.0F,     -0.0F,   -2.5F,    kInf,
                               -kInf, kNan,   0x1p-9F,  17.0F};
  for (int i = 0; i < 4; ++i) {
    scales.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return scales;
}

class KernelsOf : public ::testing::TestWithParam<VectorIsa> {
 protected:
  void SetUp() override {
    kernels_ = quant::kernels_for(GetParam());
    if (kernels_ == nullptr) {
      GTEST_SKIP() << "this build or this CPU has no " << name_of(GetParam());
    }
  }

  void check_nvfp4(const std::vector<float>& row, float global_scale,
                   const std::string& what) const {
    const auto cols = static_cast<std::int64_t>(row.size());
    std::vector<std::uint8_t> payload(row.size() / 2 + 1, kGuard);
    std::vector<std::uint8_t> scales(row.size() / 16 + 1, kGuard);
    auto expected_payload = payload;
    auto expected_scales = scales;
    kernels_->nvfp4_row(row.data(), cols, global_scale, payload.data(), scales.data());
    quantize_nvfp4_row_scalar(row.data(), cols, global_scale, expected_payload.data(),
                              expected_scales.data());
    ASSERT_EQ(scales, expected_scales) << what << " cols=" << cols << " gs=" << global_scale;
    ASSERT_EQ(payload, expected_payload) << what << " cols=" << cols << " gs=" << global_scale;
  }

  void check_fp8(const std::vector<float>& row, float scale, const std::string& what) const {
    const auto cols = static_cast<std::int64_t>(row.size());
    std::vector<std::uint8_t> payload(row.size() + 1, kGuard);
    auto expected = payload;
    kernels_->fp8_row(row.data(), cols, scale, payload.data());
    quantize_fp8_row_scalar(row.data(), cols, scale, expected.data());
    ASSERT_EQ(payload, expected) << what << " cols=" << cols << " scale=" << scale;
  }

  std::uint32_t amax_bits(std::span<const float> x) const {
    return kernels_->amax_bits(x.data(), static_cast<std::int64_t>(x.size()));
  }

  const quant::Kernels* kernels_ = nullptr;
};

TEST_P(KernelsOf, Nvfp4EqualsScalarForEveryContentAndScale) {
  std::mt19937_64 random(kSeed);
  for (const Content content : kContents) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      const auto row = make_row(content, 528, random);
      for (const float scale : scales_to_try(random)) {
        check_nvfp4(row, scale, "seed 7, content " + std::to_string(static_cast<int>(content)));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(KernelsOf, Nvfp4EqualsScalarForEveryLength) {
  std::mt19937_64 random(kSeed);
  for (std::int64_t cols = 0; cols <= 16 * 50; cols += 16) {
    for (const Content content : kContents) {
      const auto row = make_row(content, cols, random);
      check_nvfp4(row, 30.0F, "seed 7, content " + std::to_string(static_cast<int>(content)));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(KernelsOf, Fp8EqualsScalarForEveryContentAndScale) {
  std::mt19937_64 random(kSeed);
  for (const Content content : kContents) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      const auto row = make_row(content, 509, random);
      for (const float scale : scales_to_try(random)) {
        check_fp8(row, scale, "seed 7, content " + std::to_string(static_cast<int>(content)));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(KernelsOf, Fp8EqualsScalarForEveryLength) {
  std::mt19937_64 random(kSeed);
  for (std::int64_t cols = 0; cols <= 140; ++cols) {
    for (const Content content : kContents) {
      const auto row = make_row(content, cols, random);
      check_fp8(row, 1.0F, "seed 7, content " + std::to_string(static_cast<int>(content)));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(KernelsOf, Fp8EqualsScalarAroundEveryRoundingBoundary) {
  std::vector<float> row;
  for (const float boundary : testing::rounding_boundaries(testing::e4m3_values())) {
    for (const float x :
         {std::nextafter(boundary, 0.0F), boundary, std::nextafter(boundary, kInf)}) {
      row.push_back(x);
      row.push_back(-x);
    }
  }
  check_fp8(row, 1.0F, "boundaries");
}

TEST_P(KernelsOf, Nvfp4EqualsScalarAroundEveryRoundingBoundary) {
  // With gs = 448 and a 6 in each block the scale saturates at 448, and values are multiplied by
  // exactly one.
  std::vector<float> row;
  for (const float boundary : testing::rounding_boundaries(testing::e2m1_values())) {
    for (const float x :
         {std::nextafter(boundary, 0.0F), boundary, std::nextafter(boundary, kInf)}) {
      for (const float y : {x, -x}) {
        if (row.size() % 16 == 0) row.push_back(6.0F);
        row.push_back(y);
      }
    }
  }
  row.resize((row.size() + 15) / 16 * 16, 0.0F);
  check_nvfp4(row, 448.0F, "boundaries");
}

TEST_P(KernelsOf, AmaxFindsTheLargestMagnitudeAtEveryPlace) {
  for (std::size_t count = 1; count <= 70; ++count) {
    for (std::size_t place = 0; place < count; ++place) {
      std::vector<float> x(count, -0.5F);
      x[place] = -3.0F;
      ASSERT_EQ(amax_bits(x), std::bit_cast<std::uint32_t>(3.0F)) << count << " " << place;
      x[place] = -kInf;
      ASSERT_EQ(amax_bits(x), std::bit_cast<std::uint32_t>(kInf)) << count << " " << place;
      x[place] = -kNan;
      ASSERT_GT(amax_bits(x), std::bit_cast<std::uint32_t>(kInf)) << count << " " << place;
    }
  }
  EXPECT_EQ(amax_bits({}), 0U);
}

INSTANTIATE_TEST_SUITE_P(Isa, KernelsOf, ::testing::ValuesIn(kVectorIsas),
                         [](const auto& test_info) { return name_of(test_info.param); });

TEST(FastestKernels, AreTheBestThatTheCpuHasBelowTheBound) {
  const quant::Kernels* best = nullptr;
  for (const VectorIsa isa : kVectorIsas) {
    if (isa <= vector_isa_bound() && quant::kernels_for(isa) != nullptr) {
      best = quant::kernels_for(isa);
    }
  }
  EXPECT_EQ(&quant::fastest_kernels(), best);
}

TEST(FastestKernels, DifferPerIsa) {
  const auto* portable = quant::kernels_for(VectorIsa::kPortable);
  ASSERT_NE(portable, nullptr);
  for (const VectorIsa isa : {VectorIsa::kAvx2, VectorIsa::kAvx512}) {
    if (const auto* kernels = quant::kernels_for(isa); kernels != nullptr) {
      EXPECT_NE(kernels->nvfp4_row, portable->nvfp4_row) << name_of(isa);
      EXPECT_NE(kernels->fp8_row, portable->fp8_row) << name_of(isa);
    }
  }
}

}  // namespace
}  // namespace moebench
