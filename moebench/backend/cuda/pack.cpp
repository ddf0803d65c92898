#include "moebench/backend/cuda/pack.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "moebench/core/dtype.h"
#include "moebench/core/error.h"

namespace moebench::cuda {
namespace {

constexpr int kRegisters = 4;
constexpr int kGroups = kChunkDepth / kScaleGroup;

/// E4M3 (not negative) as unsigned E5M3, see kScaleExponentBias.
std::uint8_t scale_byte(std::uint8_t e4m3) {
  constexpr float kMantissaSteps = 8.0F;
  const float scale = decode_e4m3(e4m3);
  if (!(scale >= 0.0F) || std::signbit(scale)) {
    fail(ErrorCode::kBadInput,
         "NVFP4 weights: block scale 0x{:02X} is {}; it must not be negative or NaN", e4m3, scale);
  }
  if (scale == 0.0F) return 0;
  const int exponent = std::ilogb(scale);
  const float mantissa = std::ldexp(scale, -exponent) - 1.0F;
  return static_cast<std::uint8_t>(((exponent + kScaleExponentBias) << 3) |
                                   static_cast<int>(mantissa * kMantissaSteps));
}

using ScaleTable = std::array<std::uint8_t, 256>;
/// E5M3 byte of every scale that may occur; the others are refused when they are met.
ScaleTable make_scale_table() {
  ScaleTable table{};
  for (int code = 0; code < 0x7F; ++code) {
    table[static_cast<std::size_t>(code)] = scale_byte(static_cast<std::uint8_t>(code));
  }
  return table;
}

/// Where the bits of a code go, for each register and half of a word.
using CodeTable = std::array<std::array<std::uint32_t, 16>, 2 * kRegisters>;
CodeTable make_code_table(Wide wide) {
  CodeTable table{};
  for (int reg = 0; reg < kRegisters; ++reg) {
    const NibbleBits bits = nibble_bits(wide, reg);
    for (std::uint32_t code = 0; code < 16; ++code) {
      const std::uint32_t half = ((code >> 3) & 1) << bits.sign | ((code >> 2) & 1) << bits.bit2 |
                                 ((code >> 1) & 1) << bits.bit1 | (code & 1) << bits.bit0;
      table[static_cast<std::size_t>(2 * reg)][code] = half;
      table[static_cast<std::size_t>(2 * reg + 1)][code] = half << 16;
    }
  }
  return table;
}

/// What a chunk packer needs to know of the matrix.
struct Place {
  Projection projection;
  std::int64_t hidden;
  std::int64_t intermediate;
  std::int64_t block;
  std::int64_t chunk;
  [[nodiscard]] std::int64_t row(int block_row) const {
    return canonical_row(projection, block, block_row, hidden, intermediate);
  }
};

void pack_nvfp4_chunk(const Nvfp4View& matrix, const Place& place, const ScaleTable& scale_bytes,
                      const CodeTable& codes, std::byte* out) {
  std::memset(out, 0, kNvfp4ChunkBytes);
  const std::int64_t groups = matrix.cols / kNvfp4BlockSize;
  for (int row = 0; row < kBlockRows; ++row) {
    const std::int64_t from = place.row(row);
    if (from < 0) continue;
    for (int group = 0; group < kGroups; ++group) {
      const std::int64_t column_group = place.chunk * kGroups + group;
      if (column_group >= groups) break;
      const std::uint8_t code = matrix.scales[from * groups + column_group];
      const std::uint8_t scale = code < 0x7F ? scale_bytes[code] : scale_byte(code);
      if (scale == 0) continue;
      out[nvfp4_scale_offset(row, group)] = std::byte{scale};
      const std::uint8_t* payload =
          matrix.payload + (from * groups + column_group) * (kNvfp4BlockSize / 2);
      // Thread and register of (row, column): the inverse of fragment_row and fragment_column.
      for (int column = 0; column < kScaleGroup; column += 2) {
        const int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
        const auto reg = static_cast<std::size_t>(row % 16 / 8 + column / 8 * 2);
        const std::uint8_t pair = payload[column / 2];
        std::uint32_t word = 0;
        std::byte* at = out + nvfp4_word_offset(thread, group);
        std::memcpy(&word, at, sizeof word);
        word |= codes[2 * reg][pair & 0xF] | codes[2 * reg + 1][pair >> 4];
        std::memcpy(at, &word, sizeof word);
      }
    }
  }
}

void pack_fp8_chunk(const Fp8View& matrix, const Place& place, std::byte* out) {
  std::memset(out, 0, kFp8ChunkBytes);
  for (int row = 0; row < kBlockRows; ++row) {
    const std::int64_t from = place.row(row);
    if (from < 0) continue;
    for (int group = 0; group < kGroups; ++group) {
      for (int column = 0; column < kScaleGroup; column += 2) {
        const std::int64_t first = place.chunk * kChunkDepth + group * kScaleGroup + column;
        if (first >= matrix.cols) break;
        const int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
        const int reg = row % 16 / 8 + column / 8 * 2;
        std::byte* at = out + fp8_pair_offset(thread, group, reg);
        at[0] = std::byte{matrix.payload[from * matrix.cols + first]};
        if (first + 1 < matrix.cols)
          at[1] = std::byte{matrix.payload[from * matrix.cols + first + 1]};
      }
    }
  }
}

}  // namespace

void pack_expert(const ExpertWeightsView& weights, const MoeShape& shape, Wide wide,
                 Projection projection, std::byte* out) {
  static const ScaleTable kScales = make_scale_table();
  static const std::array<CodeTable, 2> kCodes = {make_code_table(Wide::kFp16),
                                                  make_code_table(Wide::kBf16)};
  const bool nvfp4 = weights.format == WeightFormat::kNvfp4;
  const bool gate_up = projection == Projection::kGateUp;
  const MatrixGeometry geometry = matrix_geometry(projection, shape.hidden, shape.intermediate,
                                                  nvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes);
  for (std::int64_t block = 0; block < geometry.blocks; ++block) {
    for (std::int64_t chunk = 0; chunk < geometry.chunks; ++chunk) {
      const Place place{projection, shape.hidden, shape.intermediate, block, chunk};
      std::byte* to = out + block * geometry.block_bytes() + chunk * geometry.chunk_bytes;
      if (nvfp4) {
        pack_nvfp4_chunk(gate_up ? weights.nvfp4_w1 : weights.nvfp4_w2, place, kScales,
                         kCodes[static_cast<std::size_t>(wide)], to);
      } else {
        pack_fp8_chunk(gate_up ? weights.fp8_w1 : weights.fp8_w2, place, to);
      }
    }
  }
}

}  // namespace moebench::cuda
