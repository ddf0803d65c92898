// Every thread takes 8 columns of a token; the rows of its experts are loaded 8 at a time.
#include "moebench/backend/cuda/combine.h"
#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/quantize.cuh"

namespace moebench::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBatch = 8;

template <ActType kType>
__global__ void __launch_bounds__(kThreads) combine_kernel(CombineArgs args, int parts) {
  const std::int64_t token = blockIdx.x / static_cast<unsigned>(parts);
  const std::int64_t column =
      (std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * kThreads + threadIdx.x) *
      kUnitColumns;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (column >= args.hidden) return;

  const std::uint16_t* rows = args.pair_out + token * args.topk * args.hidden + column;
  const float* weights = args.topk_weights + token * args.topk;
  Unit sum{};
  for (int first = 0; first < args.topk; first += kBatch) {
    uint4 raw[kBatch];
    float weight[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (first + i >= args.topk) continue;
      raw[i] = *reinterpret_cast<const uint4*>(rows + (first + i) * args.hidden);
      weight[i] = weights[first + i];
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (first + i >= args.topk) continue;
      const Unit values = widen<kType>(raw[i]);
#pragma unroll
      for (int c = 0; c < kUnitColumns; ++c) {
        sum.values[c] = add(sum.values[c], multiply(values.values[c], weight[i]));
      }
    }
  }
  *reinterpret_cast<uint4*>(args.y + token * args.hidden + column) = narrow<kType>(sum);
}

template <ActType kType>
cudaError_t combine_as(const CombineArgs& args, cudaStream_t stream) {
  const std::int64_t parts = divide_up(args.hidden, kThreads * kUnitColumns);
  return launch_overlapped(combine_kernel<kType>, {args.tokens * parts, kThreads}, stream, args,
                           static_cast<int>(parts));
}

}  // namespace

cudaError_t enqueue_combine(ActType type, const CombineArgs& args, cudaStream_t stream) {
  return type == ActType::kFp16 ? combine_as<ActType::kFp16>(args, stream)
                                : combine_as<ActType::kBf16>(args, stream);
}

}  // namespace moebench::cuda
