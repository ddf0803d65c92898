// NVFP4 matrices: allocation, the scalar quantiser (the truth), the parallel one for whole
// matrices, validation.
#include "moebench/quant/nvfp4.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "moebench/core/checked.h"
#include "moebench/core/dtype.h"
#include "moebench/core/error.h"
#include "moebench/quant/finite_scan.h"
#include "moebench/quant/quant_kernels.h"

namespace moebench {
namespace {

constexpr std::uint8_t kNanScale = 0x7F;
constexpr std::uint8_t kScaleSign = 0x80;
constexpr std::uint8_t kBothMagnitudes = 0x77;  ///< the bits of two E2M1 codes without their signs
constexpr std::int64_t kBlockBytes = kNvfp4BlockSize / 2;

/// Past this, gs / sf with the smallest sf, 2^-9, would be infinite and turn zeros into NaN.
constexpr float kLargestGlobalScale = 0x1p118F;

float block_amax(const float* x) {
  float amax = 0.0F;
  for (std::int64_t i = 0; i < kNvfp4BlockSize; ++i) {
    if (std::isnan(x[i])) return std::numeric_limits<float>::quiet_NaN();
    amax = std::max(amax, std::fabs(x[i]));
  }
  return amax;
}

/// Both values of every payload byte: low nibble (even column) first.
using PairTable = std::array<std::array<float, 2>, 256>;
PairTable make_pair_table() {
  PairTable table{};
  for (std::size_t byte = 0; byte < table.size(); ++byte) {
    table[byte] = {decode_e2m1(static_cast<std::uint8_t>(byte & 0xF)),
                   decode_e2m1(static_cast<std::uint8_t>(byte >> 4))};
  }
  return table;
}

/// The kinds of bad scales, by flat element index of the block's first value.
struct ScaleDefects {
  quant::Defects nan;
  quant::Defects negative;
  quant::Defects zero_over_values;
};

void scan_row(const Nvfp4View& matrix, std::int64_t row, ScaleDefects& defects) {
  const std::int64_t groups = matrix.cols / kNvfp4BlockSize;
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t block = row * groups + group;
    const std::uint8_t scale = matrix.scales[block];
    if (scale != 0 && scale < kNanScale) continue;
    const std::int64_t index = block * kNvfp4BlockSize;
    if ((scale & kNanScale) == kNanScale) {
      defects.nan.add(index);
    } else if ((scale & kScaleSign) != 0) {
      defects.negative.add(index);
    } else {
      const std::uint8_t* payload = matrix.payload + block * kBlockBytes;
      if (std::any_of(payload, payload + kBlockBytes,
                      [](std::uint8_t byte) { return (byte & kBothMagnitudes) != 0; })) {
        defects.zero_over_values.add(index);
      }
    }
  }
}

}  // namespace

Nvfp4View view(const Nvfp4Matrix& matrix) {
  if (matrix.scale_layout != ScaleLayout::kLinear) {
    fail(ErrorCode::kInternal, "NVFP4 view: scales are swizzled; unswizzle them first");
  }
  return {matrix.rows, matrix.cols, matrix.payload.as<std::uint8_t>().data(),
          matrix.scales.as<std::uint8_t>().data(), matrix.global_scale};
}

Nvfp4Matrix make_nvfp4_matrix(std::int64_t rows, std::int64_t cols, ScaleLayout layout) {
  if (rows <= 0 || cols <= 0 || cols % kNvfp4BlockSize != 0) {
    fail(ErrorCode::kBadInput,
         "NVFP4 matrix: {} rows x {} columns; both must be positive and columns a multiple of {}",
         rows, cols, kNvfp4BlockSize);
  }
  Nvfp4Matrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.scale_layout = layout;
  matrix.payload = Buffer(checked_product("NVFP4 payload", {rows, cols / 2}));
  matrix.scales = Buffer(nvfp4_scale_bytes(rows, cols, layout));
  return matrix;
}

float nvfp4_global_scale(float amax) {
  if (!std::isfinite(amax) || amax < 0.0F) {
    fail(ErrorCode::kBadInput, "NVFP4 global scale: amax is {}; it must be finite and not negative",
         amax);
  }
  if (amax == 0.0F) return 1.0F;
  return std::min(kE4m3Max * kE2m1Max / amax, kLargestGlobalScale);
}

