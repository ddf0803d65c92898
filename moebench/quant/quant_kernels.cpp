// The run-time choice of a kernel set.
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {

const Kernels* kernels_for(VectorIsa isa) {
  if (!cpu_has(isa)) return nullptr;
  switch (isa) {
    case VectorIsa::kPortable:
      return portable_kernels();
    case VectorIsa::kAvx2:
      return avx2_kernels();
    case VectorIsa::kAvx512:
      return avx512_kernels();
  }
  return nullptr;
}

const Kernels& fastest_kernels() {
  static const Kernels* const chosen = [] {
    const Kernels* best = portable_kernels();
    for (const VectorIsa isa : kVectorIsas) {
      const Kernels* candidate = isa <= vector_isa_bound() ? kernels_for(isa) : nullptr;
      if (candidate != nullptr) best = candidate;
    }
    return best;
  }();
  return *chosen;
}

}  // namespace moebench::quant
