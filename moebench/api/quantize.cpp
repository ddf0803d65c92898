// Quantising into the caller's buffers: sizes checked, then the row quantisers of moebench/quant.
#include <algorithm>
#include <cmath>
#include <vector>

#include "moebench/api/arguments.h"
#include "moebench/api/moebench.h"
#include "moebench/core/checked.h"
#include "moebench/quant/finite_scan.h"
#include "moebench/quant/fp8.h"
#include "moebench/quant/nvfp4.h"

namespace moebench {
namespace {

std::vector<float> decode_all(std::span<const std::uint16_t> x, ActType type) {
  std::vector<float> values(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) values[i] = decode_act(type, x[i]);
  return values;
}

Fp8Scaling internal(Fp8WeightScaling scaling) {
  switch (scaling) {
    case Fp8WeightScaling::kPerExpert:
      return Fp8Scaling::kPerTensor;
    case Fp8WeightScaling::kPerOutChannel:
      return Fp8Scaling::kPerRow;
    case Fp8WeightScaling::kBlock128x128:
      return Fp8Scaling::kBlock128x128;
  }
  fail(ErrorCode::kBadInput, "FP8 scaling: unknown value {}; use a name of Fp8WeightScaling",
       static_cast<int>(scaling));
}

}  // namespace

float nvfp4_global_scale(std::span<const float> x) { return nvfp4_global_scale(amax_of(x)); }

float nvfp4_global_scale(std::span<const std::uint16_t> x, ActType type) {
  return nvfp4_global_scale(decode_all(x, type));
}

void quantize_nvfp4(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                    float global_scale, std::span<std::uint8_t> payload,
                    std::span<std::uint8_t> scales, ScaleLayout layout) {
  if (rows < 1 || cols < 1 || cols % kNvfp4BlockSize != 0) {
    fail(ErrorCode::kBadInput,
         "quantize_nvfp4: {} rows x {} columns; both must be positive and columns a multiple of {}",
         rows, cols, kNvfp4BlockSize);
  }
  if (!(global_scale > 0.0F) || !std::isfinite(global_scale)) {
    fail(ErrorCode::kBadInput,
         "global_scale: is {}; it must be positive and finite, as nvfp4_global_scale() gives it",
         global_scale);
  }
  require_length("payload", payload.size(), checked_product("payload", {rows, cols / 2}),
                 "rows * cols/2");
  require_length("scales", scales.size(), nvfp4_scale_bytes(rows, cols, layout),
                 "nvfp4_scale_bytes(rows, cols, layout)");
  quant::require_finite("quantize_nvfp4", x, rows, cols);

  const std::int64_t groups = cols / kNvfp4BlockSize;
  std::vector<std::uint8_t> unswizzled;
  std::uint8_t* linear = scales.data();
  if (layout != ScaleLayout::kLinear) {
    unswizzled.resize(static_cast<std::size_t>(rows * groups));
    linear = unswizzled.data();
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    quantize_nvfp4_row(x.data() + row * cols, cols, global_scale, payload.data() + row * (cols / 2),
                       linear + row * groups);
  }
  if (layout != ScaleLayout::kLinear) swizzle_scales(unswizzled, rows, groups, scales);
}

void quantize_nvfp4(std::span<const std::uint16_t> x, ActType type, std::int64_t rows,
                    std::int64_t cols, float global_scale, std::span<std::uint8_t> payload,
                    std::span<std::uint8_t> scales, ScaleLayout layout) {
  quantize_nvfp4(decode_all(x, type), rows, cols, global_scale, payload, scales, layout);
}

std::int64_t fp8_weight_scales(std::int64_t rows, std::int64_t cols, Fp8WeightScaling scaling) {
  if (rows < 1 || cols < 1) {
    fail(ErrorCode::kBadInput, "FP8 matrix: {} rows x {} columns; both must be positive", rows,
         cols);
  }
  return fp8_scale_count(rows, cols, internal(scaling));
}

void quantize_fp8(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                  Fp8WeightScaling scaling, std::span<std::uint8_t> payload,
                  std::span<float> scales) {
  require_length("scales", scales.size(), fp8_weight_scales(rows, cols, scaling),
                 "fp8_weight_scales(rows, cols, scaling)");
  require_length("payload", payload.size(), checked_product("payload", {rows, cols}),
                 "rows * cols");
  const Fp8Matrix matrix = quantize_fp8(x, rows, cols, internal(scaling));
  std::ranges::copy(matrix.payload.as<std::uint8_t>().first(payload.size()), payload.begin());
  std::ranges::copy(matrix.scales.as<float>().first(scales.size()), scales.begin());
}

}  // namespace moebench
