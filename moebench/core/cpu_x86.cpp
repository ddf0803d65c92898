// CPU features of an x86 machine. __builtin_cpu_supports also asks whether the system saves the
// wide registers.
#include <sys/syscall.h>
#include <unistd.h>

#include "moebench/core/amx_state.h"
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

bool request_amx_tiles() {
  // Linux, Documentation/arch/x86/xstate.rst; in no header of glibc 2.36.
  constexpr long kRequestStatePermission = 0x1023;
  constexpr long kTileDataState = 18;
  return syscall(SYS_arch_prctl, kRequestStatePermission, kTileDataState) == 0;
}

}  // namespace moebench
