// All 2^32 float32 inputs through the E4M3 and E2M1 encoders: the scalar truth, and the fast loops
// of every ISA, against the independent definition of tests/core/nearest_code.h. Codes are monotone
// in the input, so that the definition amounts to one interval of float bits for each code:
// comparing with it costs almost nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <vector>

#include "moebench/core/dtype.h"
#include "moebench/quant/quant_kernels.h"
#include "tests/core/nearest_code.h"

namespace moebench {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000;
constexpr std::uint32_t kSignBit = 0x80000000;
constexpr std::int64_t kChunk = 1 << 20;
constexpr std::uint64_t kNone = ~std::uint64_t{0};

/// first_bits[c]: the smallest magnitude, as float bits, whose code is c.
std::vector<std::uint32_t> first_bits_of_codes(const testing::ValueTable& table) {
  std::vector<std::uint32_t> first = {0};
  const auto boundaries = testing::rounding_boundaries(table);
  for (std::size_t code = 1; code <= boundaries.size(); ++code) {
    // The tie itself goes to the even code of the two.
    const auto tie = std::bit_cast<std::uint32_t>(boundaries[code - 1]);
    first.push_back(code % 2 == 0 ? tie : tie + 1);
  }
  return first;
}

/// Codes of the magnitudes first .. first + codes.size() - 1, by the intervals.
void fill_expected(const std::vector<std::uint32_t>& first_bits, std::uint32_t first,
                   std::vector<std::uint8_t>& codes) {
  auto next = std::upper_bound(first_bits.begin(), first_bits.end(), first);
  std::uint32_t bits = first;
  auto out = codes.begin();
  while (out != codes.end()) {
    const auto code = static_cast<std::uint8_t>(next - first_bits.begin() - 1);
    const auto left = codes.end() - out;
    const auto run = next == first_bits.end() ? left : std::min<std::ptrdiff_t>(left, *next - bits);
    std::fill(out, out + run, code);
    out += run;
    bits += static_cast<std::uint32_t>(run);
    if (next != first_bits.end()) ++next;
  }
}

/// Runs check(first, expected codes) over all magnitudes up to infinity, in parallel. `check`
/// returns the bits of the first wrong input, or kNone; the result is the smallest over all.
template <typename Check>
std::uint64_t first_wrong(const testing::ValueTable& table, Check check) {
  const auto first_bits = first_bits_of_codes(table);
  std::atomic<std::uint64_t> wrong{kNone};
  constexpr std::int64_t kInputs = std::int64_t{kInfinityBits} + 1;
#pragma omp parallel
  {
    std::vector<std::uint8_t> expected;
#pragma omp for schedule(dynamic)
    for (std::int64_t first = 0; first < kInputs; first += kChunk) {
      expected.resize(static_cast<std::size_t>(std::min(kChunk, kInputs - first)));
      fill_expected(first_bits, static_cast<std::uint32_t>(first), expected);
      const std::uint64_t here = check(static_cast<std::uint32_t>(first), expected);
      std::uint64_t seen = wrong.load();
      while (here < seen && !wrong.compare_exchange_weak(seen, here)) {
      }
    }
  }
  return wrong;
}

template <std::uint8_t (*kEncode)(float)>
std::uint64_t first_wrong_scalar(const testing::ValueTable& table, std::uint8_t sign) {
  return first_wrong(table, [sign](std::uint32_t first, const std::vector<std::uint8_t>& expected) {
    std::uint32_t bits = first;
    for (const std::uint8_t code : expected) {
      if (kEncode(std::bit_cast<float>(bits)) != code) return std::uint64_t{bits};
      if (kEncode(std::bit_cast<float>(bits | kSignBit)) != (code | sign)) {
        return std::uint64_t{bits | kSignBit};
      }
      ++bits;
    }
    return kNone;
  });
}

TEST(AllFloats, E4m3IsTheNearestValue) {
  const std::uint64_t wrong = first_wrong_scalar<encode_e4m3>(testing::e4m3_values(), 0x80);
  EXPECT_EQ(wrong, kNone) << "encode_e4m3 of float bits 0x" << std::hex << wrong;
}

TEST(AllFloats, E2m1IsTheNearestValue) {
  const std::uint64_t wrong = first_wrong_scalar<encode_e2m1>(testing::e2m1_values(), 0x8);
  EXPECT_EQ(wrong, kNone) << "encode_e2m1 of float bits 0x" << std::hex << wrong;
}

TEST(AllFloats, EveryNanIsKeptByE4m3AndSaturatesInE2m1) {
  std::int64_t wrong = 0;
#pragma omp parallel for reduction(+ : wrong)
  for (std::uint32_t bits = kInfinityBits + 1; bits < kSignBit; ++bits) {
    const auto nan = std::bit_cast<float>(bits);
    const auto negative = std::bit_cast<float>(bits | kSignBit);
    wrong += encode_e4m3(nan) != 0x7F || encode_e4m3(negative) != 0xFF ? 1 : 0;
    wrong += encode_e2m1(nan) != 0x7 || encode_e2m1(negative) != 0x7 ? 1 : 0;
  }
  EXPECT_EQ(wrong, 0);
}

class AllFloatsBy : public ::testing::TestWithParam<VectorIsa> {
 protected:
  void SetUp() override {
    kernels_ = quant::kernels_for(GetParam());
    if (kernels_ == nullptr) {
      GTEST_SKIP() << "this build or this CPU has no " << name_of(GetParam());
    }
  }
  const quant::Kernels* kernels_ = nullptr;
};

TEST_P(AllFloatsBy, Fp8IsTheNearestValue) {
  const auto* const kernels = kernels_;
  const std::uint64_t wrong = first_wrong(
      testing::e4m3_values(),
      [kernels](std::uint32_t first, const std::vector<std::uint8_t>& expected) {
        std::vector<float> x(expected.size());
        std::vector<std::uint8_t> codes(expected.size());
        for (const std::uint32_t sign : {std::uint32_t{0}, kSignBit}) {
          for (std::uint32_t i = 0; i < x.size(); ++i)
            x[i] = std::bit_cast<float>((first + i) | sign);
          kernels->fp8_row(x.data(), static_cast<std::int64_t>(x.size()), 1.0F, codes.data());
          const auto code_sign = static_cast<std::uint8_t>(sign >> 24);
          for (std::uint32_t i = 0; i < x.size(); ++i) {
            if (codes[i] != (expected[i] | code_sign)) return std::uint64_t{(first + i) | sign};
          }
        }
        return kNone;
      });
  EXPECT_EQ(wrong, kNone) << name_of(GetParam()) << " of float bits 0x" << std::hex << wrong;
}

TEST_P(AllFloatsBy, Nvfp4IsTheNearestValue) {
  // Column 0 of each block holds 6: with gs = 448 the scale saturates at 448 and every value is
  // multiplied by one.
  constexpr std::uint32_t kPerBlock = 15;
  const auto* const kernels = kernels_;
  const std::uint64_t wrong = first_wrong(
      testing::e2m1_values(),
      [kernels](std::uint32_t first, const std::vector<std::uint8_t>& expected) {
        const std::size_t blocks = (expected.size() + kPerBlock - 1) / kPerBlock;
        std::vector<float> x(blocks * 16, 6.0F);
        std::vector<std::uint8_t> payload(blocks * 8);
        std::vector<std::uint8_t> scales(blocks);
        for (const std::uint32_t sign : {std::uint32_t{0}, kSignBit}) {
          for (std::uint32_t i = 0; i < expected.size(); ++i) {
            x[i / kPerBlock * 16 + 1 + i % kPerBlock] = std::bit_cast<float>((first + i) | sign);
          }
          kernels->nvfp4_row(x.data(), static_cast<std::int64_t>(x.size()), 448.0F, payload.data(),
                             scales.data());
          const auto code_sign = static_cast<std::uint8_t>(sign >> 28);
          for (std::uint32_t i = 0; i < expected.size(); ++i) {
            const std::uint32_t col = i / kPerBlock * 16 + 1 + i % kPerBlock;
            const int code = col % 2 == 0 ? payload[col / 2] & 0xF : payload[col / 2] >> 4;
            if (code != (expected[i] | code_sign)) return std::uint64_t{(first + i) | sign};
          }
        }
        return kNone;
      });
  EXPECT_EQ(wrong, kNone) << name_of(GetParam()) << " of float bits 0x" << std::hex << wrong;
}

INSTANTIATE_TEST_SUITE_P(Isa, AllFloatsBy, ::testing::ValuesIn(kVectorIsas),
                         [](const auto& test_info) { return name_of(test_info.param); });

}  // namespace
}  // namespace moebench
