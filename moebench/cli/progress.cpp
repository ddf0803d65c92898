#include "moebench/cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace moebench::cli {
namespace {

constexpr std::size_t kBarCells = 24;
constexpr auto kShortestRedraw = std::chrono::milliseconds(100);
/// Below this share an ETA would be a guess.
constexpr double kLeastShareForEta = 0.02;

std::string clock_text(double seconds) {
  constexpr std::int64_t kMinute = 60;
  constexpr std::int64_t kHour = 3600;
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole >= kHour) {
    return fmt::format("{}:{:02}:{:02}", whole / kHour, whole % kHour / kMinute, whole % kMinute);
  }
  return fmt::format("{}:{:02}", whole / kMinute, whole % kMinute);
}

}  // namespace

Progress::Progress(Console& console, double total_work)
    : console_(console),
      total_(total_work),
      start_(std::chrono::steady_clock::now()),
      shown_(start_) {}

void Progress::begin(std::string step, double work) {
  step_ = std::move(step);
  step_work_ = work;
  step_fraction_ = 0.0;
  show();
}

void Progress::update(double fraction) {
  step_fraction_ = std::clamp(fraction, step_fraction_, 1.0);
  if (std::chrono::steady_clock::now() - shown_ >= kShortestRedraw) show();
}

void Progress::end() {
  done_ += step_work_;
  step_work_ = step_fraction_ = 0.0;
}

void Progress::show() {
  if (!console_.shows_status()) return;
  shown_ = std::chrono::steady_clock::now();
  const double done = total_ > 0.0 ? (done_ + step_fraction_ * step_work_) / total_ : 0.0;
  console_.status(progress_line(std::clamp(done, 0.0, 1.0),
                                std::chrono::duration<double>(shown_ - start_).count(), step_));
}

std::string progress_line(double done, double elapsed_s, std::string_view step) {
  const auto filled = static_cast<std::size_t>(done * kBarCells);
  const std::string eta = done >= kLeastShareForEta
                              ? fmt::format("ETA {}  ", clock_text(elapsed_s * (1.0 - done) / done))
                              : std::string();
  return fmt::format("[{}{}] {:3.0f} %  {}{}", std::string(filled, '#'),
                     std::string(kBarCells - filled, '-'), done * 100.0, eta, step);
}

}  // namespace moebench::cli
