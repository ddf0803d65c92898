#include "moebench/backend/cuda/gemm.h"

#include "moebench/backend/cuda/gemm_kinds.h"

namespace moebench::cuda {

cudaError_t enqueue_gemm(WeightKind kind, Projection projection, HalfType type,
                         const GemmArgs& args, cudaStream_t stream) {
  switch (kind) {
    case WeightKind::kNvfp4:
      return enqueue_nvfp4_gemm(projection, type, args, stream);
    case WeightKind::kFp8:
      return enqueue_fp8_gemm(projection, type, args, stream);
    case WeightKind::kFp8Block:
      return enqueue_fp8_block_gemm(projection, type, args, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t max_teams(int* teams) { return max_nvfp4_teams(teams); }

}  // namespace moebench::cuda
