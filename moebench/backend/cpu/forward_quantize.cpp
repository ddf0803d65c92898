// The quantising phases of a forward pass: a row of 16-bit values to the operand tiles of a GEMM,
// through the scheme's own quantiser (quant/), so that every backend sees the same codes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "moebench/backend/cpu/forward.h"
#include "moebench/core/checked.h"

namespace moebench::cpu {
namespace {

/// Rows that a thread takes at a time. The rows of a tile interleave, so neighbours share cache
/// lines.
constexpr std::int64_t kRowBlock = 4;

/// fp8_scale() without its exceptions: an amax that is not finite makes outputs that are not
/// either, and those fail.
float dynamic_fp8_scale(float amax) { return amax == 0.0F ? 1.0F : amax / kE4m3Max; }

/// 2^-e for the power of two that brings amax to [0.5, 1); 1 where amax is 0 or not finite.
/// VDPBF16PS flushes BF16 denormals, and BF16 tokens reach down to them.
float normalizing_power(float amax) {
  if (amax == 0.0F || !std::isfinite(amax)) return 1.0F;
  int exponent = 0;
  std::frexp(amax, &exponent);
  constexpr int kLargest = std::numeric_limits<float>::max_exponent - 2;
  return std::ldexp(1.0F, std::clamp(-exponent, -kLargest, kLargest));
}

}  // namespace

void CpuForward::quantize_tokens(const Workspace& space) {
  const std::int64_t hidden = problem_.shape.hidden;
  std::int64_t row = 0;
  std::int64_t last = 0;
  while (take(kQuantize, kRowBlock, sizes_.rows, row, last)) {
    for (; row < last; ++row) {
      const std::int64_t token = plan_.pairs()[row] / problem_.shape.topk;
      kernels_.decode_row(problem_.shape.act, problem_.a.data() + token * hidden, hidden,
                          space.row);
      quantize_row(space, Projection::kGateUp, row);
    }
  }
}

void CpuForward::quantize_hidden(const Workspace& space) {
  const std::int64_t intermediate = problem_.shape.intermediate;
  const std::uint16_t* hidden = hidden_.as<std::uint16_t>().data();
  std::int64_t row = 0;
  std::int64_t last = 0;
  while (take(kRequantize, kRowBlock, sizes_.rows, row, last)) {
    for (; row < last; ++row) {
      kernels_.decode_row(problem_.shape.act, hidden + row * intermediate, intermediate, space.row);
      quantize_row(space, Projection::kDown, row);
    }
  }
}

void CpuForward::find_row_amax(const Workspace& space) {
  const std::int64_t intermediate = problem_.shape.intermediate;
  const std::uint16_t* hidden = hidden_.as<std::uint16_t>().data();
  std::int64_t row = 0;
  std::int64_t last = 0;
  while (take(kAmax, kRowBlock, sizes_.rows, row, last)) {
    for (; row < last; ++row) {
      kernels_.decode_row(problem_.shape.act, hidden + row * intermediate, intermediate, space.row);
      row_amax_[row] = kernels_.amax(space.row, intermediate);
    }
  }
}

void CpuForward::choose_dynamic_scale() {
  float amax = 0.0F;
  std::int64_t attained = 0;
  for (std::int64_t row = 0; row < sizes_.rows; ++row) {
    if (row_amax_[row] <= amax) continue;
    amax = row_amax_[row];
    attained = row;
  }
  dynamic_scale_.scale = dynamic_fp8_scale(amax);
  dynamic_scale_.pair = sizes_.rows == 0 ? -1 : plan_.pairs()[attained];
}

/// space.row holds the values and is overwritten.
void CpuForward::quantize_row(const Workspace& space, Projection projection, std::int64_t row) {
  const std::int64_t cols = depth(projection);
  const std::int64_t expert = plan_.expert_of_row(row);
  const bool gate_up = projection == Projection::kGateUp;
  switch (problem_.scheme.scheme) {
    case Scheme::kNvfp4: {
      const auto& scales =
          gate_up ? problem_.scales.a1_global_scale : problem_.scales.a2_global_scale;
      const float global_scale = scales[static_cast<std::size_t>(expert)];
      quantize_nvfp4_row(space.row, cols, global_scale, space.payload, space.scales);
      token_scales_[row] = 1.0F / (global_scale * *weights_->scales(expert, projection));
      const Tile& tile = plan_.tile_of_row(row);
      kernels_.store_nvfp4_operand(
          space.payload, space.scales, cols, padded_depth(projection), tile.tokens,
          static_cast<int>(row - tile.first_row),
          operand_.data() + tile.first_row * operand_row_bytes(projection));
      return;
    }
    case Scheme::kNvfp4W4A16: {
      token_scales_[row] = 1.0F / *weights_->scales(expert, projection);
      if (problem_.shape.act == ActType::kFp16) break;
      const float power = normalizing_power(kernels_.amax(space.row, cols));
      for (std::int64_t k = 0; k < cols; ++k) space.row[k] *= power;
      token_scales_[row] /= power;
      break;
    }
    case Scheme::kFp8:
      token_scales_[row] = quantize_fp8_operand(space, projection);
      break;
    case Scheme::kFp8Block:
      quantize_fp8_groups(space, projection, row);
      token_scales_[row] = 1.0F;
      break;
  }
  store_operand_row(space.row, projection, row);
}

float CpuForward::quantize_fp8_operand(const Workspace& space, Projection projection) {
  const std::int64_t cols = depth(projection);
  float scale = 0.0F;
  if (problem_.scheme.per_act_token) {
    scale = dynamic_fp8_scale(kernels_.amax(space.row, cols));
  } else {
    scale = projection == Projection::kGateUp ? problem_.scales.a1_scale : dynamic_scale_.scale;
  }
  quantize_fp8_row(space.row, cols, scale, space.payload);
  kernels_.expand_fp8(space.payload, cols, space.row);
  return scale;
}

void CpuForward::quantize_fp8_groups(const Workspace& space, Projection projection,
                                     std::int64_t row) {
  const std::int64_t cols = depth(projection);
  const std::int64_t groups = ceil_div(cols, kFp8BlockSize);
  const Tile& tile = plan_.tile_of_row(row);
  float* scales = group_scales_ + tile.first_row * groups + (row - tile.first_row);
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = g * kFp8BlockSize;
    const std::int64_t count = std::min(kFp8BlockSize, cols - first);
    const float scale = dynamic_fp8_scale(kernels_.amax(space.row + first, count));
    quantize_fp8_row(space.row + first, count, scale, space.payload + first);
    scales[g * tile.tokens] = scale;
  }
  kernels_.expand_fp8(space.payload, cols, space.row);
}

void CpuForward::store_operand_row(const float* x, Projection projection, std::int64_t row) {
  const Tile& tile = plan_.tile_of_row(row);
  const std::int64_t padded = padded_depth(projection);
  std::byte* operand = operand_.data() + tile.first_row * operand_row_bytes(projection);
  kernels_.store_operand[static_cast<int>(sizes_.format)](
      x, depth(projection), padded, tile.tokens, static_cast<int>(row - tile.first_row), operand);
}

}  // namespace moebench::cpu
