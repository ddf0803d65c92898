// Stands in for avx2.cpp where the build leaves that ISA out.
#include "moebench/backend/cpu/kernels.h"

namespace moebench::cpu {

const CpuKernels* avx2_kernels() { return nullptr; }

}  // namespace moebench::cpu
