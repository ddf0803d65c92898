// The layer of the public interface: the caller's buffers become a weight source, a case and a
// prepared kernel.
#include "moebench/api/moebench.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "moebench/api/arguments.h"
#include "moebench/backend/backend.h"
#include "moebench/core/checked.h"
#include "moebench/moe/problem.h"
#include "moebench/moe/weights.h"

namespace moebench {
namespace {

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

/// A weight of this size does not fit FP16; no layer has one. 448*6 is the largest value times
/// w_gs.
constexpr double kLargestPlausibleWeight = 65504.0;
constexpr double kLargestScaledWeight = double{kE4m3Max} * double{kE2m1Max};

/// The global scale that a GEMM's weights were quantised with: w_gs = 1 / (alpha * a_gs).
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

/// One of an NVFP4 layer's two stacks of matrices, as the caller holds it.
struct Nvfp4Stack {
  const char* name;
  std::int64_t rows;
  std::int64_t cols;
  std::span<const std::uint8_t> payload;
  std::span<const std::uint8_t> scales;
  ScaleLayout layout;
  std::vector<float> global_scales;

  /// `linear` holds the scales of a swizzled stack while the view is in use.
  [[nodiscard]] Nvfp4View expert(std::int64_t e, std::vector<std::uint8_t>& linear) const {
    const std::int64_t scale_bytes = nvfp4_scale_bytes(rows, cols, layout);
    const std::uint8_t* expert_scales = scales.data() + e * scale_bytes;
    if (layout != ScaleLayout::kLinear) {
      const std::int64_t groups = cols / kNvfp4BlockSize;
      linear.resize(static_cast<std::size_t>(rows * groups));
      unswizzle_scales({expert_scales, static_cast<std::size_t>(scale_bytes)}, rows, groups,
                       linear);
      expert_scales = linear.data();
    }
    return {rows, cols, payload.data() + e * rows * (cols / 2), expert_scales,
            global_scales[static_cast<std::size_t>(e)]};
  }
};

struct Fp8Stack {
  const char* name;
  std::int64_t rows;
  std::int64_t cols;
  Fp8Scaling scaling;
  std::span<const std::uint8_t> payload;
  std::span<const float> scales;

  [[nodiscard]] Fp8View expert(std::int64_t e) const {
    return {rows, cols, scaling, payload.data() + e * rows * cols,
            scales.data() + e * fp8_scale_count(rows, cols, scaling)};
  }
};

/// The caller's stacks, expert by expert. They must outlive the source.
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

bool overlap(std::span<const std::uint16_t> a, std::span<const std::uint16_t> b) {
  const std::less<const std::uint16_t*> before;
  return !a.empty() && !b.empty() && before(a.data(), b.data() + b.size()) &&
         before(b.data(), a.data() + a.size());
}

float amax_of_tokens(std::span<const std::uint16_t> a, ActType act) {
  float amax = 0.0F;
  for (const std::uint16_t bits : a) amax = std::max(amax, std::fabs(decode_act(act, bits)));
  return amax;
}

std::int64_t topk_of(std::span<const std::int32_t> topk_ids, std::int64_t m) {
  const auto ids = static_cast<std::int64_t>(topk_ids.size());
  if (m < 0 || (m == 0 && ids != 0) || (m > 0 && (ids == 0 || ids % m != 0))) {
    fail(ErrorCode::kBadInput, "topk_ids: holds {} ids for m = {} tokens; give m * topk ids", ids,
         m);
  }
  return m == 0 ? 1 : ids / m;
}

}  // namespace

struct MoeLayer::State {
  std::vector<std::unique_ptr<Backend>> backends;
  std::unique_ptr<Kernel> kernel;
  std::shared_ptr<const PackedWeights> packed;
  bool a1_scale_from_tokens = false;
  MoeProblem problem;                     ///< of the last run; `prepared` refers to it
  std::unique_ptr<PreparedMoe> prepared;  ///< for problem.tokens tokens

