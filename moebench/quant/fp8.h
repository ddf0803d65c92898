// FP8 (E4M3) matrices with per-tensor, per-row or block scales. The canonical host form; backends
// repack from it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "moebench/core/buffer.h"

namespace moebench {

inline constexpr std::int64_t kFp8BlockSize = 128;

/// What one FP32 scale covers. Rows are output channels of a weight, tokens of an activation.
enum class Fp8Scaling : std::uint8_t {
  kPerTensor,     ///< 1 scale
  kPerRow,        ///< [rows]: per_out_ch for weights, per_act_token for activations
  kBlock128x128,  ///< [ceil(rows/128), ceil(cols/128)]: DeepSeek's weights
  kBlock1x128,    ///< [rows, ceil(cols/128)]: DeepSeek's activations
};
[[nodiscard]] std::int64_t fp8_scale_count(std::int64_t rows, std::int64_t cols,
                                           Fp8Scaling scaling);
[[nodiscard]] std::int64_t fp8_scale_index(std::int64_t row, std::int64_t col, std::int64_t cols,
                                           Fp8Scaling scaling);

/// payload [rows, cols] E4M3; value = e4m3 * scale (a multiplier: amax/448; 1 where amax is 0).
struct Fp8Matrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Fp8Scaling scaling = Fp8Scaling::kPerTensor;
  Buffer payload;
  Buffer scales;
};

struct Fp8View {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Fp8Scaling scaling = Fp8Scaling::kPerTensor;
  const std::uint8_t* payload = nullptr;
  const float* scales = nullptr;
};
[[nodiscard]] Fp8View view(const Fp8Matrix& matrix);

[[nodiscard]] Fp8Matrix make_fp8_matrix(std::int64_t rows, std::int64_t cols, Fp8Scaling scaling);

/// amax/448, but never rounded to 0; 1 for amax 0. Throws kBadInput for NaN, infinite or negative
/// amax.
[[nodiscard]] float fp8_scale(float amax);

/// q = e4m3(x / scale), IEEE division; a NaN quotient of either sign gives 0x7F. The scalar form is
/// the truth; the plain name gives the same bits, faster.
void quantize_fp8_row_scalar(const float* x, std::int64_t cols, float scale, std::uint8_t* payload);
void quantize_fp8_row(const float* x, std::int64_t cols, float scale, std::uint8_t* payload);

/// max |x[i]|; NaN if any x is NaN.
[[nodiscard]] float amax_of(std::span<const float> x);

/// Whole matrix. Throws kBadInput with count and first coordinate if x has NaN or infinities.
[[nodiscard]] Fp8Matrix quantize_fp8(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                                     Fp8Scaling scaling);

/// Throws kBadInput (count, first coordinate) for NaN payloads and for scales that are NaN,
/// infinite or not positive.
void validate_fp8(const Fp8View& matrix, std::string_view name);

}  // namespace moebench
