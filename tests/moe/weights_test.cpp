// Weight sources: pure functions of (seed, expert, row, column), quantised exactly as the
// quantisers quantise a whole matrix, safe to read from several threads, and independent of the
// ISA.
#include "moebench/moe/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "moebench/core/error.h"

namespace moebench {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kSeed = 20240607;
constexpr WeightFormat kAllFormats[] = {WeightFormat::kNvfp4, WeightFormat::kFp8PerTensor,
                                        WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block};
/// No dimension is a multiple of 128, both are multiples of 16.
constexpr MoeShape kShape{.num_experts = 5, .topk = 2, .hidden = 208, .intermediate = 144};

/// A matrix's bytes, whatever its format: what must be equal.
struct Bytes {
  std::vector<std::uint8_t> payload;
  std::vector<std::uint8_t> scales;
  float global_scale = 0.0F;
  friend bool operator==(const Bytes&, const Bytes&) = default;
};

Bytes bytes_of(const Nvfp4View& m) {
  return {{m.payload, m.payload + m.rows * m.cols / 2},
          {m.scales, m.scales + m.rows * m.cols / kNvfp4BlockSize},
          m.global_scale};
}

Bytes bytes_of(const Fp8View& m) {
  Bytes bytes{{m.payload, m.payload + m.rows * m.cols}, {}, 0.0F};
  const auto count = static_cast<std::size_t>(fp8_scale_count(m.rows, m.cols, m.scaling));
  bytes.scales.resize(count * sizeof(float));
  std::memcpy(bytes.scales.data(), m.scales, bytes.scales.size());
  return bytes;
}

using ExpertBytes = std::array<Bytes, 2>;  // w1, w2

ExpertBytes bytes_of(const ExpertWeightsView& weights) {
  if (weights.format == WeightFormat::kNvfp4) {
    return {bytes_of(weights.nvfp4_w1), bytes_of(weights.nvfp4_w2)};
  }
  return {bytes_of(weights.fp8_w1), bytes_of(weights.fp8_w2)};
}

ExpertBytes expert_of(const WeightSource& source, std::int64_t expert) {
  ExpertBytes bytes;
  source.with_expert(expert, [&](const ExpertWeightsView& weights) { bytes = bytes_of(weights); });
  return bytes;
}

std::vector<float> unquantized(const WeightSource& source, std::int64_t expert, bool down) {
  const std::int64_t rows = down ? source.shape.hidden : 2 * source.shape.intermediate;
  const std::int64_t cols = down ? source.shape.intermediate : source.shape.hidden;
  std::vector<float> matrix(static_cast<std::size_t>(rows * cols));
  for (std::int64_t row = 0; row < rows; ++row) {
    source.unquantized_row(expert, down, row, matrix.data() + row * cols);
  }
  return matrix;
}

class SyntheticWeights : public ::testing::TestWithParam<WeightFormat> {
 protected:
  WeightSource source_ = synthetic_weights(kSeed, kShape, GetParam());
};

TEST_P(SyntheticWeights, EqualTheWholeMatrixQuantised) {
  for (const std::int64_t expert : {0, 3}) {
    const ExpertBytes got = expert_of(source_, expert);
    for (const bool down : {false, true}) {
      const std::vector<float> x = unquantized(source_, expert, down);
      const std::int64_t rows = down ? kShape.hidden : 2 * kShape.intermediate;
      const std::int64_t cols = down ? kShape.intermediate : kShape.hidden;
      const Bytes expected =
          GetParam() == WeightFormat::kNvfp4
              ? bytes_of(view(quantize_nvfp4(x, rows, cols)))
              : bytes_of(view(quantize_fp8(x, rows, cols, fp8_scaling(GetParam()))));
      EXPECT_EQ(got[down ? 1 : 0], expected) << "expert " << expert << " down " << down;
    }
  }
}

TEST_P(SyntheticWeights, DoNotDependOnOrderOrOnWhatWasReadBefore) {
  const ExpertBytes last_first = expert_of(source_, 4);
  for (std::int64_t expert = 0; expert < kShape.num_experts; ++expert) {
    static_cast<void>(expert_of(source_, expert));
  }
  EXPECT_EQ(expert_of(source_, 4), last_first);
  EXPECT_EQ(expert_of(synthetic_weights(kSeed, kShape, GetParam()), 4), last_first);
}

TEST_P(SyntheticWeights, DifferByExpertAndSeed) {
  EXPECT_NE(expert_of(source_, 0)[0], expert_of(source_, 1)[0]);
  EXPECT_NE(expert_of(source_, 0)[1], expert_of(source_, 1)[1]);
  EXPECT_NE(expert_of(source_, 0)[0],
            expert_of(synthetic_weights(kSeed + 1, kShape, GetParam()), 0)[0]);
}

TEST_P(SyntheticWeights, ValuesDoNotDependOnTheNumberOfExperts) {
  MoeShape wider = kShape;
  wider.num_experts = 64;
  EXPECT_EQ(expert_of(synthetic_weights(kSeed, wider, GetParam()), 3), expert_of(source_, 3));
}

TEST_P(SyntheticWeights, ReadTheSameFromSeveralThreads) {
  std::vector<ExpertBytes> expected;
  const WeightSource alone = synthetic_weights(kSeed, kShape, GetParam());
  for (std::int64_t expert = 0; expert < kShape.num_experts; ++expert) {
    expected.push_back(expert_of(alone, expert));
  }
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::int64_t i = 0; i < 10; ++i) {
        const std::int64_t expert = (i * (t + 1)) % kShape.num_experts;
        wrong += expert_of(source_, expert) == expected[static_cast<std::size_t>(expert)] ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(SyntheticWeights, CanBeReadInsideAParallelRegion) {
  std::atomic<int> wrong = 0;
  const ExpertBytes expected = expert_of(source_, 2);
#pragma omp parallel for num_threads(3)
  for (int i = 0; i < 6; ++i) {
    wrong += expert_of(source_, 2) == expected ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(SyntheticWeights, AUserThatThrowsLeavesTheSourceUsable) {
  const ExpertBytes expected = expert_of(source_, 1);
  EXPECT_THROW(
      source_.with_expert(1, [](const ExpertWeightsView&) { throw std::runtime_error("user"); }),
      std::runtime_error);
  EXPECT_EQ(expert_of(source_, 1), expected);
}

TEST_P(SyntheticWeights, RefuseAnExpertThatIsNotThere) {
  for (const std::int64_t expert : {std::int64_t{-1}, kShape.num_experts}) {
    EXPECT_THROW(source_.with_expert(expert, [](const ExpertWeightsView&) {}), Error);
  }
}

TEST_P(SyntheticWeights, QuantisedDirectlyAreTheSame) {
  ExpertWeights weights = make_expert_weights(kShape, GetParam());
  quantize_synthetic_expert(kSeed, kShape, 3, weights);
  EXPECT_EQ(bytes_of(view(weights)), expert_of(source_, 3));
}

TEST_P(SyntheticWeights, RefuseABufferOfAnotherShape) {
  ExpertWeights weights = make_expert_weights(
      {.num_experts = 1, .topk = 1, .hidden = 32, .intermediate = 32}, GetParam());
  EXPECT_THROW(quantize_synthetic_expert(kSeed, kShape, 0, weights), Error);
}

std::string format_name(const ::testing::TestParamInfo<WeightFormat>& param_info) {
  std::string name = name_of(param_info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Format, SyntheticWeights, ::testing::ValuesIn(kAllFormats), format_name);

TEST(SyntheticWeightRow, HasTheStatedSpread) {
  std::vector<float> row(1 << 16);
  synthetic_weight_row(kSeed, 1, true, 2, static_cast<std::int64_t>(row.size()), row.data());
  double squares = 0.0;
  for (const float w : row) {
    ASSERT_LE(std::abs(w), 510 * kWeightStep);
    squares += static_cast<double>(w) * static_cast<double>(w);
  }
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(row.size())), 147.8 * 0x1p-13, 0.0005);
}

TEST(Nvfp4Weights, W1AndW2HaveTheirOwnGlobalScaleFromTheirOwnAmax) {
  const WeightSource source = synthetic_weights(kSeed, kShape, WeightFormat::kNvfp4);
  source.with_expert(0, [&](const ExpertWeightsView& weights) {
    const float w1_amax = amax_of(unquantized(source, 0, false));
    const float w2_amax = amax_of(unquantized(source, 0, true));
    ASSERT_NE(w1_amax, w2_amax) << "the seed must tell the two apart";
    EXPECT_EQ(weights.nvfp4_w1.global_scale, nvfp4_global_scale(w1_amax));
    EXPECT_EQ(weights.nvfp4_w2.global_scale, nvfp4_global_scale(w2_amax));
  });
}

TEST(Fp8Weights, AmaxIsReachedAndMapsTo448) {
  const WeightSource source = synthetic_weights(kSeed, kShape, WeightFormat::kFp8PerTensor);
  constexpr std::uint8_t kLargestCode = 0x7E;
  source.with_expert(2, [&](const ExpertWeightsView& weights) {
    for (const Fp8View& m : {weights.fp8_w1, weights.fp8_w2}) {
      EXPECT_TRUE(std::any_of(m.payload, m.payload + m.rows * m.cols,
                              [](std::uint8_t code) { return (code & 0x7F) == kLargestCode; }));
    }
  });
}

TEST(Fp8Weights, EveryChannelAndBlockReachesItsAmax) {
  for (const WeightFormat format : {WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block}) {
    synthetic_weights(kSeed, kShape, format).with_expert(1, [&](const ExpertWeightsView& weights) {
      const Fp8View& m = weights.fp8_w1;
      std::vector<int> largest(static_cast<std::size_t>(fp8_scale_count(m.rows, m.cols, m.scaling)),
                               0);
      for (std::int64_t row = 0; row < m.rows; ++row) {
        for (std::int64_t col = 0; col < m.cols; ++col) {
          int& seen =
              largest[static_cast<std::size_t>(fp8_scale_index(row, col, m.cols, m.scaling))];
          seen = std::max(seen, m.payload[row * m.cols + col] & 0x7F);
        }
      }
      EXPECT_THAT(largest, ::testing::Each(0x7E)) << name_of(format);
    });
  }
}

TEST(WeightSources, RefuseShapesThatBreakTheFormatsRule) {
  MoeShape odd = kShape;
  odd.hidden = 200;
  EXPECT_THROW(static_cast<void>(synthetic_weights(kSeed, odd, WeightFormat::kNvfp4)), Error);
  EXPECT_NO_THROW(static_cast<void>(synthetic_weights(kSeed, odd, WeightFormat::kFp8Block)));
}

TEST(WeightSources, OnlyTheSyntheticLayerNamesItsSeed) {
  EXPECT_EQ(synthetic_weights(kSeed, kShape, WeightFormat::kNvfp4).synthetic_seed, kSeed);
  EXPECT_EQ(exact_weights(kSeed, kShape, WeightFormat::kNvfp4).synthetic_seed, std::nullopt);
}

class ResidentWeights : public ::testing::TestWithParam<WeightFormat> {
 protected:
  void SetUp() override {
    for (std::int64_t expert = 0; expert < kShape.num_experts; ++expert) {
      held_.push_back(make_expert_weights(kShape, GetParam()));
      quantize_synthetic_expert(kSeed, kShape, expert, held_.back());
    }
    for (const ExpertWeights& weights : held_) {
      views_.push_back(view(weights));
    }
  }
  std::string rejection() {
    try {
      static_cast<void>(resident_weights(kShape, views_));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
    return "";
  }
  std::vector<ExpertWeights> held_;
  std::vector<ExpertWeightsView> views_;
};

TEST_P(ResidentWeights, GiveTheCallersBuffersWithoutACopy) {
  const WeightSource source = resident_weights(kShape, views_);
  EXPECT_EQ(source.format, GetParam());
  EXPECT_FALSE(source.unquantized_row);
  for (std::int64_t expert = 0; expert < kShape.num_experts; ++expert) {
    source.with_expert(expert, [&](const ExpertWeightsView& weights) {
      const ExpertWeightsView& expected = views_[static_cast<std::size_t>(expert)];
      EXPECT_EQ(weights.nvfp4_w1.payload, expected.nvfp4_w1.payload);
      EXPECT_EQ(weights.fp8_w2.payload, expected.fp8_w2.payload);
    });
  }
  EXPECT_THROW(source.with_expert(kShape.num_experts, [](const ExpertWeightsView&) {}), Error);
}

TEST_P(ResidentWeights, RefuseAMissingExpert) {
  views_.pop_back();
  EXPECT_THAT(rejection(), HasSubstr("4 experts are given, the layer has 5"));
}

TEST_P(ResidentWeights, RefuseOtherSizesAndNameTheExpert) {
  views_[3].nvfp4_w2.rows += 1;
  views_[3].fp8_w2.rows += 1;
  EXPECT_THAT(rejection(), HasSubstr("expert 3"));
}

TEST_P(ResidentWeights, RefuseNullPayload) {
  views_[1].nvfp4_w1.payload = nullptr;
  views_[1].fp8_w1.payload = nullptr;
  EXPECT_THAT(rejection(), HasSubstr("expert 1"));
}

TEST_P(ResidentWeights, RefuseAMixOfFormats) {
  views_[2].format =
      GetParam() == WeightFormat::kNvfp4 ? WeightFormat::kFp8Block : WeightFormat::kNvfp4;
  EXPECT_THAT(rejection(), HasSubstr("expert 2"));
}

INSTANTIATE_TEST_SUITE_P(Format, ResidentWeights, ::testing::ValuesIn(kAllFormats), format_name);

}  // namespace
}  // namespace moebench
