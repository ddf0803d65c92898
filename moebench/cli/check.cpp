#include "moebench/cli/check.h"

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "moebench/backend/cpu/cpu_features.h"
#include "moebench/cli/machine.h"
#include "moebench/cli/memory.h"
#include "moebench/cli/plan.h"
#include "moebench/cli/signals.h"
#include "moebench/core/error.h"
#include "moebench/measure/fingerprint.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"

namespace moebench::cli {
namespace {

/// Sizes around the kernels' and formats' boundaries: one group and several, rows and columns that
/// fill no vector, tile or 128-block, one expert, all experts taken, sizes that break NVFP4's group
/// rule.
constexpr std::array<MoeShape, 10> kBoundaryShapes = {{
    {.num_experts = 1, .topk = 1, .hidden = 16, .intermediate = 16},
    {.num_experts = 4, .topk = 4, .hidden = 32, .intermediate = 16},
    {.num_experts = 3, .topk = 2, .hidden = 48, .intermediate = 80},
    {.num_experts = 8, .topk = 2, .hidden = 128, .intermediate = 64},
    {.num_experts = 5, .topk = 3, .hidden = 272, .intermediate = 144},
    {.num_experts = 12, .topk = 8, .hidden = 256, .intermediate = 272},
    {.num_experts = 6, .topk = 2, .hidden = 512, .intermediate = 320},
    {.num_experts = 4, .topk = 2, .hidden = 96, .intermediate = 2048},
    {.num_experts = 4, .topk = 2, .hidden = 33, .intermediate = 17},
    {.num_experts = 3, .topk = 2, .hidden = 129, .intermediate = 127},
}};

/// Tokens and how they are spread: none, one, all to the same experts, a hot expert, more than any
/// kernel's row tile.
constexpr std::array<std::pair<std::int64_t, const char*>, 6> kLoads = {{{0, "uniform"},
                                                                         {1, "uniform"},
                                                                         {2, "single"},
                                                                         {7, "uniform"},
                                                                         {33, "hot:1@0.8"},
                                                                         {48, "balanced"}}};

struct Load {
  std::int64_t tokens;
  RoutingSpec routing;
};

struct Subject {
  std::string path;  ///< "cpu/avx2"
  const Kernel* kernel;
  SchemeConfig config;
  MoeShape shape;
  bool exact;
  bool renormalize;
};

struct Count {
  std::int64_t passed = 0, failed = 0, skipped = 0;
  bool memory_refused = false;
};

/// A layer of a model that was asked for, and the memory that its loads would take.
struct AdmittedLayer {
  const Plan& plan;
  const Layer& layer;
  std::vector<Place> places;
};

std::string describe(const Subject& subject) {
  const MoeShape& shape = subject.shape;
  return fmt::format(
      "{} {} {}{}{} E={} top-{} K={} N={} {} {}", subject.path, subject.kernel->name(),
      name_of(subject.config.scheme), subject.config.per_act_token ? " per_act_token" : "",
      subject.config.per_out_ch ? " per_out_ch" : "", shape.num_experts, shape.topk, shape.hidden,
      shape.intermediate, name_of(shape.act), subject.exact ? "exact" : "random");
}

/// In the exact mode every order of summation gives the same bits.
std::string bit_difference(const ReferenceRows& reference, const MoeProblem& problem,
                           std::span<const std::uint16_t> y) {
  const std::int64_t hidden = problem.shape.hidden;
  for (std::size_t row = 0; row < reference.tokens.size(); ++row) {
    for (std::int64_t column = 0; column < hidden; ++column) {
      const double got = static_cast<double>(decode_act(
          problem.shape.act, y[static_cast<std::size_t>(reference.tokens[row] * hidden + column)]));
      const double expected =
          reference
              .expected[row * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(column)];
      if (got != expected) {
        return fmt::format("token {} column {}: {} instead of exactly {}", reference.tokens[row],
                           column, got, expected);
      }
    }
  }
  return {};
}

/// Empty if the answer is right, else what is wrong with it.
std::string judge_load(const Subject& subject, const Load& load, std::uint64_t seed,
                       const WeightSource& weights,
                       const std::shared_ptr<const PackedWeights>& packed,
                       const ActivationScales& scales, int threads, double& worst_share) {
  Routing routing = make_routing(load.routing, seed, load.tokens, subject.shape.num_experts,
                                 subject.shape.topk, subject.renormalize);
  const MoeProblem problem =
      subject.exact
          ? exact_problem(seed, subject.shape, subject.config, load.tokens, std::move(routing))
          : synthetic_problem(seed, subject.shape, subject.config, load.tokens, std::move(routing),
                              scales);
  const std::unique_ptr<PreparedMoe> prepared = subject.kernel->prepare(problem, packed);
  GuardedOutput output(load.tokens, subject.shape.hidden);
  output.poison();
  prepared->run(output.y());
  const std::optional<DynamicScaleClaim> claim = prepared->dynamic_scale();
  const ReferenceRows reference = reference_forward(
      problem, weights,
      rows_to_check({.kind = CheckSpec::Kind::kFull}, seed, load.tokens, std::nullopt), claim,
      threads);
  const std::span<const std::uint16_t> y = std::as_const(output).y();
  std::string damage = output.guard_damage();
  if (damage.empty()) damage = prepared->guard_damage();
  const Verdict verdict = judge(problem, reference, y, damage);
  worst_share = std::max(worst_share, verdict.worst_bound_share);
  if (verdict.kind == Verdict::Kind::kFail) return verdict.reason;
  if (subject.exact) {
    if (std::string difference = bit_difference(reference, problem, y); !difference.empty())
      return difference;
  }
  const std::vector<std::uint16_t> first(y.begin(), y.end());
  output.poison();
  prepared->run(output.y());
  if (!std::equal(first.begin(), first.end(), y.begin())) return "a second run gave other bits";
  if (!subject.kernel->has_graphs()) return {};
  const std::unique_ptr<PreparedMoe> graph =
      subject.kernel->prepare(problem, packed, {.graph = true, .label = "graph"});
  output.poison();
  graph->run(output.y());
  if (!graph->guard_damage().empty()) return "as a graph: " + graph->guard_damage();
  return std::equal(first.begin(), first.end(), y.begin()) ? "" : "its graph gave other bits";
}

class Check {
 public:
  Check(const Invocation& invocation, Console& console, const OpenMachine& open)
      : invocation_(invocation), console_(console), open_(open) {
    make_loads();
  }

