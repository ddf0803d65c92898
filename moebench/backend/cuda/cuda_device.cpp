#include "moebench/backend/cuda/cuda_device.h"

#include <algorithm>

#include "moebench/backend/cuda/device_kernels.h"
#include "moebench/backend/cuda/mma_rates.h"
#include "moebench/core/checked.h"
#include "moebench/core/error.h"

namespace moebench::cuda {
namespace {

constexpr const char* kNvml = "libnvidia-ml.so.1";
constexpr std::int64_t kMib = std::int64_t{1} << 20;
/// How long the stream is held at the start of a sample: enqueueing the first call of a layer
/// kernel by kernel takes less.
constexpr double kHoldSeconds = 50e-6;
/// Readings of events differ by steps of half a microsecond; both ends are read.
constexpr double kEventResolution = 1e-6;
/// More than twice the L2 cache, so that nothing of what was there before is left.
constexpr std::int64_t kFlushPerL2Numerator = 5, kFlushPerL2Denominator = 2;
/// Beside layers: the kernels' code and local memory, the driver's own, fragmentation.
constexpr std::int64_t kDeviceReserve = 512 * kMib;

// Read rate: the stream is at least this long where a quarter of the free memory allows it.
constexpr std::int64_t kStreamBytes = std::int64_t{8} << 30;
constexpr std::int64_t kFreeMemoryShare = 4;
constexpr int kStreamPasses = 5;
constexpr StreamRead kStreamReads[] = {{2, 512, 8},  {4, 512, 8},  {8, 256, 8},  {8, 256, 4},
                                       {4, 256, 16}, {2, 1024, 4}, {16, 128, 8}, {32, 128, 8}};

std::int64_t flush_bytes(const DeviceFacts& facts) {
  return round_up(facts.l2_bytes * kFlushPerL2Numerator / kFlushPerL2Denominator, kMib);
}

const DeviceFacts& made_current(const DeviceFacts& facts) {
  cuda_check(cudaSetDevice(facts.index), "choosing the device");
  return facts;
}

}  // namespace

StreamQueue::StreamQueue(std::int64_t hold_clocks)
    : hold_clocks_(hold_clocks),
      stream_(make_stream()),
      start_(make_event()),
      stop_(make_event()) {}

void StreamQueue::start_timing() {
  require_device();
  enqueue_hold(hold_clocks_, stream());
  cuda_check(cudaEventRecord(start_.get(), stream()), "starting the device's clock");
}

double StreamQueue::stop_timing() {
  cuda_check(cudaEventRecord(stop_.get(), stream()), "stopping the device's clock");
  wait(stop_.get(), "a sample", std::exchange(calls_, 0));
  return seconds_between(start_.get(), stop_.get());
}

double StreamQueue::resolution_s() const { return kEventResolution; }

void StreamQueue::wait_for_all(const char* what) { wait(stream(), what, std::exchange(calls_, 0)); }

CudaDevice::CudaDevice(DeviceFacts facts)
    : facts_(made_current(facts)),
      sensors_(kNvml, facts_.pci_bus_id),
      queue_(static_cast<std::int64_t>(kHoldSeconds * 1e3 * facts_.sm_clock_khz)) {}

CudaDevice::~CudaDevice() = default;

std::vector<std::pair<std::string, std::string>> CudaDevice::facts() const {
  const auto version = [](int number) {
    return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
  };
  const auto text = [](const std::string& value) {
    return value.empty() ? std::string("unknown") : value;
  };
  const double limit = sensors_.power_limit_w();
  return {{"cuda.device", facts_.name},
          {"cuda.compute_capability", fmt::format("{}.{}", facts_.major, facts_.minor)},
          {"cuda.multiprocessors", fmt::to_string(facts_.multiprocessors)},
          {"cuda.memory_bytes", fmt::to_string(facts_.memory_bytes)},
          {"cuda.l2_bytes", fmt::to_string(facts_.l2_bytes)},
          {"cuda.sm_clock_max_mhz", fmt::to_string(facts_.sm_clock_khz / 1000)},
          {"cuda.memory_clock_max_mhz", fmt::to_string(facts_.memory_clock_khz / 1000)},
          {"cuda.power_limit_w", limit > 0.0 ? fmt::format("{:.0f}", limit) : "unknown"},
          {"cuda.driver", text(sensors_.driver())},
          {"cuda.driver_supports", version(facts_.driver_version)},
          {"cuda.runtime", version(facts_.runtime_version)},
          {"cuda.sensors", sensors_.missing().empty() ? "nvml" : "none: " + sensors_.missing()}};
}

DeviceMemory CudaDevice::memory() const {
  require_device();
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  cuda_check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
  const std::int64_t own = kDeviceReserve + (flush_.bytes() == 0 ? flush_bytes(facts_) : 0);
  return {.total = static_cast<std::int64_t>(total_bytes),
          .available = std::max<std::int64_t>(static_cast<std::int64_t>(free_bytes) - own, 0)};
}

MachineRates CudaDevice::measure_rates() {
  MachineRates rates;
  const cudaStream_t stream = queue_.stream();
  const std::int64_t bytes =
      std::min(kStreamBytes, memory().available / kFreeMemoryShare) / kMib * kMib;
  if (bytes == 0) fail(ErrorCode::kOutOfMemory, "cuda: no memory left to stream through");
  const DeviceBuffer buffer(bytes, "memory to stream through");
  const DeviceBuffer sums(2 * std::int64_t{sizeof(unsigned long long)}, "sums");
  unsigned long long* const expected = sums.as<unsigned long long>();
  unsigned long long* const got = expected + 1;
  const auto clear = [&](unsigned long long* sum) {
    cuda_check(cudaMemsetAsync(sum, 0, sizeof *sum, stream), "clearing a sum");
  };
  clear(expected);
  enqueue_stream_fill(buffer.as<void*>(), bytes, expected, stream);
  const Event start = make_event();
  const Event stop = make_event();
  double best = 0.0;
  for (const StreamRead& how : kStreamReads) {
    for (int pass = 0; pass < kStreamPasses; ++pass) {
      clear(got);
      cuda_check(cudaEventRecord(start.get(), stream), "starting the device's clock");
      enqueue_stream_read(how, buffer.as<void*>(), bytes, got, facts_.multiprocessors, stream);
      cuda_check(cudaEventRecord(stop.get(), stream), "stopping the device's clock");
      wait(stop.get(), "streaming through memory");
      const double rate = static_cast<double>(bytes) / seconds_between(start.get(), stop.get());
      if (rate <= best) continue;
      best = rate;
      rates.read_kind =
          fmt::format("16-byte loads, {} x {} threads an SM, {} in flight each",
                      how.blocks_per_multiprocessor, how.threads, how.loads_in_flight);
    }
    unsigned long long values[2] = {};
    copy_to_host(values, expected, sizeof values, stream);
    if (values[0] != values[1]) {
      fail(ErrorCode::kInternal,
           "cuda: streaming read a sum of {:#x}, not {:#x}; suspect the memory", values[1],
           values[0]);
    }
  }
  rates.read_bytes_per_s = best;
  rates.buffer_bytes = bytes;
  // wgmma is Hopper's alone.
  const MmaRates mma =
      facts_.major == 9 ? measure_mma_rates(stream, facts_.multiprocessors) : MmaRates{};
  rates.bf16_flops_per_s = mma.bf16_flops_per_s;
  rates.fp8_flops_per_s = mma.fp8_flops_per_s;
  rates.flops_per_s = std::max(mma.bf16_flops_per_s, mma.fp8_flops_per_s);
  if (rates.flops_per_s > 0.0) {
    rates.flops_kind = mma.fp8_flops_per_s > mma.bf16_flops_per_s ? "wgmma fp8" : "wgmma bf16";
  }
  return rates;
}

void CudaDevice::fetch(void* to, const void* from, std::int64_t bytes) const {
  require_device();
  made_current(facts_);
  cuda_check(cudaMemcpy(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault),
             "reading a caller's array");
}

bool CudaDevice::is_capturing(void* stream) const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda_check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "asking a stream");
  return status != cudaStreamCaptureStatusNone;
}

void CudaDevice::flush_cache() {
  if (flush_.bytes() == 0)
    flush_ = DeviceBuffer(flush_bytes(facts_), "memory to flush the cache with");
  if (flush_sum_.bytes() == 0) flush_sum_ = DeviceBuffer(sizeof(unsigned long long), "a sum");
  enqueue_overwrite(flush_.as<void*>(), flush_.bytes(), queue_.stream());
  enqueue_stream_read(kStreamReads[0], flush_.as<void*>(), flush_.bytes(),
                      flush_sum_.as<unsigned long long>(), facts_.multiprocessors, queue_.stream());
}

CudaDevice* DeviceOnDemand::get() const {
  if (asked_) return opened_.get();
  asked_ = true;
  DeviceChoice choice = choose_();
  unusable_ = choice.unusable;
  if (!unusable_.empty()) return nullptr;
  try {
    opened_ = std::make_unique<CudaDevice>(std::move(choice.facts));
  } catch (const Error& error) {
    unusable_ = error.what();
  }
  return opened_.get();
}

}  // namespace moebench::cuda
