// AMX with BF16 tiles, on top of AVX-512 with FP16, VBMI and VNNI (every CPU with AMX has them).
// The tests also run the kernels of amx_kernels.h over an emulation of what is in this file.
#include "moebench/backend/cpu/amx_kernels.h"

namespace moebench::cpu {
namespace {

/// The instructions themselves and not the compiler's intrinsics: those of GCC 12 tell the compiler
/// neither that TILELOADD reads memory nor how much LDTILECFG reads, so that it may drop or delay
/// the stores before them.
struct AmxTiles {
  static void configure(const TileConfig& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  static void release() { __asm__ volatile("tilerelease" : : : "memory"); }
  template <int kTile>
  MOEBENCH_INLINE static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  MOEBENCH_INLINE static void load(const void* from, std::int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <int kTile>
  MOEBENCH_INLINE static void store(void* to, std::int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(kTile)
                     : "memory");
  }
  /// Tile kSums += tile kA * tile kB.
  template <int kSums, int kA, int kB>
  MOEBENCH_INLINE static void dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
  MOEBENCH_INLINE static __m512i multiply_fp16(__m512i a, __m512i b) {
    return _mm512_castph_si512(_mm512_mul_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b)));
  }
};

}  // namespace

const CpuKernels* amx_kernels() {
  static const CpuKernels table = make_amx_table<AmxTiles>("amx");
  return &table;
}

}  // namespace moebench::cpu
