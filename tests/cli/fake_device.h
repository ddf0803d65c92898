// A device that is the CPU in disguise: memory, rates, clock and sensors are what a test says; it
// can break.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/moe/verify.h"
#include "tests/cli/tampered_kernel.h"

namespace moebench::cli {

/// A clock that moves only when calls are enqueued.
class FakeQueue : public DeviceQueue {
 public:
  void start_timing() override { start_s_ = now_s; }
  [[nodiscard]] double stop_timing() override { return now_s - start_s_; }
  [[nodiscard]] double resolution_s() const override { return 1e-9; }

  double now_s = 0.0;
  double call_s = 0.25e-3;

 private:
  double start_s_ = 0.0;
};

class FakeDevice : public Device {
 public:
  FakeDevice() { rates.read_bytes_per_s = 4e12; }
  [[nodiscard]] std::string name() const override { return "fake"; }
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> facts() const override {
    return {{"fake.device", "a CPU in disguise"}};
  }
  [[nodiscard]] DeviceMemory memory() const override { return room; }
  [[nodiscard]] MachineRates measure_rates() override {
    ++rates_measured;
    return rates;
  }
  [[nodiscard]] std::string lost() const override { return cause; }
  [[nodiscard]] std::unique_ptr<SensorWatch> watch() override {
    struct Watch : SensorWatch {
      explicit Watch(SensorReport says) : report(std::move(says)) {}
      SensorReport stop() override { return report; }
      SensorReport report;
    };
    return sensors ? std::make_unique<Watch>(*sensors) : nullptr;
  }
  [[nodiscard]] std::string no_sensors() const override { return sensors ? "" : "no library"; }

  void fetch(void*, const void*, std::int64_t) const override {}
  [[nodiscard]] bool is_capturing(void*) const override { return false; }

  /// As a sticky error or the watchdog does it.
  [[noreturn]] void lose(const std::string& why) {
    cause = why;
    fail(ErrorCode::kInternal, "fake: {}", why);
  }

  DeviceMemory room{.total = std::int64_t{1} << 40, .available = std::int64_t{1} << 40};
  MachineRates rates;
  std::string cause;
  std::optional<SensorReport> sensors;
  FakeQueue queue;
  int rates_measured = 0;
};

/// What a test may do to the answer that lies on the device; `call` counts from 1 per prepared
/// case, run() included.
struct DeviceTampering {
  std::function<void(std::span<std::uint16_t> y, int call, bool graph)> after_call =
      [](std::span<std::uint16_t>, int, bool) {};
  std::string guard_damage;
};

class FakeDeviceMoe : public PreparedMoe {
 public:
  FakeDeviceMoe(FakeDevice& device, std::unique_ptr<PreparedMoe> inner, std::size_t elements,
                bool graph, const DeviceTampering& tampering)
      : device_(device),
        inner_(std::move(inner)),
        y_(elements),
        graph_(graph),
        tampering_(tampering) {}

  void run(std::span<std::uint16_t> y) override {
    call();
    std::copy(y_.begin(), y_.end(), y.begin());
    std::fill(y_.begin(), y_.end(), kPoison);
    enqueued_ = 0;
  }
  [[nodiscard]] std::optional<DynamicScaleClaim> dynamic_scale() const override {
    return inner_->dynamic_scale();
  }
  PhaseTimes run_phases(std::span<std::uint16_t> y) override { return inner_->run_phases(y); }
  void flush_caches() override {}
  [[nodiscard]] DeviceQueue* queue() override { return &device_.queue; }
  void enqueue() override {
    call();
    ++enqueued_;
  }
  [[nodiscard]] bool fetch(std::span<std::uint16_t> y) override {
    if (enqueued_ == 0) return false;
    std::copy(y_.begin(), y_.end(), y.begin());
    return true;
  }
  [[nodiscard]] std::string guard_damage() const override { return tampering_.guard_damage; }
  [[nodiscard]] std::int64_t scratch_bytes() const override { return 0; }

 private:
  void call() {
    if (!device_.cause.empty()) fail(ErrorCode::kUnavailable, "called a lost device");
    inner_->run(y_);
    device_.queue.now_s += device_.queue.call_s;
    tampering_.after_call(y_, ++calls_, graph_);
  }

  FakeDevice& device_;
  std::unique_ptr<PreparedMoe> inner_;
  std::vector<std::uint16_t> y_;
  bool graph_;
  const DeviceTampering& tampering_;
  int calls_ = 0;
  int enqueued_ = 0;
};

/// The CPU's kernel of `scheme`, run on `device`, directly or replayed from a "graph".
class FakeDeviceKernel : public Kernel {
 public:
  FakeDeviceKernel(Scheme scheme, std::string name, FakeDevice& device)
      : inner_(tampered_cpu_kernel(scheme, name)), device_(device) {}

  [[nodiscard]] std::string name() const override { return inner_->name(); }
  [[nodiscard]] std::string detail() const override { return "in disguise"; }
  [[nodiscard]] Scheme scheme() const override { return inner_->scheme(); }
  [[nodiscard]] bool has_graphs() const override { return true; }
  [[nodiscard]] Device* device() const override { return &device_; }
  [[nodiscard]] Support supports(const MoeShape& shape, const SchemeConfig& scheme) const override {
    return inner_->supports(shape, scheme);
  }
  [[nodiscard]] std::int64_t packed_bytes(const MoeShape& shape,
                                          const SchemeConfig& scheme) const override {
    return inner_->packed_bytes(shape, scheme);
  }
  [[nodiscard]] std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& scheme,
                                           std::int64_t tokens) const override {
    return inner_->scratch_bytes(shape, scheme, tokens);
  }
  [[nodiscard]] std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights,
      const std::function<void(std::int64_t, std::int64_t)>& progress) const override {
    ++packs;
    return inner_->pack(weights, progress);
  }
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(const MoeProblem& problem,
                                                     std::shared_ptr<const PackedWeights> weights,
                                                     const PrepareOptions& options) const override {
    ++prepared;
    return std::make_unique<FakeDeviceMoe>(
        device_, inner_->prepare(problem, std::move(weights), {}),
        static_cast<std::size_t>(problem.tokens * problem.shape.hidden), options.graph, tampering);
  }

  DeviceTampering tampering;
  mutable int packs = 0;
  mutable int prepared = 0;

 private:
  std::unique_ptr<TamperedKernel> inner_;
  FakeDevice& device_;
};

}  // namespace moebench::cli
