// From rows of 16-bit values to the operand tiles of a GEMM, quantised on the way: the tokens, each
// to the tiles of its experts, and h where GEMM1 leaves it as rows. Operands are 16 bits wide: what
// is quantised is expanded again at once, which is exact.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moebench/backend/cuda/route.h"
#include "moebench/core/dtype.h"

namespace moebench::cuda {

enum class OperandFormat : std::uint8_t {
  kWide,   ///< as it is
  kNvfp4,  ///< e2m1 * block scale, in the layer's type; the expert's global scale is left to alpha
  kFp8Tensor,  ///< e4m3 as FP16, one scale for all
  kFp8Token,   ///< e4m3 as FP16, a scale for each row
  kFp8Block,   ///< e4m3 as FP16, a scale for each row and 128 columns
};

/// The FP8 scale of all of h: cleared when the tokens are permuted, then found on the way.
struct HiddenScale {
  static constexpr std::int32_t kNoPair = 0x7FFFFFFF;
  std::uint32_t amax;  ///< by GEMM1: largest 16-bit magnitude, as bits (above all others: NaN)
  float scale;         ///< by the quantising pass
  std::int32_t pair;   ///< by the quantising pass: the first that attains amax
};

struct PermuteArgs {
  const std::uint16_t* rows;  ///< tokens [items][columns], or h [padded rows][columns]
  std::int64_t columns;       ///< multiple of 16
  std::int64_t items;         ///< tokens, or pairs
  std::int32_t copies;        ///< topk, or 1
  const PairPlace* places;    ///< [items * copies]
  std::uint8_t* operand;
  float* row_scale;  ///< written: kFp8Token [padded rows], kFp8Block operand_scale_index()
  // Tokens, kNvfp4
  const std::int32_t* topk_ids;  ///< [items * copies]
  const float* global_scale;     ///< [E]
  const float* tensor_scale;     ///< tokens, kFp8Tensor: [1]
  HiddenScale* hidden_scale;     ///< kFp8Tensor
};

/// Bytes of an operand row of `columns` columns: whole chunks.
MOEBENCH_HOST_DEVICE constexpr std::int64_t operand_row_bytes(std::int64_t columns) {
  return divide_up(columns, kChunkDepth) * kChunkDepth * 2;
}

/// Padding columns are written as zero, padding rows not at all.
cudaError_t enqueue_permute(OperandFormat format, ActType type, const PermuteArgs& args,
                            cudaStream_t stream);
/// h to GEMM2's operand; kFp8Tensor or kFp8Token.
cudaError_t enqueue_quantize_hidden(OperandFormat format, ActType type, const PermuteArgs& args,
                                    cudaStream_t stream);

}  // namespace moebench::cuda
