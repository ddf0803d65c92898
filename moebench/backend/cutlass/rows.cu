#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/quantize.cuh"
#include "moebench/backend/cutlass/rows.h"

namespace moebench::cutlass_moe {
namespace {

using cuda::divide_up;
using cuda::launch_overlapped;

constexpr int kThreads = 128;

// Every kernel waits for the ones before it before it reads or writes anything, and lets the next
// one begin only by ending: what follows may be CUTLASS's, which is launched without overlap.

__global__ void __launch_bounds__(kGroupThreads)
    groups_kernel(const cuda::PlanHeader* plan, const cuda::ExpertTiles* entries,
                  std::int32_t count, Group* groups) {
  __shared__ std::int32_t sums[kGroupThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const GroupSpan span = groups_of_thread(count, thread);
  cudaGridDependencySynchronize();
  const cuda::PlanHeader header = *plan;
  sums[thread] = add_scale_rows(header, entries, span);
  __syncwarp();
  std::int32_t before = 0;
  for (int i = 0; i < thread; ++i) before += sums[i];
  place_groups(header, entries, span, before, groups);
}

/// Block b takes part b % parts of scale row b / parts; a thread takes the 16 columns of one scale,
/// four neighbours the four bytes that lie together.
template <ActType kType, RowSource kSource>
__global__ void __launch_bounds__(kThreads) quantize_kernel(QuantizeArgs args, int parts) {
  const auto scale_row = static_cast<std::int32_t>(blockIdx.x / static_cast<unsigned>(parts));
  const std::int64_t column_group =
      std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * kThreads + threadIdx.x;
  cudaGridDependencySynchronize();
  const ScaleRow at = find_scale_row(args.groups, args.group_count, scale_row);
  if (at.group < 0) return;  // all threads of the block
  const bool inside = column_group < scale_tiles_across(args.depth) * kScaleTileGroups;
  std::uint32_t scale = inside ? quantize_unit<kType, kSource>(args, at, column_group) : 0;
  // The lowest of four lanes gathers their bytes.
  scale <<= 8 * (threadIdx.x % kScaleTileGroups);
  scale |= __shfl_xor_sync(cuda::kAllLanes, scale, 1);
  scale |= __shfl_xor_sync(cuda::kAllLanes, scale, 2);
  if (inside && threadIdx.x % kScaleTileGroups == 0) {
    *reinterpret_cast<std::uint32_t*>(args.scales +
                                      scale_offset(scale_row, column_group, args.depth)) = scale;
  }
}

template <ActType kType>
__global__ void __launch_bounds__(kThreads) unpermute_kernel(UnpermuteArgs args, int parts) {
  const std::int64_t token = blockIdx.x / static_cast<unsigned>(parts);
  const std::int64_t column =
      (std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * kThreads + threadIdx.x) *
      cuda::kUnitColumns;
  cudaGridDependencySynchronize();
  if (column >= args.hidden) return;
  cuda::Unit sum{};
  for (int j = 0; j < args.topk; ++j) {
    const std::int64_t pair = token * args.topk + j;
    const cuda::PairPlace place = args.places[pair];
    const std::int64_t row = std::int64_t{place.tile_begin} + place.row;
    const cuda::Unit values =
        cuda::widen<kType>(*reinterpret_cast<const uint4*>(args.rows + row * args.hidden + column));
    const float weight = args.topk_weights[pair];
#pragma unroll
    for (int c = 0; c < cuda::kUnitColumns; ++c) {
      sum.values[c] = cuda::add(sum.values[c], cuda::multiply(values.values[c], weight));
    }
  }
  *reinterpret_cast<uint4*>(args.y + token * args.hidden + column) = cuda::narrow<kType>(sum);
}

template <ActType kType, RowSource kSource>
cudaError_t quantize_as(const QuantizeArgs& args, std::int64_t scale_rows, cudaStream_t stream) {
  const std::int64_t parts = divide_up(scale_tiles_across(args.depth) * kScaleTileGroups, kThreads);
  return launch_overlapped(quantize_kernel<kType, kSource>, {scale_rows * parts, kThreads}, stream,
                           args, static_cast<int>(parts));
}

template <ActType kType>
cudaError_t unpermute_as(const UnpermuteArgs& args, cudaStream_t stream) {
  const std::int64_t parts = divide_up(args.hidden, kThreads * cuda::kUnitColumns);
  return launch_overlapped(unpermute_kernel<kType>, {args.tokens * parts, kThreads}, stream, args,
                           static_cast<int>(parts));
}

}  // namespace

cudaError_t enqueue_groups(const cuda::PlanHeader* plan, const cuda::ExpertTiles* entries,
                           std::int32_t count, Group* groups, cudaStream_t stream) {
  return launch_overlapped(groups_kernel, {1, kGroupThreads}, stream, plan, entries, count, groups);
}

cudaError_t enqueue_quantize(RowSource source, ActType type, const QuantizeArgs& args,
                             std::int64_t scale_rows, cudaStream_t stream) {
  const bool tokens = source == RowSource::kTokens;
  if (type == ActType::kFp16) {
    return tokens ? quantize_as<ActType::kFp16, RowSource::kTokens>(args, scale_rows, stream)
                  : quantize_as<ActType::kFp16, RowSource::kGateUp>(args, scale_rows, stream);
  }
  return tokens ? quantize_as<ActType::kBf16, RowSource::kTokens>(args, scale_rows, stream)
                : quantize_as<ActType::kBf16, RowSource::kGateUp>(args, scale_rows, stream);
}

cudaError_t enqueue_unpermute(ActType type, const UnpermuteArgs& args, cudaStream_t stream) {
  return type == ActType::kFp16 ? unpermute_as<ActType::kFp16>(args, stream)
                                : unpermute_as<ActType::kBf16>(args, stream);
}

}  // namespace moebench::cutlass_moe
