#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cutlass/quantize_rows.h"
#include "tests/cutlass/reference_gemm.h"
#include "tests/cutlass/reference_grouped_gemm.h"

namespace moebench::cutlass_moe::testing {
namespace {

constexpr int kThreads = 128;

/// Block b takes kThreads weight rows of group b / parts, all of its rows one after another.
template <ActType kType>
__global__ void __launch_bounds__(kThreads) reference_kernel(GroupedGemmArgs args, int parts) {
  cudaGridDependencySynchronize();
  const Group group = args.group[blockIdx.x / static_cast<unsigned>(parts)];
  const std::int64_t weight_row =
      std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * kThreads + threadIdx.x;
  if (weight_row >= args.weight_rows) return;
  const Operands operands{args.weight_rows, args.depth,        args.weights, args.weight_scales,
                          args.tokens,      args.token_scales, args.alpha};
  std::uint16_t* out = args.out + operand_offsets(group, args.weight_rows, args.depth).out;
  for (std::int64_t row = 0; row < group.rows; ++row) {
    const float value = gemm_element(operands, group, row, weight_row);
    out[row * args.weight_rows + weight_row] = narrowed<kType>(value);
  }
}

std::int64_t table_bytes(std::int64_t /*groups*/) { return 0; }
std::int64_t workspace_bytes(std::int64_t /*groups*/, int /*multiprocessors*/) { return 0; }
cudaError_t fill_tables(const GroupedGemmArgs& /*args*/, cudaStream_t /*stream*/) {
  return cudaSuccess;
}

template <ActType kType>
cudaError_t enqueue(const GroupedGemmArgs& args, cudaStream_t stream) {
  const std::int64_t parts = cuda::divide_up(args.weight_rows, kThreads);
  return cuda::launch_overlapped(reference_kernel<kType>, {args.groups * parts, kThreads}, stream,
                                 args, static_cast<int>(parts));
}

template <ActType kType>
constexpr GroupedGemm kReference = {"reference",     0,           kType,         1, table_bytes,
                                    workspace_bytes, fill_tables, enqueue<kType>};

}  // namespace

const GroupedGemm& reference_gemm(ActType type) {
  static constexpr GroupedGemm kFp16 = kReference<ActType::kFp16>;
  static constexpr GroupedGemm kBf16 = kReference<ActType::kBf16>;
  return type == ActType::kFp16 ? kFp16 : kBf16;
}

}  // namespace moebench::cutlass_moe::testing
