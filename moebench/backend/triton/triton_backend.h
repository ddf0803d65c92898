// The seed's FP8 system by name: triton_moe, on the device of the CUDA backend.
#pragma once

#include <memory>

#include "moebench/backend/backend.h"

namespace moebench::triton {

/// `cuda`: the backend whose device it shares; must outlive the result's kernels.
[[nodiscard]] std::unique_ptr<Backend> make_triton_backend(const BackendOptions& options,
                                                           const Backend& cuda);

}  // namespace moebench::triton
