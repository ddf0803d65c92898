// The progress line of a run: how much is done, what is being done, how long the rest should take.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "moebench/cli/console.h"

namespace moebench::cli {

/// Work is counted in bytes of weights that a step reads or makes, which is what a step's time is
/// roughly proportional to.
class Progress {
 public:
  Progress(Console& console, double total_work);

  /// Names the step that now runs and its work; `fraction` of it is reported with update().
  void begin(std::string step, double work);
  void update(double fraction);
  void end();

 private:
  void show();

  Console& console_;
  double total_;
  double done_ = 0.0;
  double step_work_ = 0.0;
  double step_fraction_ = 0.0;
  std::string step_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point shown_;
};

/// "[#####-----]  52 %  ETA 1:05  measuring ..." for 0 <= done <= 1; no ETA before anything is
/// done.
[[nodiscard]] std::string progress_line(double done, double elapsed_s, std::string_view step);

}  // namespace moebench::cli
