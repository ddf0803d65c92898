// Where the phases of a call begin and end: an event on the device at each boundary, and an NVTX
// range on the host around the enqueueing of each, so that a profiler's timeline names them.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/backend/cuda/device.h"

namespace moebench::cuda {

class PhaseMarks {
 public:
  /// `timed`: also record events. Names in timelines: "<prefix> <phase>".
  PhaseMarks(std::string prefix, bool timed);
  ~PhaseMarks();
  PhaseMarks(const PhaseMarks&) = delete;
  PhaseMarks& operator=(const PhaseMarks&) = delete;

  /// What is enqueued on `stream` from here on belongs to `phase`, up to the next begin() or end().
  /// Phases have the names of PhaseTimes: "route", "permute", "quantize", "gemm1", "activation",
  /// "gemm2", "combine".
  void begin(const char* phase, cudaStream_t stream);
  /// The end of the last phase.
  void end(cudaStream_t stream);

  /// Seconds of each phase, once the stream has been waited for; empties the marks for the next
  /// call.
  [[nodiscard]] PhaseTimes take_times();

 private:
  struct Mark {
    std::string phase;  ///< empty: the end
    Event event;
  };
  void close_range();

  std::string prefix_;
  bool timed_;
  bool range_open_ = false;
  std::vector<Mark> marks_;
};

/// An NVTX range on the host for the lifetime of the object.
class ProfilerRange {
 public:
  explicit ProfilerRange(const std::string& name);
  ~ProfilerRange();
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;
};

}  // namespace moebench::cuda
