#include "moebench/backend/cuda/gemm_kernel.cuh"
#include "moebench/backend/cuda/gemm_kinds.h"

namespace moebench::cuda {

cudaError_t enqueue_nvfp4_gemm(Projection projection, HalfType type, const GemmArgs& args,
                               cudaStream_t stream) {
  return launch_grouped_gemm<WeightKind::kNvfp4>(projection, type, args, stream);
}

cudaError_t max_nvfp4_teams(int* teams) {
  return max_active_teams<WeightKind::kNvfp4, HalfType::kFp16, Projection::kGateUp,
                          GemmTiles::kBoth>(teams);
}

}  // namespace moebench::cuda
