#include "moebench/backend/cuda/device.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "moebench/core/error.h"

namespace moebench::cuda {
namespace {

constexpr double kDefaultTimeout = 60.0;  // seconds
/// A wait for several calls may take this long for each of them, where that is more than the
/// timeout.
constexpr double kSecondsPerCall = 1.0;
/// Waits shorter than this are spun out: a sleep takes 50 us and more, as long as a short kernel.
constexpr double kSpinSeconds = 0.002;
constexpr auto kNap = std::chrono::microseconds(50);

struct State {
  std::mutex mutex;
  std::string lost_cause;
  std::atomic<bool> lost{false};
  std::atomic<double> timeout_s{kDefaultTimeout};
};
State& state() {
  static State* const kept = new State;  // outlives every owner, static ones included
  return *kept;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string describe(cudaError_t status) {
  return fmt::format("{}: {}", cudaGetErrorName(status), cudaGetErrorString(status));
}

/// An error that the context keeps is returned by every later call, whatever that does. What a
/// capture refuses is none.
bool is_sticky(cudaError_t status) {
  (void)cudaGetLastError();
  if (status >= cudaErrorStreamCaptureUnsupported && status <= cudaErrorStreamCaptureWrongThread) {
    return false;
  }
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  return cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess;
}

template <typename Query>
void wait_until(Query query, const char* what, std::int64_t calls) {
  require_device();
  const double limit = std::max(
      wait_timeout(), kSecondsPerCall * static_cast<double>(std::max<std::int64_t>(calls, 1)));
  const double start = now_s();
  for (;;) {
    const cudaError_t status = query();
    if (status != cudaErrorNotReady) return cuda_check(status, what);
    (void)cudaGetLastError();  // where it would stay, and be taken for the next launch's
    const double waited = now_s() - start;
    if (waited > limit) {
      const std::string cause = fmt::format(
          "{} has not finished within {:.0f} s (--device-timeout), the device is taken for hung",
          what, limit);
      mark_lost(cause);
      fail(ErrorCode::kInternal, "cuda: {}", cause);
    }
    if (waited > kSpinSeconds) std::this_thread::sleep_for(kNap);
  }
}

}  // namespace

void cuda_check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    fail(ErrorCode::kOutOfMemory, "cuda: {}: device memory ran out; use smaller sizes", what);
  }
  const std::string text = fmt::format("{}: {}", what, describe(status));
  if (is_sticky(status)) mark_lost(text);
  fail(ErrorCode::kInternal, "cuda: {}", text);
}

void check_launch(const char* what) { cuda_check(cudaGetLastError(), what); }

std::string lost_cause() {
  State& s = state();
  if (!s.lost.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock(s.mutex);
  return s.lost_cause;
}

void mark_lost(const std::string& cause) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (s.lost.load()) return;
  s.lost_cause = cause;
  s.lost.store(true, std::memory_order_release);
}

void require_device() {
  if (std::string cause = lost_cause(); !cause.empty()) {
    fail(ErrorCode::kUnavailable, "cuda: the device is lost ({}); run again", cause);
  }
}

void set_wait_timeout(double seconds) { state().timeout_s.store(seconds); }
double wait_timeout() { return state().timeout_s.load(); }

DeviceBuffer::DeviceBuffer(std::int64_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  require_device();
  const cudaError_t status = cudaMalloc(&data_, static_cast<std::size_t>(bytes));
  if (status != cudaErrorMemoryAllocation) {
    cuda_check(status, what);
    return;
  }
  (void)cudaGetLastError();
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  (void)cudaMemGetInfo(&free_bytes, &total_bytes);
  fail(ErrorCode::kOutOfMemory, "cuda: {}: needs {} bytes, {} are free; use smaller sizes", what,
       bytes, free_bytes);
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr && lost_cause().empty()) (void)cudaFree(data_);
}

PinnedBuffer::PinnedBuffer(std::int64_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  require_device();
  const cudaError_t status = cudaMallocHost(&data_, static_cast<std::size_t>(bytes));
  if (status != cudaErrorMemoryAllocation) {
    cuda_check(status, what);
    return;
  }
  (void)cudaGetLastError();
  fail(ErrorCode::kOutOfMemory, "cuda: {}: needs {} bytes of pinned host memory; use smaller sizes",
       what, bytes);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr && lost_cause().empty()) (void)cudaFreeHost(data_);
}

