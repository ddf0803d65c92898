// Embedded machine code on the device: loaded through the driver, which is asked for at run time,
// and launched with the arguments in the order that the kernel was specialised for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "moebench/backend/triton/embedded.h"

struct CUmod_st;
struct CUfunc_st;

namespace moebench::triton {

/// The arguments of fused_moe_gemm; see fused_moe.py.
struct GemmArguments {
  const void* operand;  ///< as EmbeddedKernel::wide_rows says
  const std::uint8_t* weights;
  std::uint16_t* output;
  const float* operand_scale;
  const float* weight_scale;
  const float* routing_weights;
  const std::int32_t* sorted_pairs;
  const std::int32_t* tile_experts;
  const std::int32_t* padded_rows;
  std::int32_t columns;
  std::int32_t depth;
  std::int32_t num_pairs;
  std::int32_t rows_per_operand;
  std::int32_t operand_scale_stride;
  std::int32_t weight_scale_stride;
  std::int32_t group_m;
};

/// One kernel on the current device.
class LoadedKernel {
 public:
  /// Throws kUnavailable in one line for machine code with a defect and where the driver refuses
  /// it.
  LoadedKernel(const EmbeddedSet& set, const EmbeddedKernel& kernel);
  ~LoadedKernel();
  LoadedKernel(const LoadedKernel&) = delete;
  LoadedKernel& operator=(const LoadedKernel&) = delete;

  [[nodiscard]] const EmbeddedKernel& kernel() const { return kernel_; }
  /// As many programs as `row_tiles` (at most; the kernel reads how many there are) take.
  void enqueue(const GemmArguments& arguments, std::int64_t row_tiles, cudaStream_t stream) const;

 private:
  const EmbeddedKernel& kernel_;
  CUmod_st* module_ = nullptr;
  CUfunc_st* function_ = nullptr;
};

/// Kernels of one device, each loaded when it is first needed.
class KernelCache {
 public:
  explicit KernelCache(const EmbeddedSet& set) : set_(set) {}
  [[nodiscard]] std::shared_ptr<const LoadedKernel> get(const EmbeddedKernel& kernel);

 private:
  const EmbeddedSet& set_;
  std::mutex mutex_;
  std::map<const EmbeddedKernel*, std::shared_ptr<const LoadedKernel>> loaded_;
};

}  // namespace moebench::triton
