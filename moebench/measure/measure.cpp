// The sampling loop: warm up, choose the calls per sample, take interleaved rounds, summarise.
#include "moebench/measure/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "moebench/core/checked.h"
#include "moebench/core/error.h"

namespace moebench {
namespace {

constexpr double kProgressInterval = 0.05;  // seconds
/// More calls than this in one sample are no measurement but an endless loop on a call that takes
/// no time.
constexpr std::int64_t kMostCallsPerSample = 10'000'000;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void check_stop(const StopFlag& stop) {
  if (stop.load(std::memory_order_relaxed)) throw Interrupted{};
}

void require_contestants(const std::vector<Contestant>& contestants, const MeasureSpec& spec) {
  if (spec.runs_per_call < 0)
    fail(ErrorCode::kInternal, "measure: {} calls per sample", spec.runs_per_call);
  for (const Contestant& c : contestants) {
    if (c.variants.empty() ||
        std::find(c.variants.begin(), c.variants.end(), nullptr) != c.variants.end()) {
      fail(ErrorCode::kInternal, "measure: kernel {} has no prepared case", c.kernel);
    }
  }
}

/// One contestant's way through the rounds.
class Series {
 public:
  Series(Contestant& contestant, const MeasureSpec& spec, const StopFlag& stop, const Clock& clock)
      : contestant_(contestant),
        spec_(spec),
        stop_(stop),
        clock_(clock),
        queue_(contestant.variants.front()->queue()),
        resolution_s_(queue_ != nullptr ? queue_->resolution_s() : clock.resolution_s) {}

  /// Calls until warmup_s have passed and every variant has run, but no further variant once a
  /// stopping rule's time is over.
  void warm_up() {
    const double most_s = std::max(spec_.warmup_s, spec_.stop.max_seconds);
    const double start = clock_.now_s();
    std::size_t calls = 0;
    double elapsed = 0.0;
    do {
      call_s_ = timed_calls(1);
      ++calls;
      elapsed = clock_.now_s() - start;
    } while (elapsed < spec_.warmup_s || (calls < variants() && elapsed < most_s));
  }

  /// Doubles or more the calls until a sample is long enough.
  void choose_calls_per_sample() {
    calls_per_sample_ = std::max<std::int64_t>(spec_.runs_per_call, 1);
    if (spec_.cache == CacheMode::kCold) calls_per_sample_ = 1;
    if (spec_.cache == CacheMode::kCold || spec_.runs_per_call > 0) {
      next_variant_ = 0;
      return;
    }
    constexpr double kReserve = 1.2;       // a later, faster call shall not fall below the goal
    constexpr double kLargestStep = 10.0;  // a first estimate may be one reading of a coarse clock
    const double goal = shortest_sample();
    double sample_s = call_s_;
    while (sample_s < goal && calls_per_sample_ < kMostCallsPerSample) {
      const double wanted = sample_s > 0.0 ? goal / sample_s * kReserve : kLargestStep;
      const double factor = std::clamp(wanted, 1.0, kLargestStep);
      const auto grown =
          static_cast<std::int64_t>(std::ceil(static_cast<double>(calls_per_sample_) * factor));
      calls_per_sample_ = std::clamp(grown, calls_per_sample_ + 1, kMostCallsPerSample);
      sample_s = timed_calls(calls_per_sample_);
    }
    call_s_ = sample_s / static_cast<double>(calls_per_sample_);
    // Whole cycles: each sample then holds every variant equally often.
    if (calls_per_sample_ > 1)
      calls_per_sample_ = round_up(calls_per_sample_, static_cast<std::int64_t>(variants()));
    next_variant_ = 0;
  }

  void take_sample(bool others_ran) {
    const double start = clock_.now_s();
    if (others_ran && spec_.cache == CacheMode::kWarm && call_s_ < kRewarmBelow) {
      check_stop(stop_);
      call(*contestant_.variants.front());
    }
    samples_s_.push_back(timed_calls(calls_per_sample_) / static_cast<double>(calls_per_sample_));
    elapsed_s_ += clock_.now_s() - start;
  }

  [[nodiscard]] bool done() const { return enough(spec_.stop, samples_s_, elapsed_s_); }
  [[nodiscard]] double completion() const {
    return moebench::completion(spec_.stop, samples_s_, elapsed_s_);
  }
  [[nodiscard]] Measurement summary() && {
    return summarize(std::move(samples_s_), calls_per_sample_, spec_.stop, resolution_s_,
                     spec_.seed);
  }

 private:
  [[nodiscard]] std::size_t variants() const {
    return spec_.cache == CacheMode::kRotate ? contestant_.variants.size() : 1;
  }

  [[nodiscard]] double shortest_sample() const {
    double shortest = std::max(kShortestSample, kClockSteps * resolution_s_);
    if (spec_.stop.kind == StopRule::Kind::kTime) {
      shortest = std::max(shortest, spec_.stop.seconds / kMostTimedSamples);
    }
    return std::min(shortest, kLongestChosenSample);
  }

