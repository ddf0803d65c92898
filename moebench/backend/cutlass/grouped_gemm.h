// The grouped NVFP4 GEMMs as the pipeline sees them: a table of compiled kernels, each for one
// architecture, tile shape and output type. What CUTLASS needs beyond that stays in their
// translation units.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "moebench/backend/cutlass/groups.h"
#include "moebench/core/dtype.h"

namespace moebench::cutlass_moe {

/// out[row][w] = half(alpha[expert] * sum over depth of weights[expert][w] * tokens[row]), for the
/// rows of every group.
struct GroupedGemmArgs {
  std::int32_t groups;  ///< entries of `group`; those without rows cost nothing
  const Group* group;
  std::int64_t weight_rows;           ///< multiple of 8
  std::int64_t depth;                 ///< multiple of 32
  const std::uint8_t* weights;        ///< [E][weight_rows][depth / 2]
  const std::uint8_t* weight_scales;  ///< [E] swizzled, weight_rows padded to 128
  const std::uint8_t* tokens;         ///< [rows][depth / 2]
  const std::uint8_t* token_scales;   ///< swizzled, a group's at its first_scale_row
  const float* alpha;                 ///< [E]
  std::uint16_t* out;                 ///< [rows][weight_rows]
  void* tables;                       ///< table_bytes(), filled by fill_tables()
  void* workspace;                    ///< workspace_bytes()
  int multiprocessors;
};

struct GroupedGemm {
  const char* tile;  ///< for people: "256x128x256, 2 SMs"
  int major;         ///< of the compute capability that it is compiled for
  ActType out;
  int tile_tokens;  ///< tokens of an expert that one tile takes
  std::int64_t (*table_bytes)(std::int64_t groups);
  std::int64_t (*workspace_bytes)(std::int64_t groups, int multiprocessors);
  /// Pointers, strides, sizes and scale layouts of each group, on the device. Before enqueue(), in
  /// the same stream.
  cudaError_t (*fill_tables)(const GroupedGemmArgs& args, cudaStream_t stream);
  cudaError_t (*enqueue)(const GroupedGemmArgs& args, cudaStream_t stream);
};

/// All that are compiled.
[[nodiscard]] std::span<const GroupedGemm* const> grouped_gemms();

/// The one for `rows` tokens over `groups` experts, on a device of this major compute capability;
/// null where none is compiled for it.
[[nodiscard]] const GroupedGemm* choose_gemm(std::span<const GroupedGemm* const> gemms, int major,
                                             ActType out, std::int64_t rows, std::int64_t groups);

}  // namespace moebench::cutlass_moe
