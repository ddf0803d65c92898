#include "moebench/cli/layer_bench.h"

#include <algorithm>
#include <bit>
#include <new>
#include <optional>
#include <utility>

#include "moebench/cli/layer_bench_case.h"
#include "moebench/cli/memory.h"
#include "moebench/cli/signals.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"

namespace moebench::cli {
namespace {

/// Rows that the format error is taken over: it is a property of the format, alike from row to row,
/// and dear to compute.
constexpr std::int64_t kFormatErrorRows = 2;
/// About 200 MB of weights are made per second and core pair, and a case is measured for about
/// three seconds.
constexpr double kMeasuringWork = 600e6;

/// Bit by bit: the oracle uses the scale as it is.
bool same(const std::optional<DynamicScaleClaim>& a, const std::optional<DynamicScaleClaim>& b) {
  if (!a || !b) return !a && !b;
  return std::bit_cast<std::uint32_t>(a->scale) == std::bit_cast<std::uint32_t>(b->scale) &&
         a->pair == b->pair;
}

}  // namespace

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
