#include "moebench/backend/cuda/phase_marks.h"

#include <nvtx3/nvToolsExt.h>

namespace moebench::cuda {

PhaseMarks::PhaseMarks(std::string prefix, bool timed)
    : prefix_(std::move(prefix)), timed_(timed) {}

PhaseMarks::~PhaseMarks() { close_range(); }

void PhaseMarks::close_range() {
  if (range_open_) nvtxRangePop();
  range_open_ = false;
}

void PhaseMarks::begin(const char* phase, cudaStream_t stream) {
  close_range();
  if (timed_) {
    Mark& mark = marks_.emplace_back(Mark{phase, make_event()});
    cuda_check(cudaEventRecord(mark.event.get(), stream), "marking a phase");
  }
  nvtxRangePushA((prefix_ + " " + phase).c_str());
  range_open_ = true;
}

void PhaseMarks::end(cudaStream_t stream) {
  close_range();
  if (!timed_) return;
  Mark& mark = marks_.emplace_back(Mark{"", make_event()});
  cuda_check(cudaEventRecord(mark.event.get(), stream), "marking a phase");
}

PhaseTimes PhaseMarks::take_times() {
  PhaseTimes times;
  for (std::size_t i = 0; i + 1 < marks_.size(); ++i) {
    times.emplace_back(marks_[i].phase,
                       seconds_between(marks_[i].event.get(), marks_[i + 1].event.get()));
  }
  marks_.clear();
  return times;
}

ProfilerRange::ProfilerRange(const std::string& name) { nvtxRangePushA(name.c_str()); }
ProfilerRange::~ProfilerRange() { nvtxRangePop(); }

}  // namespace moebench::cuda