  int execute() {
    if (invocation_.given.models) {
      for (const std::string& name : invocation_.run.models) (void)find_model(name);
    }
    for (const auto& [backend, isa] : paths()) check_path(backend, isa);
    if (signal_exit_code() != 0) console_.note("interrupted; the count is of what was checked");
    console_.out(fmt::format("{} passed, {} failed, {} skipped\n", count_.passed, count_.failed,
                             count_.skipped));
    if (signal_exit_code() != 0) return signal_exit_code();
    if (count_.failed > 0) return static_cast<int>(ErrorCode::kCheckFailed);
    if (const int code = written(console_); code != 0) return code;
    if (count_.memory_refused) return static_cast<int>(ErrorCode::kOutOfMemory);
    if (count_.passed > 0) return 0;
    console_.error("check: nothing could run; moebench list backends says why");
    return static_cast<int>(ErrorCode::kUnavailable);
  }

 private:
  void make_loads() {
    if (invocation_.given.batch_sizes || invocation_.given.models) {
      for (const std::int64_t tokens : invocation_.run.batch_sizes) {
        loads_.push_back({tokens, invocation_.run.routing});
      }
    } else {
      for (const auto& [tokens, routing] : kLoads)
        loads_.push_back({tokens, parse_routing(routing)});
    }
  }

  /// A backend, and for the CPU one of its ISAs.
  using Path = std::pair<std::string, std::string>;

