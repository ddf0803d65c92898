// Clocks, temperature, power and throttling of the device, read through NVML, which is looked up at
// run time: it comes with the driver, and may be missing in a container. Nothing here needs CUDA.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "moebench/backend/device.h"

namespace moebench::cuda {

/// One look at the sensors; a figure that the device does not give is 0.
struct SensorReading {
  unsigned sm_clock_mhz = 0;
  unsigned memory_clock_mhz = 0;
  unsigned temperature_c = 0;
  unsigned power_mw = 0;
  unsigned long long throttle_reasons = 0;  ///< nvmlClocksEventReasons, a bit each
};

/// The reasons in `bits` that slow a device down, by name: "sw power cap, hw slowdown"; idleness
/// and clocks that somebody set are none.
[[nodiscard]] std::string throttle_text(unsigned long long bits);
/// "sw power cap in 3 of 40 readings" and the figures.
[[nodiscard]] SensorReport summarize_sensors(std::span<const SensorReading> readings);

class Sensors {
 public:
  /// `library`: what to open, "libnvidia-ml.so.1" outside of tests. Never throws: see missing().
  Sensors(const std::string& library, const std::string& pci_bus_id);
  ~Sensors();
  Sensors(const Sensors&) = delete;
  Sensors& operator=(const Sensors&) = delete;

  /// Empty, or why nothing can be read.
  [[nodiscard]] const std::string& missing() const { return missing_; }
  [[nodiscard]] const std::string& driver() const {
    return driver_;
  }  ///< "580.65.06"; may be empty
  [[nodiscard]] double power_limit_w() const { return power_limit_w_; }
  [[nodiscard]] SensorReading read() const;
  /// Reads in a thread of its own until stopped; null where nothing can be read. The sensors must
  /// outlive it.
  [[nodiscard]] std::unique_ptr<SensorWatch> watch() const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  std::string missing_;
  std::string driver_;
  double power_limit_w_ = 0.0;
};

}  // namespace moebench::cuda
