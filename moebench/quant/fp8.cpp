// FP8 matrices: scale geometry, the scalar quantiser (the truth), the parallel one for whole
// matrices, validation.
#include "moebench/quant/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "moebench/core/checked.h"
#include "moebench/core/dtype.h"
#include "moebench/core/error.h"
#include "moebench/quant/finite_scan.h"
#include "moebench/quant/quant_kernels.h"

namespace moebench {
namespace {

constexpr std::uint8_t kNanCode = 0x7F;

/// What one scale covers, in rows and columns; tiles at the lower and right edge are cut off.
struct Tile {
  std::int64_t rows;
  std::int64_t cols;
};

Tile tile_of(std::int64_t rows, std::int64_t cols, Fp8Scaling scaling) {
  switch (scaling) {
    case Fp8Scaling::kPerTensor:
      return {std::max<std::int64_t>(rows, 1), std::max<std::int64_t>(cols, 1)};
    case Fp8Scaling::kPerRow:
      return {1, std::max<std::int64_t>(cols, 1)};
    case Fp8Scaling::kBlock128x128:
      return {kFp8BlockSize, kFp8BlockSize};
    case Fp8Scaling::kBlock1x128:
      return {1, kFp8BlockSize};
  }
  fail(ErrorCode::kInternal, "FP8 scaling: unknown value {}", static_cast<int>(scaling));
}

/// Quantises the row range [first_row, last_row) that shares one row of scales, `scales`.
void quantize_tile_row(const float* x, std::int64_t first_row, std::int64_t last_row,
                       std::int64_t cols, std::int64_t tile_cols, std::uint8_t* payload,
                       float* scales) {
  const quant::Kernels& kernels = quant::fastest_kernels();
  for (std::int64_t col = 0; col < cols; col += tile_cols) {
    const std::int64_t width = std::min(tile_cols, cols - col);
    std::uint32_t amax = 0;
    for (std::int64_t row = first_row; row < last_row; ++row) {
      amax = std::max(amax, kernels.amax_bits(x + row * cols + col, width));
    }
    const float scale = fp8_scale(std::bit_cast<float>(amax));
    scales[col / tile_cols] = scale;
    for (std::int64_t row = first_row; row < last_row; ++row) {
      kernels.fp8_row(x + row * cols + col, width, scale, payload + row * cols + col);
    }
  }
}

}  // namespace

std::int64_t fp8_scale_count(std::int64_t rows, std::int64_t cols, Fp8Scaling scaling) {
  const Tile tile = tile_of(rows, cols, scaling);
  return checked_product("FP8 scales", {ceil_div(rows, tile.rows), ceil_div(cols, tile.cols)});
}

std::int64_t fp8_scale_index(std::int64_t row, std::int64_t col, std::int64_t cols,
                             Fp8Scaling scaling) {
  // Per tensor the number of rows does not matter: any that holds `row` puts it into the one tile.
  const Tile tile = tile_of(row + 1, cols, scaling);
  return row / tile.rows * ceil_div(cols, tile.cols) + col / tile.cols;
}

Fp8View view(const Fp8Matrix& matrix) {
  return {matrix.rows, matrix.cols, matrix.scaling, matrix.payload.as<std::uint8_t>().data(),
          matrix.scales.as<float>().data()};
}

Fp8Matrix make_fp8_matrix(std::int64_t rows, std::int64_t cols, Fp8Scaling scaling) {
  if (rows <= 0 || cols <= 0) {
    fail(ErrorCode::kBadInput, "FP8 matrix: {} rows x {} columns; both must be positive", rows,
         cols);
  }
  Fp8Matrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.scaling = scaling;
  matrix.payload = Buffer(checked_product("FP8 payload", {rows, cols}));
  matrix.scales = Buffer(checked_product("FP8 scales", {fp8_scale_count(rows, cols, scaling),
                                                        static_cast<std::int64_t>(sizeof(float))}));
  return matrix;
}

float fp8_scale(float amax) {
  if (!std::isfinite(amax) || amax < 0.0F) {
    fail(ErrorCode::kBadInput, "FP8 scale: amax is {}; it must be finite and not negative", amax);
  }
  if (amax == 0.0F) return 1.0F;
  // A subnormal amax must not give a scale of zero: dividing by it would make every zero a NaN.
  return std::max(amax / kE4m3Max, std::numeric_limits<float>::denorm_min());
}

void quantize_fp8_row_scalar(const float* x, std::int64_t cols, float scale,
                             std::uint8_t* payload) {
  for (std::int64_t i = 0; i < cols; ++i) {
    const float quotient = x[i] / scale;
    // The sign of a computed NaN differs between processors; the code must not.
    payload[i] = std::isnan(quotient) ? kNanCode : encode_e4m3(quotient);
  }
}

void quantize_fp8_row(const float* x, std::int64_t cols, float scale, std::uint8_t* payload) {
  quant::fastest_kernels().fp8_row(x, cols, scale, payload);
}

float amax_of(std::span<const float> x) {
  const std::uint32_t bits =
      quant::fastest_kernels().amax_bits(x.data(), static_cast<std::int64_t>(x.size()));
  // Which NaN was found depends on the order of the search: give the same one always.
  return bits > static_cast<std::uint32_t>(quant::kExponentBits)
             ? std::numeric_limits<float>::quiet_NaN()
             : std::bit_cast<float>(bits);
}

Fp8Matrix quantize_fp8(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                       Fp8Scaling scaling) {
  Fp8Matrix matrix = make_fp8_matrix(rows, cols, scaling);
  const float amax = quant::require_finite("quantize_fp8", x, rows, cols);
  auto* const payload = matrix.payload.as<std::uint8_t>().data();
  auto* const scales = matrix.scales.as<float>().data();
  if (scaling == Fp8Scaling::kPerTensor) {
    // Apart from the others, so that it is parallel over rows although it has only one tile.
    const float scale = fp8_scale(amax);
    scales[0] = scale;
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < rows; ++row) {
      quantize_fp8_row(x.data() + row * cols, cols, scale, payload + row * cols);
    }
    return matrix;
  }
  const Tile tile = tile_of(rows, cols, scaling);
  const std::int64_t scales_per_row = ceil_div(cols, tile.cols);
  const std::int64_t tile_rows = ceil_div(rows, tile.rows);
  // Nothing below throws: all values are finite, so every amax is.
#pragma omp parallel for schedule(static)
  for (std::int64_t t = 0; t < tile_rows; ++t) {
    quantize_tile_row(x.data(), t * tile.rows, std::min((t + 1) * tile.rows, rows), cols, tile.cols,
                      payload, scales + t * scales_per_row);
  }
  return matrix;
}

