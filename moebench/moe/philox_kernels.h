// The vector forms of philox_row, one translation unit per ISA, and the choice between them.
// Internal to moebench/moe: philox.cpp dispatches, weights.cpp generates parts of rows, the tests
// compare every form with the scalar one.
#pragma once

#include <cstdint>

namespace moebench::philox {

// Constants of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11,
// table 2).
inline constexpr std::uint32_t kMultiplier0 = 0xD2511F53;
inline constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57;
inline constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
inline constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
inline constexpr int kRounds = 10;

inline constexpr std::int64_t kWordsPerBlock = 4;
/// Mean of the sum of four uniform bytes: what irwin_hall() subtracts.
inline constexpr std::int32_t kByteSumMean = 510;

/// Everything that the values of one row depend on but their position.
struct RowKey {
  std::uint64_t seed;
  std::uint32_t stream;
  std::uint32_t tag;
  std::uint32_t row;
  float scale;
};

/// Writes values first..first+n-1 to `out` and returns n: the largest multiple of the form's step
/// that is <= count. `first` is a multiple of kWordsPerBlock.
using Fill = std::int64_t (*)(const RowKey& key, std::int64_t first, std::int64_t count,
                              float* out);

enum class Isa : std::uint8_t { kPortable, kAvx2, kAvx512 };
inline constexpr Isa kAllIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512};
[[nodiscard]] const char* name_of(Isa isa);

/// The form for `isa`: nullptr where this build or this CPU lacks it.
[[nodiscard]] Fill fill_for(Isa isa);
/// The best form that this CPU has and that MOEBENCH_ISA, an upper bound, allows. Never nullptr.
[[nodiscard]] Fill fastest_fill();

/// Values first..first+count-1 of a row by `fill`, the tail by the scalar form; `first` a multiple
/// of kWordsPerBlock.
void fill_values(Fill fill, const RowKey& key, std::int64_t first, std::int64_t count, float* out);

/// Defined by philox_avx2.cpp / philox_avx512.cpp, or, returning nullptr, by their philox_no_*.cpp
/// stand-ins.
[[nodiscard]] Fill avx2_fill();
[[nodiscard]] Fill avx512_fill();

}  // namespace moebench::philox
