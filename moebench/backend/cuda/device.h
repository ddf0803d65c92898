// Owning handles over the CUDA runtime, the check that every call goes through, and waiting with a
// watchdog. The runtime keeps one context per process, whose sticky errors end all work on the
// device; so does the state here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace moebench::cuda {

/// Throws moebench::Error for anything but cudaSuccess: kOutOfMemory where memory ran out, else
/// kInternal. An error that the context keeps (a fault of a kernel, of the hardware) marks the
/// device as lost. `what` says what was attempted: "GEMM1".
void cuda_check(cudaError_t status, const char* what);
/// After kernel launches: cuda_check(cudaGetLastError(), what).
void check_launch(const char* what);

/// Empty, or why nothing on the device can work any more in this process. Calls into a lost device
/// may never return: owners below leave their memory to the end of the process.
[[nodiscard]] std::string lost_cause();
void mark_lost(const std::string& cause);
/// Throws kUnavailable with the cause where the device is lost.
void require_device();

/// Longest that a wait may take, for all of them (--device-timeout).
void set_wait_timeout(double seconds);
[[nodiscard]] double wait_timeout();

/// Memory of the device, 256-byte aligned, contents unset; movable, not copyable.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// Throws kOutOfMemory with both numbers; `what` names the contents: "weights". 0 bytes take no
  /// memory.
  DeviceBuffer(std::int64_t bytes, const char* what);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer(std::move(other)).swap(*this);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  /// The buffer as elements of T.
  template <typename T>
  [[nodiscard]] T* as() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<T*>(data_);
  }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Host memory that the device copies from and to without a detour.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(std::int64_t bytes, const char* what);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    PinnedBuffer(std::move(other)).swap(*this);
    return *this;
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  template <typename T>
  [[nodiscard]] T* as() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<T*>(data_);
  }

 private:
  void swap(PinnedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// A handle of the runtime with its two functions; Create() may be absent for handles that others
/// make.
template <typename Handle, cudaError_t (*Destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  ~Owned() {
    if (handle_ != nullptr && lost_cause().empty()) (void)Destroy(handle_);
  }
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  [[nodiscard]] Handle get() const { return handle_; }
  [[nodiscard]] explicit operator bool() const { return handle_ != nullptr; }

 private:
  Handle handle_ = nullptr;
};

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using Graph = Owned<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

[[nodiscard]] Stream make_stream();  ///< does not wait for the default stream
[[nodiscard]] Event make_event();    ///< with a time

/// Waits until all work of the stream, or up to the event, is done. Throws what that work failed
/// with; after the watchdog's time marks the device as lost and throws. `calls`: layers enqueued
/// since the last wait; each may take a second.
void wait(cudaStream_t stream, const char* what, std::int64_t calls = 1);
void wait(cudaEvent_t event, const char* what, std::int64_t calls = 1);
/// Seconds between two events that have been waited for.
[[nodiscard]] double seconds_between(cudaEvent_t start, cudaEvent_t stop);

/// Records what `enqueue` puts on a stream instead of running it, ready to be replayed.
template <typename Enqueue>
[[nodiscard]] GraphExec capture_graph(cudaStream_t stream, Enqueue enqueue);
/// The two halves of capture_graph(); an exception in between must call end_capture(), too.
void begin_capture(cudaStream_t stream);
[[nodiscard]] GraphExec end_capture(cudaStream_t stream);
void abandon_capture(cudaStream_t stream) noexcept;

template <typename Enqueue>
GraphExec capture_graph(cudaStream_t stream, Enqueue enqueue) {
  begin_capture(stream);
  try {
    enqueue();
  } catch (...) {
    abandon_capture(stream);
    throw;
  }
  return end_capture(stream);
}

/// Copies that are done when the call returns, watchdog included.
void copy_to_device(void* to, const void* from, std::int64_t bytes, cudaStream_t stream);
void copy_to_host(void* to, const void* from, std::int64_t bytes, cudaStream_t stream);
template <typename T>
void copy_to_device(void* to, const std::vector<T>& from, cudaStream_t stream) {
  copy_to_device(to, from.data(), std::ssize(from) * static_cast<std::int64_t>(sizeof(T)), stream);
}

/// What is known of a device without making a context on it.
struct DeviceFacts {
  int index = -1;
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t l2_bytes = 0;
  int sm_clock_khz = 0, memory_clock_khz = 0;   ///< the highest
  int driver_version = 0, runtime_version = 0;  ///< 13000 is 13.0
  std::string pci_bus_id;
};
/// The first device that these kernels run on, or why there is none. Never throws; touches the
/// driver.
struct DeviceChoice {
  DeviceFacts facts;
  std::string unusable;  ///< empty where `facts` is a usable device
};
[[nodiscard]] DeviceChoice choose_device();
/// The same for other kernels: `usable` says which devices they run on, `needs` names those:
/// "sm_90a".
[[nodiscard]] DeviceChoice choose_device(bool (*usable)(const DeviceFacts&), const char* needs);

}  // namespace moebench::cuda
