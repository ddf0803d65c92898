// The row-wise vector code (roundings, SiLU, amax, expanding codes) of every ISA against the scalar
// formats of core/.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "moebench/backend/cpu/kernels.h"
#include "moebench/backend/cpu/layout.h"
#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::cpu {
namespace {

class CpuRowKernels : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string absence = moebench::testing::isa_absence(GetParam());
    if (!absence.empty()) GTEST_SKIP() << absence;
    kernels_ = &moebench::testing::kernels_of(GetParam());
  }
  const CpuKernels* kernels_ = nullptr;
};

float float_of(std::uint32_t bits) {
  float x = 0.0F;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

TEST_P(CpuRowKernels, DecodeEveryActivationCode) {
  std::vector<std::uint16_t> codes(1U << 16);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
  for (const ActType type : {ActType::kFp16, ActType::kBf16}) {
    for (const std::int64_t count : {std::int64_t{1} << 16, std::int64_t{65529}}) {
      std::vector<float> values(codes.size(), -1.0F);
      kernels_->decode_row(type, codes.data(), count, values.data());
      for (std::size_t i = 0; i < codes.size(); ++i) {
        if (static_cast<std::int64_t>(i) >= count) {
          ASSERT_EQ(values[i], -1.0F) << "wrote past the end";
          continue;
        }
        const float expected = decode_act(type, codes[i]);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(values[i])) << i;
        } else {
          ASSERT_EQ(std::signbit(values[i]), std::signbit(expected)) << i;
          ASSERT_EQ(values[i], expected) << i;
        }
      }
    }
  }
}

/// round_sums with all scales 1 is the rounding itself.
TEST_P(CpuRowKernels, RoundSumsRoundsAsTheScalarEncoder) {
  std::mt19937 random(1);
  const float one_token = 1.0F;
  const std::vector<float> ones(kSlabRows, 1.0F);
  const std::int32_t row_zero = 0;
  for (const ActType type : {ActType::kFp16, ActType::kBf16}) {
    for (int round = 0; round < 4000; ++round) {
      std::vector<float> sums(kSlabRows);
      for (float& x : sums) {
        x = float_of(static_cast<std::uint32_t>(random()));
        if (round % 2 == 0)
          x = std::ldexp(std::fmod(x, 2.0F), static_cast<int>(random() % 40) - 30);
      }
      const std::int64_t valid = 1 + static_cast<std::int64_t>(random() % kSlabRows);
      std::vector<std::uint16_t> out(kSlabRows + 1, 0xABCD);
      kernels_->round_sums({.type = type,
                            .tokens = 1,
                            .sums = sums.data(),
                            .token_scales = &one_token,
                            .row_scales = ones.data(),
                            .valid_rows = valid,
                            .out = out.data(),
                            .out_stride = 0,
                            .out_rows = &row_zero});
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (static_cast<std::int64_t>(i) >= valid) {
          ASSERT_EQ(out[i], 0xABCD) << "wrote past the valid rows";
        } else if (std::isnan(sums[i])) {
          ASSERT_TRUE(std::isnan(decode_act(type, out[i])));
        } else {
          ASSERT_EQ(out[i], encode_act(type, sums[i])) << sums[i];
        }
      }
    }
  }
}

/// h = half(silu(gate) * up) against double: at most one rounding boundary away.
TEST_P(CpuRowKernels, ActivateIsSiluTimesUp) {
  const float one_token = 1.0F;
  const std::vector<float> ones(kSlabRows, 1.0F);
  const std::int32_t row_zero = 0;
  for (const ActType type : {ActType::kFp16, ActType::kBf16}) {
    const double ulp = type == ActType::kFp16 ? 0x1p-10 : 0x1p-7;
    const double tiny = type == ActType::kFp16 ? 0x1p-24 : 0x1p-133;
    for (float gate = -110.0F; gate < 110.0F; gate += 0.37F) {
      std::vector<float> sums(kSlabRows);
      for (std::size_t i = 0; i < kPanelRows; ++i) {
        sums[i] = gate + static_cast<float>(i) * 0.011F;
        sums[i + kPanelRows] = 1.5F;
      }
      std::vector<std::uint16_t> out(kPanelRows);
      kernels_->activate({.type = type,
                          .tokens = 1,
                          .sums = sums.data(),
                          .token_scales = &one_token,
                          .row_scales = ones.data(),
                          .valid_rows = kPanelRows,
                          .out = out.data(),
                          .out_stride = 0,
                          .out_rows = &row_zero});
      for (std::size_t i = 0; i < kPanelRows; ++i) {
        const double x = double{decode_act(type, encode_act(type, sums[i]))};
        const double expected = x / (1.0 + std::exp(-x)) * 1.5;
        ASSERT_NEAR(double{decode_act(type, out[i])}, expected,
                    std::abs(expected) * 0.51 * ulp + 1.01 * tiny)
            << "gate " << x;
      }
    }
  }
}

