// Stands in for avx512.cpp where the build leaves that ISA out.
#include "moebench/backend/cpu/kernels.h"

namespace moebench::cpu {

const CpuKernels* avx512_kernels() { return nullptr; }

}  // namespace moebench::cpu
