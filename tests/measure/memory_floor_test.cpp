// Rate loops really read and really multiply; the rates are plausible for any machine that can run
// this.
#include "moebench/measure/memory_floor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "moebench/core/buffer.h"
#include "moebench/measure/fingerprint.h"
#include "moebench/measure/rate_kernels.h"

namespace moebench {
namespace {

TEST(RateKernels, EveryReadLoopReadsEveryWordOnce) {
  Buffer buffer(3 * kReadSliceMultiple);
  const auto words = buffer.as<std::uint64_t>();
  for (const ReadKernel& kernel : read_kernels()) {
    std::fill(words.begin(), words.end(), std::uint64_t{0});
    // One word set at a time: the sum tells whether it was missed or read twice.
    for (std::uint64_t& word : words) {
      word = 0x9E3779B97F4A7C15;
      EXPECT_EQ(kernel.sum(words.data(), buffer.size()), 0x9E3779B97F4A7C15)
          << kernel.isa << ", " << kernel.streams << " streams, word " << (&word - words.data());
      word = 0;
    }
  }
}

TEST(RateKernels, EveryReadLoopGivesTheSameSumModulo2To64) {
  Buffer buffer(64 * kReadSliceMultiple);
  const auto words = buffer.as<std::uint64_t>();
  std::uint64_t expected = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = (i + 1) * 0x9E3779B97F4A7C15;
    expected += words[i];
  }
  for (const ReadKernel& kernel : read_kernels()) {
    EXPECT_EQ(kernel.sum(words.data(), buffer.size()), expected)
        << kernel.isa << ", " << kernel.streams << " streams";
  }
}

TEST(RateKernels, SeveralStreamCountsAreCompared) {
  int most = 0;
  for (const ReadKernel& kernel : read_kernels()) most = std::max(most, kernel.streams);
  EXPECT_GE(most, 4);
}

TEST(RateKernels, MultiplyAddsFollowTheirRecurrence) {
  for (const FlopKernel& kernel : flop_kernels()) {
    for (const std::int64_t steps : {1, 10, 1000}) {
      float chain = 0.0F;
      float factor = 0.999F;
      float term = 0.001F;
      if (kernel.bf16) {                   // 0.001 in bfloat16, squared, two products a step
        const float narrow = 0x1.06p-10F;  // 131 * 2^-17, nearest to 0.001
        factor = 1.0F;
        term = 2.0F * narrow * narrow;
      }
      for (std::int64_t i = 0; i < steps; ++i) chain = chain * factor + term;
      // A chain is a lane of a vector: flops_per_step holds 2 (FP32) or 4 (two BF16 products)
      // operations for each.
      const auto chains = static_cast<float>(kernel.flops_per_step / (kernel.bf16 ? 4 : 2));
      EXPECT_NEAR(kernel.run(steps) / (chains * chain), 1.0F, 1e-3F)
          << kernel.isa << ", " << steps << " steps";
    }
  }
}

constexpr std::int64_t kTestBuffer = std::int64_t{64} << 20;

TEST(MachineRatesTest, ArePlausibleAndRepeatable) {
  const MachineRates first = measure_machine_rates(1, kTestBuffer);
  const MachineRates second = measure_machine_rates(1, kTestBuffer);
  EXPECT_GT(first.read_bytes_per_s, 0.5e9);
  EXPECT_LT(first.read_bytes_per_s, 1e13);
  EXPECT_GT(first.fp32_flops_per_s, 0.1e9);
  EXPECT_EQ(first.flops_per_s, std::max(first.fp32_flops_per_s, first.bf16_flops_per_s));
  EXPECT_EQ(first.threads, 1);
  EXPECT_GE(first.buffer_bytes, std::min(kTestBuffer, available_memory_bytes() / 8));
  EXPECT_NE(first.read_kind, "");
  EXPECT_NE(first.flops_kind, "");
  // Wide, because tests share the machine with others; a wrong unit or an elided loop is off by far
  // more.
  EXPECT_LT(std::abs(std::log(first.read_bytes_per_s / second.read_bytes_per_s)), std::log(4.0));
  EXPECT_LT(std::abs(std::log(first.flops_per_s / second.flops_per_s)), std::log(4.0));
}

TEST(MachineRatesTest, UseAllAllowedCpusByDefaultAndSurviveMoreThreadsThanCpus) {
  EXPECT_EQ(measure_machine_rates(0, kTestBuffer).threads, allowed_cpus());
  const MachineRates many = measure_machine_rates(allowed_cpus() + 1, kTestBuffer);
  EXPECT_EQ(many.threads, allowed_cpus() + 1);
  EXPECT_GT(many.read_bytes_per_s, 0.1e9);
}

TEST(MachineRatesTest, FloorIsBytesOverRate) {
  EXPECT_EQ(memory_floor_s(1000, 0.0), 0.0);
  EXPECT_EQ(memory_floor_s(1000, 500.0), 2.0);
}

TEST(HostRatesTest, AReadingIsNearTheRatesAtStart) {
  const HostRates rates(1, kTestBuffer);
  const RateReading reading = rates.read_now();
  const MachineRates& start = rates.at_start();
  // As wide as above, and for the same reason.
  EXPECT_LT(std::abs(std::log(reading.read_bytes_per_s / start.read_bytes_per_s)), std::log(4.0));
  EXPECT_LT(std::abs(std::log(reading.flops_per_s / start.flops_per_s)), std::log(4.0));
}

TEST(HostRatesTest, CanBeEndedBetweenAnyTwoPasses) {
  struct Ended {};
  // Writing, each read loop, one more pass of the fastest, three of the multiply-adds at least.
  const int least = 1 + static_cast<int>(read_kernels().size()) + 1 + 3;
  for (const int end_at : {1, 2, least - 4, least}) {
    int asked = 0;
    const auto end_there = [&] {
      if (++asked == end_at) throw Ended{};
    };
    EXPECT_THROW(HostRates(1, kTestBuffer, end_there), Ended) << end_at;
    EXPECT_EQ(asked, end_at);
  }
}

TEST(HostRatesTest, WithoutMemoryOnlyMultiplyAddsAreRead) {
  HostRates rates(1, kTestBuffer);
  EXPECT_EQ(rates.held_bytes(), rates.at_start().buffer_bytes);
  rates.release_memory();
  EXPECT_EQ(rates.held_bytes(), 0);
  const RateReading reading = rates.read_now();
  EXPECT_EQ(reading.read_bytes_per_s, 0.0);
  EXPECT_GT(reading.flops_per_s, 0.1e9);
}

}  // namespace
}  // namespace moebench
