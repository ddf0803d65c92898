// A layer's FP8 weights as the Triton kernels read them: canonical order, w1 [E, 2N, K], w2 [E, K,
// N].
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/device.h"

namespace moebench::triton {

class TritonWeights final : public PackedWeights {
 public:
  /// Memory for them, contents unset.
  TritonWeights(const MoeShape& shape, WeightFormat format);

  [[nodiscard]] std::int64_t bytes() const override;
  [[nodiscard]] const MoeShape& shape() const { return shape_; }
  [[nodiscard]] WeightFormat format() const { return format_; }
  [[nodiscard]] std::uint8_t* codes(bool down) const {
    return (down ? down_ : gate_up_).codes.as<std::uint8_t>();
  }
  [[nodiscard]] float* scales(bool down) const {
    return (down ? down_ : gate_up_).scales.as<float>();
  }

 private:
  struct Matrix {
    cuda::DeviceBuffer codes;
    cuda::DeviceBuffer scales;
  };
  MoeShape shape_;
  WeightFormat format_;
  Matrix gate_up_, down_;
};

[[nodiscard]] std::int64_t triton_weight_bytes(const MoeShape& shape, WeightFormat format);

using PackProgress = std::function<void(std::int64_t, std::int64_t)>;
/// A source that says its seed is generated on the device, any other copied expert by expert.
[[nodiscard]] std::shared_ptr<const TritonWeights> pack_triton(const WeightSource& source,
                                                               const PackProgress& progress);

}  // namespace moebench::triton
