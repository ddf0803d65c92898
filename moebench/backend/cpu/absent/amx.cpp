// Stands in for amx.cpp where the build leaves that ISA out.
#include "moebench/backend/cpu/kernels.h"

namespace moebench::cpu {

const CpuKernels* amx_kernels() { return nullptr; }

}  // namespace moebench::cpu
