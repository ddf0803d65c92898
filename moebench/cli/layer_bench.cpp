#include "moebench/cli/layer_bench.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include "moebench/cli/memory.h"
#include "moebench/cli/signals.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"

namespace moebench::cli {
namespace {

/// Rows that the format error is taken over: it is a property of the format, alike from row to row,
/// and dear to compute.
constexpr std::int64_t kFormatErrorRows = 2;
/// --phases: runs whose median is taken, fewer where they take longer than kPhasesBudget in all.
constexpr int kPhaseRuns = 5;
constexpr double kPhasesBudget = 2.0;  // seconds
/// About 200 MB of weights are made per second and core pair, and a case is measured for about
/// three seconds.
constexpr double kMeasuringWork = 600e6;

/// Bit by bit: the oracle uses the scale as it is.
bool same(const std::optional<DynamicScaleClaim>& a, const std::optional<DynamicScaleClaim>& b) {
  if (!a || !b) return !a && !b;
  return std::bit_cast<std::uint32_t>(a->scale) == std::bit_cast<std::uint32_t>(b->scale) &&
         a->pair == b->pair;
}

/// Only a verified answer has a time.
void clear_timing(CaseResult& result) {
  result.samples_s.clear();
  result.calls_per_sample = 1;
  result.median_s = result.iqr_s = result.ci_low_s = result.ci_high_s = 0.0;
  result.noisy = false;
  result.noise.clear();
  result.phases_s.clear();
  result.sm_clock_mhz = result.sm_clock_low_mhz = result.memory_clock_mhz = 0.0;
  result.temperature_c = result.power_w = 0.0;
  result.throttled.clear();
}

void add_sensors(CaseResult& result, const SensorReport& report) {
  if (report.readings == 0) return;
  result.sm_clock_mhz = report.sm_clock_mhz;
  result.sm_clock_low_mhz = report.sm_clock_low_mhz;
  result.memory_clock_mhz = report.memory_clock_mhz;
  result.temperature_c = report.temperature_c;
  result.power_w = report.power_w;
  result.throttled = report.throttled;
  if (report.throttled.empty()) return;
  result.noisy = true;
  if (!result.noise.empty()) result.noise += "; ";
  result.noise += "throttled: " + report.throttled;
}

/// A single sample shows no spread, which is not the same as having none.
void label_single_sample(CaseResult& result, const char* what) {
  result.noisy = true;
  result.noise = what;
}

/// A device that broke costs its cases, each with the cause.
void require_working(const Device* device) {
  if (device == nullptr) return;
  if (const std::string cause = device->lost(); !cause.empty()) {
    fail(ErrorCode::kUnavailable, "{}: the device is lost ({}); run again", device->name(), cause);
  }
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

/// Tokens and routings of one scheme; several with --cache rotate.
struct LayerBench::Input {
  SchemeConfig config;
  std::vector<std::unique_ptr<MoeProblem>> problems;
  /// Of the last answer that was judged, for kernels of the same scheme: dear to compute.
  struct Reference {
    std::size_t variant = 0;
    std::vector<std::int64_t> rows_asked;
    std::optional<DynamicScaleClaim> claim;
    ReferenceRows rows;
  };
  std::optional<Reference> reference;
};

struct LayerBench::Candidate {
  std::size_t column_index = 0;
  const Column* column = nullptr;
  SchemeConfig config;
  CaseResult result;
  std::shared_ptr<Input> input;
  std::vector<std::unique_ptr<PreparedMoe>> prepared;
  std::unique_ptr<GuardedOutput> output;
  std::vector<std::vector<std::uint16_t>> verified;  ///< the answer to each problem
  ErrorCode error = ErrorCode::kInternal;

  [[nodiscard]] bool passed() const { return result.status == Status::kOk; }
  void set_error(ErrorCode code, std::string reason) {
    clear_timing(result);
    result.status = Status::kError;
    result.reason = std::move(reason);
    error = code;
  }
  void set_failed(std::string reason) {
    clear_timing(result);
    result.verdict = name_of(Verdict::Kind::kFail);
    result.status = Status::kFailed;
    result.reason = std::move(reason);
  }
  /// What `step` throws becomes this case's result; an interruption passes through.
  template <typename Step>
  void attempt(Step step) {
    try {
      step();
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error_thrown) {
      set_error(error_thrown.code(), error_thrown.what());
    } catch (const std::bad_alloc&) {
      set_error(ErrorCode::kOutOfMemory, "host memory ran out while the case was prepared or run");
    } catch (const std::exception& unexpected) {
      set_error(ErrorCode::kInternal, printable(unexpected.what()));
    }
  }
};

LayerBench::LayerBench(const BenchContext& context, const Layer& layer)
    : context_(context), layer_(layer) {}
LayerBench::~LayerBench() = default;

WeightSource& LayerBench::source(WeightFormat format) {
  const auto found = sources_.find(format);
  if (found != sources_.end()) return found->second;
  WeightSource made = synthetic_weights(context_.options.seed, layer_.shape, format);
  return sources_.emplace(format, interruptible(std::move(made), context_.stop)).first->second;
}

const ActivationScales& LayerBench::scales() {
  if (!scales_) {
    scales_ = std::make_unique<ActivationScales>(calibrate(context_.options.seed, layer_.shape));
  }
  return *scales_;
}

void LayerBench::pack(std::span<const WeightFormat> formats) {
  packed_.clear();
  pack_errors_.clear();
  for (const WeightFormat format : formats) {
    const auto uses = [&](const Column& column) {
      const auto comparisons =
          std::span(context_.plan.comparisons).subspan(layer_.first_comparison, layer_.comparisons);
      return std::any_of(comparisons.begin(), comparisons.end(), [&](const Comparison& comparison) {
        return case_support(layer_, comparison, column).ok &&
               weight_format(scheme_config(comparison, column)) == format;
      });
    };
    for (const Column& column : context_.plan.columns) {
      const PackKey key = pack_key(*column.kernel, format);
      if (packed_.count(key) + pack_errors_.count(key) == 0 && uses(column)) {
        pack(*column.kernel, format);
      }
    }
  }
}

void LayerBench::pack(const Kernel& kernel, WeightFormat format) {
  const PackKey key = pack_key(kernel, format);
  context_.progress.begin(fmt::format("{}: packing {}", layer_.model->name, name_of(format)),
                          packing_work(layer_, format));
  try {
    require_working(kernel.device());
    packed_[key] = kernel.pack(source(format), [&](std::int64_t done, std::int64_t experts) {
      // A device that generates its weights does not ask the source, which would notice.
      if (kernel.device() != nullptr && context_.stop.load()) throw Interrupted{};
      context_.progress.update(static_cast<double>(done) / static_cast<double>(experts));
    });
  } catch (const Error& error) {
    pack_errors_.emplace(key, error);
  } catch (const std::bad_alloc&) {
    pack_errors_.emplace(
        key, Error(ErrorCode::kOutOfMemory, "host memory ran out while weights were packed"));
  }
  context_.progress.end();
}

std::vector<Outcome> LayerBench::compare(const Comparison& comparison,
                                         std::span<const std::size_t> columns) {
  std::vector<Candidate> candidates;
  for (const std::size_t index : columns) {
    Candidate& candidate = candidates.emplace_back();
    candidate.column_index = index;
    candidate.column = &context_.plan.columns[index];
    candidate.config = scheme_config(comparison, *candidate.column);
    candidate.result = blank_result(context_.options, layer_, comparison, *candidate.column);
    candidate.result.threads = shown_threads(context_.plan, context_.threads);
  }
  make_inputs(comparison, candidates);
  for (Candidate& candidate : candidates) {
    if (!candidate.passed()) continue;
    context_.progress.begin(fmt::format("checking {}", candidate.result.id), 0.0);
    candidate.attempt([&] {
      verify(candidate);
      compare_with_direct_calls(candidate, candidates);
    });
    context_.progress.end();
  }
  measure_passed(candidates);

  std::vector<Outcome> outcomes;
  for (Candidate& candidate : candidates) {
    outcomes.push_back({candidate.column_index, std::move(candidate.result), candidate.error});
  }
  return outcomes;
}

void LayerBench::make_inputs(const Comparison& comparison, std::vector<Candidate>& candidates) {
  const RunOptions& options = context_.options;
  const MoeShape& shape = layer_.shape;
  const std::uint64_t copies = options.cache == CacheMode::kRotate ? kRotatedCopies : 1;
  std::vector<Routing> routings;
  std::vector<std::shared_ptr<Input>> inputs;
  for (Candidate& candidate : candidates) {
    candidate.attempt([&] {
      // All schemes get the same routing.
      while (routings.size() < copies) {
        routings.push_back(make_routing(options.routing, options.seed + routings.size(),
                                        comparison.tokens, shape.num_experts, shape.topk,
                                        layer_.renormalize));
      }
      auto found = std::find_if(inputs.begin(), inputs.end(), [&](const auto& input) {
        return input->config == candidate.config;
      });
      if (found == inputs.end()) {
        auto input = std::make_shared<Input>();
        input->config = candidate.config;
        for (std::uint64_t copy = 0; copy < copies; ++copy) {
          input->problems.push_back(std::make_unique<MoeProblem>(
              synthetic_problem(options.seed + copy, shape, candidate.config, comparison.tokens,
                                routings[copy], scales())));
        }
        found = inputs.insert(inputs.end(), std::move(input));
      }
      candidate.input = *found;
      const ExpertPermutation groups = permute_by_expert(routings.front(), shape.num_experts);
      CaseResult& result = candidate.result;
      result.active_experts = std::ssize(groups.active_experts);
      result.largest_group = groups.largest_group;
      result.weight_bytes =
          result.active_experts * expert_weight_bytes(shape, weight_format(candidate.config));
      result.flops = layer_flops(shape, comparison.tokens);
      candidate.output = std::make_unique<GuardedOutput>(comparison.tokens, shape.hidden);
    });
  }
}

void LayerBench::verify(Candidate& candidate) {
  const Kernel& kernel = *candidate.column->kernel;
  const PackKey key = pack_key(kernel, weight_format(candidate.config));
  if (const auto failed = pack_errors_.find(key); failed != pack_errors_.end()) {
    throw failed->second;
  }
  require_working(kernel.device());
  const PrepareOptions options{.graph = candidate.column->graph, .label = candidate.result.id};
  for (std::size_t variant = 0; variant < candidate.input->problems.size(); ++variant) {
    candidate.prepared.push_back(
        kernel.prepare(*candidate.input->problems[variant], packed_.at(key), options));
    // Preparing may have measured what to run.
    candidate.result.kernel_detail = kernel.case_detail(layer_.shape, candidate.config,
                                                        candidate.input->problems[variant]->tokens);
    verify_variant(candidate, variant);
    if (!candidate.passed()) return;
  }
}

void LayerBench::verify_variant(Candidate& candidate, std::size_t variant) {
  const MoeProblem& problem = *candidate.input->problems[variant];
  PreparedMoe& prepared = *candidate.prepared[variant];
  if (context_.stop.load()) throw Interrupted{};
  candidate.output->poison();
  prepared.run(candidate.output->y());
  const std::span<const std::uint16_t> y = std::as_const(*candidate.output).y();
  candidate.verified.emplace_back(y.begin(), y.end());

  // Rotated copies beyond the first are the same kernel on other tokens: one row of each is enough.
  CheckSpec spec = context_.options.check;
  if (variant > 0 && spec.kind == CheckSpec::Kind::kSample) spec.sample_rows = 1;
  ReferenceRows reference;
  if (spec.kind != CheckSpec::Kind::kOff) {
    const std::optional<DynamicScaleClaim> claim = prepared.dynamic_scale();
    std::optional<std::int64_t> claim_token;
    if (claim && claim->pair >= 0) claim_token = claim->pair / problem.shape.topk;
    std::vector<std::int64_t> rows =
        rows_to_check(spec, context_.options.seed, problem.tokens, claim_token);
    std::optional<Input::Reference>& kept = candidate.input->reference;
    if (!kept || kept->variant != variant || kept->rows_asked != rows ||
        !same(kept->claim, claim)) {
      kept = {variant, rows, claim,
              reference_forward(problem, source(weight_format(candidate.config)), rows, claim,
                                context_.threads)};
    }
    reference = kept->rows;
  }
  std::string damage = candidate.output->guard_damage();
  if (damage.empty()) damage = prepared.guard_damage();
  const Verdict verdict = judge(problem, reference, y, damage);
  CaseResult& result = candidate.result;
  const bool worse = variant == 0 || verdict.worst_row_error > result.worst_row_error;
  if (worse || verdict.kind == Verdict::Kind::kFail) {
    result.verdict = name_of(verdict.kind);
    result.worst_row_error = verdict.worst_row_error;
    result.worst_bound_share = verdict.worst_bound_share;
  }
  result.rows_checked += verdict.rows_checked;
  if (verdict.kind == Verdict::Kind::kFail) {
    candidate.set_failed(verdict.reason);
    return;
  }
  if (variant == 0 && !reference.tokens.empty()) {
    result.format_error = format_error_of(candidate.config, problem, reference);
  }
}

/// A graph replays the same kernels on the same inputs: other bits would mean that it replays
/// something else.
void LayerBench::compare_with_direct_calls(Candidate& candidate,
                                           const std::vector<Candidate>& candidates) {
  if (!candidate.passed() || !candidate.column->graph) return;
  for (const Candidate& direct : candidates) {
    if (direct.column->kernel != candidate.column->kernel || direct.column->graph) continue;
    if (direct.passed() && direct.verified != candidate.verified) {
      candidate.set_failed(
          fmt::format("the graph's answer has other bits than that of {}", direct.column->name));
    }
  }
}

double LayerBench::format_error_of(const SchemeConfig& config, const MoeProblem& problem,
                                   const ReferenceRows& reference) {
  for (const auto& [known, error] : format_errors_) {
    if (known == config) return error;
  }
  std::vector<std::int64_t> rows = reference.tokens;
  rows.resize(std::min(rows.size(), static_cast<std::size_t>(kFormatErrorRows)));
  const std::size_t elements = rows.size() * static_cast<std::size_t>(problem.shape.hidden);
  const std::vector<double> quantized(
      reference.expected.begin(),
      reference.expected.begin() + static_cast<std::ptrdiff_t>(elements));
  const std::vector<double> unquantized =
      unquantized_forward(problem, source(weight_format(config)), rows, context_.threads);
  const double error = format_error(unquantized, quantized);
  format_errors_.emplace_back(config, error);
  return error;
}

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
  std::vector<Measurement> measurements =
      measure(contestants, spec, context_.stop,
              [this](double fraction) { context_.progress.update(fraction); });
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
    if (Device* const device = candidates[i]->column->kernel->device(); sensors.count(device) > 0) {
      add_sensors(result, sensors.at(device));
    }
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

double packing_work(const Layer& layer, WeightFormat format) {
  return static_cast<double>(layer_weight_bytes(layer.shape, format));
}

double case_work(const RunOptions& options, const Layer& layer, std::int64_t tokens) {
  const std::int64_t rows = options.check.kind == CheckSpec::Kind::kOff ? 0
                            : options.check.kind == CheckSpec::Kind::kSample
                                ? options.check.sample_rows
                                : tokens;
  const std::int64_t experts =
      std::min(layer.shape.num_experts, std::min(rows, tokens) * layer.shape.topk);
  const double judging =
      static_cast<double>(experts) *
      static_cast<double>(expert_weight_bytes(layer.shape, WeightFormat::kFp8PerTensor));
  return judging + (options.profile ? 0.0 : kMeasuringWork);
}

}  // namespace moebench::cli
