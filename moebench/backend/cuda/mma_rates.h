// Peak rates of the tensor cores, for the multiply-add side of a device's rates.
#pragma once

#include <cuda_runtime_api.h>

namespace moebench::cuda {

struct MmaRates {
  double bf16_flops_per_s = 0.0;  ///< wgmma BF16 x BF16 into FP32; 0: not measured
  double fp8_flops_per_s = 0.0;   ///< wgmma E4M3 x E4M3 into FP32
};
/// Takes some milliseconds on `stream` and waits for it.
[[nodiscard]] MmaRates measure_mma_rates(cudaStream_t stream, int multiprocessors);

}  // namespace moebench::cuda
