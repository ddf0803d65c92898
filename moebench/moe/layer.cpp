// Names, size rules and byte counts of a layer; no arithmetic of the layer itself.
#include "moebench/moe/layer.h"

#include <limits>

#include "moebench/core/checked.h"

namespace moebench {
namespace {

/// Expert ids, rows and columns travel as 32-bit integers in routings, permutations and Philox
/// counters.
constexpr std::int64_t kMaxDimension = std::numeric_limits<std::int32_t>::max();

void require_dimension(const char* name, std::int64_t value) {
  if (value < 1 || value > kMaxDimension) {
    fail(ErrorCode::kBadInput, "layer shape: {} is {}; it must lie in 1..{}", name, value,
         kMaxDimension);
  }
}

void require_whole_blocks(const char* name, std::int64_t value) {
  if (value % kNvfp4BlockSize != 0) {
    fail(ErrorCode::kBadInput,
         "layer shape: {} is {}, no multiple of {}, the columns that share an NVFP4 scale; choose "
         "another size or an FP8 scheme",
         name, value, kNvfp4BlockSize);
  }
}

/// Bytes of a [rows, cols] weight matrix with its scales.
std::int64_t matrix_bytes(std::int64_t rows, std::int64_t cols, WeightFormat format) {
  constexpr auto kScaleBytes = static_cast<std::int64_t>(sizeof(float));
  if (format == WeightFormat::kNvfp4) {
    const std::int64_t payload = checked_product("NVFP4 weights", {rows, cols}) / 2;
    const std::int64_t block_scales =
        checked_product("NVFP4 scales", {rows, cols / kNvfp4BlockSize});
    return checked_sum("NVFP4 weights", payload,
                       checked_sum("NVFP4 scales", block_scales, kScaleBytes));
  }
  const std::int64_t payload = checked_product("FP8 weights", {rows, cols});
  const std::int64_t scales = fp8_scale_count(rows, cols, fp8_scaling(format));
  return checked_sum("FP8 weights", payload, checked_product("FP8 scales", {scales, kScaleBytes}));
}

}  // namespace

const char* name_of(Scheme scheme) {
  switch (scheme) {
    case Scheme::kNvfp4:
      return "nvfp4";
    case Scheme::kNvfp4W4A16:
      return "nvfp4-w4a16";
    case Scheme::kFp8:
      return "fp8";
    case Scheme::kFp8Block:
      return "fp8-block";
  }
  return "unknown";
}

std::optional<Scheme> scheme_from(std::string_view name) {
  for (const Scheme scheme : kAllSchemes) {
    if (name == name_of(scheme)) {
      return scheme;
    }
  }
  return std::nullopt;
}

const char* summary_of(Scheme scheme) {
  switch (scheme) {
    case Scheme::kNvfp4:
      return "W4A4: NVFP4 weights; activations quantised to NVFP4 in the call, global scale given";
    case Scheme::kNvfp4W4A16:
      return "W4A16: NVFP4 weights, 16-bit activations";
    case Scheme::kFp8:
      return "W8A8: E4M3 weights and activations, one scale per tensor, channel or token";
    case Scheme::kFp8Block:
      return "W8A8: E4M3, one scale per 128x128 weight block and per 1x128 activation group";
  }
  return "unknown";
}

WeightFormat weight_format(const SchemeConfig& config) {
  switch (config.scheme) {
    case Scheme::kNvfp4:
    case Scheme::kNvfp4W4A16:
      return WeightFormat::kNvfp4;
    case Scheme::kFp8:
      return config.per_out_ch ? WeightFormat::kFp8PerChannel : WeightFormat::kFp8PerTensor;
    case Scheme::kFp8Block:
      return WeightFormat::kFp8Block;
  }
  fail(ErrorCode::kInternal, "scheme {} is unknown", static_cast<int>(config.scheme));
}

const char* name_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kNvfp4:
      return "nvfp4";
    case WeightFormat::kFp8PerTensor:
      return "fp8-per-tensor";
    case WeightFormat::kFp8PerChannel:
      return "fp8-per-channel";
    case WeightFormat::kFp8Block:
      return "fp8-block";
  }
  return "unknown";
}

Fp8Scaling fp8_scaling(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFp8PerTensor:
      return Fp8Scaling::kPerTensor;
    case WeightFormat::kFp8PerChannel:
      return Fp8Scaling::kPerRow;
    case WeightFormat::kFp8Block:
      return Fp8Scaling::kBlock128x128;
    case WeightFormat::kNvfp4:
      break;
  }
  fail(ErrorCode::kInternal, "weight format {} has no FP8 scaling", name_of(format));
}

void validate(const MoeShape& shape, WeightFormat format) {
  require_dimension("num_experts", shape.num_experts);
  require_dimension("hidden", shape.hidden);
  require_dimension("intermediate", shape.intermediate);
  if (shape.topk < 1 || shape.topk > shape.num_experts) {
    fail(ErrorCode::kBadInput,
         "layer shape: topk is {}; it must lie in 1..{}, the number of experts", shape.topk,
         shape.num_experts);
  }
  if (format == WeightFormat::kNvfp4) {
    require_whole_blocks("hidden", shape.hidden);
    require_whole_blocks("intermediate", shape.intermediate);
  }
  static_cast<void>(layer_weight_bytes(shape, format));
}

std::int64_t expert_weight_bytes(const MoeShape& shape, WeightFormat format) {
  const std::int64_t gate_up_rows = checked_product("gate and up rows", {2, shape.intermediate});
  return checked_sum("one expert", matrix_bytes(gate_up_rows, shape.hidden, format),
                     matrix_bytes(shape.hidden, shape.intermediate, format));
}

std::int64_t layer_weight_bytes(const MoeShape& shape, WeightFormat format) {
  return checked_product("layer weights", {shape.num_experts, expert_weight_bytes(shape, format)});
}

double layer_flops(const MoeShape& shape, std::int64_t tokens) {
  constexpr double kFlopsPerWeight = 2.0;  // one multiply, one add
  constexpr double kMatrices = 3.0;        // gate, up, down
  return kFlopsPerWeight * kMatrices * static_cast<double>(tokens) *
         static_cast<double>(shape.topk) * static_cast<double>(shape.hidden) *
         static_cast<double>(shape.intermediate);
}

}  // namespace moebench
