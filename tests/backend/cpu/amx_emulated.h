// The AMX kernels over tile instructions emulated in plain C++, so that they run where there is no
// AMX.
#pragma once

#include "moebench/backend/cpu/kernels.h"

namespace moebench::testing {

/// Null where the build has no AMX kernels. Needs AVX-512 with VBMI and VNNI.
[[nodiscard]] const cpu::CpuKernels* amx_emulated_kernels();

}  // namespace moebench::testing
