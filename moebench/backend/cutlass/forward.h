// The NVFP4 layer around two grouped GEMMs: route, groups, quantised tokens, GEMM1, SiLU * up
// quantised, GEMM2, unpermute.
#pragma once

#include <cstdint>
#include <memory>

#include "moebench/backend/cuda/device_forward.h"
#include "moebench/backend/cutlass/grouped_gemm.h"
#include "moebench/backend/cutlass/weights.h"

namespace moebench::cutlass_moe {

/// What these kernels can do.
[[nodiscard]] Support forward_supports(const MoeShape& shape);

/// Bytes of a case's buffers.
struct ForwardSizes {
  ForwardSizes(const MoeShape& shape, std::int64_t tokens, const GroupedGemm& gemm,
               int multiprocessors);
  std::int64_t pairs = 0, rows = 0, scale_rows = 0, groups = 0;  ///< at most
  std::int64_t tokens = 0, ids = 0, weights = 0;
  std::int64_t entries = 0, row_pair = 0, places = 0, group_bytes = 0;
  std::int64_t gate_up_payload = 0, gate_up_scales = 0, gate_up_out = 0;
  std::int64_t down_payload = 0, down_scales = 0, down_out = 0;
  std::int64_t per_expert = 0, table = 0, workspace = 0, output = 0;
  [[nodiscard]] std::int64_t total() const;
};

class CutlassForward final : public cuda::DeviceForward {
 public:
  CutlassForward(const MoeProblem& problem, std::shared_ptr<const CutlassWeights> weights,
                 const GroupedGemm& gemm, int multiprocessors);

  [[nodiscard]] std::int64_t scratch_bytes() const override { return sizes_.total(); }
  void upload(cudaStream_t stream) override;
  void upload_scales(cudaStream_t stream) override;
  using cuda::DeviceForward::enqueue;
  void enqueue(const DeviceArrays& arrays, cudaStream_t stream, cuda::PhaseMarks* marks) override;
  [[nodiscard]] DeviceArrays uploaded() const override;
  [[nodiscard]] std::uint16_t* output() const override;

 private:
  [[nodiscard]] GroupedGemmArgs gemm_args(cuda::Projection projection) const;
  [[nodiscard]] float* per_expert(int column) const;
  void enqueue_route(const DeviceArrays& arrays, cudaStream_t stream) const;
  void enqueue_quantized(cuda::Projection projection, const std::uint16_t* rows,
                         cudaStream_t stream) const;

  const MoeProblem& problem_;
  std::shared_ptr<const CutlassWeights> weights_;
  const GroupedGemm& gemm_;
  int multiprocessors_;
  ForwardSizes sizes_;
  cuda::DeviceBuffer tokens_, ids_, topk_weights_;
  cuda::DeviceBuffer plan_, entries_, row_pair_, places_, groups_;
  cuda::DeviceBuffer gate_up_payload_, gate_up_scales_, gate_up_out_;
  cuda::DeviceBuffer down_payload_, down_scales_, down_out_;
  cuda::DeviceBuffer per_expert_, gate_up_table_, down_table_, workspace_, output_;
};

}  // namespace moebench::cutlass_moe
