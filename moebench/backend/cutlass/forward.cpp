#include "moebench/backend/cutlass/forward.h"

#include <vector>

#include "moebench/backend/cuda/phase_marks.h"
#include "moebench/backend/cuda/route.h"
#include "moebench/backend/cutlass/rows.h"
#include "moebench/core/checked.h"
#include "moebench/core/error.h"
#include "moebench/moe/verify.h"

namespace moebench::cutlass_moe {
namespace {

using cuda::cuda_check;
using cuda::Projection;

constexpr const char* kWhat = "scratch of a case";
/// Its tiles mean nothing here: a tile of CUTLASS is cut from an expert's rows as they lie.
constexpr cuda::TileSet kTileSet = cuda::TileSet::kLarge;
constexpr std::int64_t kActBytes = sizeof(std::uint16_t);
constexpr std::int64_t kFloatBytes = sizeof(float);
constexpr std::int64_t kIndexBytes = sizeof(std::int32_t);

/// Columns of ForwardSizes::per_expert.
enum PerExpert : std::uint8_t {
  kGateUpAlpha,
  kDownAlpha,
  kGateUpGlobalScale,
  kDownGlobalScale,
  kPerExpertColumns
};

}  // namespace

Support forward_supports(const MoeShape& shape) {
  constexpr std::int64_t kMultiple = 32;  // 16 bytes of a row
  if (shape.hidden % kMultiple != 0 || shape.intermediate % kMultiple != 0) {
    return Support::no("K and N must be multiples of 32");
  }
  if (shape.num_experts > cuda::kMaxRoutedExperts) return Support::no("more than 8192 experts");
  return Support::yes();
}

ForwardSizes::ForwardSizes(const MoeShape& shape, std::int64_t token_count, const GroupedGemm& gemm,
                           int multiprocessors) {
  pairs = checked_product(kWhat, {token_count, shape.topk});
  rows = cuda::max_padded_rows(pairs, shape.num_experts, kTileSet);
  scale_rows = max_scale_rows(pairs, shape.num_experts);
  groups = max_groups(pairs, shape.num_experts);
  tokens = checked_product(kWhat, {token_count, shape.hidden, kActBytes});
  ids = pairs * kIndexBytes;
  weights = pairs * kFloatBytes;
  entries = groups * static_cast<std::int64_t>(sizeof(cuda::ExpertTiles));
  row_pair = rows * kIndexBytes;
  places = pairs * static_cast<std::int64_t>(sizeof(cuda::PairPlace));
  group_bytes = groups * static_cast<std::int64_t>(sizeof(Group));
  gate_up_payload = checked_product(kWhat, {rows, shape.hidden / 2});
  gate_up_scales = scale_bytes(scale_rows, shape.hidden);
  gate_up_out = checked_product(kWhat, {rows, 2 * shape.intermediate, kActBytes});
  down_payload = checked_product(kWhat, {rows, shape.intermediate / 2});
  down_scales = scale_bytes(scale_rows, shape.intermediate);
  down_out = checked_product(kWhat, {rows, shape.hidden, kActBytes});
  per_expert = kPerExpertColumns * shape.num_experts * kFloatBytes;
  table = gemm.table_bytes(groups);
  workspace = gemm.workspace_bytes(groups, multiprocessors);
  output = tokens + 2 * kGuardElements * kActBytes;
}

std::int64_t ForwardSizes::total() const {
  constexpr std::int64_t kAlignment = 256;
  std::int64_t sum = kAlignment;  // the plan's header
  for (const std::int64_t part :
       {tokens, ids, weights, entries, row_pair, places, group_bytes, gate_up_payload,
        gate_up_scales, gate_up_out, down_payload, down_scales, down_out, per_expert, table, table,
        workspace, output}) {
    sum = checked_sum(kWhat, sum, round_up(part, kAlignment));
  }
  return sum;
}

CutlassForward::CutlassForward(const MoeProblem& problem,
                               std::shared_ptr<const CutlassWeights> weights,
                               const GroupedGemm& gemm, int multiprocessors)
    : problem_(problem),
      weights_(std::move(weights)),
      gemm_(gemm),
      multiprocessors_(multiprocessors),
      sizes_(problem.shape, problem.tokens, gemm, multiprocessors),
      tokens_(sizes_.tokens, "tokens"),
      ids_(sizes_.ids, "routing"),
      topk_weights_(sizes_.weights, "routing"),
      plan_(sizeof(cuda::PlanHeader), "plan"),
      entries_(sizes_.entries, "plan"),
      row_pair_(sizes_.row_pair, "plan"),
      places_(sizes_.places, "plan"),
      groups_(sizes_.group_bytes, "plan"),
      gate_up_payload_(sizes_.gate_up_payload, "GEMM1's operand"),
      gate_up_scales_(sizes_.gate_up_scales, "GEMM1's scales"),
      gate_up_out_(sizes_.gate_up_out, "gate and up"),
      down_payload_(sizes_.down_payload, "GEMM2's operand"),
      down_scales_(sizes_.down_scales, "GEMM2's scales"),
      down_out_(sizes_.down_out, "expert outputs"),
      per_expert_(sizes_.per_expert, "scales"),
      gate_up_table_(sizes_.table, "GEMM1's groups"),
      down_table_(sizes_.table, "GEMM2's groups"),
      workspace_(sizes_.workspace, "the GEMMs' workspace"),
      output_(sizes_.output, "output") {
  const MoeShape& packed_for = weights_->shape();
  if (packed_for.num_experts != problem.shape.num_experts ||
      packed_for.hidden != problem.shape.hidden ||
      packed_for.intermediate != problem.shape.intermediate ||
      packed_for.act != problem.shape.act || problem.scheme.scheme != Scheme::kNvfp4) {
    fail(ErrorCode::kInternal, "cutlass: the weights were packed for another layer or format");
  }
}

std::uint16_t* CutlassForward::output() const {
  return output_.as<std::uint16_t>() + kGuardElements;
}

float* CutlassForward::per_expert(int column) const {
  return per_expert_.as<float>() + column * problem_.shape.num_experts;
}

void CutlassForward::upload(cudaStream_t stream) {
  cuda::copy_to_device(tokens_.as<std::uint16_t>(), problem_.a, stream);
  cuda::copy_to_device(ids_.as<std::int32_t>(), problem_.routing.topk_ids, stream);
  cuda::copy_to_device(topk_weights_.as<float>(), problem_.routing.topk_weights, stream);
  upload_scales(stream);
}

void CutlassForward::upload_scales(cudaStream_t stream) {
  const auto upload_one = [&](Projection projection, const std::vector<float>& activation_scales,
                              int alpha_column, int scale_column) {
    const std::vector<float>& weight_scales = weights_->global_scales(projection);
    std::vector<float> alpha(weight_scales.size());
    for (std::size_t e = 0; e < alpha.size(); ++e) {
      alpha[e] = 1.0F / (activation_scales[e] * weight_scales[e]);
    }
    cuda::copy_to_device(per_expert(alpha_column), alpha, stream);
    cuda::copy_to_device(per_expert(scale_column), activation_scales, stream);
  };
  upload_one(Projection::kGateUp, problem_.scales.a1_global_scale, kGateUpAlpha,
             kGateUpGlobalScale);
  upload_one(Projection::kDown, problem_.scales.a2_global_scale, kDownAlpha, kDownGlobalScale);
}

GroupedGemmArgs CutlassForward::gemm_args(Projection projection) const {
  const bool gate_up = projection == Projection::kGateUp;
  const MatrixSize size = matrix_size(problem_.shape, projection);
  GroupedGemmArgs args{};
  args.groups = static_cast<std::int32_t>(sizes_.groups);
  args.group = groups_.as<Group>();
  args.weight_rows = size.rows;
  args.depth = size.depth;
  args.weights = weights_->payload(projection);
  args.weight_scales = weights_->scales(projection);
  args.tokens = (gate_up ? gate_up_payload_ : down_payload_).as<std::uint8_t>();
  args.token_scales = (gate_up ? gate_up_scales_ : down_scales_).as<std::uint8_t>();
  args.alpha = per_expert(gate_up ? kGateUpAlpha : kDownAlpha);
  args.out = (gate_up ? gate_up_out_ : down_out_).as<std::uint16_t>();
  args.tables = (gate_up ? gate_up_table_ : down_table_).as<std::uint8_t>();
  args.workspace = workspace_.as<std::uint8_t>();
  args.multiprocessors = multiprocessors_;
  return args;
}

void CutlassForward::enqueue_route(const DeviceArrays& arrays, cudaStream_t stream) const {
  cuda::RouteArgs route{};
  route.topk_ids = arrays.topk_ids;
  route.pairs = sizes_.pairs;
  route.experts = problem_.shape.num_experts;
  route.tile_set = kTileSet;
  route.header = plan_.as<cuda::PlanHeader>();
  route.entries = entries_.as<cuda::ExpertTiles>();
  route.row_pair = row_pair_.as<std::int32_t>();
  route.places = places_.as<cuda::PairPlace>();
  cuda_check(cuda::enqueue_route(route, stream), "route");
  cuda_check(enqueue_groups(route.header, route.entries, static_cast<std::int32_t>(sizes_.groups),
                            groups_.as<Group>(), stream),
             "groups");
  for (const Projection projection : {Projection::kGateUp, Projection::kDown}) {
    cuda_check(gemm_.fill_tables(gemm_args(projection), stream), "groups");
  }
}

void CutlassForward::enqueue_quantized(Projection projection, const std::uint16_t* rows,
                                       cudaStream_t stream) const {
  const bool gate_up = projection == Projection::kGateUp;
  QuantizeArgs args{};
  args.rows = rows;
  args.depth = matrix_size(problem_.shape, projection).depth;
  args.row_pair = row_pair_.as<std::int32_t>();
  args.topk = static_cast<std::int32_t>(problem_.shape.topk);
  args.global_scale = per_expert(gate_up ? kGateUpGlobalScale : kDownGlobalScale);
  args.groups = groups_.as<Group>();
  args.group_count = static_cast<std::int32_t>(sizes_.groups);
  args.payload = (gate_up ? gate_up_payload_ : down_payload_).as<std::uint8_t>();
  args.scales = (gate_up ? gate_up_scales_ : down_scales_).as<std::uint8_t>();
  cuda_check(enqueue_quantize(gate_up ? RowSource::kTokens : RowSource::kGateUp, problem_.shape.act,
                              args, sizes_.scale_rows, stream),
             "quantize");
}

DeviceArrays CutlassForward::uploaded() const {
  return {.tokens = tokens_.as<std::uint16_t>(),
          .topk_ids = ids_.as<std::int32_t>(),
          .topk_weights = topk_weights_.as<float>(),
          .y = output()};
}

void CutlassForward::enqueue(const DeviceArrays& arrays, cudaStream_t stream,
                             cuda::PhaseMarks* marks) {
  cuda::require_device();
  const auto phase = [&](const char* name) {
    if (marks != nullptr) marks->begin(name, stream);
  };
  phase("route");
  if (sizes_.pairs == 0) return;
  enqueue_route(arrays, stream);
  phase("permute+quantize");
  enqueue_quantized(Projection::kGateUp, arrays.tokens, stream);
  phase("gemm1");
  cuda_check(gemm_.enqueue(gemm_args(Projection::kGateUp), stream), "GEMM1");
  phase("activation+quantize");
  enqueue_quantized(Projection::kDown, gate_up_out_.as<std::uint16_t>(), stream);
  phase("gemm2");
  cuda_check(gemm_.enqueue(gemm_args(Projection::kDown), stream), "GEMM2");
  phase("combine");
  UnpermuteArgs unpermute{};
  unpermute.rows = down_out_.as<std::uint16_t>();
  unpermute.places = places_.as<cuda::PairPlace>();
  unpermute.topk_weights = arrays.topk_weights;
  unpermute.y = arrays.y;
  unpermute.tokens = problem_.tokens;
  unpermute.topk = static_cast<std::int32_t>(problem_.shape.topk);
  unpermute.hidden = problem_.shape.hidden;
  cuda_check(enqueue_unpermute(problem_.shape.act, unpermute, stream), "combine");
}

}  // namespace moebench::cutlass_moe
