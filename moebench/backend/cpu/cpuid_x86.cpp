// Asks an x86-64 CPU for its instruction sets by CPUID, and by XGETBV whether the operating system
// saves the registers: a CPU bit alone says nothing where a kernel or hypervisor masks AVX state.
#include <cpuid.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "moebench/backend/cpu/cpu_features.h"
#include "moebench/core/amx_state.h"

namespace moebench::cpu {
namespace {

struct Registers {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool bit(unsigned value, int index) { return (value >> index & 1U) != 0; }

/// Extended control register 0: which register states the operating system saves. Only valid where
/// OSXSAVE is set.
std::uint64_t enabled_states() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

bool is_intel() {
  const Registers vendor = cpuid(0, 0);
  std::array<char, 12> name{};
  std::memcpy(name.data(), &vendor.ebx, 4);
  std::memcpy(name.data() + 4, &vendor.edx, 4);
  std::memcpy(name.data() + 8, &vendor.ecx, 4);
  return std::memcmp(name.data(), "GenuineIntel", name.size()) == 0;
}

}  // namespace

// Bit numbers: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
CpuFeatures detect_cpu_features() {
  const Registers basic = cpuid(1, 0);
  const Registers extended = cpuid(7, 0);
  const Registers extended1 = extended.eax >= 1 ? cpuid(7, 1) : Registers{};
  constexpr std::uint64_t kAvxState = 0x06;      // SSE and AVX registers
  constexpr std::uint64_t kAvx512State = 0xE6;   // and mask registers, high halves, ZMM16-31
  constexpr std::uint64_t kTileState = 0x60000;  // AMX tile configuration and data
  const std::uint64_t states = bit(basic.ecx, 27) ? enabled_states() : 0;

  CpuFeatures features;
  const bool fma = bit(basic.ecx, 12);
  const bool avx = bit(basic.ecx, 28);
  const bool f16c = bit(basic.ecx, 29);
  features.avx2 = (states & kAvxState) == kAvxState && avx && fma && f16c && bit(extended.ebx, 5);
  const bool f = bit(extended.ebx, 16);
  const bool dq = bit(extended.ebx, 17);
  const bool bw = bit(extended.ebx, 30);
  const bool vl = bit(extended.ebx, 31);
  features.avx512 = features.avx2 && (states & kAvx512State) == kAvx512State && f && dq && bw && vl;
  const bool vbmi = bit(extended.ecx, 1);
  const bool vnni = bit(extended.ecx, 11);
  const bool bf16 = bit(extended1.eax, 5);
  features.avx512_vnni = features.avx512 && vbmi && vnni;
  features.avx512_bf16 = features.avx512_vnni && bf16;
  const bool fp16 = bit(extended.edx, 23);
  const bool amx_bf16 = bit(extended.edx, 22);
  const bool amx_tile = bit(extended.edx, 24);
  features.amx = features.avx512_vnni && fp16 && amx_bf16 && amx_tile &&
                 (states & kTileState) == kTileState && request_amx_tiles();
  // Xeon with AMX, 2026-11-23: VDPBF16PS 113 GFLOP/s a core, FP32 multiply-add 222. Zen 4: one of
  // either per cycle.
  features.half_rate_bf16 = is_intel();
  return features;
}

}  // namespace moebench::cpu
