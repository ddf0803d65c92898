// NVFP4: E2M1 values, one E4M3 scale per 16 consecutive columns, one FP32 global scale per matrix
// (per expert). The canonical host form of a quantised matrix; backends repack from it. Formulas:
// docs/NUMERICS.md.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "moebench/core/buffer.h"
#include "moebench/quant/scale_layout.h"

namespace moebench {

inline constexpr std::int64_t kNvfp4BlockSize = 16;  ///< columns that share one E4M3 scale

/// payload [rows, cols/2], even column in the low nibble; value = e2m1 * e4m3(scale) /
/// global_scale.
struct Nvfp4Matrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;  ///< multiple of 16
  ScaleLayout scale_layout = ScaleLayout::kLinear;
  Buffer payload;
  Buffer scales;
  float global_scale = 1.0F;  ///< divisor: 448*6/amax
};

/// Non-owning view of the same, linear scales: what packers and the reference read.
struct Nvfp4View {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const std::uint8_t* payload = nullptr;
  const std::uint8_t* scales = nullptr;
  float global_scale = 1.0F;
};
[[nodiscard]] Nvfp4View view(const Nvfp4Matrix& matrix);  ///< needs kLinear

/// Allocates an unset [rows, cols] matrix. Throws kBadInput if cols is no multiple of 16 or a size
/// is not positive.
[[nodiscard]] Nvfp4Matrix make_nvfp4_matrix(std::int64_t rows, std::int64_t cols,
                                            ScaleLayout layout = ScaleLayout::kLinear);

/// gs = 448*6/amax; 1 for amax 0; at most 2^118 (amax below 1e-32), so that gs / sf stays finite
/// for the smallest sf. Throws kBadInput for NaN, infinite or negative amax.
[[nodiscard]] float nvfp4_global_scale(float amax);

/// Quantises `cols` consecutive values (multiple of 16) of one row:
///   sf = e4m3(gs * (amax_block / 6)),  q = e2m1(x * (sf == 0 ? 0 : gs / float(sf)))
/// with IEEE division, in this order, to payload [cols/2] and scales [cols/16]. amax_block is NaN
/// if any value is; a NaN sf is 0x7F whatever its sign, and its block is all +6. The scalar form is
/// the truth; the plain name picks the fastest vector form that this CPU has and gives the same
/// bits for every input, NaN and infinities included.
void quantize_nvfp4_row_scalar(const float* x, std::int64_t cols, float global_scale,
                               std::uint8_t* payload, std::uint8_t* scales);
void quantize_nvfp4_row(const float* x, std::int64_t cols, float global_scale,
                        std::uint8_t* payload, std::uint8_t* scales);

/// Whole matrix, global scale from its amax. Throws kBadInput with count and first coordinate if x
/// has NaN or infinities.
[[nodiscard]] Nvfp4Matrix quantize_nvfp4(std::span<const float> x, std::int64_t rows,
                                         std::int64_t cols,
                                         ScaleLayout layout = ScaleLayout::kLinear);

/// One row to float: e2m1 * sf (the global scale is NOT applied: the product is exact in FP16, BF16
/// and FP32).
void dequantize_nvfp4_row_unscaled(const Nvfp4View& matrix, std::int64_t row, float* out);

/// Throws kBadInput (count, first coordinate) for NaN or negative scales, for a zero scale over a
/// non-zero payload, and for a global scale that is 0, negative, NaN or infinite. `name` opens the
/// message.
void validate_nvfp4(const Nvfp4View& matrix, std::string_view name);

}  // namespace moebench
