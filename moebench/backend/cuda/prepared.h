// One prepared case on the device: a DeviceForward with everything that measuring needs around it.
#pragma once

#include <memory>
#include <string>

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/cuda_device.h"
#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/device_forward.h"

namespace moebench::cuda {

class CudaPrepared final : public PreparedMoe {
 public:
  /// `forward` is of this problem, which must outlive the object.
  CudaPrepared(CudaDevice& device, const MoeProblem& problem,
               std::unique_ptr<DeviceForward> forward, const PrepareOptions& options);
  ~CudaPrepared() override;

  void run(std::span<std::uint16_t> y) override;
  [[nodiscard]] std::optional<DynamicScaleClaim> dynamic_scale() const override;
  PhaseTimes run_phases(std::span<std::uint16_t> y) override;
  void flush_caches() override { device_.flush_cache(); }
  double run_profiled(std::span<std::uint16_t> y) override;
  [[nodiscard]] DeviceQueue* queue() override { return &queue_; }
  void enqueue() override;
  [[nodiscard]] bool fetch(std::span<std::uint16_t> y) override;
  [[nodiscard]] std::string guard_damage() const override { return guard_damage_; }
  [[nodiscard]] std::int64_t scratch_bytes() const override { return forward_->scratch_bytes(); }

 private:
  /// Tokens, routing and scales as the problem now has them; poison where the answer goes, guards
  /// around it.
  void set_up();
  void poison();
  /// One call; `marks` for direct calls alone.
  void enqueue_call(PhaseMarks* marks);
  /// Waits and copies the answer, looks at the guards.
  void take_answer(std::span<std::uint16_t> y);

  CudaDevice& device_;
  StreamQueue& queue_;
  const MoeProblem& problem_;
  std::string label_;
  std::unique_ptr<DeviceForward> forward_;
  GraphExec graph_;
  std::int64_t enqueued_ = 0;  ///< calls since the last run()
  std::string guard_damage_;
};

/// A case on arrays of a caller: a DeviceForward with nothing around it.
class CudaResident final : public ResidentMoe {
 public:
  CudaResident(CudaDevice& device, std::unique_ptr<DeviceForward> forward);
  void enqueue(const DeviceArrays& arrays, void* stream) override;

 private:
  std::unique_ptr<DeviceForward> forward_;
};

}  // namespace moebench::cuda
