// Which kernels this CPU, its operating system and this build can run, and which of them to take.
#pragma once

#include <string_view>
#include <vector>

#include "moebench/backend/cpu/kernels.h"
#include "moebench/core/error.h"

namespace moebench::cpu {

/// Instruction sets that the CPU has and the operating system saves the registers of.
struct CpuFeatures {
  bool avx2 = false;            ///< AVX2, FMA, F16C
  bool avx512 = false;          ///< AVX-512 F, BW, VL, DQ and the above
  bool avx512_vnni = false;     ///< VBMI, VNNI and the above
  bool avx512_bf16 = false;     ///< BF16 and the above
  bool amx = false;             ///< AMX with BF16, tile state granted; AVX-512 FP16, VBMI and VNNI
  bool half_rate_bf16 = false;  ///< VDPBF16PS at half the rate of FP32 multiply-adds
};
/// cpuid_x86.cpp, or absent/cpuid.cpp elsewhere. Asks Linux for the use of AMX tiles where there
/// are any: the first question decides for the whole process.
[[nodiscard]] CpuFeatures detect_cpu_features();

struct IsaChoice {
  std::string_view name;
  const CpuKernels* kernels;  ///< null unless supported
  Support support;
};
/// All ISAs that exist, fastest on this CPU first; the last one, portable, is always supported.
[[nodiscard]] std::vector<IsaChoice> isa_choices(const CpuFeatures& features);

/// The first supported choice, or the one that `forced` names. Throws kBadInput for an unknown name
/// (`source` is the flag or variable that gave it), kUnavailable for one that this CPU or build
/// lacks.
[[nodiscard]] const CpuKernels& select_kernels(const std::vector<IsaChoice>& choices,
                                               std::string_view forced, std::string_view source);

}  // namespace moebench::cpu
