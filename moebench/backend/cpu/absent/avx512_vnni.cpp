// Stands in for avx512_vnni.cpp where the build leaves that ISA out.
#include "moebench/backend/cpu/kernels.h"

namespace moebench::cpu {

const CpuKernels* avx512_vnni_kernels() { return nullptr; }

}  // namespace moebench::cpu