TEST_P(CpuRowKernels, ActivateKeepsNaNAndTheLimitsOfSilu) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float one_token = 1.0F;
  const std::vector<float> ones(kSlabRows, 1.0F);
  const std::int32_t row_zero = 0;
  std::vector<float> sums(kSlabRows, 1.0F);
  sums[0] = std::numeric_limits<float>::quiet_NaN();
  sums[1] = 60000.0F;
  sums[2] = -60000.0F;
  sums[3] = infinity;
  sums[4] = 0.0F;
  std::vector<std::uint16_t> out(kPanelRows);
  kernels_->activate({.type = ActType::kFp16,
                      .tokens = 1,
                      .sums = sums.data(),
                      .token_scales = &one_token,
                      .row_scales = ones.data(),
                      .valid_rows = kPanelRows,
                      .out = out.data(),
                      .out_stride = 0,
                      .out_rows = &row_zero});
  EXPECT_TRUE(std::isnan(decode_fp16(out[0])));
  EXPECT_EQ(decode_fp16(out[1]), 60000.0F);
  EXPECT_EQ(decode_fp16(out[2]), 0.0F);
  EXPECT_EQ(decode_fp16(out[3]), infinity);
  EXPECT_EQ(decode_fp16(out[4]), 0.0F);
}

TEST_P(CpuRowKernels, AmaxFindsTheLargestMagnitudeAtEveryPlace) {
  for (const std::int64_t n : {1, 2, 15, 16, 17, 63, 64, 65}) {
    for (std::int64_t at = 0; at < n; ++at) {
      std::vector<float> x(static_cast<std::size_t>(n), 0.25F);
      x[static_cast<std::size_t>(at)] = -3.0F;
      EXPECT_EQ(kernels_->amax(x.data(), n), 3.0F) << n << " " << at;
      x[static_cast<std::size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
      x[0] = at == 0 ? x[0] : std::numeric_limits<float>::infinity();
      EXPECT_TRUE(std::isnan(kernels_->amax(x.data(), n))) << n << " " << at;
    }
  }
}

TEST_P(CpuRowKernels, ExpandEveryFp8Code) {
  for (const std::int64_t count : {256, 251}) {
    std::vector<std::uint8_t> codes(256);
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i);
    std::vector<float> values(256, -7.0F);
    kernels_->expand_fp8(codes.data(), count, values.data());
    for (std::size_t i = 0; i < codes.size(); ++i) {
      if (static_cast<std::int64_t>(i) >= count) {
        ASSERT_EQ(values[i], -7.0F) << "wrote past the end";
      } else if ((i & 0x7F) != 0x7F) {  // codes 0x7F and 0xFF are NaN
        ASSERT_EQ(values[i], decode_e4m3(codes[i])) << i;
      }
    }
  }
}

