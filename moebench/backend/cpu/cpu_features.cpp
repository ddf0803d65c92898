// The order of the ISAs and the choice among them; asking the CPU itself is cpuid_x86.cpp's part.
#include "moebench/backend/cpu/cpu_features.h"

#include <utility>

namespace moebench::cpu {
namespace {

/// Asks for the table only where the CPU has the ISA: making it is code of that translation unit,
/// compiled for that ISA.
IsaChoice make_choice(std::string_view name, const CpuKernels* (*kernels)(), bool cpu_has_it) {
  if (!cpu_has_it) return {name, nullptr, Support::no(fmt::format("this CPU has no {}", name))};
  const CpuKernels* table = kernels();
  if (table == nullptr) {
    return {name, nullptr, Support::no(fmt::format("this build leaves {} out", name))};
  }
  return {name, table, Support::yes()};
}

}  // namespace

std::vector<IsaChoice> isa_choices(const CpuFeatures& features) {
  std::vector<IsaChoice> choices = {
      make_choice("amx", amx_kernels, features.amx),
      make_choice("avx512_bf16", avx512_bf16_kernels, features.avx512_bf16),
      make_choice("avx512_vnni", avx512_vnni_kernels, features.avx512_vnni),
      make_choice("avx512", avx512_kernels, features.avx512),
      make_choice("avx2", avx2_kernels, features.avx2),
      make_choice("portable", portable_kernels, true)};
  if (features.half_rate_bf16) std::swap(choices[1], choices[2]);  // avx512_vnni goes first
  return choices;
}

const CpuKernels& select_kernels(const std::vector<IsaChoice>& choices, std::string_view forced,
                                 std::string_view source) {
  std::vector<std::string_view> supported;
  std::vector<std::string_view> known;
  for (const IsaChoice& choice : choices) {
    known.push_back(choice.name);
    if (!choice.support.ok) continue;
    if (forced.empty()) return *choice.kernels;
    supported.push_back(choice.name);
  }
  for (const IsaChoice& choice : choices) {
    if (choice.name != forced) continue;
    if (choice.support.ok) return *choice.kernels;
    fail(ErrorCode::kUnavailable, "{}: {}; use one of {}", source, choice.support.reason,
         fmt::join(supported, ", "));
  }
  fail(ErrorCode::kBadInput, "{}: no ISA '{}'; use one of {}", source, printable(forced),
       fmt::join(known, ", "));
}

}  // namespace moebench::cpu
