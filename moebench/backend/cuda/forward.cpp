// Five or six kernels on one stream: route, permute with quantisation, GEMM1 with SiLU and
// quantisation, for fp8 a quantising pass, GEMM2, combine.
#include "moebench/backend/cuda/forward.h"

#include <algorithm>
#include <cstddef>

#include "moebench/backend/cuda/combine.h"
#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/permute.h"
#include "moebench/backend/cuda/phase_marks.h"
#include "moebench/backend/cuda/route.h"
#include "moebench/core/checked.h"
#include "moebench/moe/verify.h"

namespace moebench::cuda {
namespace {

constexpr std::int64_t kActBytes = sizeof(std::uint16_t);
constexpr std::int64_t kFloatBytes = sizeof(float);
constexpr std::int64_t kIndexBytes = sizeof(std::int32_t);

/// What route leaves besides the arrays, and where the scale of h is found.
struct PlanState {
  PlanHeader header;
  HiddenScale hidden_scale;
};

/// Columns of ForwardSizes::per_expert.
enum PerExpert : std::uint8_t {
  kGateUpAlpha,
  kDownAlpha,
  kGateUpGlobalScale,
  kDownGlobalScale,
  kPerExpertColumns
};

OperandFormat token_format(const SchemeConfig& config) {
  switch (config.scheme) {
    case Scheme::kNvfp4:
      return OperandFormat::kNvfp4;
    case Scheme::kNvfp4W4A16:
      return OperandFormat::kWide;
    case Scheme::kFp8:
      return config.per_act_token ? OperandFormat::kFp8Token : OperandFormat::kFp8Tensor;
    case Scheme::kFp8Block:
      return OperandFormat::kFp8Block;
  }
  fail(ErrorCode::kInternal, "scheme {}: not in the list", static_cast<int>(config.scheme));
}

HiddenOutput hidden_output(Scheme scheme) {
  switch (scheme) {
    case Scheme::kNvfp4:
      return HiddenOutput::kNvfp4;
    case Scheme::kNvfp4W4A16:
      return HiddenOutput::kWide;
    case Scheme::kFp8:
      return HiddenOutput::kRows;
    case Scheme::kFp8Block:
      return HiddenOutput::kFp8Block;
  }
  fail(ErrorCode::kInternal, "scheme {}: not in the list", static_cast<int>(scheme));
}

WeightKind weight_kind(WeightFormat format) {
  if (format == WeightFormat::kNvfp4) return WeightKind::kNvfp4;
  return format == WeightFormat::kFp8Block ? WeightKind::kFp8Block : WeightKind::kFp8;
}

bool is_nvfp4(Scheme scheme) { return scheme == Scheme::kNvfp4 || scheme == Scheme::kNvfp4W4A16; }

int multiprocessors() {
  int device = 0;
  int count = 0;
  cuda_check(cudaGetDevice(&device), "asking for the device");
  cuda_check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
             "asking for the multiprocessors");
  return count;
}

int active_teams(GemmTiles tiles) {
  if (team_blocks(tiles) == 1) return multiprocessors();
  int count = 0;
  cuda_check(max_teams(&count), "asking for clusters");
  if (count < 1)
    fail(ErrorCode::kUnavailable, "cuda: the device has no room for two thread blocks");
  return count;
}

/// Scales of one operand: one for all, one a row, one a row and chunk.
std::int64_t operand_scale_bytes(const SchemeConfig& config, std::int64_t rows,
                                 std::int64_t columns) {
  if (is_nvfp4(config.scheme)) return 0;
  if (config.scheme == Scheme::kFp8Block) {
    return checked_product("scratch of a case",
                           {rows, divide_up(columns, kChunkDepth), kFloatBytes});
  }
  return config.per_act_token ? rows * kFloatBytes : kFloatBytes;
}

void zero(const DeviceBuffer& buffer) {
  if (buffer.bytes() == 0) return;
  cuda_check(cudaMemset(buffer.as<std::byte>(), 0, static_cast<std::size_t>(buffer.bytes())),
             "clearing scratch memory");
}

}  // namespace

Support forward_supports(const MoeShape& shape) {
  constexpr std::int64_t kMultiple = 16;
  if (shape.hidden % kMultiple != 0 || shape.intermediate % kMultiple != 0) {
    return Support::no("K and N must be multiples of 16");
  }
  if (shape.num_experts > kMaxRoutedExperts) return Support::no("more than 8192 experts");
  return Support::yes();
}

