// See long_double_moe.h. Matrices are dequantised as a whole; nothing is shared with the reference
// or the naive kernel.
#include "tests/support/long_double_moe.h"

#include <algorithm>
#include <cmath>

namespace moebench::testing {
namespace {

using Real = long double;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A quantised vector or matrix: values, and the FP32 scale of the whole of each row (block scales
/// are in the values).
struct Dense {
  std::int64_t cols = 0;
  std::vector<Real> values;
  std::vector<float> row_scale;
};

Dense dequantize(const Nvfp4View& m) {
  Dense out{m.cols, {}, std::vector<float>(at(m.rows), m.global_scale)};
  std::vector<float> row(at(m.cols));
  for (std::int64_t r = 0; r < m.rows; ++r) {
    dequantize_nvfp4_row_unscaled(m, r, row.data());
    out.values.insert(out.values.end(), row.begin(), row.end());
  }
  return out;
}

Dense dequantize(const Fp8View& m) {
  const bool blocks =
      m.scaling == Fp8Scaling::kBlock128x128 || m.scaling == Fp8Scaling::kBlock1x128;
  Dense out{m.cols, {}, {}};
  for (std::int64_t r = 0; r < m.rows; ++r) {
    out.row_scale.push_back(blocks ? 1.0F : m.scales[fp8_scale_index(r, 0, m.cols, m.scaling)]);
    for (std::int64_t c = 0; c < m.cols; ++c) {
      const Real scale = blocks ? m.scales[fp8_scale_index(r, c, m.cols, m.scaling)] : 1.0F;
      out.values.push_back(Real{decode_e4m3(m.payload[r * m.cols + c])} * scale);
    }
  }
  return out;
}

/// One activation row through the scheme's quantiser. `nvfp4_gs` and `fp8_tensor_scale` are read
/// where the scheme has them.
Dense quantize(const SchemeConfig& scheme, const std::vector<float>& x, float nvfp4_gs,
               float fp8_tensor_scale) {
  const auto cols = static_cast<std::int64_t>(x.size());
  switch (scheme.scheme) {
    case Scheme::kNvfp4: {
      Nvfp4Matrix m = make_nvfp4_matrix(1, cols);
      m.global_scale = nvfp4_gs;
      quantize_nvfp4_row(x.data(), cols, nvfp4_gs, m.payload.as<std::uint8_t>().data(),
                         m.scales.as<std::uint8_t>().data());
      return dequantize(view(m));
    }
    case Scheme::kNvfp4W4A16:
      return {cols, {x.begin(), x.end()}, {1.0F}};
    case Scheme::kFp8: {
      if (scheme.per_act_token)
        return dequantize(view(quantize_fp8(x, 1, cols, Fp8Scaling::kPerRow)));
      Fp8Matrix m = make_fp8_matrix(1, cols, Fp8Scaling::kPerTensor);
      m.scales.as<float>()[0] = fp8_tensor_scale;
      quantize_fp8_row(x.data(), cols, fp8_tensor_scale, m.payload.as<std::uint8_t>().data());
      return dequantize(view(m));
    }
    case Scheme::kFp8Block:
      break;
  }
  return dequantize(view(quantize_fp8(x, 1, cols, Fp8Scaling::kBlock1x128)));
}

Real product(const Dense& w, std::int64_t row, const Dense& x, bool nvfp4) {
  Real total = 0;
  for (std::int64_t c = 0; c < w.cols; ++c)
    total += w.values[at(row * w.cols + c)] * x.values[at(c)];
  const float alpha = nvfp4 ? 1.0F / (x.row_scale[0] * w.row_scale[at(row)])
                            : x.row_scale[0] * w.row_scale[at(row)];
  return total * Real{alpha};
}

}  // namespace

std::vector<double> long_double_forward(const MoeProblem& problem, const WeightSource& weights) {
  const std::int64_t topk = problem.shape.topk;
  const std::int64_t k = problem.shape.hidden;
  const std::int64_t n = problem.shape.intermediate;
  const ActType act = problem.shape.act;
  const bool nvfp4 = weights.format == WeightFormat::kNvfp4;
  const auto round16 = [act](Real x) {
    return decode_act(act, encode_act(act, static_cast<double>(x)));
  };
  const auto for_each_pair = [&](bool down, const auto& use) {
    for (std::int64_t expert = 0; expert < problem.shape.num_experts; ++expert) {
      std::vector<std::int64_t> pairs;
      for (std::int64_t pair = 0; pair < problem.tokens * topk; ++pair) {
        if (problem.routing.topk_ids[at(pair)] == expert) pairs.push_back(pair);
      }
      if (pairs.empty()) continue;
      weights.with_expert(expert, [&](const ExpertWeightsView& v) {
        const Dense w = nvfp4 ? dequantize(down ? v.nvfp4_w2 : v.nvfp4_w1)
                              : dequantize(down ? v.fp8_w2 : v.fp8_w1);
        for (const std::int64_t pair : pairs) use(pair, expert, w);
      });
    }
  };
  const auto scale_of = [&](const std::vector<float>& per_expert, std::int64_t expert) {
    return per_expert.empty() ? 1.0F : per_expert[at(expert)];
  };
  std::vector<std::vector<float>> h(at(problem.tokens * topk));
  float amax = 0.0F;
  for_each_pair(false, [&](std::int64_t pair, std::int64_t expert, const Dense& w1) {
    std::vector<float> x;
    for (std::int64_t c = 0; c < k; ++c) {
      x.push_back(decode_act(act, problem.a[at(pair / topk * k + c)]));
    }
    const Dense q = quantize(problem.scheme, x, scale_of(problem.scales.a1_global_scale, expert),
                             problem.scales.a1_scale);
    for (std::int64_t r = 0; r < n; ++r) {
      const Real gate = round16(product(w1, r, q, nvfp4));
      const Real up = round16(product(w1, n + r, q, nvfp4));
      h[at(pair)].push_back(round16(gate / (1 + std::exp(-gate)) * up));
      amax = std::max(amax, std::abs(h[at(pair)].back()));
    }
  });
  std::vector<Real> y(at(problem.tokens * k), 0);
  for_each_pair(true, [&](std::int64_t pair, std::int64_t expert, const Dense& w2) {
    const Dense q = quantize(problem.scheme, h[at(pair)],
                             scale_of(problem.scales.a2_global_scale, expert), fp8_scale(amax));
    for (std::int64_t c = 0; c < k; ++c) {
      y[at(pair / topk * k + c)] +=
          Real{problem.routing.topk_weights[at(pair)]} * Real{round16(product(w2, c, q, nvfp4))};
    }
  });
  std::vector<double> out;
  std::transform(y.begin(), y.end(), std::back_inserter(out),
                 [&](Real v) { return double{round16(v)}; });
  return out;
}

}  // namespace moebench::testing
