// LayerBench, second half: times of the columns that passed, and whether what was timed is still
// the verified answer.
#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "moebench/cli/layer_bench.h"
#include "moebench/cli/layer_bench_case.h"
#include "moebench/measure/cpu_wait.h"

namespace moebench::cli {
namespace {

/// --phases: runs whose median is taken, fewer where they take longer than kPhasesBudget in all.
constexpr int kPhaseRuns = 5;
constexpr double kPhasesBudget = 2.0;  // seconds

void add_noise(CaseResult& result, const std::string& reason) {
  result.noisy = true;
  if (!result.noise.empty()) result.noise += "; ";
  result.noise += reason;
}

void add_cpu_wait(CaseResult& result, std::optional<double> share) {
  if (!share || *share < kNoisyCpuWaitShare) return;
  add_noise(result, fmt::format("a thread waited {:.0f} % of the time for a CPU", *share * 100.0));
}

void add_sensors(CaseResult& result, const SensorReport& report) {
  if (report.readings == 0) return;
  result.sm_clock_mhz = report.sm_clock_mhz;
  result.sm_clock_low_mhz = report.sm_clock_low_mhz;
  result.memory_clock_mhz = report.memory_clock_mhz;
  result.temperature_c = report.temperature_c;
  result.power_w = report.power_w;
  result.throttled = report.throttled;
  if (!report.throttled.empty()) add_noise(result, "throttled: " + report.throttled);
}

/// A single sample shows no spread, which is not the same as having none.
void label_single_sample(CaseResult& result, const char* what) {
  result.noisy = true;
  result.noise = what;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

/// A device's results go by its rates at start, the host's by those around the row.
void LayerBench::set_floors(const std::vector<Candidate*>& candidates,
                            const RatesAround& around) const {
  for (Candidate* candidate : candidates) {
    const bool on_host = candidate->column->kernel->device() == nullptr;
    const RatesAround& readings = on_host ? around : RatesAround{};
    const RateReading ceilings =
        readings.ceilings(context_.rates(candidate->column->kernel->device()));
    CaseResult& result = candidate->result;
    result.floor_bytes_per_s = ceilings.read_bytes_per_s;
    result.floor_low_bytes_per_s = readings.lowest.read_bytes_per_s;
    result.peak_flops_per_s = ceilings.flops_per_s;
    result.peak_low_flops_per_s = readings.lowest.flops_per_s;
    result.floor_s = memory_floor_s(result.weight_bytes, ceilings.read_bytes_per_s);
    result.peak_s = ceilings.flops_per_s > 0.0 ? result.flops / ceilings.flops_per_s : 0.0;
  }
}

void LayerBench::read_rates(const std::vector<Candidate*>& candidates, RatesAround& around) const {
  const auto on_host = [](const Candidate* candidate) {
    return candidate->column->kernel->device() == nullptr;
  };
  if (context_.host_rates_now && std::any_of(candidates.begin(), candidates.end(), on_host)) {
    around.add(context_.host_rates_now());
  }
}

/// What the host did at least in the fastest sample. Weights that a cache may hold say nothing of
/// memory, and integers (NVFP4 by NVFP4) nothing of a peak in floating point.
RateReading LayerBench::shown_by(const Candidate& candidate) const {
  RateReading shown;
  const CaseResult& result = candidate.result;
  if (candidate.column->kernel->device() != nullptr || result.samples_s.empty()) return shown;
  const double fastest_s = *std::min_element(result.samples_s.begin(), result.samples_s.end());
  if (!(fastest_s > 0.0)) return shown;
  if (result.weight_bytes >= context_.rates(nullptr).buffer_bytes) {
    shown.read_bytes_per_s = static_cast<double>(result.weight_bytes) / fastest_s;
  }
  if (candidate.config.scheme != Scheme::kNvfp4) shown.flops_per_s = result.flops / fastest_s;
  return shown;
}

/// A device's kernel faster than reading its weights, of which no cache holds much: the read rate
/// was measured while something else used the memory.
bool LayerBench::beats_its_floor(const Candidate& candidate) const {
  Device* const device = candidate.column->kernel->device();
  const CaseResult& result = candidate.result;
  return device != nullptr && candidate.passed() && result.median_s > 0.0 &&
         result.weight_bytes >= context_.rates(device).buffer_bytes &&
         result.median_s < result.floor_s;
}

void LayerBench::measure_passed(std::vector<Candidate>& candidates) {
  std::vector<Candidate*> passed;
  for (Candidate& candidate : candidates) {
    if (candidate.passed()) passed.push_back(&candidate);
  }
  if (passed.empty()) return;
  if (context_.options.profile) {
    set_floors(passed, {});
    for (Candidate* candidate : passed) candidate->attempt([&] { profile(*candidate); });
    return;
  }
  const Candidate& first = *passed.front();
  context_.progress.begin(
      fmt::format("measuring {}, {} tokens", first.result.model, first.result.tokens),
      case_work(context_.options, layer_, first.result.tokens) *
          static_cast<double>(passed.size()));
  RatesAround around;
  read_rates(passed, around);
  try {
    measure_together(passed);
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception&) {
    // One of them broke the rounds: each alone shows which.
    for (Candidate* candidate : passed) {
      candidate->attempt([&] { measure_together({candidate}); });
    }
  }
  read_rates(passed, around);
  for (const Candidate* candidate : passed) around.add_shown(shown_by(*candidate));
  set_floors(passed, around);
  for (Candidate* candidate : passed) {
    if (!candidate->passed()) continue;
    candidate->attempt([&] { check_after_timing(*candidate); });
    if (candidate->passed() && context_.options.phases) {
      candidate->attempt([&] { time_phases(*candidate); });
    }
  }
  context_.progress.end();
  if (!context_.measure_rates_again) return;
  const auto beaten = [this](const Candidate* candidate) { return beats_its_floor(*candidate); };
  if (std::any_of(passed.begin(), passed.end(), beaten)) {
    context_.measure_rates_again();
    set_floors(passed, around);
  }
}

void LayerBench::measure_together(const std::vector<Candidate*>& candidates) {
  const RunOptions& options = context_.options;
  std::vector<Contestant> contestants;
  for (Candidate* candidate : candidates) {
    require_working(candidate->column->kernel->device());
    Contestant& contestant = contestants.emplace_back();
    contestant.kernel = candidate->column->name;
    for (const std::unique_ptr<PreparedMoe>& prepared : candidate->prepared) {
      contestant.variants.push_back(prepared.get());
    }
    contestant.y = candidate->output->y();
  }
  MeasureSpec spec;
  spec.stop = options.stop;
  spec.cache = options.cache;
  spec.runs_per_call = options.runs_per_call;
  spec.seed = options.seed;
  std::map<Device*, std::unique_ptr<SensorWatch>> watches;
  for (const Candidate* candidate : candidates) {
    Device* const device = candidate->column->kernel->device();
    if (device != nullptr && watches.count(device) == 0) watches[device] = device->watch();
  }
  const CpuWait cpu_wait;
  std::vector<Measurement> measurements =
      measure(contestants, spec, context_.stop,
              [this](double fraction) { context_.progress.update(fraction); });
  const std::optional<double> waited = cpu_wait.share();
  std::map<Device*, SensorReport> sensors;
  for (auto& [device, watch] : watches) {
    if (watch != nullptr) sensors[device] = watch->stop();
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    CaseResult& result = candidates[i]->result;
    Measurement& measurement = measurements[i];
    result.samples_s = std::move(measurement.samples_s);
    result.calls_per_sample = measurement.calls_per_sample;
    result.median_s = measurement.median_s;
    result.iqr_s = measurement.iqr_s;
    result.ci_low_s = measurement.ci.low;
    result.ci_high_s = measurement.ci.high;
    result.noisy = measurement.noisy;
    result.noise = std::move(measurement.noise);
    if (result.samples_s.size() == 1 && !result.noisy) label_single_sample(result, "one sample");
    Device* const device = candidates[i]->column->kernel->device();
    if (device == nullptr) add_cpu_wait(result, waited);
    if (sensors.count(device) > 0) add_sensors(result, sensors.at(device));
  }
}

void LayerBench::profile(Candidate& candidate) {
  if (context_.stop.load()) throw Interrupted{};
  require_working(candidate.column->kernel->device());
  const double seconds = candidate.prepared.front()->run_profiled(candidate.output->y());
  CaseResult& result = candidate.result;
  result.samples_s = {seconds};
  result.median_s = result.ci_low_s = result.ci_high_s = seconds;
  label_single_sample(result, "one call (--profile)");
  check_after_timing(candidate);
}

std::string LayerBench::other_bits(std::span<const std::uint16_t> y,
                                   std::span<const std::uint16_t> verified) const {
  const auto first = std::mismatch(y.begin(), y.end(), verified.begin()).first - y.begin();
  if (first == std::ssize(y)) return {};
  return fmt::format(
      "a timed call gave other bits than the verified one, first at token {} column {}",
      first / layer_.shape.hidden, first % layer_.shape.hidden);
}

/// On a device each prepared variant holds what its last timed call wrote over poison.
std::string LayerBench::damage_on_device(Candidate& candidate) const {
  const std::span<const std::uint16_t> y = std::as_const(*candidate.output).y();
  for (std::size_t variant = 0; variant < candidate.prepared.size(); ++variant) {
    PreparedMoe& prepared = *candidate.prepared[variant];
    candidate.output->poison();
    if (!prepared.fetch(candidate.output->y())) continue;
    std::string damage = prepared.guard_damage();
    if (damage.empty()) damage = other_bits(y, candidate.verified.at(variant));
    if (!damage.empty()) return damage;
  }
  return {};
}

/// What was timed must still be the verified answer: the same bits, nothing written outside.
void LayerBench::check_after_timing(Candidate& candidate) const {
  if (candidate.prepared.front()->queue() != nullptr) {
    if (std::string damage = damage_on_device(candidate); !damage.empty()) {
      candidate.set_failed(std::move(damage));
    }
    return;
  }
  const std::span<const std::uint16_t> y = std::as_const(*candidate.output).y();
  const auto same = [&](const std::vector<std::uint16_t>& answer) {
    return std::equal(y.begin(), y.end(), answer.begin(), answer.end());
  };
  std::string reason = candidate.output->guard_damage();
  if (reason.empty() && std::none_of(candidate.verified.begin(), candidate.verified.end(), same)) {
    reason = other_bits(y, candidate.verified.front());
  }
  if (reason.empty()) return;
  candidate.set_failed(std::move(reason));
}

void LayerBench::time_phases(Candidate& candidate) const {
  PreparedMoe& prepared = *candidate.prepared.front();
  std::vector<PhaseTimes> runs;
  const auto start = std::chrono::steady_clock::now();
  while (std::ssize(runs) < kPhaseRuns && (runs.empty() || seconds_since(start) < kPhasesBudget)) {
    if (context_.stop.load()) throw Interrupted{};
    runs.push_back(prepared.run_phases(candidate.output->y()));
  }
  for (std::size_t phase = 0; phase < runs.front().size(); ++phase) {
    std::vector<double> seconds;
    for (const PhaseTimes& run : runs) seconds.push_back(run.at(phase).second);
    candidate.result.phases_s.emplace_back(runs.front()[phase].first, median(seconds));
  }
}

}  // namespace moebench::cli
