// CPUs that are not x86-64 have none of the vector units that kernels exist for yet.
#include "moebench/backend/cpu/cpu_features.h"

namespace moebench::cpu {

CpuFeatures detect_cpu_features() { return {}; }

}  // namespace moebench::cpu
