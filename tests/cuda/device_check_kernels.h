// What device_check runs on the device besides the library's own kernels.
#pragma once

#include <cuda_runtime_api.h>

namespace moebench::cuda {

/// Compares the device's E4M3 conversion with the arithmetic that host tests compare with quant/,
/// for all numbers; adds the number of differences to *wrong.
cudaError_t enqueue_compare_e4m3(unsigned long long* wrong, cudaStream_t stream);

}  // namespace moebench::cuda
