#include "moebench/backend/cuda/sensors.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "moebench/core/error.h"

namespace moebench::cuda {
namespace {

/// NVML's own names for what is used of it (nvml.h is not part of every toolkit).
using NvmlDevice = void*;
constexpr int kNvmlSuccess = 0;
constexpr unsigned kNvmlClockSm = 1;
constexpr unsigned kNvmlClockMemory = 2;
constexpr unsigned kNvmlTemperatureGpu = 0;

struct Reason {
  unsigned long long bit;
  const char* name;
};
// nvmlClocksEventReasons. Left out: 0x1 (idle), 0x2 (application clocks were set).
constexpr std::array<Reason, 7> kThrottleReasons = {{
    {0x4, "sw power cap"},
    {0x8, "hw slowdown"},
    {0x10, "sync boost"},
    {0x20, "sw thermal slowdown"},
    {0x40, "hw thermal slowdown"},
    {0x80, "hw power brake"},
    {0x100, "display clocks"},
}};

/// Power and clocks are themselves updated every 20 to 100 ms.
constexpr auto kInterval = std::chrono::milliseconds(25);

double median_of(std::vector<unsigned> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return static_cast<double>(*middle);
}

class Watch final : public SensorWatch {
 public:
  explicit Watch(const Sensors& sensors) : thread_([this, &sensors] { sample(sensors); }) {}
  ~Watch() override { finish(); }

  [[nodiscard]] SensorReport stop() override {
    finish();
    return summarize_sensors(readings_);
  }

 private:
  void sample(const Sensors& sensors) {
    std::unique_lock lock(mutex_);
    do {
      lock.unlock();
      const SensorReading reading = sensors.read();
      lock.lock();
      readings_.push_back(reading);
    } while (!wake_.wait_for(lock, kInterval, [this] { return stopping_; }));
  }
  void finish() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::vector<SensorReading> readings_;
  std::thread thread_;  // last: it uses what stands before
};

}  // namespace

struct Sensors::Library {
  void* handle = nullptr;
  NvmlDevice device = nullptr;
  bool initialised = false;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_bus_id)(const char*, NvmlDevice*) = nullptr;
  int (*driver_version)(char*, unsigned) = nullptr;
  int (*clock)(NvmlDevice, unsigned, unsigned*) = nullptr;
  int (*temperature)(NvmlDevice, unsigned, unsigned*) = nullptr;
  int (*power)(NvmlDevice, unsigned*) = nullptr;
  int (*power_limit)(NvmlDevice, unsigned*) = nullptr;
  int (*reasons)(NvmlDevice, unsigned long long*) = nullptr;

  template <typename Function>
  void look_up(Function& function, const char* name) const {
    function = reinterpret_cast<Function>(dlsym(handle, name));
  }
  ~Library() {
    if (initialised && shutdown != nullptr) shutdown();
    if (handle != nullptr) dlclose(handle);
  }
};

