// Stands in for amx_emulated.cpp where the build leaves AMX out.
#include "tests/backend/cpu/amx_emulated.h"

namespace moebench::testing {

const cpu::CpuKernels* amx_emulated_kernels() { return nullptr; }

}  // namespace moebench::testing
