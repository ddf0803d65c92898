// What a grouped GEMM must compute, element by element, from the same arrays that CUTLASS's read:
// on the host for the test suite, on the device for machines without Blackwell.
#pragma once

#include <cstdint>

#include "moebench/backend/cuda/quantize.h"
#include "moebench/backend/cutlass/groups.h"

namespace moebench::cutlass_moe::testing {

/// The arrays of GroupedGemmArgs that hold numbers.
struct Operands {
  std::int64_t weight_rows, depth;
  const std::uint8_t* weights;
  const std::uint8_t* weight_scales;
  const std::uint8_t* tokens;
  const std::uint8_t* token_scales;
  const float* alpha;
};

MOEBENCH_HOST_DEVICE inline float e2m1_value(std::uint32_t code) {
  const std::uint32_t magnitude = code & 7;
  const float value = magnitude < 2 ? 0.5F * static_cast<float>(magnitude)
                                    : cuda::float_of((magnitude + 0xFC) << 22);
  return (code & 8) != 0 ? -value : value;
}

/// alpha * sum over depth, before it is rounded to 16 bits; `row` and `weight_row` within the group
/// and its expert.
MOEBENCH_HOST_DEVICE inline float gemm_element(const Operands& operands, const Group& group,
                                               std::int64_t row, std::int64_t weight_row) {
  const OperandOffsets at = operand_offsets(group, operands.weight_rows, operands.depth);
  const std::uint8_t* weights = operands.weights + at.weights + weight_row * (operands.depth / 2);
  const std::uint8_t* tokens = operands.tokens + at.tokens + row * (operands.depth / 2);
  float sum = 0.0F;
  for (std::int64_t block = 0; block < operands.depth / cuda::kScaleGroup; ++block) {
    float dot = 0.0F;  // exact
    for (std::int64_t byte = block * 8; byte < block * 8 + 8; ++byte) {
      dot += e2m1_value(weights[byte] & 15U) * e2m1_value(tokens[byte] & 15U);
      dot += e2m1_value(weights[byte] >> 4U) * e2m1_value(tokens[byte] >> 4U);
    }
    const float weight_scale = cuda::e4m3_value(
        operands.weight_scales[at.weight_scales + scale_offset(weight_row, block, operands.depth)]);
    const float token_scale = cuda::e4m3_value(
        operands.token_scales[at.token_scales + scale_offset(row, block, operands.depth)]);
    sum += dot * (weight_scale * token_scale);
  }
  return sum * operands.alpha[group.expert];
}

}  // namespace moebench::cutlass_moe::testing
