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

void LayerBench::set_floors(const std::vector<Candidate*>& candidates) const {
  for (Candidate* candidate : candidates) {
    const MachineRates& rates = context_.rates(candidate->column->kernel->device());
    candidate->result.floor_s = memory_floor_s(candidate->result.weight_bytes, rates);
    candidate->result.peak_s =
        rates.flops_per_s > 0.0 ? candidate->result.flops / rates.flops_per_s : 0.0;
  }
}

/// Faster than reading its weights, of which no cache holds much: the read rate was measured while
/// something else used the memory.
bool LayerBench::beats_its_floor(const Candidate& candidate) const {
  const MachineRates& rates = context_.rates(candidate.column->kernel->device());
  const CaseResult& result = candidate.result;
  return candidate.passed() && result.weight_bytes >= rates.buffer_bytes && result.median_s > 0.0 &&
         result.median_s < result.floor_s;
}

void LayerBench::measure_passed(std::vector<Candidate>& candidates) {
  std::vector<Candidate*> passed;
  for (Candidate& candidate : candidates) {
    if (candidate.passed()) passed.push_back(&candidate);
  }
  if (passed.empty()) return;
  set_floors(passed);
  if (context_.options.profile) {
    for (Candidate* candidate : passed) candidate->attempt([&] { profile(*candidate); });
    return;
  }
  const Candidate& first = *passed.front();
  context_.progress.begin(
      fmt::format("measuring {}, {} tokens", first.result.model, first.result.tokens),
      case_work(context_.options, layer_, first.result.tokens) *
          static_cast<double>(passed.size()));
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
    set_floors(passed);
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