Sensors::Sensors(const std::string& library, const std::string& pci_bus_id)
    : library_(std::make_unique<Library>()) {
  Library& nvml = *library_;
  nvml.handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (nvml.handle == nullptr) {
    missing_ = fmt::format("no {}", library);
    return;
  }
  nvml.look_up(nvml.init, "nvmlInit_v2");
  nvml.look_up(nvml.shutdown, "nvmlShutdown");
  nvml.look_up(nvml.by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2");
  nvml.look_up(nvml.driver_version, "nvmlSystemGetDriverVersion");
  nvml.look_up(nvml.clock, "nvmlDeviceGetClockInfo");
  nvml.look_up(nvml.temperature, "nvmlDeviceGetTemperature");
  nvml.look_up(nvml.power, "nvmlDeviceGetPowerUsage");
  nvml.look_up(nvml.power_limit, "nvmlDeviceGetEnforcedPowerLimit");
  nvml.look_up(nvml.reasons, "nvmlDeviceGetCurrentClocksEventReasons");
  if (nvml.reasons == nullptr) {  // before driver 535
    nvml.look_up(nvml.reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
  }
  if (nvml.init == nullptr || nvml.by_bus_id == nullptr || nvml.clock == nullptr) {
    missing_ = fmt::format("{} lacks functions", library);
    return;
  }
  if (const int status = nvml.init(); status != kNvmlSuccess) {
    missing_ = fmt::format("NVML error {} at its start", status);
    return;
  }
  nvml.initialised = true;
  if (const int status = nvml.by_bus_id(pci_bus_id.c_str(), &nvml.device); status != kNvmlSuccess) {
    missing_ = fmt::format("NVML error {} for the device", status);
    return;
  }
  std::array<char, 96> version{};
  if (nvml.driver_version != nullptr &&
      nvml.driver_version(version.data(), static_cast<unsigned>(version.size() - 1)) ==
          kNvmlSuccess) {
    driver_ = printable(version.data());
  }
  unsigned limit_mw = 0;
  if (nvml.power_limit != nullptr && nvml.power_limit(nvml.device, &limit_mw) == kNvmlSuccess) {
    power_limit_w_ = static_cast<double>(limit_mw) * 1e-3;
  }
}

Sensors::~Sensors() = default;

SensorReading Sensors::read() const {
  SensorReading reading;
  if (!missing_.empty()) return reading;
  const Library& nvml = *library_;
  const auto keep = [](int status, auto& value) {
    if (status != kNvmlSuccess) value = 0;
  };
  keep(nvml.clock(nvml.device, kNvmlClockSm, &reading.sm_clock_mhz), reading.sm_clock_mhz);
  keep(nvml.clock(nvml.device, kNvmlClockMemory, &reading.memory_clock_mhz),
       reading.memory_clock_mhz);
  if (nvml.temperature != nullptr) {
    keep(nvml.temperature(nvml.device, kNvmlTemperatureGpu, &reading.temperature_c),
         reading.temperature_c);
  }
  if (nvml.power != nullptr) keep(nvml.power(nvml.device, &reading.power_mw), reading.power_mw);
  if (nvml.reasons != nullptr) {
    keep(nvml.reasons(nvml.device, &reading.throttle_reasons), reading.throttle_reasons);
  }
  return reading;
}

std::unique_ptr<SensorWatch> Sensors::watch() const {
  if (!missing_.empty()) return nullptr;
  return std::make_unique<Watch>(*this);
}

std::string throttle_text(unsigned long long bits) {
  std::string text;
  for (const Reason& reason : kThrottleReasons) {
    if ((bits & reason.bit) == 0) continue;
    if (!text.empty()) text += ", ";
    text += reason.name;
  }
  return text;
}

SensorReport summarize_sensors(std::span<const SensorReading> readings) {
  SensorReport report;
  report.readings = std::ssize(readings);
  if (readings.empty()) return report;
  std::vector<unsigned> sm_clocks;
  std::vector<unsigned> memory_clocks;
  for (const SensorReading& reading : readings) {
    sm_clocks.push_back(reading.sm_clock_mhz);
    memory_clocks.push_back(reading.memory_clock_mhz);
    report.temperature_c =
        std::max(report.temperature_c, static_cast<double>(reading.temperature_c));
    report.power_w = std::max(report.power_w, static_cast<double>(reading.power_mw) * 1e-3);
  }
  report.sm_clock_low_mhz =
      static_cast<double>(*std::min_element(sm_clocks.begin(), sm_clocks.end()));
  report.sm_clock_mhz = median_of(std::move(sm_clocks));
  report.memory_clock_mhz = median_of(std::move(memory_clocks));
  for (const Reason& reason : kThrottleReasons) {
    const auto held = std::count_if(readings.begin(), readings.end(), [&](const SensorReading& r) {
      return (r.throttle_reasons & reason.bit) != 0;
    });
    if (held == 0) continue;
    if (!report.throttled.empty()) report.throttled += ", ";
    report.throttled += fmt::format("{} in {} of {} readings", reason.name, held, readings.size());
  }
  return report;
}

}  // namespace moebench::cuda
