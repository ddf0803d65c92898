// Packing of canonical weights into slabs (layout.h), expert by expert: never a second copy of a
// layer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "moebench/backend/backend.h"
#include "moebench/backend/cpu/layout.h"
#include "moebench/core/buffer.h"

namespace moebench::cpu {

/// Which of an expert's two matrices.
enum class Projection : std::uint8_t { kGateUp, kDown };

/// Sizes of a layer's packed form.
struct PackedGeometry {
  PackedGeometry(const MoeShape& shape, WeightFormat format);

  MoeShape shape;
  WeightFormat format;
  SlabGeometry gate_up;
  SlabGeometry down;
  std::int64_t expert_bytes = 0;
  std::int64_t gate_up_scales = 0;  ///< FP32 scales of w1 per expert (NVFP4: its global scale)
  std::int64_t down_scales = 0;

  [[nodiscard]] const SlabGeometry& of(Projection projection) const {
    return projection == Projection::kGateUp ? gate_up : down;
  }
  /// Canonical row of a slab's row, or -1 where it is padding.
  [[nodiscard]] std::int64_t canonical_row(Projection projection, std::int64_t slab,
                                           std::int64_t slab_row) const;
  [[nodiscard]] std::int64_t total_bytes() const;
};

class PackedCpuWeights final : public PackedWeights {
 public:
  explicit PackedCpuWeights(const PackedGeometry& geometry);

  [[nodiscard]] std::int64_t bytes() const override { return slabs_.size() + scales_.size(); }
  [[nodiscard]] const PackedGeometry& geometry() const { return geometry_; }
  [[nodiscard]] const std::uint8_t* slab(std::int64_t expert, Projection projection,
                                         std::int64_t index) const;
  /// FP32 scales of one matrix in canonical order; NVFP4: one, the global scale.
  [[nodiscard]] const float* scales(std::int64_t expert, Projection projection) const;
  /// Copies one expert in. Different experts may be packed at the same time.
  void pack_expert(std::int64_t expert, const ExpertWeightsView& weights);

 private:
  [[nodiscard]] std::uint8_t* slab_base(std::int64_t expert, Projection projection);
  void pack_matrix(const Nvfp4View& matrix, Projection projection, std::uint8_t* out) const;
  void pack_matrix(const Fp8View& matrix, Projection projection, std::uint8_t* out) const;

  PackedGeometry geometry_;
  Buffer slabs_;
  Buffer scales_;
};

[[nodiscard]] std::shared_ptr<const PackedCpuWeights> pack_layer(
    const WeightSource& source, int threads,
    const std::function<void(std::int64_t, std::int64_t)>& progress);

}  // namespace moebench::cpu