void quantize_nvfp4_row_scalar(const float* x, std::int64_t cols, float global_scale,
                               std::uint8_t* payload, std::uint8_t* scales) {
  for (std::int64_t group = 0; group < cols / kNvfp4BlockSize; ++group) {
    const float* values = x + group * kNvfp4BlockSize;
    const float wanted = global_scale * (block_amax(values) / kE2m1Max);
    // The sign of a computed NaN differs between processors; the code must not.
    scales[group] = std::isnan(wanted) ? kNanScale : encode_e4m3(wanted);
    const float scale = decode_e4m3(scales[group]);
    const float factor = scale == 0.0F ? 0.0F : global_scale / scale;
    for (std::int64_t i = 0; i < kBlockBytes; ++i) {
      const std::uint8_t even = encode_e2m1(values[2 * i] * factor);
      const std::uint8_t odd = encode_e2m1(values[2 * i + 1] * factor);
      payload[group * kBlockBytes + i] = static_cast<std::uint8_t>(even | (odd << 4));
    }
  }
}

void quantize_nvfp4_row(const float* x, std::int64_t cols, float global_scale,
                        std::uint8_t* payload, std::uint8_t* scales) {
  quant::fastest_kernels().nvfp4_row(x, cols, global_scale, payload, scales);
}

Nvfp4Matrix quantize_nvfp4(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                           ScaleLayout layout) {
  Nvfp4Matrix matrix = make_nvfp4_matrix(rows, cols, layout);
  matrix.global_scale = nvfp4_global_scale(quant::require_finite("quantize_nvfp4", x, rows, cols));
  const std::int64_t groups = cols / kNvfp4BlockSize;
  Buffer linear;
  if (layout != ScaleLayout::kLinear) {
    linear = Buffer(nvfp4_scale_bytes(rows, cols, ScaleLayout::kLinear));
  }
  Buffer& scales = layout == ScaleLayout::kLinear ? matrix.scales : linear;
  auto* const payload_bytes = matrix.payload.as<std::uint8_t>().data();
  auto* const scale_bytes = scales.as<std::uint8_t>().data();
  const quant::Kernels& kernels = quant::fastest_kernels();
#pragma omp parallel for schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    kernels.nvfp4_row(x.data() + row * cols, cols, matrix.global_scale,
                      payload_bytes + row * (cols / 2), scale_bytes + row * groups);
  }
  if (layout != ScaleLayout::kLinear) {
    swizzle_scales(linear.as<std::uint8_t>(), rows, groups, matrix.scales.as<std::uint8_t>());
  }
  return matrix;
}

void dequantize_nvfp4_row_unscaled(const Nvfp4View& matrix, std::int64_t row, float* out) {
  static const PairTable kPairs = make_pair_table();
  const std::int64_t groups = matrix.cols / kNvfp4BlockSize;
  const std::uint8_t* scales = matrix.scales + row * groups;
  const std::uint8_t* payload = matrix.payload + row * (matrix.cols / 2);
  for (std::int64_t group = 0; group < groups; ++group) {
    const float scale = decode_e4m3(scales[group]);
    for (std::int64_t i = group * kBlockBytes; i < (group + 1) * kBlockBytes; ++i) {
      const auto& pair = kPairs[payload[i]];
      out[2 * i] = pair[0] * scale;
      out[2 * i + 1] = pair[1] * scale;
    }
  }
}

void validate_nvfp4(const Nvfp4View& matrix, std::string_view name) {
  if (!std::isfinite(matrix.global_scale) || matrix.global_scale <= 0.0F) {
    fail(ErrorCode::kBadInput,
         "{}: global scale is {}; it must be finite and positive, so repair the file", name,
         matrix.global_scale);
  }
  ScaleDefects all;
#pragma omp parallel
  {
    ScaleDefects mine;
#pragma omp for schedule(static) nowait
    for (std::int64_t row = 0; row < matrix.rows; ++row) scan_row(matrix, row, mine);
#pragma omp critical(moebench_quant_validate_nvfp4)
    {
      all.nan.merge(mine.nan);
      all.negative.merge(mine.negative);
      all.zero_over_values.merge(mine.zero_over_values);
    }
  }
  const auto require_none = [&](const quant::Defects& defects, std::string_view what) {
    if (defects.count == 0) return;
    fail(ErrorCode::kBadInput, "{}: {} block scales are {}, {}; quantise the matrix again", name,
         defects.count, what, first_at(defects, matrix.cols));
  };
  require_none(all.nan, "NaN");
  require_none(all.negative, "negative");
  require_none(all.zero_over_values, "zero over a payload that is not");
}

}  // namespace moebench
