#include "moebench/backend/triton/forward.h"

#include "moebench/backend/cuda/combine.h"
#include "moebench/backend/cuda/layout.h"
#include "moebench/backend/cuda/phase_marks.h"
#include "moebench/backend/triton/kernels.h"
#include "moebench/core/checked.h"
#include "moebench/moe/verify.h"

namespace moebench::triton {
namespace {

using cuda::cuda_check;

constexpr const char* kWhat = "scratch of a case";
constexpr std::int64_t kActBytes = sizeof(std::uint16_t);
constexpr std::int64_t kCodeBytes = sizeof(std::uint8_t);
constexpr std::int64_t kFloatBytes = sizeof(float);
constexpr std::int64_t kIndexBytes = sizeof(std::int32_t);

/// What align and the search of h's largest magnitude leave besides the arrays.
struct State {
  alignas(16) DynamicScale dynamic_scale;  // the GEMMs are compiled for scales at multiples of 16
  std::uint64_t amax_key;
  std::int32_t padded_rows;
};

}  // namespace

ForwardSizes::ForwardSizes(const MoeShape& shape, const SchemeConfig& scheme,
                           std::int64_t token_count, int block_m, bool wide_tokens,
                           bool wide_hidden) {
  pairs = checked_product(kWhat, {token_count, shape.topk});
  aligned_rows = max_aligned_rows(pairs, shape.num_experts, block_m);
  tokens = checked_product(kWhat, {token_count, shape.hidden, kActBytes});
  ids = pairs * kIndexBytes;
  weights = pairs * kFloatBytes;
  sorted_pairs = aligned_rows * kIndexBytes;
  tile_experts = aligned_rows / block_m * kIndexBytes;
  token_rows =
      checked_product(kWhat, {token_count, shape.hidden, wide_tokens ? kActBytes : kCodeBytes});
  token_scales = (scheme.per_act_token ? token_count : 1) * kFloatBytes;
  gate_up = checked_product(kWhat, {pairs, 2, shape.intermediate, kActBytes});
  hidden = checked_product(kWhat, {pairs, shape.intermediate, kActBytes});
  hidden_rows =
      checked_product(kWhat, {pairs, shape.intermediate, wide_hidden ? kActBytes : kCodeBytes});
  hidden_scales = scheme.per_act_token ? pairs * kFloatBytes : 0;
  pair_out = checked_product(kWhat, {pairs, shape.hidden, kActBytes});
  output = tokens + 2 * kGuardElements * kActBytes;
}

std::int64_t ForwardSizes::total() const {
  constexpr std::int64_t kAlignment = 256;
  std::int64_t sum = kAlignment;  // State
  for (const std::int64_t part :
       {tokens, ids, weights, sorted_pairs, tile_experts, token_rows, token_scales, gate_up, hidden,
        hidden_rows, hidden_scales, pair_out, output}) {
    sum = checked_sum(kWhat, sum, round_up(part, kAlignment));
  }
  return sum;
}

TritonForward::TritonForward(const MoeProblem& problem,
                             std::shared_ptr<const TritonWeights> weights, const CaseConfig& config,
                             KernelCache& kernels)
    : problem_(problem),
      weights_(std::move(weights)),
      gate_up_group_(config.gate_up_group),
      down_group_(config.down_group),
      gate_up_kernel_(kernels.get(*config.gate_up)),
      down_kernel_(kernels.get(*config.down)),
      sizes_(problem.shape, problem.scheme, problem.tokens, config.gate_up->tile.block_m,
             config.gate_up->wide_rows, config.down->wide_rows),
      tokens_(sizes_.tokens, "tokens"),
      ids_(sizes_.ids, "routing"),
      topk_weights_(sizes_.weights, "routing"),
      state_(sizeof(State), "plan"),
      sorted_pairs_(sizes_.sorted_pairs, "plan"),
      tile_experts_(sizes_.tile_experts, "plan"),
      token_rows_(sizes_.token_rows, "quantised tokens"),
      token_scales_(sizes_.token_scales, "scales"),
      gate_up_(sizes_.gate_up, "GEMM1's output"),
      hidden_(sizes_.hidden, "h"),
      hidden_rows_(sizes_.hidden_rows, "quantised h"),
      hidden_scales_(sizes_.hidden_scales, "scales"),
      pair_out_(sizes_.pair_out, "expert outputs"),
      output_(sizes_.output, "output") {}

std::uint16_t* TritonForward::output() const {
  return output_.as<std::uint16_t>() + kGuardElements;
}

void TritonForward::upload(cudaStream_t stream) {
  cuda::copy_to_device(tokens_.as<std::uint16_t>(), problem_.a, stream);
  cuda::copy_to_device(ids_.as<std::int32_t>(), problem_.routing.topk_ids, stream);
  cuda::copy_to_device(topk_weights_.as<float>(), problem_.routing.topk_weights, stream);
  upload_scales(stream);
}

void TritonForward::upload_scales(cudaStream_t stream) {
  if (problem_.scheme.per_act_token) return;
  cuda::copy_to_device(token_scales_.as<float>(), std::vector<float>{problem_.scales.a1_scale},
                       stream);
}

DeviceArrays TritonForward::uploaded() const {
  return {.tokens = tokens_.as<std::uint16_t>(),
          .topk_ids = ids_.as<std::int32_t>(),
          .topk_weights = topk_weights_.as<float>(),
          .y = output()};
}

void TritonForward::enqueue(const DeviceArrays& arrays, cudaStream_t stream,
                            cuda::PhaseMarks* marks) {
  cuda::require_device();
  if (sizes_.pairs == 0) return;
  const MoeShape& shape = problem_.shape;
  const auto phase = [&](const char* name) {
    if (marks != nullptr) marks->begin(name, stream);
  };
  State* const state = state_.as<State>();

  phase("route");
  AlignArgs align{};
  align.topk_ids = arrays.topk_ids;
  align.pairs = sizes_.pairs;
  align.experts = shape.num_experts;
  align.block_m = gate_up_kernel_->kernel().tile.block_m;
  align.sorted_pairs = sorted_pairs_.as<std::int32_t>();
  align.tile_experts = tile_experts_.as<std::int32_t>();
  align.padded_rows = &state->padded_rows;
  align.amax_key = &state->amax_key;
  cuda_check(enqueue_align(align, stream), "align");

  phase("quantize");
  QuantizeArgs quantize{};
  quantize.rows = arrays.tokens;
  quantize.count = problem_.tokens;
  quantize.columns = shape.hidden;
  if (gate_up_kernel_->kernel().wide_rows) {
    quantize.wide = token_rows_.as<std::uint16_t>();
  } else {
    quantize.codes = token_rows_.as<std::uint8_t>();
  }
  if (problem_.scheme.per_act_token) {
    quantize.row_scale = token_scales_.as<float>();
  } else {
    quantize.given_scale = token_scales_.as<float>();
  }
  cuda_check(enqueue_quantize(shape.act, quantize, stream), "quantize");

  phase("gemm1");
  enqueue_gemm(false, *gate_up_kernel_, gate_up_group_, stream);
  phase("activation+quantize");
  enqueue_hidden(stream);
  enqueue_hidden_codes(stream);
  phase("gemm2");
  enqueue_gemm(true, *down_kernel_, down_group_, stream);

  phase("combine");
  cuda::CombineArgs combine{};
  combine.pair_out = pair_out_.as<std::uint16_t>();
  combine.topk_weights = arrays.topk_weights;
  combine.y = arrays.y;
  combine.tokens = problem_.tokens;
  combine.topk = static_cast<std::int32_t>(shape.topk);
  combine.hidden = shape.hidden;
  cuda_check(cuda::enqueue_combine(shape.act, combine, stream), "combine");
}

void TritonForward::enqueue_hidden(cudaStream_t stream) const {
  SiluArgs args{};
  args.gate_up = gate_up_.as<std::uint16_t>();
  args.pairs = sizes_.pairs;
  args.columns = problem_.shape.intermediate;
  args.hidden = hidden_.as<std::uint16_t>();
  if (!problem_.scheme.per_act_token) args.amax_key = &state_.as<State>()->amax_key;
  cuda_check(enqueue_silu(problem_.shape.act, args, stream), "activation");
}

void TritonForward::enqueue_hidden_codes(cudaStream_t stream) const {
  State* const state = state_.as<State>();
  QuantizeArgs args{};
  args.rows = hidden_.as<std::uint16_t>();
  args.count = sizes_.pairs;
  args.columns = problem_.shape.intermediate;
  if (down_kernel_->kernel().wide_rows) {
    args.wide = hidden_rows_.as<std::uint16_t>();
  } else {
    args.codes = hidden_rows_.as<std::uint8_t>();
  }
  if (problem_.scheme.per_act_token) {
    args.row_scale = hidden_scales_.as<float>();
  } else {
    cuda_check(
        enqueue_dynamic_scale(problem_.shape.act, &state->amax_key, &state->dynamic_scale, stream),
        "quantize");
    args.given_scale = &state->dynamic_scale.scale;
  }
  cuda_check(enqueue_quantize(problem_.shape.act, args, stream), "quantize");
}

void TritonForward::enqueue_gemm(bool down, const LoadedKernel& kernel, int group_m,
                                 cudaStream_t stream) const {
  const MoeShape& shape = problem_.shape;
  const bool per_token = problem_.scheme.per_act_token;
  State* const state = state_.as<State>();
  GemmArguments args{};
  args.operand = (down ? hidden_rows_ : token_rows_).as<std::byte>();
  args.weights = weights_->codes(down);
  args.output = (down ? pair_out_ : gate_up_).as<std::uint16_t>();
  args.operand_scale = (down ? hidden_scales_ : token_scales_).as<float>();
  if (down && !per_token) args.operand_scale = &state->dynamic_scale.scale;
  args.weight_scale = weights_->scales(down);
  // Not read: the weight is applied in the last sum, where the layer's definition has it.
  args.routing_weights = topk_weights_.as<float>();
  args.sorted_pairs = sorted_pairs_.as<std::int32_t>();
  args.tile_experts = tile_experts_.as<std::int32_t>();
  args.padded_rows = &state->padded_rows;
  args.columns = static_cast<std::int32_t>(down ? shape.hidden : 2 * shape.intermediate);
  args.depth = static_cast<std::int32_t>(down ? shape.intermediate : shape.hidden);
  args.num_pairs = static_cast<std::int32_t>(sizes_.pairs);
  args.rows_per_operand = down ? 1 : static_cast<std::int32_t>(shape.topk);
  args.operand_scale_stride = per_token ? 1 : 0;
  args.weight_scale_stride = problem_.scheme.per_out_ch ? 1 : 0;
  args.group_m = group_m;
  kernel.enqueue(args, sizes_.aligned_rows / kernel.kernel().tile.block_m, stream);
}

std::optional<DynamicScaleClaim> TritonForward::dynamic_scale(cudaStream_t stream) const {
  if (problem_.scheme.per_act_token) return std::nullopt;
  if (sizes_.pairs == 0) return DynamicScaleClaim{1.0F, -1};
  DynamicScale found{};
  cuda::copy_to_host(&found, &state_.as<State>()->dynamic_scale, sizeof found, stream);
  return DynamicScaleClaim{found.scale, found.pair};
}

}  // namespace moebench::triton
