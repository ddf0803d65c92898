// See fp8_pipeline.h.
#include "tests/backend/triton/fp8_pipeline.h"

#include <algorithm>
#include <cmath>

namespace moebench::testing {
namespace {

/// Columns of one FP8 MMA instruction, and the bits that stay below the largest exponent of its
/// terms. Published measurements of Hopper: "about 14 bits", the leading one and 13 below it.
constexpr std::int64_t kMmaDepth = 32;
constexpr int kKeptBits = 13;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

float sum_of(const float* a, const float* w, std::int64_t count, const PipelineOptions& options) {
  if (options.accumulation == Accumulation::kHardware) return hopper_fp8_sum(a, w, count);
  float sum = 0.0F;
  if (options.accumulation == Accumulation::kWidened) {
    for (std::int64_t i = 0; i < count; ++i) sum += a[i] * w[i];
    return sum;
  }
  for (std::int64_t i = 0; i < count; i += options.promote_every) {
    sum += hopper_fp8_sum(a + i, w + i, std::min(options.promote_every, count - i));
  }
  return sum;
}

/// Operand rows in quantised form, decoded.
struct Operand {
  std::vector<float> values;  ///< e4m3 values [rows, columns]
  std::vector<float> scales;  ///< [rows]
};

void quantize_row(const std::vector<float>& row, float scale, float* out) {
  std::vector<std::uint8_t> codes(row.size());
  quantize_fp8_row_scalar(row.data(), static_cast<std::int64_t>(row.size()), scale, codes.data());
  std::transform(codes.begin(), codes.end(), out, decode_e4m3);
}

float silu_times_up(float gate, float up) { return gate / (1.0F + std::exp(-gate)) * up; }

float scale_of_row(const Fp8View& matrix, std::int64_t row) {
  return matrix.scaling == Fp8Scaling::kPerTensor ? matrix.scales[0] : matrix.scales[row];
}

std::vector<float> decoded(const Fp8View& matrix) {
  std::vector<float> out(at(matrix.rows * matrix.cols));
  std::transform(matrix.payload, matrix.payload + matrix.rows * matrix.cols, out.begin(),
                 decode_e4m3);
  return out;
}

}  // namespace

float hopper_fp8_sum(const float* a, const float* w, std::int64_t count) {
  float sum = 0.0F;
  for (std::int64_t begin = 0; begin < count; begin += kMmaDepth) {
    const std::int64_t end = std::min(begin + kMmaDepth, count);
    int largest = sum == 0.0F ? -1000 : std::ilogb(sum);
    for (std::int64_t i = begin; i < end; ++i) {
      if (a[i] * w[i] != 0.0F) largest = std::max(largest, std::ilogb(a[i]) + std::ilogb(w[i]));
    }
    if (largest == -1000) continue;
    const double unit = std::ldexp(1.0, largest - kKeptBits);
    double kept = std::trunc(double{sum} / unit);
    for (std::int64_t i = begin; i < end; ++i)
      kept += std::trunc(double{a[i]} * double{w[i]} / unit);
    sum = static_cast<float>(kept * unit);
  }
  return sum;
}

PipelineAnswer run_fp8_pipeline(const MoeProblem& problem, const WeightSource& weights,
                                const PipelineOptions& options) {
  const MoeShape& shape = problem.shape;
  const std::int64_t k = shape.hidden;
  const std::int64_t n = shape.intermediate;
  const std::int64_t pairs = problem.tokens * shape.topk;
  const auto rounded = [&](float x) { return decode_act(shape.act, encode_act(shape.act, x)); };
  PipelineAnswer out;

  Operand a{std::vector<float>(at(problem.tokens * k)), std::vector<float>(at(problem.tokens))};
  for (std::int64_t token = 0; token < problem.tokens; ++token) {
    std::vector<float> row(at(k));
    for (std::int64_t i = 0; i < k; ++i)
      row[at(i)] = decode_act(shape.act, problem.a[at(token * k + i)]);
    const float scale =
        problem.scheme.per_act_token ? fp8_scale(amax_of(row)) : problem.scales.a1_scale;
    a.scales[at(token)] = scale;
    quantize_row(row, scale, &a.values[at(token * k)]);
  }

  std::vector<float> h(at(pairs * n));
  for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
    weights.with_expert(expert, [&](const ExpertWeightsView& view) {
      const std::vector<float> w1 = decoded(view.fp8_w1);
#pragma omp parallel for
      for (std::int64_t pair = 0; pair < pairs; ++pair) {
        if (problem.routing.topk_ids[at(pair)] != expert) continue;
        const std::int64_t token = pair / shape.topk;
        const auto c1 = [&](std::int64_t row) {
          const float sum = sum_of(&a.values[at(token * k)], &w1[at(row * k)], k, options);
          return rounded(sum * (a.scales[at(token)] * scale_of_row(view.fp8_w1, row)));
        };
        for (std::int64_t i = 0; i < n; ++i)
          h[at(pair * n + i)] = rounded(silu_times_up(c1(i), c1(n + i)));
      }
    });
  }

  Operand hidden{std::vector<float>(at(pairs * n)), std::vector<float>(at(pairs))};
  if (!problem.scheme.per_act_token && pairs > 0) {
    DynamicScaleClaim claim{1.0F, 0};
    float amax = -1.0F;
    for (std::int64_t i = 0; i < pairs * n; ++i) {
      if (std::abs(h[at(i)]) > amax) {
        amax = std::abs(h[at(i)]);
        claim.pair = i / n;
      }
    }
    claim.scale = fp8_scale(amax);
    out.claim = claim;
  }
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::vector<float> row(h.begin() + pair * n, h.begin() + (pair + 1) * n);
    hidden.scales[at(pair)] = out.claim ? out.claim->scale : fp8_scale(amax_of(row));
    quantize_row(row, hidden.scales[at(pair)], &hidden.values[at(pair * n)]);
  }

  std::vector<float> c2(at(pairs * k));
  for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
    weights.with_expert(expert, [&](const ExpertWeightsView& view) {
      const std::vector<float> w2 = decoded(view.fp8_w2);
#pragma omp parallel for
      for (std::int64_t pair = 0; pair < pairs; ++pair) {
        if (problem.routing.topk_ids[at(pair)] != expert) continue;
        for (std::int64_t i = 0; i < k; ++i) {
          const float sum = sum_of(&hidden.values[at(pair * n)], &w2[at(i * n)], n, options);
          float value = sum * (hidden.scales[at(pair)] * scale_of_row(view.fp8_w2, i));
          if (options.weight_in_gemm2) value *= problem.routing.topk_weights[at(pair)];
          c2[at(pair * k + i)] = rounded(value);
        }
      }
    });
  }

  out.y.resize(at(problem.tokens * k));
  for (std::int64_t token = 0; token < problem.tokens; ++token) {
    for (std::int64_t i = 0; i < k; ++i) {
      float sum = 0.0F;
      for (std::int64_t j = 0; j < shape.topk; ++j) {
        const std::int64_t pair = token * shape.topk + j;
        sum += c2[at(pair * k + i)] *
               (options.weight_in_gemm2 ? 1.0F : problem.routing.topk_weights[at(pair)]);
      }
      out.y[at(token * k + i)] = encode_act(shape.act, sum);
    }
  }
  return out;
}

}  // namespace moebench::testing