  /// The first kernel, fastest backend first, that computes the scheme on this shape.
  void pick_kernel(const MoeOptions& options) {
    backends = make_backends({.threads = options.threads, .forced_isa = options.isa});
    std::string reasons;
    for (const std::unique_ptr<Backend>& backend : backends) {
      for (std::unique_ptr<Kernel>& candidate : backend->kernels()) {
        if (candidate->scheme() != problem.scheme.scheme) continue;
        const Support support = candidate->supports(problem.shape, problem.scheme);
        if (support.ok) {
          kernel = std::move(candidate);
          return;
        }
        reasons += fmt::format(" {}: {}.", candidate->name(), support.reason);
      }
    }
    fail(ErrorCode::kUnavailable,
         "scheme {}: no kernel here computes this layer; see the reasons:{}",
         name_of(problem.scheme.scheme), reasons.empty() ? " none is built for it" : reasons);
  }
};

MoeLayer::MoeLayer(std::span<const std::uint8_t> w1_fp4, std::span<const std::uint8_t> w2_fp4,
                   const MoeSizes& sizes, const Nvfp4MoeQuantConfig& quant_config,
                   const MoeOptions& options)
    : state_(std::make_unique<State>()) {
  const auto [n, k, e, topk] = sizes;
  const MoeShape shape = shape_of(sizes, options.act);
  validate(shape, WeightFormat::kNvfp4);
  const ScaleLayout layout = quant_config.scale_layout;
  const bool quantised_activations =
      !quant_config.a1_gscale.empty() || !quant_config.a2_gscale.empty();
  require_length("w1_fp4", w1_fp4.size(), e * n * k, "e * 2n * k/2");
  require_length("w2_fp4", w2_fp4.size(), e * k * (n / 2), "e * k * n/2");
  require_length("w1_scale", quant_config.w1_scale.size(), e * nvfp4_scale_bytes(2 * n, k, layout),
                 "e * nvfp4_scale_bytes(2n, k, scale_layout)");
  require_length("w2_scale", quant_config.w2_scale.size(), e * nvfp4_scale_bytes(k, n, layout),
                 "e * nvfp4_scale_bytes(k, n, scale_layout)");
  require_length("g1_alphas", quant_config.g1_alphas.size(), e, "e");
  require_length("g2_alphas", quant_config.g2_alphas.size(), e, "e");
  if (quantised_activations) {
    require_length("a1_gscale", quant_config.a1_gscale.size(), e, "e");
    require_length("a2_gscale", quant_config.a2_gscale.size(), e, "e");
    require_positive("a1_gscale", quant_config.a1_gscale);
    require_positive("a2_gscale", quant_config.a2_gscale);
  }
  const Nvfp4Stack w1{
      "w1_fp4",
      2 * n,
      k,
      w1_fp4,
      quant_config.w1_scale,
      layout,
      implied_weight_scales("g1_alphas", quant_config.g1_alphas, quant_config.a1_gscale)};
  const Nvfp4Stack w2{
      "w2_fp4",
      k,
      n,
      w2_fp4,
      quant_config.w2_scale,
      layout,
      implied_weight_scales("g2_alphas", quant_config.g2_alphas, quant_config.a2_gscale)};
  validate_stack(w1, e);
  validate_stack(w2, e);

  MoeProblem& problem = state_->problem;
  problem.shape = shape;
  problem.scheme.scheme = quantised_activations ? Scheme::kNvfp4 : Scheme::kNvfp4W4A16;
  problem.scales.a1_global_scale.assign(quant_config.a1_gscale.begin(),
                                        quant_config.a1_gscale.end());
  problem.scales.a2_global_scale.assign(quant_config.a2_gscale.begin(),
                                        quant_config.a2_gscale.end());
  state_->pick_kernel(options);
  state_->packed = state_->kernel->pack(source_of(shape, w1, w2), {});
}

MoeLayer::MoeLayer(std::span<const std::uint8_t> w1_fp8, std::span<const std::uint8_t> w2_fp8,
                   const MoeSizes& sizes, const Fp8MoeQuantConfig& quant_config,
                   const MoeOptions& options)
    : state_(std::make_unique<State>()) {
  const auto [n, k, e, topk] = sizes;
  const MoeShape shape = shape_of(sizes, options.act);
  const SchemeConfig scheme = scheme_of(quant_config);
  const WeightFormat format = weight_format(scheme);
  validate(shape, format);
  if (scheme.scheme == Scheme::kFp8Block && scheme.per_act_token) {
    fail(ErrorCode::kBadInput,
         "per_act_token: is set with 128x128 blocks, whose activations have a scale per token and "
         "128 columns; leave it false");
  }
  if (!(quant_config.a1_scale >= 0.0F) || !std::isfinite(quant_config.a1_scale)) {
    fail(ErrorCode::kBadInput, "a1_scale: is {}; give amax/448, or 0 for the tokens' own",
         quant_config.a1_scale);
  }
  require_length("w1_fp8", w1_fp8.size(), e * 2 * n * k, "e * 2n * k");
  require_length("w2_fp8", w2_fp8.size(), e * k * n, "e * k * n");
  require_length("w1_scale", quant_config.w1_scale.size(),
                 e * fp8_weight_scales(2 * n, k, quant_config.scaling),
                 "e * fp8_weight_scales(2n, k, scaling)");
  require_length("w2_scale", quant_config.w2_scale.size(),
                 e * fp8_weight_scales(k, n, quant_config.scaling),
                 "e * fp8_weight_scales(k, n, scaling)");
  const Fp8Stack w1{"w1_fp8", 2 * n, k, fp8_scaling(format), w1_fp8, quant_config.w1_scale};
  const Fp8Stack w2{"w2_fp8", k, n, fp8_scaling(format), w2_fp8, quant_config.w2_scale};
  validate_stack(w1, e);
  validate_stack(w2, e);

  state_->problem.shape = shape;
  state_->problem.scheme = scheme;
  if (quant_config.a1_scale > 0.0F) state_->problem.scales.a1_scale = quant_config.a1_scale;
  state_->a1_scale_from_tokens =
      scheme.scheme == Scheme::kFp8 && !scheme.per_act_token && quant_config.a1_scale == 0.0F;
  state_->pick_kernel(options);
  state_->packed = state_->kernel->pack(source_of(shape, format, w1, w2), {});
}

MoeLayer::~MoeLayer() = default;
MoeLayer::MoeLayer(MoeLayer&& other) noexcept = default;
MoeLayer& MoeLayer::operator=(MoeLayer&& other) noexcept = default;

void MoeLayer::run(std::span<const std::uint16_t> a, std::span<const float> topk_weights,
                   std::span<const std::int32_t> topk_ids, std::int64_t m,
                   std::span<std::uint16_t> out) {
  MoeProblem& problem = state_->problem;
  if (m < 0) fail(ErrorCode::kBadInput, "m: is {}; give 0 tokens or more", m);
  const std::int64_t elements = checked_product("a", {m, problem.shape.hidden});
  const std::int64_t pairs = checked_product("topk_ids", {m, problem.shape.topk});
  require_length("a", a.size(), elements, "m * k");
  require_length("out", out.size(), elements, "m * k");
  require_length("topk_ids", topk_ids.size(), pairs, "m * topk");
  require_length("topk_weights", topk_weights.size(), pairs, "m * topk");
  if (overlap(a, out)) {
    fail(ErrorCode::kBadInput, "out: overlaps a; give it memory of its own");
  }
  if (m == 0) return;

  if (problem.tokens != m) state_->prepared.reset();
  problem.tokens = m;
  problem.a.assign(a.begin(), a.end());
  problem.routing.tokens = m;
  problem.routing.topk = problem.shape.topk;
  problem.routing.topk_ids.assign(topk_ids.begin(), topk_ids.end());
  problem.routing.topk_weights.assign(topk_weights.begin(), topk_weights.end());
  validate(problem);
  if (state_->a1_scale_from_tokens) {
    problem.scales.a1_scale = fp8_scale(amax_of_tokens(a, problem.shape.act));
  }
  if (!state_->prepared) {
    state_->prepared = state_->kernel->prepare(problem, state_->packed);
  }
  state_->prepared->run(out);
}

std::string MoeLayer::kernel() const {
  return fmt::format("{} ({})", state_->kernel->name(), state_->kernel->detail());
}

std::int64_t MoeLayer::packed_bytes() const { return state_->packed->bytes(); }

void moe_forward_nvfp4(std::span<const std::uint16_t> a, std::span<const std::uint8_t> w1_fp4,
                       std::span<const std::uint8_t> w2_fp4, std::span<const float> topk_weights,
                       std::span<const std::int32_t> topk_ids, std::int64_t m, std::int64_t n,
                       std::int64_t k, std::int64_t e, const Nvfp4MoeQuantConfig& quant_config,
                       std::span<std::uint16_t> out, const MoeOptions& options) {
  const MoeSizes sizes{.n = n, .k = k, .e = e, .topk = topk_of(topk_ids, m)};
  MoeLayer(w1_fp4, w2_fp4, sizes, quant_config, options).run(a, topk_weights, topk_ids, m, out);
}

void moe_forward_fp8(std::span<const std::uint16_t> a, std::span<const std::uint8_t> w1_fp8,
                     std::span<const std::uint8_t> w2_fp8, std::span<const float> topk_weights,
                     std::span<const std::int32_t> topk_ids, std::int64_t m, std::int64_t n,
                     std::int64_t k, std::int64_t e, const Fp8MoeQuantConfig& quant_config,
                     std::span<std::uint16_t> out, const MoeOptions& options) {
  const MoeSizes sizes{.n = n, .k = k, .e = e, .topk = topk_of(topk_ids, m)};
  MoeLayer(w1_fp8, w2_fp8, sizes, quant_config, options).run(a, topk_weights, topk_ids, m, out);
}

}  // namespace moebench
