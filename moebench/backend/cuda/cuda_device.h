// The device as the seam shows it: memory, rates, sensors, and the one stream that all prepared
// cases share.
#pragma once

#include <memory>
#include <string>

#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/sensors.h"
#include "moebench/backend/device.h"

namespace moebench::cuda {

/// A stream with two events around what is timed.
class StreamQueue final : public DeviceQueue {
 public:
  explicit StreamQueue(std::int64_t hold_clocks);
  [[nodiscard]] cudaStream_t stream() const { return stream_.get(); }

  void start_timing() override;
  [[nodiscard]] double stop_timing() override;
  [[nodiscard]] double resolution_s() const override;

  /// A call was enqueued: the watchdog allows for it.
  void count_call() { ++calls_; }
  /// Waits for everything.
  void wait_for_all(const char* what);

 private:
  std::int64_t hold_clocks_;
  Stream stream_;
  Event start_, stop_;
  std::int64_t calls_ = 0;
};

class CudaDevice final : public moebench::Device {
 public:
  /// Makes the context: some hundred milliseconds.
  explicit CudaDevice(DeviceFacts facts);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  [[nodiscard]] std::string name() const override { return "cuda"; }
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> facts() const override;
  [[nodiscard]] DeviceMemory memory() const override;
  [[nodiscard]] MachineRates measure_rates() override;
  [[nodiscard]] std::string lost() const override { return lost_cause(); }
  [[nodiscard]] std::unique_ptr<SensorWatch> watch() override { return sensors_.watch(); }
  [[nodiscard]] std::string no_sensors() const override { return sensors_.missing(); }

  void fetch(void* to, const void* from, std::int64_t bytes) const override;
  [[nodiscard]] bool is_capturing(void* stream) const override;

  [[nodiscard]] const DeviceFacts& hardware() const { return facts_; }
  [[nodiscard]] StreamQueue& queue() { return queue_; }
  /// Enqueues the overwriting of more than twice the L2 cache, and reading that again: written
  /// lines that had to go to memory during the next call would slow it down.
  void flush_cache();

 private:
  DeviceFacts facts_;
  Sensors sensors_;
  StreamQueue queue_;
  DeviceBuffer flush_, flush_sum_;
};

/// The device of a backend, opened when somebody first wants to know: the driver takes a while to
/// start, and a device that `choose` does not take is left alone.
class DeviceOnDemand {
 public:
  explicit DeviceOnDemand(DeviceChoice (*choose)()) : choose_(choose) {}

  /// Null where there is none; unusable() then says why.
  [[nodiscard]] CudaDevice* get() const;
  [[nodiscard]] const std::string& unusable() const {
    (void)get();
    return unusable_;
  }

 private:
  DeviceChoice (*choose_)();
  mutable bool asked_ = false;
  mutable std::string unusable_;
  mutable std::unique_ptr<CudaDevice> opened_;
};

}  // namespace moebench::cuda
