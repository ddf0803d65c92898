// CPU features of an x86 machine. __builtin_cpu_supports also asks whether the system saves the
// wide registers.
#include "moebench/core/vector_isa.h"

namespace moebench {

bool cpu_has(VectorIsa isa) {
  switch (isa) {
    case VectorIsa::kPortable:
      return true;
    case VectorIsa::kAvx2:
      return __builtin_cpu_supports("avx2") != 0;
    case VectorIsa::kAvx512:
      return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
             __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
  }
  return false;
}

}  // namespace moebench
