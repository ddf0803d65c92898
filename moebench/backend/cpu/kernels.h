// The seam between one forward pass (forward.cpp, the same for every CPU) and the vector code of
// one ISA. Each ISA is one translation unit with flags of its own that fills one table; where CMake
// leaves it out, absent/<isa>.cpp takes its place and says so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moebench/core/dtype.h"

namespace moebench::cpu {

/// What a tile kernel multiplies.
enum class TileFormat : std::uint8_t {
  kNvfp4,      ///< NVFP4 weights and tokens (W4A4)
  kNvfp4Bf16,  ///< NVFP4 weights, BF16 tokens
  kNvfp4Fp16,  ///< NVFP4 weights, FP16 tokens
  kFp8,        ///< FP8 weights and tokens, scales outside the sum
  kFp8Block,   ///< FP8 with 128x128 and 1x128 scales
};
inline constexpr int kTileFormats = 5;
inline constexpr int kMaxTileTokens = 32;

/// One slab, or a part of its depth, times one tile of tokens: sums[token][slab row] = sum over k
/// of weight * token value, with the scales that belong inside the sum (NVFP4's blocks, FP8's
/// 128-wide groups).
///
/// A tile is the operand form of 1..max_tile_tokens tokens. Its content is the ISA's own affair;
/// per step of 16 k (rounded up to operand_steps steps) it takes operand_step_bytes a token, and a
/// kernel walks it as one contiguous stream.
struct TileArgs {
  const std::uint8_t* slab;
  /// Null, or room for round_up(steps, 4) * expanded_step_bytes: multiply_tile leaves the slab
  /// there in the form that is multiplied, multiply_expanded takes it from there and not from
  /// `slab`.
  std::uint8_t* expanded;
  std::int64_t steps;
  int tokens;
  const std::byte* operand;
  const float* weight_scales;   ///< kFp8Block: [groups][32]
  const float* operand_scales;  ///< kFp8Block: [groups][tokens]
  /// [tokens][32]; after a part of the depth that is not the last, kMaxTileTokens * 32 floats of
  /// the ISA's own, which the next part takes up.
  float* sums;
  bool first_part = true;
  bool last_part = true;
};

/// From the sums of one slab to 16-bit values: half(sum * (token_scale * row_scale)).
struct EpilogueArgs {
  ActType type;
  int tokens;
  const float* sums;          ///< [tokens][32]
  const float* token_scales;  ///< [tokens]
  const float* row_scales;    ///< [32]
  std::int64_t valid_rows;    ///< rows of the slab (GEMM1: of a panel) that are not padding
  std::uint16_t* out;         ///< first valid column of output row 0
  std::int64_t out_stride;
  const std::int32_t* out_rows;  ///< [tokens]
};

struct CpuKernels {
  const char* isa;
  int max_tile_tokens;
  std::int64_t operand_step_bytes[kTileFormats];  ///< per token and 16 k
  std::int64_t operand_steps;                     ///< of which a tile's depth is a multiple
  /// [format][tokens - 1]
  void (*multiply_tile[kTileFormats][kMaxTileTokens])(const TileArgs&);
  /// For experts of several tiles, whose operand should take no more than cached_operand_bytes: the
  /// other tiles with a slab, or a part of its depth, that multiply_tile has expanded. Null where
  /// the ISA has no such form: its tiles begin and end with all of the depth.
  void (*multiply_expanded[kTileFormats])(const TileArgs&);
  std::int64_t expanded_step_bytes;
  std::int64_t cached_operand_bytes;
  /// Writes token `token` of a tile of `tile_tokens`; columns cols..padded_cols become zero. Null
  /// for kNvfp4.
  void (*store_operand[kTileFormats])(const float* x, std::int64_t cols, std::int64_t padded_cols,
                                      int tile_tokens, int token, std::byte* tile);
  /// The same for kNvfp4, from a quantised row.
  void (*store_nvfp4_operand)(const std::uint8_t* payload, const std::uint8_t* scales,
                              std::int64_t cols, std::int64_t padded_cols, int tile_tokens,
                              int token, std::byte* tile);
  /// GEMM1: gate = half(sum), up = half(sum), out = half(silu(gate) * up).
  void (*activate)(const EpilogueArgs&);
  /// GEMM2: out = half(sum).
  void (*round_sums)(const EpilogueArgs&);
  void (*decode_row)(ActType type, const std::uint16_t* x, std::int64_t n, float* out);
  /// max |x|; NaN if any x is.
  float (*amax)(const float* x, std::int64_t n);
  void (*expand_fp8)(const std::uint8_t* payload, std::int64_t cols, float* out);
  /// y = half(sum_j float(c[j]) * weights[j]) in slot order; c: [topk] rows, `stride` apart.
  void (*combine)(ActType type, const std::uint16_t* c, std::int64_t stride, const float* weights,
                  std::int64_t topk, std::int64_t cols, std::uint16_t* y);
};

/// Null where the build left the ISA out.
[[nodiscard]] const CpuKernels* portable_kernels();
[[nodiscard]] const CpuKernels* avx2_kernels();
[[nodiscard]] const CpuKernels* avx512_kernels();
[[nodiscard]] const CpuKernels* avx512_vnni_kernels();
[[nodiscard]] const CpuKernels* avx512_bf16_kernels();
[[nodiscard]] const CpuKernels* amx_kernels();

}  // namespace moebench::cpu
