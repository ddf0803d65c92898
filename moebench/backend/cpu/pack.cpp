// Canonical weights to slabs. Plain integer code: generating and quantising a layer costs far more
// than this.
#include "moebench/backend/cpu/pack.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>

#include "moebench/core/checked.h"

namespace moebench::cpu {
namespace {

SlabGeometry slab_geometry(std::int64_t slabs, std::int64_t depth, WeightFormat format) {
  SlabGeometry geometry;
  geometry.slabs = slabs;
  geometry.steps = ceil_div(depth, kStepDepth);
  if (format == WeightFormat::kNvfp4) {
    const std::int64_t chunks = ceil_div(geometry.steps, kChunkSteps);
    geometry.steps = chunks * kChunkSteps;
    geometry.slab_bytes = chunks * kChunkBytes;
  } else {
    geometry.slab_bytes = geometry.steps * kFp8StepBytes;
  }
  return geometry;
}

/// Eight values, column c in nibble c, to the order of layout.h: even columns to the low half, odd
/// ones to the high.
std::uint32_t interleave_nibbles(std::uint32_t columns) {
  std::uint32_t even = columns & 0x0F0F0F0FU;
  std::uint32_t odd = (columns >> 4) & 0x0F0F0F0FU;
  even = (even | even >> 4) & 0x00FF00FFU;
  odd = (odd | odd >> 4) & 0x00FF00FFU;
  even = (even | even >> 8) & 0xFFFFU;
  odd = (odd | odd >> 8) & 0xFFFFU;
  return even | odd << 16;
}

void pack_nvfp4_row(const Nvfp4View& matrix, std::int64_t row, std::int64_t panel,
                    std::int64_t panel_row, std::uint8_t* slab) {
  const std::int64_t steps = matrix.cols / kStepDepth;
  const std::uint8_t* payload = matrix.payload + row * (matrix.cols / 2);
  for (std::int64_t k = 0; k < matrix.cols; k += 8) {
    std::uint32_t columns = 0;
    std::memcpy(&columns, payload + k / 2, sizeof columns);
    columns = interleave_nibbles(columns);
    std::memcpy(slab + nvfp4_lane_offset(panel, panel_row, k), &columns, sizeof columns);
  }
  const std::uint8_t* scales = matrix.scales + row * steps;
  for (std::int64_t step = 0; step < steps; ++step) {
    slab[nvfp4_scale_offset(panel, panel_row, step)] = scales[step];
  }
}

void pack_fp8_row(const Fp8View& matrix, std::int64_t row, std::int64_t panel,
                  std::int64_t panel_row, std::uint8_t* slab) {
  const std::uint8_t* payload = matrix.payload + row * matrix.cols;
  const std::int64_t even_cols = matrix.cols / 2 * 2;
  for (std::int64_t k = 0; k < even_cols; k += 2) {
    std::memcpy(slab + fp8_pair_offset(panel, panel_row, k), payload + k, 2);
  }
  if (even_cols != matrix.cols) {
    slab[fp8_pair_offset(panel, panel_row, even_cols)] = payload[even_cols];
  }
}

}  // namespace

PackedGeometry::PackedGeometry(const MoeShape& layer, WeightFormat weight_format)
    : shape(layer), format(weight_format) {
  gate_up = slab_geometry(ceil_div(shape.intermediate, kPanelRows), shape.hidden, format);
  down = slab_geometry(ceil_div(shape.hidden, kSlabRows), shape.intermediate, format);
  expert_bytes = checked_sum("packed weights", gate_up.bytes(), down.bytes());
  const bool nvfp4 = format == WeightFormat::kNvfp4;
  gate_up_scales =
      nvfp4 ? 1 : fp8_scale_count(2 * shape.intermediate, shape.hidden, fp8_scaling(format));
  down_scales = nvfp4 ? 1 : fp8_scale_count(shape.hidden, shape.intermediate, fp8_scaling(format));
}

std::int64_t PackedGeometry::canonical_row(Projection projection, std::int64_t slab,
                                           std::int64_t slab_row) const {
  if (projection == Projection::kDown) {
    const std::int64_t row = slab * kSlabRows + slab_row;
    return row < shape.hidden ? row : -1;
  }
  const std::int64_t row = slab * kPanelRows + slab_row % kPanelRows;
  if (row >= shape.intermediate) return -1;
  return slab_row < kPanelRows ? row : shape.intermediate + row;
}

std::int64_t PackedGeometry::total_bytes() const {
  const auto scale_bytes = static_cast<std::int64_t>(sizeof(float));
  return checked_sum(
      "packed weights", checked_product("packed weights", {shape.num_experts, expert_bytes}),
      checked_product("packed weight scales",
                      {shape.num_experts, scale_bytes, gate_up_scales + down_scales}));
}

PackedCpuWeights::PackedCpuWeights(const PackedGeometry& geometry)
    : geometry_(geometry),
      slabs_(
          checked_product("packed weights", {geometry.shape.num_experts, geometry.expert_bytes})),
      scales_(geometry.total_bytes() - slabs_.size()) {}

std::uint8_t* PackedCpuWeights::slab_base(std::int64_t expert, Projection projection) {
  const std::int64_t offset = projection == Projection::kGateUp ? 0 : geometry_.gate_up.bytes();
  return slabs_.as<std::uint8_t>().data() + expert * geometry_.expert_bytes + offset;
}

const std::uint8_t* PackedCpuWeights::slab(std::int64_t expert, Projection projection,
                                           std::int64_t index) const {
  const std::int64_t offset = projection == Projection::kGateUp ? 0 : geometry_.gate_up.bytes();
  return slabs_.as<std::uint8_t>().data() + expert * geometry_.expert_bytes + offset +
         index * geometry_.of(projection).slab_bytes;
}

const float* PackedCpuWeights::scales(std::int64_t expert, Projection projection) const {
  const std::int64_t offset = projection == Projection::kGateUp ? 0 : geometry_.gate_up_scales;
  return scales_.as<float>().data() + expert * (geometry_.gate_up_scales + geometry_.down_scales) +
         offset;
}

void PackedCpuWeights::pack_matrix(const Nvfp4View& matrix, Projection projection,
                                   std::uint8_t* out) const {
  const SlabGeometry& slabs = geometry_.of(projection);
  for (std::int64_t s = 0; s < slabs.slabs; ++s) {
    for (std::int64_t r = 0; r < kSlabRows; ++r) {
      const std::int64_t row = geometry_.canonical_row(projection, s, r);
      if (row < 0) continue;  // the buffer is zero-filled
      pack_nvfp4_row(matrix, row, r / kPanelRows, r % kPanelRows, out + s * slabs.slab_bytes);
    }
  }
}

void PackedCpuWeights::pack_matrix(const Fp8View& matrix, Projection projection,
                                   std::uint8_t* out) const {
  const SlabGeometry& slabs = geometry_.of(projection);
  for (std::int64_t s = 0; s < slabs.slabs; ++s) {
    for (std::int64_t r = 0; r < kSlabRows; ++r) {
      const std::int64_t row = geometry_.canonical_row(projection, s, r);
      if (row < 0) continue;
      pack_fp8_row(matrix, row, r / kPanelRows, r % kPanelRows, out + s * slabs.slab_bytes);
    }
  }
}

void PackedCpuWeights::pack_expert(std::int64_t expert, const ExpertWeightsView& weights) {
  if (weights.format != geometry_.format) {
    fail(ErrorCode::kInternal, "weights: expert {} is {}, the packed layer {}", expert,
         name_of(weights.format), name_of(geometry_.format));
  }
  float* gate_up_scales =
      scales_.as<float>().data() + expert * (geometry_.gate_up_scales + geometry_.down_scales);
  float* down_scales = gate_up_scales + geometry_.gate_up_scales;
  if (weights.format == WeightFormat::kNvfp4) {
    pack_matrix(weights.nvfp4_w1, Projection::kGateUp, slab_base(expert, Projection::kGateUp));
    pack_matrix(weights.nvfp4_w2, Projection::kDown, slab_base(expert, Projection::kDown));
    *gate_up_scales = weights.nvfp4_w1.global_scale;
    *down_scales = weights.nvfp4_w2.global_scale;
  } else {
    pack_matrix(weights.fp8_w1, Projection::kGateUp, slab_base(expert, Projection::kGateUp));
    pack_matrix(weights.fp8_w2, Projection::kDown, slab_base(expert, Projection::kDown));
    std::copy_n(weights.fp8_w1.scales, geometry_.gate_up_scales, gate_up_scales);
    std::copy_n(weights.fp8_w2.scales, geometry_.down_scales, down_scales);
  }
}

std::shared_ptr<const PackedCpuWeights> pack_layer(
    const WeightSource& source, int threads,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const std::int64_t experts = source.shape.num_experts;
  auto packed = std::make_shared<PackedCpuWeights>(PackedGeometry(source.shape, source.format));
  std::mutex mutex;
  std::exception_ptr failure;
  std::int64_t done = 0;
  std::atomic<bool> stop = false;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    if (stop) continue;
    try {
      source.with_expert(
          expert, [&](const ExpertWeightsView& weights) { packed->pack_expert(expert, weights); });
      const std::lock_guard lock(mutex);
      ++done;
      if (progress) progress(done, experts);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      stop = true;
    }
  }
  if (failure) std::rethrow_exception(failure);
  return packed;
}

}  // namespace moebench::cpu
