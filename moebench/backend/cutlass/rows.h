// The kernels around the grouped GEMMs: groups from the routing plan, NVFP4 rows with swizzled
// scales, the weighted sum over each token's experts. Nothing in them is particular to Blackwell.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moebench/backend/cuda/route.h"
#include "moebench/backend/cutlass/quantize_rows.h"

namespace moebench::cutlass_moe {

/// groups[0, count) from the plan that cuda/route leaves.
cudaError_t enqueue_groups(const cuda::PlanHeader* plan, const cuda::ExpertTiles* entries,
                           std::int32_t count, Group* groups, cudaStream_t stream);

/// Payload of every row, scales of every scale row of every group; padding is written as zero.
/// `scale_rows`: max_scale_rows().
cudaError_t enqueue_quantize(RowSource source, ActType type, const QuantizeArgs& args,
                             std::int64_t scale_rows, cudaStream_t stream);

struct UnpermuteArgs {
  const std::uint16_t* rows;      ///< c2 [rows][hidden], in the order of the groups
  const cuda::PairPlace* places;  ///< [tokens * topk]
  const float* topk_weights;      ///< [tokens * topk]
  std::uint16_t* y;               ///< [tokens][hidden]
  std::int64_t tokens;
  std::int32_t topk;
  std::int64_t hidden;  ///< multiple of 8
};
/// y[m] = half(sum over j, in order, of c2[row of (m, j)] * weight[m][j]), FP32 with a rounding
/// after each operation.
cudaError_t enqueue_unpermute(ActType type, const UnpermuteArgs& args, cudaStream_t stream);

}  // namespace moebench::cutlass_moe