  void call(PreparedMoe& prepared) {
    if (queue_ != nullptr) {
      prepared.enqueue();
    } else {
      prepared.run(contestant_.y);
    }
  }

  /// Seconds of `calls` calls back to back, by the device's clock where there is one; a cold call
  /// is preceded by a flush that is not timed.
  double timed_calls(std::int64_t calls) {
    if (spec_.cache == CacheMode::kCold) {
      check_stop(stop_);
      contestant_.variants.front()->flush_caches();
    }
    const double start = clock_.now_s();
    if (queue_ != nullptr) queue_->start_timing();
    for (std::int64_t i = 0; i < calls; ++i) {
      check_stop(stop_);
      call(*contestant_.variants[next_variant_]);
      if (++next_variant_ == variants()) next_variant_ = 0;
    }
    return queue_ != nullptr ? queue_->stop_timing() : clock_.now_s() - start;
  }

  Contestant& contestant_;
  const MeasureSpec& spec_;
  const StopFlag& stop_;
  const Clock& clock_;
  DeviceQueue* queue_;  // null: calls are timed by clock_
  double resolution_s_;
  std::size_t next_variant_ = 0;
  std::int64_t calls_per_sample_ = 1;
  double call_s_ = 0.0;     // estimate, from warm-up and calibration
  double elapsed_s_ = 0.0;  // sampling, flushes and untimed calls included
  std::vector<double> samples_s_;
};

/// Passes on a fraction that never falls, at most every kProgressInterval.
class ProgressReport {
 public:
  ProgressReport(const std::function<void(double)>& report, const Clock& clock)
      : report_(report), clock_(clock), last_s_(clock.now_s()) {}

  void update(const std::vector<Series>& all) {
    if (!report_ || clock_.now_s() - last_s_ < kProgressInterval) return;
    last_s_ = clock_.now_s();
    double sum = 0.0;
    for (const Series& series : all) sum += series.completion();
    fraction_ = std::max(fraction_, sum / static_cast<double>(all.size()));
    report_(fraction_);
  }
  void finish() const {
    if (report_) report_(1.0);
  }

 private:
  const std::function<void(double)>& report_;
  const Clock& clock_;
  double last_s_;
  double fraction_ = 0.0;
};

void sample_in_rounds(std::vector<Series>& all, ProgressReport& progress) {
  std::vector<bool> done(all.size(), false);
  std::size_t left = all.size();
  for (std::size_t round = 0; left > 0; ++round) {
    const bool others_run = left > 1;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t who = (round + i) % all.size();
      if (done[who]) continue;
      all[who].take_sample(others_run);
      if (all[who].done()) {
        done[who] = true;
        --left;
      }
      progress.update(all);
    }
  }
}

}  // namespace

CacheMode parse_cache_mode(std::string_view text) {
  for (const CacheMode mode : {CacheMode::kWarm, CacheMode::kCold, CacheMode::kRotate}) {
    if (text == name_of(mode)) return mode;
  }
  fail(ErrorCode::kBadInput, "--cache: unknown mode '{}'; use warm, cold or rotate",
       printable(text));
}

const char* name_of(CacheMode mode) {
  switch (mode) {
    case CacheMode::kWarm:
      return "warm";
    case CacheMode::kCold:
      return "cold";
    case CacheMode::kRotate:
      return "rotate";
  }
  fail(ErrorCode::kInternal, "cache mode {}", static_cast<int>(mode));
}

double clock_resolution_s() {
  constexpr int kDifferences = 1000;
  constexpr double kLongestLook = 0.05;  // seconds: five steps even of a clock that ticks at 100 Hz
  double least = std::numeric_limits<double>::infinity();
  const double start = now_s();
  double last = start;
  for (int seen = 0; seen < kDifferences && last - start < kLongestLook;) {
    const double now = now_s();
    if (now > last) {
      least = std::min(least, now - last);
      last = now;
      ++seen;
    }
  }
  return least;
}

const Clock& steady_clock() {
  static const Clock clock{now_s, clock_resolution_s()};
  return clock;
}

std::vector<Measurement> measure(std::vector<Contestant>& contestants, const MeasureSpec& spec,
                                 const StopFlag& stop,
                                 const std::function<void(double)>& progress) {
  return measure(contestants, spec, stop, progress, steady_clock());
}

std::vector<Measurement> measure(std::vector<Contestant>& contestants, const MeasureSpec& spec,
                                 const StopFlag& stop, const std::function<void(double)>& progress,
                                 const Clock& clock) {
  require_contestants(contestants, spec);
  std::vector<Series> all;
  all.reserve(contestants.size());
  for (Contestant& contestant : contestants) all.emplace_back(contestant, spec, stop, clock);
  for (Series& series : all) {
    series.warm_up();
    series.choose_calls_per_sample();
  }
  ProgressReport report(progress, clock);
  sample_in_rounds(all, report);
  std::vector<Measurement> results;
  for (Series& series : all) results.push_back(std::move(series).summary());
  report.finish();
  return results;
}

}  // namespace moebench
