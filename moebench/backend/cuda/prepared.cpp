#include "moebench/backend/cuda/prepared.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <array>

#include "moebench/backend/cuda/device_kernels.h"
#include "moebench/backend/cuda/phase_marks.h"
#include "moebench/core/error.h"
#include "moebench/moe/verify.h"

namespace moebench::cuda {
namespace {

constexpr const char* kLayer = "the MoE layer";

/// As GuardedOutput says it.
std::string damage(std::span<const std::uint16_t> guard, const char* where) {
  const auto broken = [](std::uint16_t element) { return element != kGuard; };
  const auto count = std::count_if(guard.begin(), guard.end(), broken);
  if (count == 0) return {};
  const auto first = std::find_if(guard.begin(), guard.end(), broken) - guard.begin();
  return fmt::format("wrote {} elements {} of the device's answer, first at guard element {}",
                     count, where, first);
}

}  // namespace

CudaPrepared::CudaPrepared(CudaDevice& device, const MoeProblem& problem,
                           std::unique_ptr<DeviceForward> forward, const PrepareOptions& options)
    : device_(device),
      queue_(device.queue()),
      problem_(problem),
      label_(options.label),
      forward_(std::move(forward)) {
  if (!options.graph) return;
  // Kernels are loaded at their first launch, which a capture must not contain.
  set_up();
  forward_->enqueue(queue_.stream(), nullptr);
  queue_.wait_for_all(kLayer);
  graph_ = capture_graph(queue_.stream(), [&] { forward_->enqueue(queue_.stream(), nullptr); });
  queue_.wait_for_all("uploading a graph");
}

CudaPrepared::~CudaPrepared() {
  // An interrupted sample may still run; freeing its memory would wait for it without a watchdog.
  try {
    if (lost_cause().empty()) queue_.wait_for_all(kLayer);
  } catch (const std::exception&) {
    // The device is marked as lost, which whoever needs it next will say.
  }
}

void CudaPrepared::poison() {
  const std::int64_t elements = problem_.tokens * problem_.shape.hidden;
  std::uint16_t* const y = forward_->output();
  enqueue_fill(y - kGuardElements, kGuardElements, kGuard, queue_.stream());
  enqueue_fill(y, elements, kPoison, queue_.stream());
  enqueue_fill(y + elements, kGuardElements, kGuard, queue_.stream());
}

void CudaPrepared::set_up() {
  require_device();
  queue_.wait_for_all(kLayer);
  forward_->upload(queue_.stream());
  poison();
}

void CudaPrepared::enqueue_call(PhaseMarks* marks) {
  const cudaStream_t stream = queue_.stream();
  const ProfilerRange range(label_);
  if (graph_) {
    cuda_check(cudaGraphLaunch(graph_.get(), stream), "launching a graph");
  } else {
    forward_->enqueue(stream, marks);
    if (marks != nullptr) marks->end(stream);
  }
  queue_.count_call();
}

void CudaPrepared::take_answer(std::span<std::uint16_t> y) {
  queue_.wait_for_all(kLayer);
  const std::int64_t elements = problem_.tokens * problem_.shape.hidden;
  if (std::ssize(y) != elements) {
    fail(ErrorCode::kInternal, "cuda: an answer of {} elements into {}", elements, y.size());
  }
  constexpr std::int64_t kElement = sizeof(std::uint16_t);
  const std::uint16_t* const from = forward_->output();
  const cudaStream_t stream = queue_.stream();
  std::array<std::uint16_t, kGuardElements> before{};
  std::array<std::uint16_t, kGuardElements> after{};
  copy_to_host(y.data(), from, elements * kElement, stream);
  copy_to_host(before.data(), from - kGuardElements, kGuardElements * kElement, stream);
  copy_to_host(after.data(), from + elements, kGuardElements * kElement, stream);
  guard_damage_ = damage(before, "before the begin");
  if (guard_damage_.empty()) guard_damage_ = damage(after, "past the end");
}

void CudaPrepared::run(std::span<std::uint16_t> y) {
  set_up();
  enqueue_call(nullptr);
  take_answer(y);
  // What is timed next must write its own answer.
  poison();
  enqueued_ = 0;
}

void CudaPrepared::enqueue() {
  enqueue_call(nullptr);
  ++enqueued_;
}

bool CudaPrepared::fetch(std::span<std::uint16_t> y) {
  if (enqueued_ == 0) return false;
  require_device();
  take_answer(y);
  return true;
}

std::optional<DynamicScaleClaim> CudaPrepared::dynamic_scale() const {
  return forward_->dynamic_scale(queue_.stream());
}

PhaseTimes CudaPrepared::run_phases(std::span<std::uint16_t> y) {
  set_up();
  PhaseMarks marks(label_, true);
  const cudaStream_t stream = queue_.stream();
  queue_.wait_for_all(kLayer);
  forward_->enqueue(stream, &marks);
  marks.end(stream);
  take_answer(y);
  return marks.take_times();
}

double CudaPrepared::run_profiled(std::span<std::uint16_t> y) {
  set_up();
  PhaseMarks marks(label_, false);
  const Event start = make_event();
  const Event stop = make_event();
  const cudaStream_t stream = queue_.stream();
  queue_.wait_for_all(kLayer);
  cuda_check(cudaProfilerStart(), "starting the profiler");
  cuda_check(cudaEventRecord(start.get(), stream), "starting the device's clock");
  enqueue_call(graph_ ? nullptr : &marks);
  cuda_check(cudaEventRecord(stop.get(), stream), "stopping the device's clock");
  ++enqueued_;
  queue_.wait_for_all(kLayer);
  cuda_check(cudaProfilerStop(), "stopping the profiler");
  take_answer(y);
  return seconds_between(start.get(), stop.get());
}

CudaResident::CudaResident(CudaDevice& device, std::unique_ptr<DeviceForward> forward)
    : forward_(std::move(forward)) {
  forward_->upload_scales(device.queue().stream());
  device.queue().wait_for_all("uploading scales");
}

void CudaResident::enqueue(const DeviceArrays& arrays, void* stream) {
  forward_->enqueue(arrays, static_cast<cudaStream_t>(stream), nullptr);
}

}  // namespace moebench::cuda
