#include "moebench/backend/cuda/gemm_kernel.cuh"
#include "moebench/backend/cuda/gemm_kinds.h"

namespace moebench::cuda {

cudaError_t enqueue_fp8_block_gemm(Projection projection, HalfType type, const GemmArgs& args,
                                   cudaStream_t stream) {
  return launch_grouped_gemm<WeightKind::kFp8Block>(projection, type, args, stream);
}

}  // namespace moebench::cuda
