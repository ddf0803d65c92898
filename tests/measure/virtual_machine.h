// Prepared cases on a clock that moves only when they run: measure() is tested to the call, in no
// real time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "moebench/measure/measure.h"

namespace moebench::testing {

/// The clock and the record of what ran: "A0" is a call of kernel A's variant 0, "flush" a cache
/// flush.
struct VirtualMachine {
  double now_s = 0.0;
  double tick_s = 0.0;  ///< readings are rounded down to it; 0 = exact
  std::vector<std::string> events;
  std::function<void()> on_event;

  void record(const std::string& event) {
    events.push_back(event);
    if (on_event) on_event();
  }
  [[nodiscard]] Clock clock() {
    return {[this] {
              return tick_s > 0.0
                         ? tick_s * static_cast<double>(static_cast<std::int64_t>(now_s / tick_s))
                         : now_s;
            },
            tick_s > 0.0 ? tick_s : 1e-9};
  }
};

/// A device's clock: the machine's, without what passes between its calls.
class FakeQueue : public DeviceQueue {
 public:
  explicit FakeQueue(VirtualMachine& machine) : machine_(machine) {}
  void start_timing() override {
    machine_.record("start");
    start_s_ = busy_s_;
  }
  [[nodiscard]] double stop_timing() override {
    machine_.record("stop");
    return busy_s_ - start_s_;
  }
  [[nodiscard]] double resolution_s() const override { return 1e-6; }
  void work(double seconds) { busy_s_ += seconds; }

 private:
  VirtualMachine& machine_;
  double busy_s_ = 0.0;
  double start_s_ = 0.0;
};

class FakeMoe : public PreparedMoe {
 public:
  /// `call_s(n)`: seconds of the n-th call, from 0.
  FakeMoe(VirtualMachine& machine, std::string name, std::function<double(std::int64_t)> call_s)
      : machine_(machine), name_(std::move(name)), call_s_(std::move(call_s)) {}

  void run(std::span<std::uint16_t> y) override {
    if (!y.empty()) y[0] = 1;
    machine_.now_s += call_s_(calls_++);
    machine_.record(name_);
  }
  PhaseTimes run_phases(std::span<std::uint16_t>) override { return {}; }
  void flush_caches() override {
    constexpr double kFlush = 0.03;
    machine_.now_s += kFlush;
    machine_.record("flush");
  }
  [[nodiscard]] std::int64_t scratch_bytes() const override { return 0; }
  [[nodiscard]] DeviceQueue* queue() override { return on_queue; }
  /// "A+": enqueued; the device needs as long as call_s says, the host ten times as long.
  void enqueue() override {
    constexpr double kHostFactor = 10.0;
    const double seconds = call_s_(calls_++);
    on_queue->work(seconds);
    machine_.now_s += kHostFactor * seconds;
    machine_.record(name_ + "+");
  }
  FakeQueue* on_queue = nullptr;
  [[nodiscard]] std::int64_t calls() const { return calls_; }

 private:
  VirtualMachine& machine_;
  std::string name_;
  std::function<double(std::int64_t)> call_s_;
  std::int64_t calls_ = 0;
};

}  // namespace moebench::testing
