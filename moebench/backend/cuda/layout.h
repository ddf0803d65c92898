// How weights and activations lie in device memory: formulas shared by the host packers, the
// kernels and the tests.
//
// Weights. A block is 64 rows (the M of one wgmma) over the whole depth, cut into chunks of 128
// columns. The chunks of a block follow each other, so that a block is one stream; an expert's
// blocks follow each other, w1's in one array, w2's in another. The rows of a block are permuted so
// that the two rows that one thread of an accumulator holds (g and g+8 of a warp's 16) belong
// together: in w1 they are the gate and the up row of one intermediate column, in w2 two
// neighbours.
//
// Every operand is 16 bits wide, whatever the scheme: FP8 and NVFP4 activations are quantised and
// then stored as the FP16 (or BF16) number that they stand for (e4m3, e2m1 * block scale: both
// exact), because the multiplication is a 16-bit one.
//
// Activations ("operand"). The rows of one tile (up to kMaxTileTokens of one expert) as wgmma's B
// operand reads them from shared memory: per chunk of 128 bytes of depth, [rows][128 bytes] with
// 16-byte units permuted by the row (the 128-byte swizzle), so that a chunk is one contiguous copy.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define MOEBENCH_HOST_DEVICE __host__ __device__
#else
#define MOEBENCH_HOST_DEVICE
#endif

