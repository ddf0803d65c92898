// Stand-in for quant_avx512.cpp in builds without that ISA.
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {

const Kernels* avx512_kernels() { return nullptr; }

}  // namespace moebench::quant
