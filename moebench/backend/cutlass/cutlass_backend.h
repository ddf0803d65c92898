// The original benchmark's NVFP4 system by name: cutlass_moe_fp4, on Blackwell.
#pragma once

#include <memory>

#include "moebench/backend/backend.h"

namespace moebench::cutlass_moe {

/// What documents and lists must say of these kernels as long as it is true.
inline constexpr const char* kNeverRun = "compiled, never run on its hardware";

[[nodiscard]] std::unique_ptr<Backend> make_cutlass_backend(const BackendOptions& options);

}  // namespace moebench::cutlass_moe
