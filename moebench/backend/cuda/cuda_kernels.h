// The backend's kernels, one for each scheme.
#pragma once

#include <memory>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/cuda_device.h"

namespace moebench::cuda {

/// `device` must outlive them.
[[nodiscard]] std::vector<std::unique_ptr<Kernel>> make_cuda_kernels(CudaDevice& device);

}  // namespace moebench::cuda