  /// --isa alone, or each path that there is of the backends asked for; auto asks for all that are
  /// here.
  [[nodiscard]] std::vector<Path> paths() {
    const RunOptions& options = invocation_.run;
    if (!options.isa.empty()) {
      return {{options.backend == "auto" ? "cpu" : options.backend, options.isa}};
    }
    std::vector<Path> all;
    if (options.backend != "auto") {
      for (const std::string& backend : backend_names(options)) add_paths(backend, all);
      return all;
    }
    for (const std::unique_ptr<Backend>& backend : make_backends(backend_options(options))) {
      const Support available = backend->info().available;
      if (available.ok) {
        add_paths(backend->name(), all);
      } else {
        skip_path(backend->name(), available.reason);
      }
    }
    return all;
  }

  void add_paths(const std::string& backend, std::vector<Path>& all) {
    if (backend != "cpu") {
      all.emplace_back(backend, "");
      return;
    }
    for (const cpu::IsaChoice& choice : cpu::isa_choices(cpu::detect_cpu_features())) {
      if (choice.support.ok) {
        all.emplace_back(backend, choice.name);
      } else {
        skip_path(fmt::format("cpu/{}", choice.name), choice.support.reason);
      }
    }
  }

  void skip_path(const std::string& path, const std::string& reason) {
    ++count_.skipped;
    console_.out(fmt::format("SKIP {}: {}\n", path, reason));
  }

  void check_path(const std::string& backend, const std::string& isa) {
    RunOptions options = invocation_.run;
    options.backend = backend;
    options.isa = isa;
    const Machine machine = open_(options);
    const std::string path = isa.empty() ? backend : fmt::format("{}/{}", backend, isa);
    // A backend need not have a kernel for every scheme.
    std::erase_if(options.schemes, [&](Scheme scheme) {
      return std::none_of(machine.kernels.begin(), machine.kernels.end(),
                          [&](const auto& kernel) { return kernel->scheme() == scheme; });
    });
    if (options.schemes.empty()) {
      skip_path(path, "no kernel for the schemes asked for");
      return;
    }
    if (invocation_.given.models) {
      options.check.kind = CheckSpec::Kind::kFull;
      const Plan plan = make_plan(options, machine.kernels);
      for (const Layer& layer : plan.layers) {
        const AdmittedLayer admitted{plan, layer,
                                     layer_places(options, plan, layer, available_memory_bytes())};
        check_shape(machine, path, layer.shape, layer.renormalize, layer.runnable, &admitted);
      }
      expect_hanging_exit_after(machine);
      return;
    }
    for (const ActType act : {ActType::kFp16, ActType::kBf16}) {
      if (invocation_.given.act && act != options.act) continue;
      for (MoeShape shape : kBoundaryShapes) {
        shape.act = act;
        check_shape(machine, path, shape, options.renormalize.value_or(true), Support::yes(),
                    nullptr);
      }
    }
    expect_hanging_exit_after(machine);
  }

  void check_shape(const Machine& machine, const std::string& path, const MoeShape& shape,
                   bool renormalize, const Support& runnable, const AdmittedLayer* admitted) {
    const RunOptions& options = invocation_.run;
    for (const std::unique_ptr<Kernel>& kernel : machine.kernels) {
      const Scheme scheme = kernel->scheme();
      if (std::count(options.schemes.begin(), options.schemes.end(), scheme) == 0) continue;
      const bool fp8 = scheme == Scheme::kFp8;
      for (const std::int64_t token_scales :
           fp8 ? options.per_act_token : std::vector<std::int64_t>{0}) {
        for (const std::int64_t channel_scales :
             fp8 ? options.per_out_ch : std::vector<std::int64_t>{0}) {
          for (const bool exact : {false, true}) {
            if (stop_flag().load()) return;
            check_subject({path,
                           kernel.get(),
                           {scheme, token_scales != 0, channel_scales != 0},
                           shape,
                           exact,
                           renormalize},
                          runnable, admitted);
          }
        }
      }
    }
  }

