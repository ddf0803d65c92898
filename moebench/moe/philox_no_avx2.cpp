// Stands in for philox_avx2.cpp where MOEBENCH_CPU_ISAS leaves AVX2 out.
#include "moebench/moe/philox_kernels.h"

namespace moebench::philox {

Fill avx2_fill() { return nullptr; }

}  // namespace moebench::philox
