// Runs a CPU kernel on a case, on a given ISA and thread count, into poisoned and guarded memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/backend/cpu/cpu_features.h"
#include "moebench/moe/verify.h"
#include "tests/support/moe_cases.h"

namespace moebench::testing {

/// "amx_emulated" is no ISA of the program: the AMX kernels over emulated instructions.
inline constexpr const char* kIsas[] = {"portable",    "avx2", "avx512",      "avx512_vnni",
                                        "avx512_bf16", "amx",  "amx_emulated"};

/// Why `isa` cannot run here; empty if it can.
[[nodiscard]] std::string isa_absence(const std::string& isa);
/// Its kernels; it must not be absent.
[[nodiscard]] const cpu::CpuKernels& kernels_of(const std::string& isa);

/// The CPU backend's kernel for a scheme.
[[nodiscard]] std::unique_ptr<Kernel> cpu_kernel(Scheme scheme, const std::string& isa,
                                                 int threads);

struct KernelAnswer {
  std::vector<std::uint16_t> y;
  std::optional<DynamicScaleClaim> claim;
  std::string guard_damage;
};
[[nodiscard]] KernelAnswer run_kernel(const LayerCase& layer, const std::string& isa, int threads);

/// Whole answer against the oracle.
[[nodiscard]] Verdict check_answer(const LayerCase& layer, const KernelAnswer& answer);

/// A case at the sizes where kernels break: panels, tiles, scale groups and their neighbours;
/// uniform, skewed and single-expert routing.
[[nodiscard]] LayerCase random_case(std::uint64_t seed, const SchemeCase& scheme_case);

/// One ISA and one scheme with options and activation type.
struct IsaScheme {
  std::string isa;
  SchemeCase scheme_case;
};
[[nodiscard]] std::vector<IsaScheme> all_isa_schemes();
[[nodiscard]] std::string name_of(const IsaScheme& isa_scheme);
void PrintTo(const IsaScheme& isa_scheme, std::ostream* out);

}  // namespace moebench::testing
