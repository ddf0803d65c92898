// The synthetic layer, made on the device: the weights of moe/weights.h with the bits of quant/,
// written straight into the packed layout.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moebench/backend/cuda/generate_pieces.h"
#include "moebench/moe/layer.h"

namespace moebench::cuda {

/// One matrix of experts [first_expert, first_expert + experts).
struct GenerateArgs {
  std::uint64_t seed;
  Projection projection;
  std::int64_t hidden;
  std::int64_t intermediate;
  WeightFormat format;
  Wide wide;  ///< NVFP4
  std::int64_t first_expert;
  std::int64_t experts;
  /// [E][weight_scale_count], of all experts: the amax as an integer, then, in its place, the FP8
  /// scale or the NVFP4 global scale.
  float* scales;
  std::uint8_t* packed;  ///< [E][expert_bytes], of all experts
};
cudaError_t enqueue_generate(const GenerateArgs& args, cudaStream_t stream);

}  // namespace moebench::cuda
