// fused_moe_gemm on the host in place of the driver's: what the kernel's source says, element by
// element.
#include <cuda_runtime.h>

#include <vector>

#include "moebench/backend/triton/module.h"
#include "moebench/core/dtype.h"
#include "tests/cuda/emulated/emulator.h"

namespace moebench::triton {
namespace {

void multiply(const GemmArguments& a, const EmbeddedKernel& kernel, std::int64_t row_tiles) {
  const int block_m = kernel.tile.block_m;
  const std::int32_t rows = *a.padded_rows;
  if (rows % block_m != 0) emulated::fault("padded rows are no whole tiles");
  if (rows / block_m > row_tiles) emulated::fault("more tiles than programs");
  std::vector<float> operand(static_cast<std::size_t>(a.depth));
  for (std::int32_t row = 0; row < rows; ++row) {
    const std::int32_t pair = a.sorted_pairs[row];
    if (pair >= a.num_pairs) continue;
    const std::int64_t expert = a.tile_experts[row / block_m];
    const std::int64_t from = pair / a.rows_per_operand;
    for (std::int32_t k = 0; k < a.depth; ++k) {
      const std::int64_t at = from * a.depth + k;
      const std::int64_t split_at =
          at - k % kWideSplit + k % kWideSplit / 2 + k % 2 * (kWideSplit / 2);
      operand[static_cast<std::size_t>(k)] =
          kernel.wide_rows ? decode_fp16(static_cast<const std::uint16_t*>(a.operand)[split_at])
                           : decode_e4m3(static_cast<const std::uint8_t*>(a.operand)[at]);
    }
    const float row_scale = a.operand_scale[from * a.operand_scale_stride];
    const std::int64_t expert_scales = a.weight_scale_stride != 0 ? a.columns : 1;
    for (std::int64_t column = 0; column < a.columns; ++column) {
      const std::uint8_t* weights = a.weights + (expert * a.columns + column) * a.depth;
      float sum = 0.0F;
      for (std::int32_t k = 0; k < a.depth; ++k) {
        sum += operand[static_cast<std::size_t>(k)] * decode_e4m3(weights[k]);
      }
      const float column_scale =
          a.weight_scale[expert * expert_scales + column * a.weight_scale_stride];
      a.output[std::int64_t{pair} * a.columns + column] =
          encode_act(kernel.act, sum * (row_scale * column_scale));
    }
  }
}

}  // namespace

LoadedKernel::LoadedKernel(const EmbeddedSet& /*set*/, const EmbeddedKernel& kernel)
    : kernel_(kernel) {}
LoadedKernel::~LoadedKernel() = default;

void LoadedKernel::enqueue(const GemmArguments& arguments, std::int64_t row_tiles,
                           cudaStream_t /*stream*/) const {
  emulated::Launch launch;
  launch.block.x = 32;
  launch.kernel = [arguments, row_tiles, &kernel = kernel_] {
    if (threadIdx.x == 0) multiply(arguments, kernel, row_tiles);
  };
  emulated::launch(std::move(launch));
}

std::shared_ptr<const LoadedKernel> KernelCache::get(const EmbeddedKernel& kernel) {
  return std::make_shared<LoadedKernel>(set_, kernel);
}

}  // namespace moebench::triton