  /// The loads that there is memory for; each of the others is skipped with what it needs.
  [[nodiscard]] std::vector<Load> admit(const Subject& subject, const AdmittedLayer* admitted) {
    if (admitted == nullptr) return loads_;  // the built-in shapes fit anywhere
    const Plan& plan = admitted->plan;
    const auto column = std::find_if(plan.columns.begin(), plan.columns.end(),
                                     [&](const Column& c) { return c.kernel == subject.kernel; });
    std::vector<Load> fitting;
    for (const Load& load : loads_) {
      std::string refused;
      for (std::size_t c = 0; c < admitted->layer.comparisons && refused.empty(); ++c) {
        const Comparison& comparison = plan.comparisons[admitted->layer.first_comparison + c];
        if (comparison.tokens == load.tokens &&
            scheme_config(comparison, *column) == subject.config)
          refused = memory_refusal(plan, admitted->layer, admitted->places, c, *column);
      }
      if (refused.empty()) {
        fitting.push_back(load);
      } else {
        skip_for_memory(subject, refused);
      }
    }
    return fitting;
  }

  void skip_for_memory(const Subject& subject, const std::string& reason) {
    ++count_.skipped;
    count_.memory_refused = true;
    console_.out(fmt::format("SKIP {}: {}\n", describe(subject), reason));
  }

  void check_subject(const Subject& subject, const Support& runnable,
                     const AdmittedLayer* admitted) {
    Support support = runnable;
    const WeightFormat format = weight_format(subject.config);
    try {
      validate(subject.shape, format);
      if (support.ok) support = subject.kernel->supports(subject.shape, subject.config);
    } catch (const Error& error) {
      support = Support::no(error.what());
    }
    if (!support.ok) {
      ++count_.skipped;
      console_.out(fmt::format("SKIP {}: {}\n", describe(subject), support.reason));
      return;
    }
    const std::vector<Load> loads = admit(subject, admitted);
    if (loads.empty()) return;
    std::string wrong;
    double worst_share = 0.0;
    try {
      wrong = judge_loads(subject, loads, format, worst_share);
    } catch (const Interrupted&) {
      return;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kOutOfMemory) return skip_for_memory(subject, error.what());
      wrong = error.what();
    } catch (const std::bad_alloc&) {
      return skip_for_memory(subject, "host memory ran out");
    }
    ++(wrong.empty() ? count_.passed : count_.failed);
    console_.out(wrong.empty() ? fmt::format("PASS {}, worst {:.2f} of the bound\n",
                                             describe(subject), worst_share)
                               : fmt::format("FAIL {}: {}\n", describe(subject), wrong));
  }

  [[nodiscard]] std::string judge_loads(const Subject& subject, std::span<const Load> loads,
                                        WeightFormat format, double& worst_share) const {
    const std::uint64_t seed = invocation_.run.seed;
    // The built-in shapes are too small to share the oracle's work out.
    const int threads = invocation_.given.models ? thread_count(invocation_.run) : 1;
    const WeightSource weights =
        interruptible(subject.exact ? exact_weights(seed, subject.shape, format)
                                    : synthetic_weights(seed, subject.shape, format),
                      stop_flag());
    const std::shared_ptr<const PackedWeights> packed = subject.kernel->pack(weights, {});
    const ActivationScales scales =
        subject.exact ? ActivationScales{} : calibrate(seed, subject.shape);
    for (const Load& load : loads) {
      std::string wrong =
          judge_load(subject, load, seed, weights, packed, scales, threads, worst_share);
      if (!wrong.empty()) {
        return fmt::format("{} tokens, routing {}, seed {}: {}", load.tokens,
                           to_string(load.routing), seed, wrong);
      }
    }
    return {};
  }

  const Invocation& invocation_;
  Console& console_;
  const OpenMachine& open_;
  std::vector<Load> loads_;
  Count count_;
};

}  // namespace

int check(const Invocation& invocation, Console& console, const OpenMachine& open) {
  return Check(invocation, console, open).execute();
}

}  // namespace moebench::cli
