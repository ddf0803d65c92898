// The exact mode's promise: any summation order gives the same bits, results are finite and not
// trivial.
#include "moebench/moe/exact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "moebench/core/error.h"
#include "moebench/moe/problem.h"

namespace moebench {
namespace {

constexpr std::uint64_t kSeed = 11;

/// Visits 0..n-1 in an order of its own.
enum class Order { kForward, kBackward, kStrided, kTree };

/// Sum of products in FP32, in the given order.
float dot(const std::vector<float>& a, const std::vector<float>& b, Order order) {
  const std::size_t n = a.size();
  constexpr std::size_t kStride = 7;
  float sum = 0.0F;
  switch (order) {
    case Order::kForward:
      for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
      return sum;
    case Order::kBackward:
      for (std::size_t i = n; i-- > 0;) sum += a[i] * b[i];
      return sum;
    case Order::kStrided:
      for (std::size_t lane = 0; lane < kStride; ++lane) {
        float part = 0.0F;
        for (std::size_t i = lane; i < n; i += kStride) part = std::fma(a[i], b[i], part);
        sum += part;
      }
      return sum;
    case Order::kTree: {
      std::vector<float> terms(n);
      for (std::size_t i = 0; i < n; ++i) terms[i] = a[i] * b[i];
      for (std::size_t width = 1; width < n; width *= 2) {
        for (std::size_t i = 0; i + width < n; i += 2 * width) terms[i] += terms[i + width];
      }
      return terms.empty() ? 0.0F : terms[0];
    }
  }
  return sum;
}

/// decode_e4m3 by table: the tests decode every weight many times.
float e4m3(std::uint8_t code) {
  static const std::vector<float> table = [] {
    std::vector<float> values;
    for (int i = 0; i < 256; ++i) {
      values.push_back(decode_e4m3(static_cast<std::uint8_t>(i)));
    }
    return values;
  }();
  return table[code];
}

/// Dequantised weight row without any scale that multiplies the whole accumulator (returned in
/// `alpha`).
std::vector<float> weight_row(const ExpertWeightsView& weights, bool down, std::int64_t row,
                              float& alpha) {
  std::vector<float> values;
  if (weights.format == WeightFormat::kNvfp4) {
    const Nvfp4View& m = down ? weights.nvfp4_w2 : weights.nvfp4_w1;
    values.resize(static_cast<std::size_t>(m.cols));
    dequantize_nvfp4_row_unscaled(m, row, values.data());
    alpha = 1.0F / m.global_scale;
    return values;
  }
  const Fp8View& m = down ? weights.fp8_w2 : weights.fp8_w1;
  const bool block = m.scaling == Fp8Scaling::kBlock128x128;
  for (std::int64_t col = 0; col < m.cols; ++col) {
    const float scale = m.scales[fp8_scale_index(row, col, m.cols, m.scaling)];
    values.push_back(e4m3(m.payload[row * m.cols + col]) * (block ? scale : 1.0F));
    alpha = block ? 1.0F : scale;
  }
  return values;
}

/// An activation row as the scheme quantises it; `alpha` is multiplied by its scale. For the FP8
/// per-tensor second GEMM the dynamic scale is the row's own: in the exact mode all rows have the
/// same (tested below).
std::vector<float> activation_row(const MoeProblem& problem, std::vector<float> x,
                                  std::size_t expert, bool second, float& alpha) {
  const auto cols = static_cast<std::int64_t>(x.size());
  switch (problem.scheme.scheme) {
    case Scheme::kNvfp4W4A16:
      return x;
    case Scheme::kNvfp4: {
      const float gs =
          second ? problem.scales.a2_global_scale[expert] : problem.scales.a1_global_scale[expert];
      std::vector<std::uint8_t> payload(x.size() / 2);
      std::vector<std::uint8_t> scales(x.size() / 16);
      quantize_nvfp4_row_scalar(x.data(), cols, gs, payload.data(), scales.data());
      dequantize_nvfp4_row_unscaled({1, cols, payload.data(), scales.data(), gs}, 0, x.data());
      alpha /= gs;
      return x;
    }
    case Scheme::kFp8: {
      const bool dynamic = second || problem.scheme.per_act_token;
      const float scale = dynamic ? fp8_scale(amax_of(x)) : problem.scales.a1_scale;
      std::vector<std::uint8_t> codes(x.size());
      quantize_fp8_row_scalar(x.data(), cols, scale, codes.data());
      std::transform(codes.begin(), codes.end(), x.begin(),
                     [](std::uint8_t code) { return e4m3(code); });
      alpha *= scale;
      return x;
    }
    case Scheme::kFp8Block: {
      std::vector<std::uint8_t> codes(x.size());
      for (std::size_t begin = 0; begin < x.size(); begin += kFp8BlockSize) {
        const auto group =
            std::span(x).subspan(begin, std::min<std::size_t>(kFp8BlockSize, x.size() - begin));
        const float scale = fp8_scale(amax_of(group));
        quantize_fp8_row_scalar(group.data(), static_cast<std::int64_t>(group.size()), scale,
                                codes.data() + begin);
        for (std::size_t i = 0; i < group.size(); ++i) {
          group[i] = e4m3(codes[begin + i]) * scale;
        }
      }
      return x;
    }
  }
  return x;
}

struct Forward {
  std::vector<std::uint16_t> c1, h, c2, y;  ///< 16-bit stages, pairs in order
};

/// One GEMM row: the rounding point c = act(acc * alpha) for every weight row.
void gemm(const MoeProblem& problem, const ExpertWeightsView& weights, bool down,
          const std::vector<float>& x, std::size_t expert, Order order,
          std::vector<std::uint16_t>& out) {
  const std::int64_t rows = down ? problem.shape.hidden : 2 * problem.shape.intermediate;
  float a_alpha = 1.0F;
  const std::vector<float> a = activation_row(problem, x, expert, down, a_alpha);
  for (std::int64_t row = 0; row < rows; ++row) {
    float w_alpha = 1.0F;
    const std::vector<float> w = weight_row(weights, down, row, w_alpha);
    out.push_back(encode_act(problem.shape.act, dot(a, w, order) * (a_alpha * w_alpha)));
  }
}

std::vector<float> decoded(ActType act, const std::uint16_t* bits, std::size_t count) {
  std::vector<float> values(count);
  std::transform(bits, bits + count, values.begin(),
                 [&](std::uint16_t b) { return decode_act(act, b); });
  return values;
}

Forward forward(const MoeProblem& problem, const WeightSource& source, Order order) {
  const ActType act = problem.shape.act;
  const auto n = static_cast<std::size_t>(problem.shape.intermediate);
  const auto k = static_cast<std::size_t>(problem.shape.hidden);
  const auto topk = static_cast<std::size_t>(problem.shape.topk);
  Forward result;
  for (std::size_t pair = 0; pair < problem.routing.topk_ids.size(); ++pair) {
    const auto expert = static_cast<std::size_t>(problem.routing.topk_ids[pair]);
    source.with_expert(static_cast<std::int64_t>(expert), [&](const ExpertWeightsView& weights) {
      gemm(problem, weights, false, decoded(act, problem.a.data() + pair / topk * k, k), expert,
           order, result.c1);
      const std::vector<float> c1 =
          decoded(act, result.c1.data() + result.c1.size() - 2 * n, 2 * n);
      for (std::size_t i = 0; i < n; ++i) {
        const float silu = c1[i] / (1.0F + std::exp(-c1[i]));
        result.h.push_back(encode_act(act, silu * c1[n + i]));
      }
      gemm(problem, weights, true, decoded(act, result.h.data() + result.h.size() - n, n), expert,
           order, result.c2);
    });
  }
  for (std::size_t token = 0; token < static_cast<std::size_t>(problem.tokens); ++token) {
    for (std::size_t col = 0; col < k; ++col) {
      std::vector<float> c2;
      std::vector<float> weights;
      for (std::size_t slot = 0; slot < topk; ++slot) {
        c2.push_back(decode_act(act, result.c2[(token * topk + slot) * k + col]));
        weights.push_back(problem.routing.topk_weights[token * topk + slot]);
      }
      result.y.push_back(encode_act(act, dot(c2, weights, order)));
    }
  }
  return result;
}

struct ExactCase {
  const char* name;
  SchemeConfig scheme;
  MoeShape shape;
  std::int64_t tokens;
};

class ExactMode : public ::testing::TestWithParam<ExactCase> {
 protected:
  MoeShape shape_ = GetParam().shape;
  Routing routing_ =
      make_routing({}, kSeed, GetParam().tokens, shape_.num_experts, shape_.topk, false);
  MoeProblem problem_ =
      exact_problem(kSeed, shape_, GetParam().scheme, GetParam().tokens, routing_);
  WeightSource source_ = exact_weights(kSeed, shape_, weight_format(GetParam().scheme));
};

TEST_P(ExactMode, EveryOrderGivesTheSameBitsAtEveryStage) {
  const Forward reference = forward(problem_, source_, Order::kForward);
  for (const Order order : {Order::kBackward, Order::kStrided, Order::kTree}) {
    const Forward other = forward(problem_, source_, order);
    EXPECT_EQ(reference.c1, other.c1) << static_cast<int>(order);
    EXPECT_EQ(reference.h, other.h) << static_cast<int>(order);
    EXPECT_EQ(reference.c2, other.c2) << static_cast<int>(order);
    EXPECT_EQ(reference.y, other.y) << static_cast<int>(order);
  }
}

TEST_P(ExactMode, AnswersAreFiniteAndVaried) {
  const Forward result = forward(problem_, source_, Order::kForward);
  std::set<std::uint16_t> different;
  std::size_t zeros = 0;
  for (const std::uint16_t bits : result.y) {
    const float value = decode_act(shape_.act, bits);
    ASSERT_TRUE(std::isfinite(value));
    zeros += value == 0.0F ? 1U : 0U;
    different.insert(bits);
  }
  EXPECT_LT(zeros, result.y.size() / 2);
  EXPECT_GT(different.size(), std::min<std::size_t>(8, result.y.size() / 4));
}

TEST_P(ExactMode, GatesAreLargeAndEveryRowOfHHasTheSameAmax) {
  const Forward result = forward(problem_, source_, Order::kForward);
  const auto n = static_cast<std::size_t>(shape_.intermediate);
  const float amax = exact::hidden_amax(source_.format);
  for (std::size_t pair = 0; pair < problem_.routing.topk_ids.size(); ++pair) {
    const std::vector<float> c1 = decoded(shape_.act, result.c1.data() + pair * 2 * n, 2 * n);
    const std::vector<float> h = decoded(shape_.act, result.h.data() + pair * n, n);
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_GE(c1[i], exact::kGateWeight) << "pair " << pair << " gate " << i;
      ASSERT_EQ(h[i], c1[i] * c1[n + i]) << "h must be exact: pair " << pair << " column " << i;
      ASSERT_LE(std::abs(h[i]), amax);
      ASSERT_TRUE(i % 16 != 0 || h[i] == amax) << "pair " << pair << " anchor " << i;
    }
  }
}

TEST_P(ExactMode, QuantisedWeightsAreTheUnquantisedOnes) {
  std::vector<float> row(static_cast<std::size_t>(std::max(shape_.hidden, shape_.intermediate)));
  source_.with_expert(shape_.num_experts - 1, [&](const ExpertWeightsView& weights) {
    for (const bool down : {false, true}) {
      const std::int64_t rows = down ? shape_.hidden : 2 * shape_.intermediate;
      for (std::int64_t r = 0; r < rows; ++r) {
        float alpha = 1.0F;
        const std::vector<float> quantised = weight_row(weights, down, r, alpha);
        source_.unquantized_row(shape_.num_experts - 1, down, r, row.data());
        for (std::size_t col = 0; col < quantised.size(); ++col) {
          ASSERT_EQ(quantised[col] * alpha, row[col])
              << "down " << down << " row " << r << " column " << col;
        }
      }
    }
  });
}

TEST_P(ExactMode, TokensAreTheirOwnQuantisedForm) {
  const auto k = static_cast<std::size_t>(shape_.hidden);
  for (std::size_t token = 0; token < static_cast<std::size_t>(problem_.tokens); ++token) {
    const std::vector<float> a = decoded(shape_.act, problem_.a.data() + token * k, k);
    float alpha = 1.0F;
    const std::vector<float> quantised = activation_row(problem_, a, 0, false, alpha);
    for (std::size_t i = 0; i < k; ++i) {
      ASSERT_EQ(quantised[i] * alpha, a[i]) << "token " << token << " column " << i;
    }
  }
}

TEST_P(ExactMode, TopkWeightsArePowersOfTwo) {
  std::set<float> seen;
  for (const float weight : problem_.routing.topk_weights) {
    int exponent = 0;
    EXPECT_EQ(std::frexp(weight, &exponent), 0.5F) << weight;
    EXPECT_TRUE(exponent >= -3 && exponent <= 0) << weight;
    seen.insert(weight);
  }
  EXPECT_GT(seen.size(), 1U);
}

constexpr MoeShape kSmall{.num_experts = 5, .topk = 3, .hidden = 304, .intermediate = 144};
constexpr MoeShape kSmallBf16{
    .num_experts = 5, .topk = 3, .hidden = 304, .intermediate = 144, .act = ActType::kBf16};
constexpr MoeShape kTiny{.num_experts = 3, .topk = 2, .hidden = 16, .intermediate = 16};
constexpr MoeShape kOdd{.num_experts = 3, .topk = 2, .hidden = 131, .intermediate = 257};
constexpr MoeShape kWide{.num_experts = 2, .topk = 2, .hidden = 16384, .intermediate = 16};
constexpr MoeShape kDeep{.num_experts = 2, .topk = 2, .hidden = 16, .intermediate = 16384};
constexpr SchemeConfig kNvfp4{.scheme = Scheme::kNvfp4};
constexpr SchemeConfig kW4A16{.scheme = Scheme::kNvfp4W4A16};
constexpr SchemeConfig kFp8{.scheme = Scheme::kFp8};
constexpr SchemeConfig kFp8Token{.scheme = Scheme::kFp8, .per_act_token = true};
constexpr SchemeConfig kFp8Channel{.scheme = Scheme::kFp8, .per_out_ch = true};
constexpr SchemeConfig kFp8Both{.scheme = Scheme::kFp8, .per_act_token = true, .per_out_ch = true};
constexpr SchemeConfig kFp8Block{.scheme = Scheme::kFp8Block};

INSTANTIATE_TEST_SUITE_P(
    Cases, ExactMode,
    ::testing::Values(
        ExactCase{"Nvfp4", kNvfp4, kSmall, 4}, ExactCase{"Nvfp4Bf16", kNvfp4, kSmallBf16, 4},
        ExactCase{"Nvfp4Tiny", kNvfp4, kTiny, 9}, ExactCase{"Nvfp4Wide", kNvfp4, kWide, 1},
        ExactCase{"Nvfp4Deep", kNvfp4, kDeep, 1}, ExactCase{"W4A16", kW4A16, kSmall, 4},
        ExactCase{"W4A16Bf16", kW4A16, kSmallBf16, 4}, ExactCase{"W4A16Deep", kW4A16, kDeep, 1},
        ExactCase{"Fp8", kFp8, kSmall, 4}, ExactCase{"Fp8Bf16", kFp8, kSmallBf16, 4},
        ExactCase{"Fp8Odd", kFp8, kOdd, 4}, ExactCase{"Fp8Wide", kFp8, kWide, 1},
        ExactCase{"Fp8Token", kFp8Token, kOdd, 4}, ExactCase{"Fp8Channel", kFp8Channel, kOdd, 4},
        ExactCase{"Fp8TokenChannel", kFp8Both, kSmallBf16, 4},
        ExactCase{"Fp8Block", kFp8Block, kOdd, 4},
        ExactCase{"Fp8BlockBf16", kFp8Block, kSmallBf16, 4},
        ExactCase{"Fp8BlockDeep", kFp8Block, kDeep, 1}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(ExactProblem, IsAPureFunctionOfItsArguments) {
  const Routing routing = make_routing({}, 1, 4, kSmall.num_experts, kSmall.topk, false);
  const MoeProblem a = exact_problem(3, kSmall, kFp8, 4, routing);
  const MoeProblem b = exact_problem(3, kSmall, kFp8, 4, routing);
  EXPECT_EQ(a.a, b.a);
  EXPECT_EQ(a.routing.topk_weights, b.routing.topk_weights);
  EXPECT_NE(a.a, exact_problem(4, kSmall, kFp8, 4, routing).a);
}

TEST(ExactProblem, RefusesSizesItIsNotExactFor) {
  constexpr MoeShape kNarrow{.num_experts = 2, .topk = 1, .hidden = 1, .intermediate = 4};
  EXPECT_THROW(static_cast<void>(exact_weights(1, kNarrow, WeightFormat::kFp8PerTensor)), Error);
  constexpr MoeShape kManyExperts{
      .num_experts = 600, .topk = 513, .hidden = 16, .intermediate = 16};
  EXPECT_THROW(static_cast<void>(
                   exact_problem(1, kManyExperts, kFp8, 0,
                                 {.tokens = 0, .topk = 513, .topk_ids = {}, .topk_weights = {}})),
               Error);
}

}  // namespace
}  // namespace moebench
