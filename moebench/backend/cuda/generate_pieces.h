// The weights of the synthetic layer, piece by piece of the packed layout: shared by the device's
// generator and by host tests, which compare it with moe/weights.h, quant/ and the packer.
#pragma once

#include <cstdint>

#include "moebench/backend/cuda/quantize.h"
#include "moebench/moe/layer.h"
#include "moebench/moe/philox.h"
#include "moebench/moe/philox_kernels.h"

namespace moebench::cuda {

/// One matrix of one expert, as the generator knows it.
struct GeneratedMatrix {
  std::uint64_t seed;
  std::uint32_t expert;
  Projection projection;
  std::int64_t hidden;
  std::int64_t intermediate;

  [[nodiscard]] MOEBENCH_HOST_DEVICE std::int64_t rows() const {
    return projection == Projection::kGateUp ? 2 * intermediate : hidden;
  }
  [[nodiscard]] MOEBENCH_HOST_DEVICE std::int64_t columns() const {
    return projection == Projection::kGateUp ? hidden : intermediate;
  }
  [[nodiscard]] MOEBENCH_HOST_DEVICE std::uint32_t stream() const {
    return static_cast<std::uint32_t>(projection == Projection::kGateUp ? moebench::Stream::kGateUp
                                                                        : moebench::Stream::kDown);
  }
};

inline constexpr int kPhiloxColumns = 4;  ///< values that one Philox block makes
/// A weight is its integer times this; moe/weights.h, kWeightStep.
inline constexpr float kGeneratedStep = 0x1p-13F;

/// The integers behind columns [column, column + 4) of a row; `column` is a multiple of 4.
MOEBENCH_HOST_DEVICE inline void generate_integers(const GeneratedMatrix& matrix, std::int64_t row,
                                                   std::int64_t column,
                                                   std::int32_t (&out)[kPhiloxColumns]) {
  std::uint32_t counter[4] = {static_cast<std::uint32_t>(column / kPhiloxColumns),
                              static_cast<std::uint32_t>(row), matrix.stream(), matrix.expert};
  auto key0 = static_cast<std::uint32_t>(matrix.seed);
  auto key1 = static_cast<std::uint32_t>(matrix.seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{philox::kMultiplier0} * counter[0];
    const std::uint64_t product1 = std::uint64_t{philox::kMultiplier1} * counter[2];
    counter[0] = static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key0;
    counter[1] = static_cast<std::uint32_t>(product1);
    counter[2] = static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key1;
    counter[3] = static_cast<std::uint32_t>(product0);
    key0 += philox::kWeyl0;
    key1 += philox::kWeyl1;
  }
  for (int i = 0; i < kPhiloxColumns; ++i) {
#if defined(__CUDA_ARCH__)
    constexpr std::uint32_t kOnes = 0x01010101;
    constexpr std::uint32_t kMinusMean = static_cast<std::uint32_t>(-philox::kByteSumMean);
    out[i] = static_cast<std::int32_t>(__dp4a(counter[i], kOnes, kMinusMean));
#else
    out[i] = irwin_hall(counter[i]);
#endif
  }
}

/// Largest magnitude among the integers of columns [column, column + 4) that the matrix has.
MOEBENCH_HOST_DEVICE inline std::uint32_t largest_integer(const GeneratedMatrix& matrix,
                                                          std::int64_t row, std::int64_t column) {
  std::int32_t integers[kPhiloxColumns];
  generate_integers(matrix, row, column, integers);
  std::uint32_t largest = 0;
  for (int i = 0; i < kPhiloxColumns; ++i) {
    const auto magnitude = static_cast<std::uint32_t>(integers[i] < 0 ? -integers[i] : integers[i]);
    if (column + i < matrix.columns() && magnitude > largest) largest = magnitude;
  }
  return largest;
}

/// The values of 16 columns from `column` on; zeros where the matrix ends and where `row` is -1.
MOEBENCH_HOST_DEVICE inline void generate_group(const GeneratedMatrix& matrix, std::int64_t row,
                                                std::int64_t column, float (&out)[kScaleGroup]) {
  for (int i = 0; i < kScaleGroup; i += kPhiloxColumns) {
    std::int32_t integers[kPhiloxColumns] = {};
    if (row >= 0 && column + i < matrix.columns()) {
      generate_integers(matrix, row, column + i, integers);
    }
    for (int k = 0; k < kPhiloxColumns; ++k) {
      const bool inside = column + i + k < matrix.columns();
      out[i + k] = inside ? multiply(static_cast<float>(integers[k]), kGeneratedStep) : 0.0F;
    }
  }
}

// A piece is what one thread makes: of two rows that lie 8 apart in a block, so many columns that
// 64 consecutive bytes of values result, those of 4 threads of a fragment.
inline constexpr int kPieceRowPairs = kBlockRows / 2;
inline constexpr int kPieceThreads = 4;
inline constexpr int kNvfp4PieceGroups = 4;
inline constexpr int kNvfp4ChunkPieces = kPieceRowPairs * 2;
inline constexpr int kFp8PieceGroups = 2;
inline constexpr int kFp8ChunkPieces = kPieceRowPairs * 4;

/// Row (0..63) of a block that piece row pair `pair` begins with; the other is 8 below.
MOEBENCH_HOST_DEVICE constexpr int piece_row(int pair) { return pair / 8 * 16 + pair % 8; }
/// First of the 4 fragment threads of a row pair.
MOEBENCH_HOST_DEVICE constexpr int piece_thread(int pair) { return pair * kPieceThreads; }

/// The byte that a block scale lies in memory as.
MOEBENCH_HOST_DEVICE inline std::uint8_t scale_byte(const Nvfp4Scale& scale) {
  constexpr int kFloatBias = 127;
  constexpr int kMantissaBits = 3;
  if (scale.code == 0) return 0;
  return static_cast<std::uint8_t>((bits_of(scale.value) >> (23 - kMantissaBits)) -
                                   ((kFloatBias - kScaleExponentBias) << kMantissaBits));
}

/// Bits of one E2M1 code in the half of a word that register `reg` takes.
MOEBENCH_HOST_DEVICE inline std::uint32_t spread_code(std::uint32_t code, NibbleBits bits) {
  return (code >> 3 & 1) << bits.sign | (code >> 2 & 1) << bits.bit2 |
         (code >> 1 & 1) << bits.bit1 | (code & 1) << bits.bit0;
}

struct PieceWord {
  std::uint32_t words[4];
};
struct PieceBytes {
  PieceWord threads[kPieceThreads];
};

/// Piece `piece` of chunk `chunk` of block `block`, into the chunk at `out`.
MOEBENCH_HOST_DEVICE inline void generate_nvfp4_piece(const GeneratedMatrix& matrix, Wide wide,
                                                      float global_scale, std::int64_t block,
                                                      std::int64_t chunk, int piece,
                                                      std::uint8_t* out) {
  const int pair = piece % kPieceRowPairs;
  const int first_group = piece / kPieceRowPairs * kNvfp4PieceGroups;
  PieceBytes bytes{};
  std::uint64_t scales = 0;
  for (int group = 0; group < kNvfp4PieceGroups; ++group) {
    const std::int64_t column = chunk * kChunkDepth + (first_group + group) * kScaleGroup;
    for (int upper = 0; upper < 2; ++upper) {
      const std::int64_t row = canonical_row(matrix.projection, block, piece_row(pair) + 8 * upper,
                                             matrix.hidden, matrix.intermediate);
      float values[kScaleGroup];
      generate_group(matrix, row, column, values);
      float amax = 0.0F;
      for (const float value : values) {
        const float magnitude = float_of(bits_of(value) & ~kFloatSign);
        amax = magnitude > amax ? magnitude : amax;
      }
      const Nvfp4Scale scale = nvfp4_scale(amax, global_scale);
      scales |= std::uint64_t{scale_byte(scale)} << (8 * (2 * group + upper));
      for (int column_in_group = 0; column_in_group < kScaleGroup; ++column_in_group) {
        // fragment_column: 2 columns for each of 4 threads, then 8 columns on once more.
        const int thread = column_in_group % 8 / 2;
        const int reg = column_in_group / 8 * 2 + upper;
        const std::uint32_t code = e2m1_code(multiply(values[column_in_group], scale.factor));
        bytes.threads[thread].words[group] |= spread_code(code, nibble_bits(wide, reg))
                                              << (16 * (column_in_group % 2));
      }
    }
  }
  for (int thread = 0; thread < kPieceThreads; ++thread) {
    std::uint8_t* to = out + nvfp4_word_offset(piece_thread(pair) + thread, first_group);
    *reinterpret_cast<PieceWord*>(to) = bytes.threads[thread];
  }
  *reinterpret_cast<std::uint64_t*>(out + nvfp4_scale_offset(piece_row(pair), first_group)) =
      scales;
}

/// Which scale a row and chunk of a matrix have, within the expert's.
MOEBENCH_HOST_DEVICE inline std::int64_t fp8_scale_place(WeightFormat format, std::int64_t row,
                                                         std::int64_t chunk, std::int64_t chunks) {
  if (format == WeightFormat::kFp8PerChannel) return row;
  if (format == WeightFormat::kFp8Block) return row / kChunkDepth * chunks + chunk;
  return 0;
}
MOEBENCH_HOST_DEVICE inline std::int64_t weight_scale_count(WeightFormat format, std::int64_t rows,
                                                            std::int64_t columns) {
  if (format == WeightFormat::kFp8PerChannel) return rows;
  if (format == WeightFormat::kFp8Block) {
    return divide_up(rows, kChunkDepth) * divide_up(columns, kChunkDepth);
  }
  return 1;
}

/// `scales`: the expert's.
MOEBENCH_HOST_DEVICE inline void generate_fp8_piece(const GeneratedMatrix& matrix,
                                                    WeightFormat format, const float* scales,
                                                    std::int64_t block, std::int64_t chunk,
                                                    int piece, std::uint8_t* out) {
  const int pair = piece % kPieceRowPairs;
  const int first_group = piece / kPieceRowPairs * kFp8PieceGroups;
  const std::int64_t chunks = divide_up(matrix.columns(), kChunkDepth);
  PieceBytes bytes{};
  for (int upper = 0; upper < 2; ++upper) {
    const std::int64_t row = canonical_row(matrix.projection, block, piece_row(pair) + 8 * upper,
                                           matrix.hidden, matrix.intermediate);
    const float scale = row < 0 ? 1.0F : scales[fp8_scale_place(format, row, chunk, chunks)];
    for (int group = 0; group < kFp8PieceGroups; ++group) {
      float values[kScaleGroup];
      generate_group(matrix, row, chunk * kChunkDepth + (first_group + group) * kScaleGroup,
                     values);
      for (int c = 0; c < kScaleGroup; c += 2) {
        const int reg = c / 8 * 2 + upper;
        const std::uint32_t codes =
            e4m3_codes(divide(values[c], scale), divide(values[c + 1], scale));
        // fp8_pair_offset: registers follow each other by 2 bytes, groups by 8.
        bytes.threads[c % 8 / 2].words[group * 2 + reg / 2] |= codes << (reg % 2 * 16);
      }
    }
  }
  for (int thread = 0; thread < kPieceThreads; ++thread) {
    std::uint8_t* to = out + fp8_pair_offset(piece_thread(pair) + thread, first_group, 0);
    *reinterpret_cast<PieceWord*>(to) = bytes.threads[thread];
  }
}

}  // namespace moebench::cuda
