// The CUDA backend, or the stand-in that says why there is none (no_cuda.cpp): CMake picks one.
#pragma once

#include <memory>

#include "moebench/backend/backend.h"

namespace moebench::cuda {

[[nodiscard]] std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

}  // namespace moebench::cuda
