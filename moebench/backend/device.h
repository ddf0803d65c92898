// What kernels run on where that is not the host's CPU and memory: its memory, its rates, its
// clock, its sensors, and whether it still works. A backend for the CPU has no device.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moebench/backend/machine_rates.h"

namespace moebench {

struct DeviceMemory {
  std::int64_t total = 0;
  std::int64_t available = 0;  ///< what layers may still take
};

/// What a device's sensors said while a case was measured.
struct SensorReport {
  std::int64_t readings = 0;
  double sm_clock_mhz = 0.0;  ///< median
  double sm_clock_low_mhz = 0.0;
  double memory_clock_mhz = 0.0;  ///< median
  double temperature_c = 0.0;     ///< highest
  double power_w = 0.0;           ///< highest
  std::string throttled;          ///< reasons that held in any reading: "sw power cap"; else empty
};

/// Reads the sensors in the background until it is stopped or destroyed.
class SensorWatch {
 public:
  virtual ~SensorWatch() = default;
  [[nodiscard]] virtual SensorReport stop() = 0;
};

/// The order in which a device is given work by everything that is prepared on it; has a clock of
/// its own.
class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;
  /// Work that is enqueued from here to stop_timing() is timed, from the start of its first to the
  /// end of its last part. Waiting for the host to enqueue the first part is not.
  virtual void start_timing() = 0;
  /// Waits until the device has finished; seconds by its clock.
  [[nodiscard]] virtual double stop_timing() = 0;
  /// The least difference that two of its readings can show.
  [[nodiscard]] virtual double resolution_s() const = 0;
};

/// One call's arrays in the device's memory: tokens and y [tokens, hidden] in 16 bits, 16-byte
/// aligned; topk_ids and topk_weights [tokens, topk].
struct DeviceArrays {
  const std::uint16_t* tokens = nullptr;
  const std::int32_t* topk_ids = nullptr;
  const float* topk_weights = nullptr;
  std::uint16_t* y = nullptr;
};

/// A case for a program that has its arrays and its stream on the device.
class ResidentMoe {
 public:
  virtual ~ResidentMoe() = default;
  /// Enqueues one call. Neither waits nor allocates; the stream may be one that is being captured.
  /// Calls on one object must be in order: they share scratch memory.
  virtual void enqueue(const DeviceArrays& arrays, void* stream) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual std::string name() const = 0;  ///< its backend's: "cuda"
  /// "cuda.name" -> "NVIDIA H100 80GB HBM3" and the like, for the fingerprint.
  [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> facts() const = 0;
  [[nodiscard]] virtual DeviceMemory memory() const = 0;
  /// Streams through a part of the available memory; takes about a second.
  [[nodiscard]] virtual MachineRates measure_rates() = 0;
  /// Empty; or why nothing works on it any more in this process. Its remaining cases are errors
  /// with this cause.
  [[nodiscard]] virtual std::string lost() const = 0;
  /// Null where there are no sensors to read; then no_sensors() says why.
  [[nodiscard]] virtual std::unique_ptr<SensorWatch> watch() = 0;
  [[nodiscard]] virtual std::string no_sensors() const = 0;
  /// Copies from any memory, the host's or the device's, to the host's. From any thread.
  virtual void fetch(void* to, const void* from, std::int64_t bytes) const = 0;
  /// Whether the stream records a graph at the moment, so that nothing may be allocated.
  [[nodiscard]] virtual bool is_capturing(void* stream) const = 0;
};

}  // namespace moebench
