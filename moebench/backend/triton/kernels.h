// What stands around the two GEMMs on the device: moe-align, the quantisers, SiLU * up. CUDA, as in
// the pipeline that this one is modelled on.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moebench/core/dtype.h"

namespace moebench::triton {

struct AlignArgs {
  const std::int32_t* topk_ids;  ///< [pairs]
  std::int64_t pairs;
  std::int64_t experts;
  std::int32_t block_m;
  std::int32_t* sorted_pairs;  ///< as Alignment's
  std::int32_t* tile_experts;
  std::int32_t* padded_rows;  ///< [1]
  std::uint64_t* amax_key;    ///< set to 0 for the layer's search of an amax
};
/// align_pairs() on the device.
cudaError_t enqueue_align(const AlignArgs& args, cudaStream_t stream);

struct QuantizeArgs {
  const std::uint16_t* rows;  ///< [count][columns]
  std::int64_t count;
  std::int64_t columns;      ///< multiple of 16
  std::uint8_t* codes;       ///< e4m3 [count][columns]; null: `wide` is written
  std::uint16_t* wide;       ///< their numbers as FP16, split by kWideSplit
  const float* given_scale;  ///< one scale for all: [1]; null: one for each row, written
  float* row_scale;          ///< [count]
};
cudaError_t enqueue_quantize(ActType type, const QuantizeArgs& args, cudaStream_t stream);

struct SiluArgs {
  const std::uint16_t* gate_up;  ///< c1 [pairs][2 * columns]: gate, then up
  std::int64_t pairs;
  std::int64_t columns;
  std::uint16_t* hidden;  ///< h [pairs][columns]
  /// Largest 16-bit magnitude of h and the complement of its first pair; null: not searched.
  std::uint64_t* amax_key;
};
cudaError_t enqueue_silu(ActType type, const SiluArgs& args, cudaStream_t stream);

struct DynamicScale {
  float scale;
  std::int32_t pair;
};
/// The scale of h over all pairs from what enqueue_silu left.
cudaError_t enqueue_dynamic_scale(ActType type, const std::uint64_t* amax_key, DynamicScale* out,
                                  cudaStream_t stream);

/// Synthetic FP8 weights of `experts` experts in canonical order, bit for bit those of
/// moe/weights.h. `scales` [all experts][scales of one]: written; `codes` [all
/// experts][rows][cols].
struct GenerateCanonicalArgs {
  std::uint64_t seed;
  bool down;
  std::int64_t hidden;
  std::int64_t intermediate;
  bool per_channel;
  std::int64_t first_expert;
  std::int64_t experts;
  float* scales;
  std::uint8_t* codes;
};
cudaError_t enqueue_generate_canonical(const GenerateCanonicalArgs& args, cudaStream_t stream);

}  // namespace moebench::triton
