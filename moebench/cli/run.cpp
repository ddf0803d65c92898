#include "moebench/cli/run.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "moebench/cli/dry_run.h"
#include "moebench/cli/layer_bench.h"
#include "moebench/cli/machine.h"
#include "moebench/cli/memory.h"
#include "moebench/cli/output.h"
#include "moebench/cli/plan.h"
#include "moebench/cli/progress.h"
#include "moebench/cli/run_results.h"
#include "moebench/cli/signals.h"
#include "moebench/core/error.h"
#include "moebench/measure/fingerprint.h"
#include "moebench/report/writers.h"

namespace moebench::cli {
namespace {

class Run {
 public:
  Run(const RunOptions& options, const std::vector<std::string>& argv, Console& console,
      const OpenMachine& open)
      : options_(options),
        argv_(argv),
        console_(console),
        files_(choose_files(options)),
        machine_(open(options)),
        plan_(make_plan(options, machine_.kernels)),
        results_(options, plan_, console) {}
  ~Run() { expect_hanging_exit_after(machine_); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  int execute();

 private:
  using Columns = std::vector<std::size_t>;

  void say_notes();
  void validate_routing() const;
  void print_header();
  [[nodiscard]] double total_work() const;

  void run_layer(const Layer& layer);
  void announce_refusals();
  void announce_refusal(const Layer& layer, const Place& place);
  [[nodiscard]] std::vector<Columns> admit(const Layer& layer, const std::vector<Place>& places);
  [[nodiscard]] std::vector<Columns> of_formats(const Layer& layer, std::vector<Columns> columns,
                                                const std::vector<WeightFormat>& formats) const;
  [[nodiscard]] std::vector<WeightFormat> used_formats(const Layer& layer,
                                                       const std::vector<Columns>& work) const;

  [[nodiscard]] RunReport report() const;
  void finish(const RunReport& report);

  [[nodiscard]] WeightFormat format_of(std::size_t comparison, std::size_t column) const {
    return weight_format(scheme_config(plan_.comparisons[comparison], plan_.columns[column]));
  }
  /// The original benchmark's lines: on stdout where that carries the table, else on stderr.
  void say(const std::string& text) {
    options_.format == Format::kTable ? console_.out(text) : console_.aside(text);
  }
  void stop_if_nobody_listens() {
    if (console_.stdout_state() != StdoutState::kOpen && files_.journal.empty()) request_stop();
  }
  const MachineRates& rates(Device* device);
  MachineRates measure_rates(Device* device);
  void measure_rates_again();
  /// What a layer may take of the host's memory: what the rates' measuring keeps is given up where
  /// a layer needs it.
  [[nodiscard]] std::int64_t host_memory() const {
    return available_memory_bytes() + (host_rates_ ? host_rates_->held_bytes() : 0);
  }
  void leave_room_for(const std::vector<Place>& places);

  const RunOptions& options_;
  const std::vector<std::string>& argv_;
  Console& console_;
  Files files_;
  Machine machine_;
  Plan plan_;
  RunResults results_;
  std::map<Device*, MachineRates> rates_;  // at start; null: the host
  std::optional<HostRates> host_rates_;
  std::optional<RateWatch> rate_watch_;  // of host_rates_
  int rate_repeats_ = 0;
  std::unique_ptr<Progress> progress_;
};

void Run::say_notes() {
  for (const std::string& note : machine_.notes) console_.note(note);
  for (const std::string& note : plan_.notes) console_.note(note);
  for (const BackendInfo& backend : machine_.chosen) {
    console_.detail(fmt::format("backend {} ({}), {} threads", backend.name, backend.detail,
                                thread_count(options_)));
  }
  for (const Device* device : devices_of(machine_.kernels)) {
    if (const std::string why = device->no_sensors(); !why.empty()) {
      console_.note(fmt::format("{}: clocks, temperature and throttling are not recorded ({})",
                                device->name(), why));
    }
  }
  if (options_.check.kind == CheckSpec::Kind::kOff) {
    console_.warn("--check off: answers are looked at for NaN and unwritten elements only");
  }
}

/// Whether each layer can be routed so, before anything is built. A trace is a file like any other
/// input: all that will be read of it is read here. Of the others one token tells.
void Run::validate_routing() const {
  const std::int64_t tokens =
      options_.routing.kind == RoutingSpec::Kind::kTrace
          ? *std::max_element(options_.batch_sizes.begin(), options_.batch_sizes.end())
          : 1;
  std::set<std::pair<std::int64_t, std::int64_t>> seen;
  for (const Layer& layer : plan_.layers) {
    if (!seen.insert({layer.shape.num_experts, layer.shape.topk}).second) continue;
    (void)make_routing(options_.routing, options_.seed, tokens, layer.shape.num_experts,
                       layer.shape.topk, layer.renormalize);
  }
}

void Run::print_header() {
  std::string text = "Benchmarking models:\n";
  std::vector<const ModelPreset*> models;
  for (const std::string& name : options_.models) {
    const ModelPreset* model = &find_model(name);
    if (std::count(models.begin(), models.end(), model) == 0) models.push_back(model);
  }
  for (std::size_t i = 0; i < models.size(); ++i) {
    text += fmt::format("[{}]  {}\n", i, models[i]->name);
  }
  say(text);
}

double Run::total_work() const {
  double work = 0.0;
  for (const Layer& layer : plan_.layers) {
    const LayerMemory memory = layer_memory(options_, plan_, layer);
    for (const WeightFormat format : memory.formats) work += packing_work(layer, format);
    for (std::size_t c = 0; c < layer.comparisons; ++c) {
      const Comparison& comparison = plan_.comparisons[layer.first_comparison + c];
      for (const Column& column : plan_.columns) {
        if (case_support(layer, comparison, column).ok) {
          work += case_work(options_, layer, comparison.tokens);
        }
      }
    }
  }
  return work;
}

int Run::execute() {
  validate_routing();
  if (!options_.resume.empty()) results_.resume(options_.resume);
  if (!options_.dry_run && !files_.journal.empty()) results_.keep_in(files_.journal);
  say_notes();
  if (options_.dry_run) return print_plan(options_, plan_, available_memory_bytes(), console_);
  progress_ = std::make_unique<Progress>(console_, console_.shows_status() ? total_work() : 0.0);
  announce_refusals();
  print_header();
  try {
    for (const Layer& layer : plan_.layers) run_layer(layer);
  } catch (const Interrupted&) {
    console_.note("interrupted; what is finished follows");
  }
  if (results_.resumed() > 0) {
    console_.note(fmt::format("cases taken from {}, measured when that was written: {}",
                              printable(options_.resume), results_.resumed()));
  }
  finish(report());
  return results_.exit_code();
}

/// What does not fit is said before anything is built.
void Run::announce_refusals() {
  const std::int64_t available = available_memory_bytes();
  for (const Layer& layer : plan_.layers) {
    for (const Place& place : layer_places(options_, plan_, layer, available)) {
      announce_refusal(layer, place);
    }
  }
}

void Run::announce_refusal(const Layer& layer, const Place& place) {
  if (!place.refused.empty()) {
    console_.error(place.refused);
    return;
  }
  const LayerMemory& memory = place.memory;
  const MemoryDecision& decision = place.decision;
  const auto too_large = [&](std::int64_t bytes) { return bytes > decision.working_limit; };
  const auto first = std::find_if(memory.working.begin(), memory.working.end(), too_large);
  if (first == memory.working.end()) return;
  const auto index = static_cast<std::size_t>(first - memory.working.begin());
  console_.error(comparison_refusal(layer, plan_.comparisons[layer.first_comparison + index],
                                    *first, decision));
  const auto others = std::count_if(first + 1, memory.working.end(), too_large);
  if (others > 0)
    console_.error(fmt::format("{}: {} more do not fit either", layer.model->name, others));
}

/// Gives every case of `layer` that will not run its result; returns the columns left to run, per
/// comparison.
std::vector<Run::Columns> Run::admit(const Layer& layer, const std::vector<Place>& places) {
  std::vector<Columns> admitted(layer.comparisons);
  for (std::size_t c = 0; c < layer.comparisons; ++c) {
    const std::size_t comparison = layer.first_comparison + c;
    for (std::size_t column = 0; column < plan_.columns.size(); ++column) {
      const Support support =
          case_support(layer, plan_.comparisons[comparison], plan_.columns[column]);
      if (!support.ok) {
        results_.skip(comparison, column, support.reason);
      } else if (const std::string too_large =
                     memory_refusal(plan_, layer, places, c, plan_.columns[column]);
                 !too_large.empty()) {
        results_.refuse_memory(comparison, column, too_large);
      } else if (!results_.take_resumed(comparison, column)) {
        admitted[c].push_back(column);
      }
    }
  }
  return admitted;
}

void Run::run_layer(const Layer& layer) {
  const std::vector<Place> places = layer_places(options_, plan_, layer, host_memory());
  for (const Place& place : places) console_.detail(describe_memory(layer, place));
  const std::vector<Columns> admitted = admit(layer, places);

  const LayerMemory& memory = places.front().memory;
  std::vector<std::vector<WeightFormat>> passes = {memory.formats};
  if (arrangement_of(places) == Arrangement::kOneByOne) {
    console_.note(fmt::format("{}: the weight formats do not fit at once; one after the other",
                              layer.model->name));
    passes.clear();
    for (const WeightFormat format : memory.formats) passes.push_back({format});
  }
  const BenchContext context{
      options_,
      plan_,
      stop_flag(),
      *progress_,
      [this](Device* device) -> const MachineRates& { return rates(device); },
      thread_count(options_),
      [this] { measure_rates_again(); },
      [this] { return rate_watch_ ? rate_watch_->now() : RateReading{}; }};
  LayerBench bench(context, layer);
  for (std::size_t pass = 0; pass < passes.size(); ++pass) {
    const std::vector<Columns> work = of_formats(layer, admitted, passes[pass]);
    const std::vector<WeightFormat> formats = used_formats(layer, work);
    // Before weights take the memory that it streams through.
    for (std::size_t c = 0; c < layer.comparisons; ++c) {
      for (const std::size_t column : work[c]) {
        (void)rates(plan_.columns[column].kernel->device());
      }
    }
    leave_room_for(places);
    bench.pack(formats);
    for (std::size_t c = 0; c < layer.comparisons; ++c) {
      const std::size_t comparison = layer.first_comparison + c;
      if (pass == 0)
        say(fmt::format("Testing: {}\n", sub_label(layer, plan_.comparisons[comparison])));
      stop_if_nobody_listens();
      throw_if_stopped();
      if (work[c].empty()) continue;
      for (Outcome& outcome : bench.compare(plan_.comparisons[comparison], work[c])) {
        results_.record(comparison, std::move(outcome));
      }
      results_.keep(comparison, work[c]);
    }
  }
}

/// `columns` without those whose weights are in no format of `formats`.
std::vector<Run::Columns> Run::of_formats(const Layer& layer, std::vector<Columns> columns,
                                          const std::vector<WeightFormat>& formats) const {
  for (std::size_t c = 0; c < layer.comparisons; ++c) {
    std::erase_if(columns[c], [&](std::size_t column) {
      return std::count(formats.begin(), formats.end(),
                        format_of(layer.first_comparison + c, column)) == 0;
    });
  }
  return columns;
}

std::vector<WeightFormat> Run::used_formats(const Layer& layer,
                                            const std::vector<Columns>& work) const {
  std::set<WeightFormat> formats;
  for (std::size_t c = 0; c < layer.comparisons; ++c) {
    for (const std::size_t column : work[c]) {
      formats.insert(format_of(layer.first_comparison + c, column));
    }
  }
  return {formats.begin(), formats.end()};
}

/// Of a device, or the host (null). Rates that could not be measured are 0: shares of the floor
/// then have no figure.
const MachineRates& Run::rates(Device* device) {
  const auto known = rates_.find(device);
  if (known != rates_.end()) return known->second;
  return rates_.emplace(device, measure_rates(device)).first->second;
}

void Run::measure_rates_again() {
  constexpr int kMostRepeats = 5;  // of a second or two each
  if (rate_repeats_++ >= kMostRepeats) return;
  for (auto& [device, known] : rates_) {
    if (device == nullptr) continue;  // read around each row
    const MachineRates measured = measure_rates(device);
    if (measured.read_bytes_per_s <= known.read_bytes_per_s) continue;
    known.read_bytes_per_s = measured.read_bytes_per_s;
    known.read_kind = measured.read_kind;
  }
}

/// Readings around the rows are of multiply-adds alone then, and floors go by the read rate at
/// start.
void Run::leave_room_for(const std::vector<Place>& places) {
  if (!host_rates_ || host_rates_->held_bytes() == 0) return;
  if (has_room_for(host_rates_->held_bytes(), places)) return;
  host_rates_->release_memory();
  console_.detail("memory is short: the read rate is not measured again around each row");
}

MachineRates Run::measure_rates(Device* device) {
  MachineRates measured;
  progress_->begin(device != nullptr
                       ? fmt::format("measuring the read bandwidth of {}", device->name())
                       : std::string("measuring this machine's read bandwidth"),
                   0.0);
  if (device == nullptr) {
    host_rates_.emplace(thread_count(options_), 0, throw_if_stopped);
    measured = host_rates_->at_start();
    rate_watch_.emplace([this] { return host_rates_->read_now(); },
                        RateReading{.read_bytes_per_s = measured.read_bytes_per_s,
                                    .flops_per_s = measured.flops_per_s});
  } else {
    try {
      measured = device->measure_rates();
    } catch (const Error& error) {
      console_.warn(
          fmt::format("{}: its read rate is not known: {}", device->name(), error.what()));
    }
  }
  progress_->end();
  return measured;
}

RunReport Run::report() const {
  RunReport report;
  report.tool_version = tool_version();
  report.argv = argv_;
  report.env = fingerprint();
  std::vector<std::string> names;
  std::vector<std::string> details;
  for (const BackendInfo& backend : machine_.chosen) {
    names.push_back(backend.name);
    details.push_back(backend.detail);
  }
  report.env.emplace_back("run.backend", fmt::format("{}", fmt::join(names, ",")));
  report.env.emplace_back("run.backend_detail", fmt::format("{}", fmt::join(details, "; ")));
  report.env.emplace_back("run.threads", fmt::to_string(thread_count(options_)));
  for (const Device* device : devices_of(machine_.kernels)) {
    for (const auto& fact : device->facts()) report.env.push_back(fact);
  }
  for (const auto& [device, rates] : rates_) {
    add_rates(report.env, device != nullptr ? "run." + device->name() : "run", rates);
  }
  for (const auto& [index, result] : results_.by_case()) report.results.push_back(result);
  return report;
}

void Run::finish(const RunReport& report) {
  console_.out(render(report, options_.format, console_.colored()));
  if (console_.stdout_state() == StdoutState::kFailed) {
    console_.error(
        fmt::format("stdout: not written ({}); use --out FILE", console_.stdout_error()));
    results_.lose_output();
  } else if (console_.stdout_state() == StdoutState::kClosed && files_.journal.empty()) {
    console_.error("stdout: closed before the run was over, nothing is kept; use --out FILE");
    results_.lose_output();
  }
  if (options_.out.empty()) return;
  try {
    write_file_atomically(options_.out, render(report, format_of_path(options_.out), false));
    if (files_.journal_is_implied && signal_exit_code() == 0) ::unlink(files_.journal.c_str());
  } catch (const Error& error) {
    console_.error(
        fmt::format("{}; finished cases are in {}", error.what(), printable(files_.journal)));
    results_.lose_output();
  }
}

}  // namespace

int run(const RunOptions& options, const std::vector<std::string>& argv, Console& console,
        const OpenMachine& open) {
  return Run(options, argv, console, open).execute();
}

}  // namespace moebench::cli
