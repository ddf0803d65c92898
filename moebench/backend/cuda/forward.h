// One layer on the device: its weights in packed form, and a case that runs on them without the
// host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/device_forward.h"
#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/plan.h"

namespace moebench::cuda {

/// Packed weights and their scales in device memory.
class DeviceWeights final : public PackedWeights {
 public:
  /// Memory for them, contents unset.
  DeviceWeights(const MoeShape& shape, WeightFormat format);

  [[nodiscard]] std::int64_t bytes() const override;
  [[nodiscard]] const MoeShape& shape() const { return shape_; }
  [[nodiscard]] WeightFormat format() const { return format_; }
  [[nodiscard]] Wide wide() const;  ///< what the GEMMs expand the weights to
  [[nodiscard]] MatrixGeometry geometry(Projection projection) const;
  [[nodiscard]] std::uint8_t* packed(Projection projection) const;
  /// FP8: as in GemmArgs::weight_scale. NVFP4: the global scales [E], which go into alpha.
  [[nodiscard]] float* scales(Projection projection) const;
  [[nodiscard]] std::int64_t scale_count(Projection projection) const;  ///< of one expert
  /// NVFP4: the same [E] on the host.
  [[nodiscard]] const std::vector<float>& global_scales(Projection projection) const;
  /// Reads global_scales() from the device, where the format has them.
  void fetch_global_scales(cudaStream_t stream);

 private:
  struct Matrix {
    DeviceBuffer packed;
    DeviceBuffer scales;
    std::vector<float> global_scales;
  };
  [[nodiscard]] const Matrix& of(Projection projection) const {
    return projection == Projection::kGateUp ? gate_up_ : down_;
  }
  MoeShape shape_;
  WeightFormat format_;
  Matrix gate_up_, down_;
};

[[nodiscard]] std::int64_t device_weight_bytes(const MoeShape& shape, WeightFormat format);

/// Called with (experts done, experts); may be empty, may throw to stop.
using PackProgress = std::function<void(std::int64_t, std::int64_t)>;
/// A source that says its seed is generated on the device, any other packed on all host threads.
[[nodiscard]] std::shared_ptr<const DeviceWeights> pack_device(const WeightSource& source,
                                                               const PackProgress& progress);
/// synthetic_weights(seed, shape, format), bit for bit.
[[nodiscard]] std::shared_ptr<const DeviceWeights> generate_device(std::uint64_t seed,
                                                                   const MoeShape& shape,
                                                                   WeightFormat format,
                                                                   const PackProgress& progress);

/// What these kernels can do: hidden and intermediate multiples of 16, up to 8192 experts.
[[nodiscard]] Support forward_supports(const MoeShape& shape);

/// Bytes of a case's buffers.
struct ForwardSizes {
  ForwardSizes(const MoeShape& shape, const SchemeConfig& scheme, std::int64_t tokens,
               int multiprocessors);
  std::int64_t pairs = 0;
  GemmTiles tiles = GemmTiles::kSmall;
  std::int64_t padded_rows = 0;  ///< at most
  std::int64_t tokens = 0, ids = 0, weights = 0;
  std::int64_t entries = 0, shares = 0, row_pair = 0, places = 0;
  std::int64_t gate_up_operand = 0, down_operand = 0;
  std::int64_t hidden_rows = 0;  ///< fp8: h between GEMM1 and the quantising pass
  std::int64_t gate_up_scales = 0, down_scales = 0;
  std::int64_t per_expert = 0;  ///< NVFP4: alphas and global scales of both projections
  std::int64_t pair_out = 0;
  std::int64_t partial = 0, hand_over = 0;
  std::int64_t output = 0;
  [[nodiscard]] std::int64_t total() const;
};

/// One case with its scratch memory. The problem must outlive it.
class Forward final : public DeviceForward {
 public:
  Forward(const MoeProblem& problem, std::shared_ptr<const DeviceWeights> weights);

  [[nodiscard]] static std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& scheme,
                                                  std::int64_t tokens);
  [[nodiscard]] std::int64_t scratch_bytes() const override { return sizes_.total(); }

  void upload(cudaStream_t stream) override;
  void upload_scales(cudaStream_t stream) override;
  using DeviceForward::enqueue;
  void enqueue(const DeviceArrays& arrays, cudaStream_t stream,
               PhaseMarks* marks = nullptr) override;
  [[nodiscard]] DeviceArrays uploaded() const override;
  [[nodiscard]] std::uint16_t* output() const override;
  [[nodiscard]] std::optional<DynamicScaleClaim> dynamic_scale(cudaStream_t stream) const override;

 private:
  void enqueue_gemm(Projection projection, cudaStream_t stream) const;
  void enqueue_hidden_quantization(cudaStream_t stream) const;
  [[nodiscard]] float* per_expert(int column) const;
  [[nodiscard]] WorkShape work_of(Projection projection) const;
  [[nodiscard]] bool quantizes_rows() const;    ///< a pass between the GEMMs
  [[nodiscard]] bool one_hidden_scale() const;  ///< for all of h, found by GEMM1 and that pass

  const MoeProblem& problem_;
  std::shared_ptr<const DeviceWeights> weights_;
  ForwardSizes sizes_;
  int teams_;  ///< of the GEMMs' thread blocks
  DeviceBuffer tokens_, ids_, topk_weights_;
  DeviceBuffer plan_;  ///< PlanHeader and HiddenScale: struct PlanState
  DeviceBuffer entries_, shares_, row_pair_, places_;
  DeviceBuffer gate_up_operand_, down_operand_, hidden_rows_;
  DeviceBuffer gate_up_scales_, down_scales_, per_expert_;
  DeviceBuffer pair_out_, partial_, hand_over_, output_;
};

}  // namespace moebench::cuda
