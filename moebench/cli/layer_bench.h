// One layer on the bench: its packed weights, and the comparisons that run on them. Verifies every
// answer before it is timed; an error in one case becomes that case's result. Decides nothing about
// what runs, and prints nothing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "moebench/cli/plan.h"
#include "moebench/cli/progress.h"
#include "moebench/measure/measure.h"
#include "moebench/measure/rates_around.h"

namespace moebench::cli {

/// What outlives the layers of a run.
struct BenchContext {
  const RunOptions& options;
  const Plan& plan;
  const StopFlag& stop;
  Progress& progress;
  /// Of a device, or the host (null); measured at its first call.
  std::function<const MachineRates&(Device*)> rates;
  int threads = 1;
  /// Where a device's kernel beat the floor: its rates once more, of which the best so far count.
  /// May be empty.
  std::function<void()> measure_rates_again = {};
  /// The host's rates now, for the shares of what is measured next or was just measured. Empty:
  /// those at start count.
  std::function<RateReading()> host_rates_now = {};
};

/// A finished case; `error` says what kind an error was.
struct Outcome {
  std::size_t column = 0;
  CaseResult result;
  ErrorCode error = ErrorCode::kInternal;  ///< only for Status::kError
};

class LayerBench {
 public:
  LayerBench(const BenchContext& context, const Layer& layer);
  ~LayerBench();
  LayerBench(const LayerBench&) = delete;
  LayerBench& operator=(const LayerBench&) = delete;

  /// Packs `formats`, after releasing all that is packed. A format that fails makes its cases
  /// errors. Throws Interrupted.
  void pack(std::span<const WeightFormat> formats);

  /// Verifies the columns of `comparison` one by one, then measures those that passed together. The
  /// columns' formats are packed. Throws Interrupted; nothing else.
  [[nodiscard]] std::vector<Outcome> compare(const Comparison& comparison,
                                             std::span<const std::size_t> columns);

 private:
  struct Candidate;
  struct Input;

  void pack(const Kernel& kernel, WeightFormat format);
  void make_inputs(const Comparison& comparison, std::vector<Candidate>& candidates);
  void verify(Candidate& candidate);
  void verify_variant(Candidate& candidate, std::size_t variant);
  void compare_with_direct_calls(Candidate& candidate, const std::vector<Candidate>& candidates);
  [[nodiscard]] double format_error_of(const SchemeConfig& config, const MoeProblem& problem,
                                       const ReferenceRows& reference);
  void set_floors(const std::vector<Candidate*>& candidates, const RatesAround& around) const;
  void read_rates(const std::vector<Candidate*>& candidates, RatesAround& around) const;
  [[nodiscard]] RateReading shown_by(const Candidate& candidate) const;
  [[nodiscard]] bool beats_its_floor(const Candidate& candidate) const;
  void measure_passed(std::vector<Candidate>& candidates);
  void measure_together(const std::vector<Candidate*>& candidates);
  void profile(Candidate& candidate);
  void check_after_timing(Candidate& candidate) const;
  [[nodiscard]] std::string damage_on_device(Candidate& candidate) const;
  [[nodiscard]] std::string other_bits(std::span<const std::uint16_t> y,
                                       std::span<const std::uint16_t> verified) const;
  void time_phases(Candidate& candidate) const;
  [[nodiscard]] WeightSource& source(WeightFormat format);
  [[nodiscard]] const ActivationScales& scales();

  const BenchContext& context_;
  const Layer& layer_;
  std::map<WeightFormat, WeightSource> sources_;
  /// Weights are packed once for each place (a device, or null for the host), format and layout.
  using PackKey = std::tuple<const Device*, WeightFormat, std::string>;
  [[nodiscard]] static PackKey pack_key(const Kernel& kernel, WeightFormat format) {
    return {kernel.device(), format, kernel.weight_layout()};
  }
  std::map<PackKey, std::shared_ptr<const PackedWeights>> packed_;
  std::map<PackKey, Error> pack_errors_;
  std::unique_ptr<ActivationScales> scales_;
  std::vector<std::pair<SchemeConfig, double>> format_errors_;
};

/// Work of a step in the units of Progress.
[[nodiscard]] double packing_work(const Layer& layer, WeightFormat format);
[[nodiscard]] double case_work(const RunOptions& options, const Layer& layer, std::int64_t tokens);

}  // namespace moebench::cli
