#include "moebench/api/stacks.h"

#include <cmath>

#include "moebench/api/arguments.h"
#include "moebench/quant/scale_layout.h"

namespace moebench {
namespace {

/// A weight of this size does not fit FP16; no layer has one. 448*6 is the largest value times
/// w_gs.
constexpr double kLargestPlausibleWeight = 65504.0;
constexpr double kLargestScaledWeight = double{kE4m3Max} * double{kE2m1Max};

}  // namespace

MoeShape shape_of(const MoeSizes& sizes, ActType act) {
  return {.num_experts = sizes.e,
          .topk = sizes.topk,
          .hidden = sizes.k,
          .intermediate = sizes.n,
          .act = act};
}

void require_positive(const char* what, std::span<const float> values) {
  for (std::size_t expert = 0; expert < values.size(); ++expert) {
    if (!(values[expert] > 0.0F) || !std::isfinite(values[expert])) {
      fail(ErrorCode::kBadInput, "{}: is {} for expert {}; it must be positive and finite", what,
           values[expert], expert);
    }
  }
}

std::vector<float> implied_weight_scales(const char* alpha_name, std::span<const float> alphas,
                                         std::span<const float> a_gscale) {
  require_positive(alpha_name, alphas);
  std::vector<float> scales;
  for (std::size_t expert = 0; expert < alphas.size(); ++expert) {
    const double a_gs = a_gscale.empty() ? 1.0 : double{a_gscale[expert]};
    const double unit = double{alphas[expert]} * a_gs;
    const auto w_gs = static_cast<float>(1.0 / unit);
    if (kLargestScaledWeight * unit > kLargestPlausibleWeight || !std::isnormal(w_gs)) {
      fail(ErrorCode::kBadInput,
           "{}: {} for expert {} implies weights up to {:.3g}; give 1 / (activation global scale * "
           "weight global scale)",
           alpha_name, alphas[expert], expert, kLargestScaledWeight * unit);
    }
    scales.push_back(w_gs);
  }
  return scales;
}

Nvfp4View Nvfp4Stack::expert(std::int64_t e, std::vector<std::uint8_t>& linear) const {
  const std::int64_t scale_bytes = nvfp4_scale_bytes(rows, cols, layout);
  const std::uint8_t* expert_scales = scales.data() + e * scale_bytes;
  if (layout != ScaleLayout::kLinear) {
    const std::int64_t groups = cols / kNvfp4BlockSize;
    linear.resize(static_cast<std::size_t>(rows * groups));
    unswizzle_scales({expert_scales, static_cast<std::size_t>(scale_bytes)}, rows, groups, linear);
    expert_scales = linear.data();
  }
  return {rows, cols, payload.data() + e * rows * (cols / 2), expert_scales,
          global_scales[static_cast<std::size_t>(e)]};
}

Fp8View Fp8Stack::expert(std::int64_t e) const {
  return {rows, cols, scaling, payload.data() + e * rows * cols,
          scales.data() + e * fp8_scale_count(rows, cols, scaling)};
}

WeightSource source_of(const MoeShape& shape, const Nvfp4Stack& w1, const Nvfp4Stack& w2) {
  WeightSource source;
  source.shape = shape;
  source.format = WeightFormat::kNvfp4;
  source.with_expert = [&w1, &w2](std::int64_t expert, const WithExpert& use) {
    std::vector<std::uint8_t> w1_linear;
    std::vector<std::uint8_t> w2_linear;
    ExpertWeightsView weights;
    weights.format = WeightFormat::kNvfp4;
    weights.nvfp4_w1 = w1.expert(expert, w1_linear);
    weights.nvfp4_w2 = w2.expert(expert, w2_linear);
    use(weights);
  };
  return source;
}

WeightSource source_of(const MoeShape& shape, WeightFormat format, const Fp8Stack& w1,
                       const Fp8Stack& w2) {
  WeightSource source;
  source.shape = shape;
  source.format = format;
  source.with_expert = [format, &w1, &w2](std::int64_t expert, const WithExpert& use) {
    ExpertWeightsView weights;
    weights.format = format;
    weights.fp8_w1 = w1.expert(expert);
    weights.fp8_w2 = w2.expert(expert);
    use(weights);
  };
  return source;
}

void validate_stack(const Nvfp4Stack& stack, std::int64_t experts) {
  std::vector<std::uint8_t> linear;
  for (std::int64_t e = 0; e < experts; ++e) {
    validate_nvfp4(stack.expert(e, linear), fmt::format("{} of expert {}", stack.name, e));
  }
}

void validate_stack(const Fp8Stack& stack, std::int64_t experts) {
  for (std::int64_t e = 0; e < experts; ++e) {
    validate_fp8(stack.expert(e), fmt::format("{} of expert {}", stack.name, e));
  }
}

SchemeConfig scheme_of(const Fp8MoeQuantConfig& config) {
  SchemeConfig scheme;
  scheme.scheme =
      config.scaling == Fp8WeightScaling::kBlock128x128 ? Scheme::kFp8Block : Scheme::kFp8;
  scheme.per_act_token = config.per_act_token;
  scheme.per_out_ch = config.scaling == Fp8WeightScaling::kPerOutChannel;
  return scheme;
}

SchemeConfig scheme_of(const Nvfp4MoeQuantConfig& config) {
  const bool quantised_activations = !config.a1_gscale.empty() || !config.a2_gscale.empty();
  return {.scheme = quantised_activations ? Scheme::kNvfp4 : Scheme::kNvfp4W4A16};
}

void require_layout(std::span<const std::uint8_t> w1, std::span<const std::uint8_t> w2,
                    const MoeSizes& sizes, const Nvfp4MoeQuantConfig& config) {
  const auto [n, k, e, topk] = sizes;
  const ScaleLayout layout = config.scale_layout;
  const bool quantised_activations = !config.a1_gscale.empty() || !config.a2_gscale.empty();
  require_length("w1_fp4", w1.size(), e * n * k, "e * 2n * k/2");
  require_length("w2_fp4", w2.size(), e * k * (n / 2), "e * k * n/2");
  require_length("w1_scale", config.w1_scale.size(), e * nvfp4_scale_bytes(2 * n, k, layout),
                 "e * nvfp4_scale_bytes(2n, k, scale_layout)");
  require_length("w2_scale", config.w2_scale.size(), e * nvfp4_scale_bytes(k, n, layout),
                 "e * nvfp4_scale_bytes(k, n, scale_layout)");
  require_length("g1_alphas", config.g1_alphas.size(), e, "e");
  require_length("g2_alphas", config.g2_alphas.size(), e, "e");
  if (quantised_activations) {
    require_length("a1_gscale", config.a1_gscale.size(), e, "e");
    require_length("a2_gscale", config.a2_gscale.size(), e, "e");
  }
}

void require_layout(std::span<const std::uint8_t> w1, std::span<const std::uint8_t> w2,
                    const MoeSizes& sizes, const Fp8MoeQuantConfig& config) {
  const auto [n, k, e, topk] = sizes;
  const SchemeConfig scheme = scheme_of(config);
  if (scheme.scheme == Scheme::kFp8Block && scheme.per_act_token) {
    fail(ErrorCode::kBadInput,
         "per_act_token: is set with 128x128 blocks, whose activations have a scale per token and "
         "128 columns; leave it false");
  }
  if (!(config.a1_scale >= 0.0F) || !std::isfinite(config.a1_scale)) {
    fail(ErrorCode::kBadInput, "a1_scale: is {}; give amax/448, or 0 for the tokens' own",
         config.a1_scale);
  }
  require_length("w1_fp8", w1.size(), e * 2 * n * k, "e * 2n * k");
  require_length("w2_fp8", w2.size(), e * k * n, "e * k * n");
  require_length("w1_scale", config.w1_scale.size(),
                 e * fp8_weight_scales(2 * n, k, config.scaling),
                 "e * fp8_weight_scales(2n, k, scaling)");
  require_length("w2_scale", config.w2_scale.size(), e * fp8_weight_scales(k, n, config.scaling),
                 "e * fp8_weight_scales(k, n, scaling)");
}

}  // namespace moebench
