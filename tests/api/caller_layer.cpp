// See caller_layer.h.
#include "tests/api/caller_layer.h"

#include <tuple>
#include <utility>

namespace moebench::testing {
namespace {

template <typename T>
void append(std::vector<T>& out, const T* values, std::int64_t count) {
  out.insert(out.end(), values, values + count);
}

void append_blocks(std::vector<std::uint8_t>& out, const Nvfp4View& matrix, ScaleLayout layout) {
  const std::int64_t groups = matrix.cols / kNvfp4BlockSize;
  if (layout == ScaleLayout::kLinear) return append(out, matrix.scales, matrix.rows * groups);
  const auto bytes = static_cast<std::size_t>(nvfp4_scale_bytes(matrix.rows, matrix.cols, layout));
  out.resize(out.size() + bytes);
  swizzle_scales({matrix.scales, static_cast<std::size_t>(matrix.rows * groups)}, matrix.rows,
                 groups, std::span(out).last(bytes));
}

bool is_nvfp4(const MoeProblem& problem) {
  return weight_format(problem.scheme) == WeightFormat::kNvfp4;
}

Fp8WeightScaling scaling_of(const SchemeConfig& scheme) {
  if (scheme.scheme == Scheme::kFp8Block) return Fp8WeightScaling::kBlock128x128;
  return scheme.per_out_ch ? Fp8WeightScaling::kPerOutChannel : Fp8WeightScaling::kPerExpert;
}

void append_fp8(const Fp8View& matrix, std::vector<std::uint8_t>& payload,
                std::vector<float>& scales) {
  append(payload, matrix.payload, matrix.rows * matrix.cols);
  append(scales, matrix.scales, fp8_scale_count(matrix.rows, matrix.cols, matrix.scaling));
}

}  // namespace

CallerLayer caller_layer(LayerCase source, ScaleLayout layout) {
  CallerLayer out;
  out.source = std::move(source);
  out.layout = layout;
  const MoeProblem& problem = out.problem();
  const MoeShape& shape = problem.shape;
  const bool w4a4 = problem.scheme.scheme == Scheme::kNvfp4;
  out.sizes = {
      .n = shape.intermediate, .k = shape.hidden, .e = shape.num_experts, .topk = shape.topk};
  for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
    const auto e = static_cast<std::size_t>(expert);
    out.source.weights.with_expert(expert, [&](const ExpertWeightsView& weights) {
      if (!is_nvfp4(problem)) {
        append_fp8(weights.fp8_w1, out.w1, out.w1_scales);
        append_fp8(weights.fp8_w2, out.w2, out.w2_scales);
        return;
      }
      append(out.w1, weights.nvfp4_w1.payload, weights.nvfp4_w1.rows * weights.nvfp4_w1.cols / 2);
      append(out.w2, weights.nvfp4_w2.payload, weights.nvfp4_w2.rows * weights.nvfp4_w2.cols / 2);
      append_blocks(out.w1_blocks, weights.nvfp4_w1, layout);
      append_blocks(out.w2_blocks, weights.nvfp4_w2, layout);
      const float a1 = w4a4 ? problem.scales.a1_global_scale[e] : 1.0F;
      const float a2 = w4a4 ? problem.scales.a2_global_scale[e] : 1.0F;
      out.g1_alphas.push_back(1.0F / (a1 * weights.nvfp4_w1.global_scale));
      out.g2_alphas.push_back(1.0F / (a2 * weights.nvfp4_w2.global_scale));
    });
  }
  return out;
}

Nvfp4MoeQuantConfig CallerLayer::nvfp4() const {
  Nvfp4MoeQuantConfig config{.a1_gscale = {},
                             .a2_gscale = {},
                             .w1_scale = w1_blocks,
                             .w2_scale = w2_blocks,
                             .g1_alphas = g1_alphas,
                             .g2_alphas = g2_alphas,
                             .scale_layout = layout};
  if (problem().scheme.scheme == Scheme::kNvfp4) {
    config.a1_gscale = problem().scales.a1_global_scale;
    config.a2_gscale = problem().scales.a2_global_scale;
  }
  return config;
}

Fp8MoeQuantConfig CallerLayer::fp8() const {
  const bool given = problem().scheme.scheme == Scheme::kFp8 && !problem().scheme.per_act_token;
  return {.scaling = scaling_of(problem().scheme),
          .w1_scale = w1_scales,
          .w2_scale = w2_scales,
          .per_act_token = problem().scheme.per_act_token,
          .a1_scale = given ? problem().scales.a1_scale : 0.0F};
}

MoeLayer CallerLayer::make(const MoeOptions& options) const {
  if (is_nvfp4(problem())) return {w1, w2, sizes, nvfp4(), options};
  return {w1, w2, sizes, fp8(), options};
}

std::vector<std::uint16_t> CallerLayer::run(MoeLayer& layer) const {
  std::vector<std::uint16_t> y(problem().a.size());
  layer.run(problem().a, problem().routing.topk_weights, problem().routing.topk_ids,
            problem().tokens, y);
  return y;
}

std::vector<std::uint16_t> CallerLayer::forward(const MoeOptions& options) const {
  std::vector<std::uint16_t> y(problem().a.size());
  const auto& [ids, weights] = std::tie(problem().routing.topk_ids, problem().routing.topk_weights);
  if (is_nvfp4(problem())) {
    moe_forward_nvfp4(problem().a, w1, w2, weights, ids, problem().tokens, sizes.n, sizes.k,
                      sizes.e, nvfp4(), y, options);
  } else {
    moe_forward_fp8(problem().a, w1, w2, weights, ids, problem().tokens, sizes.n, sizes.k, sizes.e,
                    fp8(), y, options);
  }
  return y;
}

}  // namespace moebench::testing