void validate_fp8(const Fp8View& matrix, std::string_view name) {
  quant::Defects nan_values;
#pragma omp parallel
  {
    quant::Defects mine;
#pragma omp for schedule(static) nowait
    for (std::int64_t row = 0; row < matrix.rows; ++row) {
      const std::uint8_t* payload = matrix.payload + row * matrix.cols;
      // Counted first, which compilers vectorise; looked for only where there are some.
      std::int64_t count = 0;
      for (std::int64_t col = 0; col < matrix.cols; ++col) {
        count += (payload[col] & kNanCode) == kNanCode ? 1 : 0;
      }
      if (count == 0) continue;
      for (std::int64_t col = 0; col < matrix.cols; ++col) {
        if ((payload[col] & kNanCode) == kNanCode) mine.add(row * matrix.cols + col);
      }
    }
#pragma omp critical(moebench_quant_validate_fp8)
    nan_values.merge(mine);
  }
  if (nan_values.count > 0) {
    fail(ErrorCode::kBadInput, "{}: {} values are NaN, {}; quantise the matrix again", name,
         nan_values.count, first_at(nan_values, matrix.cols));
  }
  const Tile tile = tile_of(matrix.rows, matrix.cols, matrix.scaling);
  quant::Defects bad_scales;
  for (std::int64_t row = 0; row < matrix.rows; row += tile.rows) {
    for (std::int64_t col = 0; col < matrix.cols; col += tile.cols) {
      const float scale = matrix.scales[fp8_scale_index(row, col, matrix.cols, matrix.scaling)];
      if (!std::isfinite(scale) || scale <= 0.0F) bad_scales.add(row * matrix.cols + col);
    }
  }
  if (bad_scales.count > 0) {
    fail(ErrorCode::kBadInput,
         "{}: {} scales are NaN, infinite or not positive, {}; quantise the matrix again", name,
         bad_scales.count, first_at(bad_scales, matrix.cols));
  }
}

}  // namespace moebench
