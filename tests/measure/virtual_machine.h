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
  [[nodiscard]] std::int64_t calls() const { return calls_; }

 private:
  VirtualMachine& machine_;
  std::string name_;
  std::function<double(std::int64_t)> call_s_;
  std::int64_t calls_ = 0;
};

}  // namespace moebench::testing
