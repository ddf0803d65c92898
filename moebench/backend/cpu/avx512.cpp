// AVX-512 F, BW, VL, DQ: weights expanded to FP32 in registers, fused multiply-adds.
#include "moebench/backend/cpu/isa_avx512.h"

namespace moebench::cpu {
namespace {

CpuKernels make_table() {
  CpuKernels table{};
  table.isa = "avx512";
  // FP8 weights come out of the decoder divided by 2^8; the tokens make up for it.
  fill_tile_kernels<Avx512Fp32, Avx512Fp32::Entry<0>, Avx512Fp32::Entry<0>, Avx512Fp32::Entry<8>>(
      table);
  fill_row_kernels<Avx512Fp32>(table);
  return table;
}

}  // namespace

const CpuKernels* avx512_kernels() {
  static const CpuKernels table = make_table();
  return &table;
}

}  // namespace moebench::cpu