/// A slab whose only non-zero weights are at depth k, against tokens with one non-zero value there:
/// every product of two codes under every weight scale comes out exactly, on every row.
TEST_P(CpuRowKernels, TilesDecodeEveryNvfp4CodeAndScale) {
  const auto nvfp4 = static_cast<std::size_t>(TileFormat::kNvfp4);
  for (std::int64_t k = 0; k < kStepDepth; ++k) {
    for (std::uint8_t token_code = 0; token_code < 16; ++token_code) {
      std::vector<std::uint8_t> payload(kStepDepth / 2);
      payload[static_cast<std::size_t>(k / 2)] =
          static_cast<std::uint8_t>(token_code << (k % 2 * 4));
      const auto token_scale = static_cast<std::uint8_t>(1 + 7 * token_code);
      std::vector<std::byte> tile(
          static_cast<std::size_t>(kChunkSteps * kernels_->operand_step_bytes[nvfp4]),
          std::byte{0xFF});
      kernels_->store_nvfp4_operand(payload.data(), &token_scale, kStepDepth,
                                    kChunkSteps * kStepDepth, 1, 0, tile.data());
      for (unsigned scale = 0; scale < 0x7F; ++scale) {
        std::vector<std::uint8_t> slab(kChunkBytes);
        for (std::int64_t row = 0; row < kSlabRows; ++row) {
          const std::int64_t lane =
              nvfp4_lane_offset(row / kPanelRows, row % kPanelRows, k / 8 * 8);
          const auto nibble = static_cast<unsigned>(k % 8 / 2 + 4 * (k % 2));
          const std::uint32_t code = static_cast<std::uint32_t>(row % 16) << (4 * nibble);
          std::memcpy(slab.data() + lane, &code, sizeof code);
          slab[static_cast<std::size_t>(nvfp4_scale_offset(row / kPanelRows, row % kPanelRows,
                                                           0))] = static_cast<std::uint8_t>(scale);
        }
        std::vector<float> sums(kSlabRows);
        kernels_->multiply_tile[nvfp4][0]({.slab = slab.data(),
                                           .expanded = nullptr,
                                           .steps = kChunkSteps,
                                           .tokens = 1,
                                           .operand = tile.data(),
                                           .weight_scales = nullptr,
                                           .operand_scales = nullptr,
                                           .sums = sums.data()});
        const float both_scales =
            decode_e4m3(token_scale) * decode_e4m3(static_cast<std::uint8_t>(scale));
        for (std::size_t row = 0; row < sums.size(); ++row) {
          ASSERT_EQ(sums[row], decode_e2m1(static_cast<std::uint8_t>(row % 16)) *
                                   decode_e2m1(token_code) * both_scales)
              << "row " << row << " k " << k;
        }
      }
    }
  }
}

/// A slab whose only non-zero weights are row r's, at depth k, against a token that is 1 there:
/// every code comes out as its value, on every row and at every k.
TEST_P(CpuRowKernels, TilesDecodeEveryFp8Code) {
  constexpr std::int64_t kDepth = kStepDepth;
  const auto fp8 = static_cast<std::size_t>(TileFormat::kFp8);
  for (std::int64_t k = 0; k < kDepth; ++k) {
    std::vector<float> token(kDepth, 0.0F);
    token[static_cast<std::size_t>(k)] = 1.0F;
    std::vector<std::byte> tile(
        static_cast<std::size_t>(kernels_->operand_steps * kernels_->operand_step_bytes[fp8]));
    kernels_->store_operand[fp8](token.data(), kDepth, kernels_->operand_steps * kDepth, 1, 0,
                                 tile.data());
    for (unsigned base = 0; base < 256; base += 16) {
      std::vector<std::uint8_t> slab(kFp8StepBytes);
      for (std::int64_t row = 0; row < kSlabRows; ++row) {
        const std::int64_t at =
            fp8_pair_offset(row / kPanelRows, row % kPanelRows, k / 2 * 2) + k % 2;
        slab[static_cast<std::size_t>(at)] = static_cast<std::uint8_t>(base + row % 16);
      }
      std::vector<float> sums(kSlabRows);
      kernels_->multiply_tile[fp8][0]({.slab = slab.data(),
                                       .expanded = nullptr,
                                       .steps = 1,
                                       .tokens = 1,
                                       .operand = tile.data(),
                                       .weight_scales = nullptr,
                                       .operand_scales = nullptr,
                                       .sums = sums.data()});
      for (std::int64_t row = 0; row < kSlabRows; ++row) {
        const auto code = static_cast<std::uint8_t>(base + row % 16);
        if ((code & 0x7F) == 0x7F) continue;
        ASSERT_EQ(sums[static_cast<std::size_t>(row)], decode_e4m3(code))
            << "row " << row << " k " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllIsas, CpuRowKernels,
    ::testing::ValuesIn(std::vector<std::string>(std::begin(moebench::testing::kIsas),
                                                 std::end(moebench::testing::kIsas))),
    [](const auto& param) { return param.param; });

}  // namespace
}  // namespace moebench::cpu