ForwardSizes::ForwardSizes(const MoeShape& shape, const SchemeConfig& scheme,
                           std::int64_t token_count, int multiprocessors) {
  constexpr const char* kWhat = "scratch of a case";
  pairs = checked_product(kWhat, {token_count, shape.topk});
  // Up to 48 tokens no expert needs large tiles. Above, the routing kernel chooses.
  if (token_count > max_tile_rows(TileSet::kSmall)) tiles = GemmTiles::kBoth;
  padded_rows = max_padded_rows(pairs, shape.num_experts,
                                tiles == GemmTiles::kSmall ? TileSet::kSmall : TileSet::kLarge);
  tokens = checked_product(kWhat, {token_count, shape.hidden, kActBytes});
  ids = pairs * kIndexBytes;
  weights = pairs * kFloatBytes;
  entries = std::min(pairs, shape.num_experts) * static_cast<std::int64_t>(sizeof(ExpertTiles));
  // No team has more than two blocks.
  const int blocks = (multiprocessors + 1) / 2 * 2;
  shares = 2 * (blocks + 1) * static_cast<std::int64_t>(sizeof(WorkPosition));
  row_pair = padded_rows * kIndexBytes;
  places = pairs * static_cast<std::int64_t>(sizeof(PairPlace));
  gate_up_operand = checked_product(kWhat, {padded_rows, operand_row_bytes(shape.hidden)});
  down_operand = checked_product(kWhat, {padded_rows, operand_row_bytes(shape.intermediate)});
  if (scheme.scheme == Scheme::kFp8) {
    hidden_rows = checked_product(kWhat, {padded_rows, shape.intermediate, kActBytes});
  }
  gate_up_scales = operand_scale_bytes(scheme, padded_rows, shape.hidden);
  down_scales = operand_scale_bytes(scheme, padded_rows, shape.intermediate);
  if (is_nvfp4(scheme.scheme)) per_expert = kPerExpertColumns * shape.num_experts * kFloatBytes;
  pair_out = checked_product(kWhat, {pairs, shape.hidden, kActBytes});
  partial = partial_bytes(blocks);
  hand_over = 2 * hand_over_count(blocks) * kIndexBytes;
  output = tokens + 2 * kGuardElements * kActBytes;
}

std::int64_t ForwardSizes::total() const {
  constexpr std::int64_t kAlignment = 256;
  std::int64_t sum = kAlignment;  // PlanState
  for (const std::int64_t part : {tokens, ids, weights, entries, shares, row_pair, places,
                                  gate_up_operand, down_operand, hidden_rows, gate_up_scales,
                                  down_scales, per_expert, pair_out, partial, hand_over, output}) {
    sum = checked_sum("scratch of a case", sum, round_up(part, kAlignment));
  }
  return sum;
}

std::int64_t Forward::scratch_bytes(const MoeShape& shape, const SchemeConfig& scheme,
                                    std::int64_t tokens) {
  return ForwardSizes(shape, scheme, tokens, multiprocessors()).total();
}

Forward::Forward(const MoeProblem& problem, std::shared_ptr<const DeviceWeights> weights)
    : problem_(problem),
      weights_(std::move(weights)),
      sizes_(problem.shape, problem.scheme, problem.tokens, multiprocessors()),
      teams_(active_teams(sizes_.tiles)),
      tokens_(sizes_.tokens, "tokens"),
      ids_(sizes_.ids, "routing"),
      topk_weights_(sizes_.weights, "routing"),
      plan_(sizeof(PlanState), "plan"),
      entries_(sizes_.entries, "plan"),
      shares_(sizes_.shares, "plan"),
      row_pair_(sizes_.row_pair, "plan"),
      places_(sizes_.places, "plan"),
      gate_up_operand_(sizes_.gate_up_operand, "GEMM1's operand"),
      down_operand_(sizes_.down_operand, "GEMM2's operand"),
      hidden_rows_(sizes_.hidden_rows, "h"),
      gate_up_scales_(sizes_.gate_up_scales, "scales"),
      down_scales_(sizes_.down_scales, "scales"),
      per_expert_(sizes_.per_expert, "scales"),
      pair_out_(sizes_.pair_out, "expert outputs"),
      partial_(sizes_.partial, "partial sums"),
      hand_over_(sizes_.hand_over, "plan"),
      output_(sizes_.output, "output") {
  const MoeShape& packed_for = weights_->shape();
  if (packed_for.num_experts != problem.shape.num_experts ||
      packed_for.hidden != problem.shape.hidden ||
      packed_for.intermediate != problem.shape.intermediate ||
      packed_for.act != problem.shape.act || weights_->format() != weight_format(problem.scheme)) {
    fail(ErrorCode::kInternal, "cuda: the weights were packed for another layer or format");
  }
  // Padding is never written, and read all the same.
  for (const DeviceBuffer* buffer : {&gate_up_operand_, &down_operand_, &hidden_rows_,
                                     &gate_up_scales_, &down_scales_, &row_pair_, &plan_}) {
    zero(*buffer);
  }
  wait(cudaStream_t{}, "clearing scratch memory");
}

