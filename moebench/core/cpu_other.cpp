// Stand-in for cpu_x86.cpp on other processors: only the portable forms run there.
#include "moebench/core/amx_state.h"
#include "moebench/core/vector_isa.h"

namespace moebench {

bool cpu_has(VectorIsa isa) { return isa == VectorIsa::kPortable; }

bool request_amx_tiles() { return false; }

}  // namespace moebench
