// One FP8 case on the Triton kernels: align, quantise, GEMM1, SiLU * up, quantise, GEMM2, weighted
// sum.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "moebench/backend/cuda/device_forward.h"
#include "moebench/backend/triton/configs.h"
#include "moebench/backend/triton/module.h"
#include "moebench/backend/triton/weights.h"

namespace moebench::triton {

/// Bytes of a case's buffers.
struct ForwardSizes {
  /// `block_m`: of the tiles, or of the tallest that may be chosen. `wide_...`: whether GEMM1,
  /// GEMM2 read FP16 rows.
  ForwardSizes(const MoeShape& shape, const SchemeConfig& scheme, std::int64_t token_count,
               int block_m, bool wide_tokens, bool wide_hidden);
  std::int64_t pairs = 0;
  std::int64_t aligned_rows = 0;  ///< at most
  std::int64_t tokens = 0, ids = 0, weights = 0;
  std::int64_t sorted_pairs = 0, tile_experts = 0;
  std::int64_t token_rows = 0, token_scales = 0;
  std::int64_t gate_up = 0, hidden = 0;
  std::int64_t hidden_rows = 0, hidden_scales = 0;
  std::int64_t pair_out = 0, output = 0;
  [[nodiscard]] std::int64_t total() const;
};

class TritonForward final : public cuda::DeviceForward {
 public:
  /// The problem must outlive the object.
  TritonForward(const MoeProblem& problem, std::shared_ptr<const TritonWeights> weights,
                const CaseConfig& config, KernelCache& kernels);

  [[nodiscard]] std::int64_t scratch_bytes() const override { return sizes_.total(); }
  void upload(cudaStream_t stream) override;
  void upload_scales(cudaStream_t stream) override;
  using cuda::DeviceForward::enqueue;
  void enqueue(const DeviceArrays& arrays, cudaStream_t stream, cuda::PhaseMarks* marks) override;
  [[nodiscard]] DeviceArrays uploaded() const override;
  [[nodiscard]] std::uint16_t* output() const override;
  [[nodiscard]] std::optional<DynamicScaleClaim> dynamic_scale(cudaStream_t stream) const override;
  /// Enqueues one GEMM with another kernel of the same block_m and kind of rows, on what the last
  /// call left.
  void enqueue_gemm(bool down, const LoadedKernel& kernel, int group_m, cudaStream_t stream) const;

 private:
  void enqueue_hidden(cudaStream_t stream) const;
  void enqueue_hidden_codes(cudaStream_t stream) const;

  const MoeProblem& problem_;
  std::shared_ptr<const TritonWeights> weights_;
  int gate_up_group_, down_group_;
  std::shared_ptr<const LoadedKernel> gate_up_kernel_, down_kernel_;
  ForwardSizes sizes_;
  cuda::DeviceBuffer tokens_, ids_, topk_weights_;
  cuda::DeviceBuffer state_;  ///< struct State
  cuda::DeviceBuffer sorted_pairs_, tile_experts_;
  cuda::DeviceBuffer token_rows_, token_scales_, gate_up_, hidden_, hidden_rows_, hidden_scales_;
  cuda::DeviceBuffer pair_out_, output_;
};

}  // namespace moebench::triton
