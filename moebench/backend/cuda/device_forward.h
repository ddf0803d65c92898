// A layer on the device as measuring sees it, whichever kernels it is made of: inputs that go there
// once, a call that is enqueued on a stream, an output between guards.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>

#include "moebench/backend/backend.h"

namespace moebench::cuda {

class PhaseMarks;

class DeviceForward {
 public:
  virtual ~DeviceForward() = default;
  [[nodiscard]] virtual std::int64_t scratch_bytes() const = 0;
  /// Copies the problem's tokens, routing and scales to the device, in the order of the stream; the
  /// problem may change once the call has returned.
  virtual void upload(cudaStream_t stream) = 0;
  /// The part of upload() that is neither tokens nor routing.
  virtual void upload_scales(cudaStream_t stream) = 0;
  /// Enqueues one pass on what was uploaded last. No synchronisation, no allocation; a graph may
  /// capture it. `marks` (may be null): told where each phase begins; the end of the last is the
  /// caller's.
  void enqueue(cudaStream_t stream, PhaseMarks* marks) { enqueue(uploaded(), stream, marks); }
  /// The same on arrays of a caller in device memory, in place of the uploaded tokens and routing
  /// and of output().
  virtual void enqueue(const DeviceArrays& arrays, cudaStream_t stream, PhaseMarks* marks) = 0;
  /// What upload() fills, and output().
  [[nodiscard]] virtual DeviceArrays uploaded() const = 0;
  /// [tokens, hidden], with kGuardElements (moe/verify.h) before and after it, which nothing here
  /// writes.
  [[nodiscard]] virtual std::uint16_t* output() const = 0;
  /// After a run; waits for the stream. None where the scheme computes no scale over all rows.
  [[nodiscard]] virtual std::optional<DynamicScaleClaim> dynamic_scale(
      cudaStream_t /*stream*/) const {
    return std::nullopt;
  }
};

}  // namespace moebench::cuda