Stream make_stream() {
  require_device();
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  return Stream(stream);
}

Event make_event() {
  require_device();
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreate(&event), "creating an event");
  return Event(event);
}

void wait(cudaStream_t stream, const char* what, std::int64_t calls) {
  wait_until([stream] { return cudaStreamQuery(stream); }, what, calls);
}

void wait(cudaEvent_t event, const char* what, std::int64_t calls) {
  wait_until([event] { return cudaEventQuery(event); }, what, calls);
}

double seconds_between(cudaEvent_t start, cudaEvent_t stop) {
  float milliseconds = 0.0F;
  cuda_check(cudaEventElapsedTime(&milliseconds, start, stop), "reading the device's clock");
  return double{milliseconds} * 1e-3;
}

void begin_capture(cudaStream_t stream) {
  require_device();
  cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a graph");
}

GraphExec end_capture(cudaStream_t stream) {
  cudaGraph_t raw = nullptr;
  cuda_check(cudaStreamEndCapture(stream, &raw), "ending a graph");
  const Graph graph(raw);
  cudaGraphExec_t exec = nullptr;
  cuda_check(cudaGraphInstantiate(&exec, graph.get(), 0), "instantiating a graph");
  GraphExec owned(exec);
  cuda_check(cudaGraphUpload(exec, stream), "uploading a graph");
  return owned;
}

void abandon_capture(cudaStream_t stream) noexcept {
  cudaGraph_t raw = nullptr;
  (void)cudaStreamEndCapture(stream, &raw);
  if (raw != nullptr) (void)cudaGraphDestroy(raw);
  (void)cudaGetLastError();
}

void copy_to_device(void* to, const void* from, std::int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return;
  require_device();
  cuda_check(
      cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream),
      "copying to the device");
  wait(stream, "copying to the device");
}

void copy_to_host(void* to, const void* from, std::int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return;
  require_device();
  cuda_check(
      cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream),
      "copying from the device");
  wait(stream, "copying from the device");
}

DeviceChoice choose_device() {
  const auto is_hopper = [](const DeviceFacts& facts) {
    return facts.major == 9 && facts.minor == 0;
  };
  return choose_device(is_hopper, "sm_90a");
}

DeviceChoice choose_device(bool (*usable)(const DeviceFacts&), const char* needs) {
  DeviceChoice choice;
  int driver = 0;
  int runtime = 0;
  int count = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  const cudaError_t status = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    choice.unusable =
        driver == 0
            ? "no CUDA driver"
            : fmt::format("the driver is for CUDA {}.{}, this build needs {}.{}", driver / 1000,
                          driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return choice;
  }
  if (status != cudaSuccess || count == 0) {
    choice.unusable =
        status == cudaSuccess || status == cudaErrorNoDevice ? "no device" : describe(status);
    return choice;
  }
  std::string seen;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) {
      (void)cudaGetLastError();
      continue;
    }
    DeviceFacts facts;
    facts.index = index;
    facts.name = printable(properties.name);
    facts.major = properties.major;
    facts.minor = properties.minor;
    facts.multiprocessors = properties.multiProcessorCount;
    facts.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
    facts.l2_bytes = properties.l2CacheSize;
    (void)cudaDeviceGetAttribute(&facts.sm_clock_khz, cudaDevAttrClockRate, index);
    (void)cudaDeviceGetAttribute(&facts.memory_clock_khz, cudaDevAttrMemoryClockRate, index);
    facts.driver_version = driver;
    facts.runtime_version = runtime;
    char bus_id[32] = {};
    if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, index) == cudaSuccess)
      facts.pci_bus_id = bus_id;
    if (usable(facts)) {
      choice.facts = std::move(facts);
      return choice;
    }
    if (seen.empty()) {
      seen = fmt::format("needs {}, device is sm_{}{} ({})", needs, facts.major, facts.minor,
                         facts.name);
    }
  }
  choice.unusable = seen.empty() ? "no device answers" : seen;
  return choice;
}

}  // namespace moebench::cuda
