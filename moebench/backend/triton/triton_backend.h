// The original benchmark's FP8 system by name: triton_moe, on the device of another backend.
#pragma once

#include <memory>
#include <vector>

#include "moebench/backend/backend.h"

namespace moebench::triton {

/// `hosts`: it shares the device of the first that has one; they must outlive the result's kernels.
[[nodiscard]] std::unique_ptr<Backend> make_triton_backend(const BackendOptions& options,
                                                           std::vector<const Backend*> hosts);

}  // namespace moebench::triton
