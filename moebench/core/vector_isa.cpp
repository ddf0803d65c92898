// Names and the MOEBENCH_ISA bound; what the CPU has is in cpu_x86.cpp or cpu_other.cpp.
#include "moebench/core/vector_isa.h"

#include <cstdlib>

namespace moebench {

const char* name_of(VectorIsa isa) {
  switch (isa) {
    case VectorIsa::kPortable:
      return "portable";
    case VectorIsa::kAvx2:
      return "avx2";
    case VectorIsa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

VectorIsa vector_isa_bound(std::string_view value) {
  for (const VectorIsa isa : kVectorIsas) {
    if (value == name_of(isa)) return isa;
  }
  return VectorIsa::kAvx512;
}

VectorIsa vector_isa_bound() {
  static const VectorIsa bound = [] {
    const char* value = std::getenv("MOEBENCH_ISA");
    return vector_isa_bound(value == nullptr ? std::string_view{} : std::string_view{value});
  }();
  return bound;
}

}  // namespace moebench