std::uint16_t* Forward::output() const { return output_.as<std::uint16_t>() + kGuardElements; }

float* Forward::per_expert(int column) const {
  return per_expert_.as<float>() + column * problem_.shape.num_experts;
}

WorkShape Forward::work_of(Projection projection) const {
  return work_shape(weights_->geometry(projection), teams_, team_blocks(sizes_.tiles));
}

bool Forward::quantizes_rows() const { return problem_.scheme.scheme == Scheme::kFp8; }
bool Forward::one_hidden_scale() const {
  return quantizes_rows() && !problem_.scheme.per_act_token;
}

void Forward::upload(cudaStream_t stream) {
  copy_to_device(tokens_.as<std::uint16_t>(), problem_.a, stream);
  copy_to_device(ids_.as<std::int32_t>(), problem_.routing.topk_ids, stream);
  copy_to_device(topk_weights_.as<float>(), problem_.routing.topk_weights, stream);
  upload_scales(stream);
}

void Forward::upload_scales(cudaStream_t stream) {
  const Scheme scheme = problem_.scheme.scheme;
  if (one_hidden_scale()) {  // and one for all tokens
    copy_to_device(gate_up_scales_.as<float>(), std::vector<float>{problem_.scales.a1_scale},
                   stream);
  }
  if (!is_nvfp4(scheme)) return;
  const auto experts = static_cast<std::size_t>(problem_.shape.num_experts);
  const float unscale = kWideWeightUnscale[static_cast<int>(weights_->wide())];
  const auto upload_one = [&](Projection projection, const std::vector<float>& activation_scales,
                              int alpha_column, int scale_column) {
    const std::vector<float>& weight_scales = weights_->global_scales(projection);
    std::vector<float> alpha(experts);
    for (std::size_t e = 0; e < experts; ++e) {
      const float activation_scale = scheme == Scheme::kNvfp4 ? activation_scales[e] : 1.0F;
      alpha[e] = 1.0F / (activation_scale * weight_scales[e]) * unscale;
    }
    copy_to_device(per_expert(alpha_column), alpha, stream);
    if (scheme == Scheme::kNvfp4)
      copy_to_device(per_expert(scale_column), activation_scales, stream);
  };
  upload_one(Projection::kGateUp, problem_.scales.a1_global_scale, kGateUpAlpha,
             kGateUpGlobalScale);
  upload_one(Projection::kDown, problem_.scales.a2_global_scale, kDownAlpha, kDownGlobalScale);
}

DeviceArrays Forward::uploaded() const {
  return {.tokens = tokens_.as<std::uint16_t>(),
          .topk_ids = ids_.as<std::int32_t>(),
          .topk_weights = topk_weights_.as<float>(),
          .y = output()};
}

void Forward::enqueue(const DeviceArrays& arrays, cudaStream_t stream, PhaseMarks* marks) {
  require_device();
  const MoeShape& shape = problem_.shape;
  const auto phase = [&](const char* name) {
    if (marks != nullptr) marks->begin(name, stream);
  };
  PlanState* const plan = plan_.as<PlanState>();

  phase("route");
  RouteArgs route{};
  route.topk_ids = arrays.topk_ids;
  route.pairs = sizes_.pairs;
  route.experts = shape.num_experts;
  route.tile_set = TileSet::kSmall;
  route.large_if_cheaper = sizes_.tiles == GemmTiles::kBoth;
  route.header = &plan->header;
  route.entries = entries_.as<ExpertTiles>();
  route.row_pair = row_pair_.as<std::int32_t>();
  route.places = places_.as<PairPlace>();
  route.shares = shares_.as<WorkPosition>();
  route.hand_over = hand_over_.as<std::int32_t>();
  route.blocks = teams_ * team_blocks(sizes_.tiles);
  for (const Projection projection : {Projection::kGateUp, Projection::kDown}) {
    route.work[projection == Projection::kGateUp ? 0 : 1] =
        share_shape(work_of(projection), teams_);
  }
  if (sizes_.pairs > 0) cuda_check(enqueue_route(route, stream), "route");

  phase("permute+quantize");
  PermuteArgs permute{};
  permute.rows = arrays.tokens;
  permute.columns = shape.hidden;
  permute.items = problem_.tokens;
  permute.copies = static_cast<std::int32_t>(shape.topk);
  permute.places = route.places;
  permute.operand = gate_up_operand_.as<std::uint8_t>();
  permute.row_scale = gate_up_scales_.as<float>();
  permute.topk_ids = route.topk_ids;
  if (problem_.scheme.scheme == Scheme::kNvfp4)
    permute.global_scale = per_expert(kGateUpGlobalScale);
  permute.tensor_scale = gate_up_scales_.as<float>();
  permute.hidden_scale = &plan->hidden_scale;
  cuda_check(enqueue_permute(token_format(problem_.scheme), shape.act, permute, stream), "permute");

  phase("gemm1+activation");
  if (sizes_.pairs > 0) enqueue_gemm(Projection::kGateUp, stream);
  if (quantizes_rows()) {
    phase("quantize");
    enqueue_hidden_quantization(stream);
  }
  phase("gemm2");
  if (sizes_.pairs > 0) enqueue_gemm(Projection::kDown, stream);

  phase("combine");
  CombineArgs combine{};
  combine.pair_out = pair_out_.as<std::uint16_t>();
  combine.topk_weights = arrays.topk_weights;
  combine.y = arrays.y;
  combine.tokens = problem_.tokens;
  combine.topk = static_cast<std::int32_t>(shape.topk);
  combine.hidden = shape.hidden;
  cuda_check(enqueue_combine(shape.act, combine, stream), "combine");
}

