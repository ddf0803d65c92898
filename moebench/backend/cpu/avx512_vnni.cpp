// AVX-512 with VBMI and VNNI: W4A4 in integers (nvfp4_codes.h), all else avx512.cpp's. For CPUs
// without VDPBF16PS, and for those where it is slower than FP32 multiply-adds.
#include "moebench/backend/cpu/nvfp4_codes.h"

namespace moebench::cpu {
namespace {

CpuKernels make_table(const CpuKernels& avx512) {
  CpuKernels table = avx512;
  table.isa = "avx512_vnni";
  fill_nvfp4_codes<1>(table);
  return table;
}

}  // namespace

const CpuKernels* avx512_vnni_kernels() {
  if (avx512_kernels() == nullptr) return nullptr;
  static const CpuKernels table = make_table(*avx512_kernels());
  return &table;
}

}  // namespace moebench::cpu