namespace moebench::cuda {

inline constexpr int kBlockRows = 64;    ///< weight rows of a block
inline constexpr int kChunkDepth = 128;  ///< columns of a chunk
inline constexpr int kTileBlocks = 4;    ///< blocks that one thread block multiplies at a time
inline constexpr int kMaxTileTokens =
    80;  ///< most rows of an operand tile: what the registers hold sums for
inline constexpr int kSwizzleBytes = 128;  ///< depth bytes of an operand chunk
inline constexpr int kScaleGroup = 16;     ///< NVFP4: columns that share a scale

/// NVFP4 chunk: values [2 halves of 64 columns][128 threads][16 bytes], then scales [4 warps][8 row
/// pairs][16 bytes].
inline constexpr int kNvfp4ValueBytes = kBlockRows * kChunkDepth / 2;
inline constexpr int kNvfp4ScaleBytes = kBlockRows * kChunkDepth / kScaleGroup;
inline constexpr int kNvfp4ChunkBytes = kNvfp4ValueBytes + kNvfp4ScaleBytes;
/// FP8 chunk: [4 pairs of 16-column groups][128 threads][2 groups][4 registers][2 columns].
inline constexpr int kFp8ChunkBytes = kBlockRows * kChunkDepth;

MOEBENCH_HOST_DEVICE constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// Which of an expert's two matrices.
enum class Projection : std::uint8_t { kGateUp, kDown };

/// Sizes of one matrix in blocks and chunks. Rows and columns that a matrix lacks are zero weights.
struct MatrixGeometry {
  std::int64_t blocks = 0;  ///< of 64 rows: 32 gate and 32 up rows each (w1; even), or 64 rows (w2)
  std::int64_t chunks = 0;  ///< of 128 columns
  std::int64_t chunk_bytes = 0;
  [[nodiscard]] MOEBENCH_HOST_DEVICE constexpr std::int64_t block_bytes() const {
    return chunks * chunk_bytes;
  }
  [[nodiscard]] MOEBENCH_HOST_DEVICE constexpr std::int64_t expert_bytes() const {
    return blocks * block_bytes();
  }
  [[nodiscard]] MOEBENCH_HOST_DEVICE constexpr std::int64_t tile_rows_blocks() const {
    return divide_up(blocks, kTileBlocks);
  }
};
MOEBENCH_HOST_DEVICE constexpr MatrixGeometry matrix_geometry(Projection projection,
                                                              std::int64_t hidden,
                                                              std::int64_t intermediate,
                                                              std::int64_t chunk_bytes) {
  return projection == Projection::kGateUp
             ? MatrixGeometry{2 * divide_up(intermediate, kBlockRows),
                              divide_up(hidden, kChunkDepth), chunk_bytes}
             : MatrixGeometry{divide_up(hidden, kBlockRows), divide_up(intermediate, kChunkDepth),
                              chunk_bytes};
}

/// Intermediate column of row pair `pair` (0..7) of a warp's strip of a block of w1. Two blocks
/// take turns, so that the 16 columns that share an NVFP4 scale are one warp's.
MOEBENCH_HOST_DEVICE constexpr std::int64_t gate_up_column(std::int64_t block, int warp, int pair) {
  return block / 2 * kBlockRows + warp * 16 + block % 2 * 8 + pair;
}

/// Canonical row of the matrix ([2N, K] or [K, N]) behind row `row` (0..63, wgmma's M) of block
/// `block`; -1 for padding.
MOEBENCH_HOST_DEVICE constexpr std::int64_t canonical_row(Projection projection, std::int64_t block,
                                                          int row, std::int64_t hidden,
                                                          std::int64_t intermediate) {
  const int warp = row / 16;
  const int upper = row % 16 / 8;
  const int pair = row % 8;
  if (projection == Projection::kGateUp) {
    const std::int64_t column = gate_up_column(block, warp, pair);
    return column < intermediate ? column + upper * intermediate : -1;
  }
  const std::int64_t out = block * kBlockRows + warp * 16 + 2 * pair + upper;
  return out < hidden ? out : -1;
}

/// Which type the E2M1 values are expanded to; it decides the order of their bits, so that one AND
/// (and a shift) makes a pair of 16-bit numbers.
enum class Wide : std::uint8_t { kFp16, kBf16 };

/// An NVFP4 word holds the 8 values of one thread for one 16-column group: fragment register `reg`
/// (0..3) takes two neighbouring columns. Bit of the sign and of the magnitude's three bits (high
/// to low) within a 16-bit half, per register.
struct NibbleBits {
  int sign, bit2, bit1, bit0;
};
MOEBENCH_HOST_DEVICE constexpr NibbleBits nibble_bits(Wide wide, int reg) {
  if (wide == Wide::kFp16) {
    switch (reg) {
      case 0:
        return {15, 11, 10, 9};
      case 1:
        return {12, 8, 7, 6};
      case 2:
        return {14, 5, 4, 3};
      default:
        return {13, 2, 1, 0};
    }
  }
  switch (reg) {
    case 0:
      return {15, 8, 7, 6};
    case 1:
      return {12, 5, 4, 3};
    case 2:
      return {9, 2, 1, 0};
    default:
      return {14, 11, 10, 13};
  }
}

/// wgmma's A fragment, 16 columns of a block: thread t, register reg hold the columns c and c+1 of
/// this row.
MOEBENCH_HOST_DEVICE constexpr int fragment_row(int thread, int reg) {
  return thread / 32 * 16 + thread % 32 / 4 + (reg % 2) * 8;
}
MOEBENCH_HOST_DEVICE constexpr int fragment_column(int thread, int reg) {
  return thread % 4 * 2 + (reg / 2) * 8;
}

/// Byte offset, within an NVFP4 chunk, of the 32-bit word of (thread, 16-column group 0..7).
MOEBENCH_HOST_DEVICE constexpr int nvfp4_word_offset(int thread, int group) {
  return group / 4 * (kNvfp4ValueBytes / 2) + thread * 16 + group % 4 * 4;
}
/// Byte offset of the scale of (row 0..63, 16-column group 0..7).
MOEBENCH_HOST_DEVICE constexpr int nvfp4_scale_offset(int row, int group) {
  return kNvfp4ValueBytes + row / 16 * 128 + row % 8 * 16 + group * 2 + row % 16 / 8;
}

/// Byte offset, within an FP8 chunk, of the two bytes that fragment register `reg` of (thread,
/// 16-column group 0..7) takes.
MOEBENCH_HOST_DEVICE constexpr int fp8_pair_offset(int thread, int group, int reg) {
  return group / 2 * 2048 + thread * 16 + group % 2 * 8 + reg * 2;
}

/// Block scales lie in device memory as unsigned E5M3, exponent biased by 22 (2^-9..448 of E4M3,
/// subnormals normalised): shifted left by 7 that is FP16 of scale * 2^7. 0 stays 0 in FP16; in
/// BF16 it is not, but the values under it are.
inline constexpr int kScaleExponentBias = 22;
/// The expanded weight is the true one times this (FP16: 2^-14 from the bit pattern, 2^7 from the
/// scale; BF16: 2^-126 and 2^119); undone in alpha.
inline constexpr float kWideWeightUnscale[] = {128.0F, 128.0F};

/// Offset of byte `byte` (of depth) of row `row` in an operand tile of `tile_rows` rows.
MOEBENCH_HOST_DEVICE constexpr std::int64_t operand_offset(std::int64_t tile_rows, std::int64_t row,
                                                           std::int64_t byte) {
  const std::int64_t chunk = byte / kSwizzleBytes;
  const std::int64_t unit = byte % kSwizzleBytes / 16;
  return (chunk * tile_rows + row) * kSwizzleBytes + (unit ^ (row % 8)) * 16 + byte % 16;
}

/// fp8-block: where the scale of row `row` in a chunk lies among those of all tiles: as the operand
/// does, a chunk's after the other's.
MOEBENCH_HOST_DEVICE constexpr std::int64_t operand_scale_index(std::int64_t tile_begin,
                                                                std::int64_t tile_rows,
                                                                std::int64_t row,
                                                                std::int64_t chunk,
                                                                std::int64_t chunks) {
  return tile_begin * chunks + chunk * tile_rows + row;
}

/// wgmma's descriptor of an operand chunk at this shared address: K-major, the 128-byte swizzle,
/// 8-row groups 1024 bytes apart.
MOEBENCH_HOST_DEVICE constexpr std::uint64_t operand_descriptor(std::uint32_t address) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kGroupStride = std::uint64_t{1024 >> 4} << 32;
  constexpr std::uint64_t kUnusedStride = std::uint64_t{1} << 16;
  return kSwizzle128 | kGroupStride | kUnusedStride | ((address & 0x3FFFF) >> 4);
}

}  // namespace moebench::cuda
