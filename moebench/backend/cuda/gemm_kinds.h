// One translation unit per kind of weights: each takes ptxas its time.
#pragma once

#include "moebench/backend/cuda/gemm.h"

namespace moebench::cuda {

cudaError_t enqueue_nvfp4_gemm(Projection projection, HalfType type, const GemmArgs& args,
                               cudaStream_t stream);
cudaError_t enqueue_fp8_gemm(Projection projection, HalfType type, const GemmArgs& args,
                             cudaStream_t stream);
cudaError_t enqueue_fp8_block_gemm(Projection projection, HalfType type, const GemmArgs& args,
                                   cudaStream_t stream);

/// See max_teams(); all kernels need the same of a multiprocessor.
cudaError_t max_nvfp4_teams(int* teams);

}  // namespace moebench::cuda
