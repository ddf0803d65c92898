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
#include "moebench/api/stacks.h"
#include "moebench/backend/backend.h"
#include "moebench/core/checked.h"
#include "moebench/moe/problem.h"
#include "moebench/moe/weights.h"

namespace moebench {
namespace {

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
      if (!options.isa.empty() && backend->name() != "cpu") continue;  // an ISA is the CPU's
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
  require_layout(w1_fp4, w2_fp4, sizes, quant_config);
  require_positive("a1_gscale", quant_config.a1_gscale);
  require_positive("a2_gscale", quant_config.a2_gscale);
  const ScaleLayout layout = quant_config.scale_layout;
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
  problem.scheme = scheme_of(quant_config);
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
  require_layout(w1_fp8, w2_fp8, sizes, quant_config);
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
