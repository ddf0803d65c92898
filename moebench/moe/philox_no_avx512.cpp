// Stands in for philox_avx512.cpp where MOEBENCH_CPU_ISAS leaves AVX-512 out.
#include "moebench/moe/philox_kernels.h"

namespace moebench::philox {

Fill avx512_fill() { return nullptr; }

}  // namespace moebench::philox
