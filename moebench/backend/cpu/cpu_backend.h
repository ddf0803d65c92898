// The CPU backend: one kernel per scheme, on the fastest ISA of this machine or the one that was
// asked for.
#pragma once

#include <memory>

#include "moebench/backend/backend.h"
#include "moebench/backend/cpu/kernels.h"

namespace moebench::cpu {

/// Throws as select_kernels does, and kBadInput for a negative or absurd thread count.
[[nodiscard]] std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
/// On given kernels, which must outlive it; the tests emulate an ISA that way.
[[nodiscard]] std::unique_ptr<Backend> make_cpu_backend(const CpuKernels& kernels, int threads);

}  // namespace moebench::cpu
