// A layer's NVFP4 weights as the grouped GEMMs read them: the canonical payload, scales swizzled.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/layout.h"

namespace moebench::cutlass_moe {

/// Rows and columns of w1 [2N, K] or w2 [K, N].
struct MatrixSize {
  std::int64_t rows;
  std::int64_t depth;
  [[nodiscard]] std::int64_t payload_bytes() const { return rows * depth / 2; }
  [[nodiscard]] std::int64_t swizzled_bytes() const;
};
[[nodiscard]] MatrixSize matrix_size(const MoeShape& shape, cuda::Projection projection);

class CutlassWeights final : public PackedWeights {
 public:
  /// Expert by expert from the source, on all host threads.
  CutlassWeights(const WeightSource& source,
                 const std::function<void(std::int64_t, std::int64_t)>& progress);

  [[nodiscard]] static std::int64_t bytes_of(const MoeShape& shape);
  [[nodiscard]] std::int64_t bytes() const override { return bytes_of(shape_); }
  [[nodiscard]] const MoeShape& shape() const { return shape_; }
  [[nodiscard]] const std::uint8_t* payload(cuda::Projection projection) const;
  [[nodiscard]] const std::uint8_t* scales(cuda::Projection projection) const;
  [[nodiscard]] const std::vector<float>& global_scales(cuda::Projection projection) const;

 private:
  struct Matrix {
    cuda::DeviceBuffer payload;
    cuda::DeviceBuffer scales;
    std::vector<float> global_scales;
  };
  void upload(std::int64_t expert, const ExpertWeightsView& view, cudaStream_t stream);

  MoeShape shape_;
  Matrix matrices_[2];
};

}  // namespace moebench::cutlass_moe
