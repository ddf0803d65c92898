// Which vector instruction sets this CPU has and which MOEBENCH_ISA allows: the one place that
// asks. Quantisers and the generator dispatch on it; CPU kernels, which know finer levels, have
// their own list in backend/cpu.
#pragma once

#include <cstdint>
#include <string_view>

namespace moebench {

/// The levels that translation units outside the CPU backend are built for, slowest first.
enum class VectorIsa : std::uint8_t {
  kPortable,  ///< plain C++
  kAvx2,
  kAvx512,  ///< F, BW, DQ and VL: every AVX-512 CPU since 2017
};
inline constexpr VectorIsa kVectorIsas[] = {VectorIsa::kPortable, VectorIsa::kAvx2,
                                            VectorIsa::kAvx512};
[[nodiscard]] const char* name_of(VectorIsa isa);

[[nodiscard]] bool cpu_has(VectorIsa isa);

/// The level that the value of MOEBENCH_ISA allows. Names of finer levels (avx512_bf16, amx, ...)
/// and unknown names bound nothing here: the backend registry is what refuses an unknown name.
[[nodiscard]] VectorIsa vector_isa_bound(std::string_view value);
/// The same for the environment's MOEBENCH_ISA, read once: the choice must not change within a
/// process.
[[nodiscard]] VectorIsa vector_isa_bound();

}  // namespace moebench
