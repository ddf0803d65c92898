// The last kernel of a layer: the weighted sum over each token's experts.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moebench/core/dtype.h"

namespace moebench::cuda {

struct CombineArgs {
  const std::uint16_t* pair_out;  ///< c2 [tokens * topk][hidden]
  const float* topk_weights;      ///< [tokens * topk]
  std::uint16_t* y;               ///< [tokens][hidden]
  std::int64_t tokens;
  std::int32_t topk;
  std::int64_t hidden;  ///< multiple of 8
};

/// y[m] = half(sum over j, in order, of c2[m][j] * weight[m][j]), FP32 with a rounding after each
/// operation.
cudaError_t enqueue_combine(ActType type, const CombineArgs& args, cudaStream_t stream);

}  // namespace moebench::cuda
