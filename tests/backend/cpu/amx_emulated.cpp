// What AMX does, by the operation sections of Intel's instruction set reference (LDTILECFG,
// TILELOADD, TDPBF16PS): shapes come from the configuration, a shape that does not fit faults,
// denormals are flushed on the way in and out, and even and odd products of a row are summed apart.
// Aborts where the CPU would raise an exception, or give a value that the program must not use.
#include "tests/backend/cpu/amx_emulated.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "moebench/backend/cpu/amx_kernels.h"

namespace moebench::cpu {
namespace {

[[noreturn]] void fault(const char* what) {
  std::fprintf(stderr, "emulated AMX: %s\n", what);
  std::abort();
}

constexpr int kTileRegisters = 8;
constexpr int kMaxRows = 16;
constexpr int kMaxRowBytes = 64;

struct TileRegister {
  int rows = 0;
  int row_bytes = 0;
  bool valid = false;  ///< written since the configuration
  alignas(64) std::uint8_t bytes[kMaxRows][kMaxRowBytes] = {};
};
struct TileState {
  bool configured = false;
  TileRegister tiles[kTileRegisters];
};
thread_local TileState state;

TileRegister& tile_at(int index) {
  if (!state.configured) fault("#UD: no tile configuration");
  return state.tiles[index];
}

TileRegister& written_tile(int index) {
  TileRegister& tile = tile_at(index);
  if (!tile.valid) fault("a tile is read that was not written");
  return tile;
}

float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126F ? __builtin_copysignf(0.0F, x) : x; }

float widened(std::uint16_t bf16) {
  const std::uint32_t bits = std::uint32_t{bf16} << 16;
  float x = 0.0F;
  std::memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

/// Row `row` of `tile` as pairs: even[i], odd[i].
void split_row(const TileRegister& tile, int row, float (&even)[kMaxRows], float (&odd)[kMaxRows]) {
  std::uint16_t values[2 * kMaxRows];
  std::memcpy(values, tile.bytes[row], sizeof values);
  for (int i = 0; i < kMaxRows; ++i) {
    even[i] = widened(values[2 * i]);
    odd[i] = widened(values[2 * i + 1]);
  }
}

struct EmulatedTiles {
  static void configure(const TileConfig& config) {
    if (config.palette != 1) fault("#GP: palette");
    if (config.start_row != 0) fault("start row");
    state.configured = true;
    for (int i = 0; i < kTileRegisters; ++i) {
      const int rows = config.rows[i];
      const int row_bytes = config.row_bytes[i];
      if (rows > kMaxRows || row_bytes > kMaxRowBytes || (rows == 0) != (row_bytes == 0)) {
        fault("#GP: tile shape");
      }
      state.tiles[i] = {};
      state.tiles[i].rows = rows;
      state.tiles[i].row_bytes = row_bytes;
    }
  }
  static void release() { state = {}; }

  template <int kTile>
  static void zero() {
    TileRegister& tile = tile_at(kTile);
    if (tile.rows == 0) fault("#UD: tile without a shape");
    std::memset(tile.bytes, 0, sizeof tile.bytes);
    tile.valid = true;
  }
  template <int kTile>
  static void load(const void* from, std::int64_t stride) {
    zero<kTile>();
    TileRegister& tile = tile_at(kTile);
    for (int row = 0; row < tile.rows; ++row) {
      std::memcpy(tile.bytes[row], static_cast<const std::uint8_t*>(from) + row * stride,
                  static_cast<std::size_t>(tile.row_bytes));
    }
  }
  template <int kTile>
  static void store(void* to, std::int64_t stride) {
    const TileRegister& tile = written_tile(kTile);
    for (int row = 0; row < tile.rows; ++row) {
      std::memcpy(static_cast<std::uint8_t*>(to) + row * stride, tile.bytes[row],
                  static_cast<std::size_t>(tile.row_bytes));
    }
  }

  template <int kSums, int kA, int kB>
  static void dot() {
    static_assert(kSums != kA && kSums != kB && kA != kB, "#UD: the same tile twice");
    TileRegister& sums = written_tile(kSums);
    const TileRegister& a = written_tile(kA);
    const TileRegister& b = written_tile(kB);
    if (a.row_bytes != 4 * b.rows || sums.rows != a.rows || sums.row_bytes != b.row_bytes) {
      fault("#UD: tile shapes do not fit");
    }
    float b_even[kMaxRows][kMaxRows];
    float b_odd[kMaxRows][kMaxRows];
    for (int k = 0; k < b.rows; ++k) split_row(b, k, b_even[k], b_odd[k]);
    for (int m = 0; m < sums.rows; ++m) {
      float a_even[kMaxRows];
      float a_odd[kMaxRows];
      split_row(a, m, a_even, a_odd);
      float even[kMaxRows] = {};
      float odd[kMaxRows] = {};
      for (int k = 0; k < b.rows; ++k) {
        for (int n = 0; n < kMaxRows; ++n) {
          even[n] = flushed(__builtin_fmaf(a_even[k], b_even[k][n], even[n]));
          odd[n] = flushed(__builtin_fmaf(a_odd[k], b_odd[k][n], odd[n]));
        }
      }
      float row[kMaxRows];
      std::memcpy(row, sums.bytes[m], sizeof row);
      for (int n = 0; n < kMaxRows; ++n) {
        row[n] = flushed(flushed(row[n]) + flushed(even[n] + odd[n]));
      }
      std::memcpy(sums.bytes[m], row, sizeof row);
    }
  }

  static __m512i multiply_fp16(__m512i a, __m512i b) {
    const auto half = [](__m256i x, __m256i y) {
      return _mm512_cvtps_ph(_mm512_mul_ps(_mm512_cvtph_ps(x), _mm512_cvtph_ps(y)),
                             _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    };
    const __m256i low = half(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b));
    const __m256i high = half(_mm512_extracti64x4_epi64(a, 1), _mm512_extracti64x4_epi64(b, 1));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
};

}  // namespace
}  // namespace moebench::cpu

namespace moebench::testing {

const cpu::CpuKernels* amx_emulated_kernels() {
  static const cpu::CpuKernels table = cpu::make_amx_table<cpu::EmulatedTiles>("amx_emulated");
  return &table;
}

}  // namespace moebench::testing
