// Stand-in for quant_avx2.cpp in builds without that ISA.
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {

const Kernels* avx2_kernels() { return nullptr; }

}  // namespace moebench::quant