void Forward::enqueue_hidden_quantization(cudaStream_t stream) const {
  PermuteArgs args{};
  args.rows = hidden_rows_.as<std::uint16_t>();
  args.columns = problem_.shape.intermediate;
  args.items = sizes_.pairs;
  args.copies = 1;
  args.places = places_.as<PairPlace>();
  args.operand = down_operand_.as<std::uint8_t>();
  args.row_scale = down_scales_.as<float>();
  args.hidden_scale = &plan_.as<PlanState>()->hidden_scale;
  cuda_check(
      enqueue_quantize_hidden(token_format(problem_.scheme), problem_.shape.act, args, stream),
      "quantize");
}

void Forward::enqueue_gemm(Projection projection, cudaStream_t stream) const {
  const SchemeConfig& scheme = problem_.scheme;
  const bool gate_up = projection == Projection::kGateUp;
  PlanState* const plan = plan_.as<PlanState>();
  GemmArgs args{};
  args.tiles = sizes_.tiles;
  args.plan = &plan->header;
  args.entries = entries_.as<ExpertTiles>();
  args.geometry = weights_->geometry(projection);
  args.gemm = gate_up ? 0 : 1;
  args.work = work_of(projection);
  args.pieces = piece_shape(args.work, teams_);
  args.shares = shares_.as<WorkPosition>() + (gate_up ? 0 : teams_ + 1);
  args.hand_over = hand_over_.as<std::int32_t>() +
                   (gate_up ? 0 : hand_over_count(teams_ * team_blocks(sizes_.tiles)));
  args.hidden = problem_.shape.hidden;
  args.intermediate = problem_.shape.intermediate;
  args.weights = weights_->packed(projection);
  args.operand = (gate_up ? gate_up_operand_ : down_operand_).as<std::uint8_t>();
  if (is_nvfp4(scheme.scheme)) {
    args.weight_scale = per_expert(gate_up ? kGateUpAlpha : kDownAlpha);
  } else {
    args.weight_scale = weights_->scales(projection);
    args.per_channel = scheme.per_out_ch;
    args.token_scale = (gate_up ? gate_up_scales_ : down_scales_).as<float>();
    args.per_token = scheme.per_act_token;
    if (one_hidden_scale() && !gate_up) args.token_scale = &plan->hidden_scale.scale;
  }
  if (gate_up) {
    args.hidden_output = hidden_output(scheme.scheme);
    args.hidden_out = (quantizes_rows() ? hidden_rows_ : down_operand_).as<std::uint8_t>();
    if (scheme.scheme == Scheme::kNvfp4) args.hidden_global_scale = per_expert(kDownGlobalScale);
    if (scheme.scheme == Scheme::kFp8Block) args.hidden_block_scale = down_scales_.as<float>();
    if (one_hidden_scale()) args.hidden_amax = &plan->hidden_scale.amax;
  } else {
    args.pair_out = pair_out_.as<std::uint16_t>();
  }
  args.row_pair = row_pair_.as<std::int32_t>();
  args.partial = partial_.as<float>();
  args.grid = teams_;
  const HalfType type = problem_.shape.act == ActType::kFp16 ? HalfType::kFp16 : HalfType::kBf16;
  cuda_check(cuda::enqueue_gemm(weight_kind(weights_->format()), projection, type, args, stream),
             gate_up ? "GEMM1" : "GEMM2");
}

std::optional<DynamicScaleClaim> Forward::dynamic_scale(cudaStream_t stream) const {
  if (!one_hidden_scale()) return std::nullopt;
  if (sizes_.pairs == 0) return DynamicScaleClaim{1.0F, -1};
  HiddenScale found{};
  copy_to_host(&found, &plan_.as<PlanState>()->hidden_scale, sizeof found, stream);
  return DynamicScaleClaim{found.scale, found.pair};
}

}  // namespace moebench::cuda
