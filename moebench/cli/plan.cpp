#include "moebench/cli/plan.h"

#include <algorithm>
#include <limits>
#include <set>

#include "moebench/cli/values.h"
#include "moebench/core/checked.h"

namespace moebench::cli {
namespace {

/// Routing counts (token, slot) pairs in int32.
constexpr std::int64_t kMaxPairs = std::numeric_limits<std::int32_t>::max();

bool kept(const std::vector<std::int64_t>& limits, std::int64_t value) {
  return limits.empty() || std::count(limits.begin(), limits.end(), value) > 0;
}

void check_experts(const ModelPreset& model, std::int64_t experts) {
  if (experts > model.num_experts) {
    fail(ErrorCode::kBadInput,
         "--limit-num-groups: {} is more than the {} experts of {}; use {} to {}", experts,
         model.num_experts, model.name, model.topk, model.num_experts);
  }
  if (experts < model.topk) {
    fail(ErrorCode::kBadInput,
         "--limit-num-groups: {} experts are fewer than the top-{} of {}; use {} to {}", experts,
         model.topk, model.name, model.topk, model.num_experts);
  }
}

void check_tokens(const MoeShape& shape, const ModelPreset& model, std::int64_t tokens) {
  const std::int64_t bytes = checked_product(
      "--batch-sizes", {tokens, std::max(shape.hidden, shape.topk), std::int64_t{sizeof(float)}});
  if (tokens > kMaxPairs / shape.topk) {
    fail(ErrorCode::kBadInput,
         "--batch-sizes: {} tokens, top-{} of {}: more than 2^31-1 (token, expert) pairs, needs {} "
         "bytes; use at most {}",
         tokens, shape.topk, model.name, bytes, kMaxPairs / shape.topk);
  }
}

Layer make_layer(const RunOptions& options, const ModelPreset& model, std::int64_t tp,
                 std::int64_t experts) {
  Layer layer;
  layer.model = &model;
  layer.tp = tp;
  layer.shape = {.num_experts = experts,
                 .topk = model.topk,
                 .hidden = model.hidden,
                 .intermediate = model.intermediate / tp,
                 .act = options.act};
  layer.renormalize = options.renormalize.value_or(model.renormalize);
  layer.runnable = computable(model);
  if (layer.runnable.ok && model.intermediate % tp != 0) {
    layer.runnable = Support::no(
        fmt::format("N = {} does not split into {} whole parts", model.intermediate, tp));
  }
  return layer;
}

std::vector<Layer> make_layers(const RunOptions& options, std::vector<std::string>& notes) {
  std::vector<Layer> layers;
  std::set<const ModelPreset*> seen;
  for (const std::string& name : options.models) {
    const ModelPreset& model = find_model(name);
    if (!seen.insert(&model).second) continue;
    if (!model.note.empty()) notes.push_back(fmt::format("{}: {}", model.name, model.note));
    std::vector<std::int64_t> expert_counts = options.limit_num_groups;
    if (expert_counts.empty()) expert_counts = {model.num_experts};
    for (const std::int64_t experts : expert_counts) check_experts(model, experts);
    for (const std::int64_t tp : options.tp_sizes) {
      for (const std::int64_t experts : expert_counts) {
        Layer layer = make_layer(options, model, tp, experts);
        if (kept(options.limit_k, layer.shape.hidden) &&
            kept(options.limit_n, layer.shape.intermediate)) {
          layers.push_back(layer);
        }
      }
    }
  }
  if (layers.empty()) {
    fail(ErrorCode::kUnavailable,
         "--limit-k, --limit-n: no layer of {} is left; moebench list models shows their K and N",
         printable(fmt::format("{}", fmt::join(options.models, ", "))));
  }
  return layers;
}

std::vector<Column> make_columns(const RunOptions& options,
                                 const std::vector<std::unique_ptr<Kernel>>& kernels) {
  std::vector<Column> columns;
  for (const Scheme scheme : options.schemes) {
    const std::size_t before = columns.size();
    for (const std::unique_ptr<Kernel>& kernel : kernels) {
      if (kernel->scheme() != scheme) continue;
      if (options.graph != GraphMode::kOn) columns.push_back({kernel.get(), false, kernel->name()});
      // Where a kernel has no graphs: asked for alone they are listed as skipped, "both" leaves
      // them out.
      const bool both = options.graph == GraphMode::kBoth && kernel->has_graphs();
      if (options.graph == GraphMode::kOn || both) {
        columns.push_back({kernel.get(), true, kernel->name() + "_cuda_graphs"});
      }
    }
    if (columns.size() == before) {
      fail(ErrorCode::kUnavailable,
           "--schemes: no kernel for {} here; moebench list backends says what there is",
           name_of(scheme));
    }
  }
  return columns;
}

std::ptrdiff_t find_baseline(const RunOptions& options, const std::vector<Column>& columns) {
  const auto matches = [&](const Column& column) {
    if (options.baseline.empty()) return column.kernel->scheme() == Scheme::kFp8;
    return column.name == options.baseline || name_of(column.kernel->scheme()) == options.baseline;
  };
  const auto found = std::find_if(columns.begin(), columns.end(), matches);
  if (found != columns.end()) return found - columns.begin();
  if (options.baseline.empty()) return -1;
  std::vector<std::string> names;
  for (const Column& column : columns) names.push_back(column.name);
  fail(ErrorCode::kBadInput, "--baseline: '{}' is not measured here, there are {}{}",
       printable(options.baseline), fmt::join(names, ", "), suggestion(options.baseline, names));
}

/// The options that make another case of the same sizes, as flags; empty where all have their
/// defaults.
std::vector<std::string> varied_flags(const RunOptions& options) {
  const RunOptions defaults;
  std::vector<std::string> flags;
  const auto add = [&flags](std::string flag, std::string value) {
    flags.push_back(std::move(flag));
    flags.push_back(std::move(value));
  };
  if (options.act != defaults.act) add("--act", name_of(options.act));
  const std::string routing = to_string(options.routing);
  if (routing != to_string(defaults.routing)) add("--routing", routing);
  if (options.seed != defaults.seed) add("--seed", fmt::to_string(options.seed));
  if (options.cache != defaults.cache) add("--cache", name_of(options.cache));
  if (options.threads != defaults.threads) add("--threads", fmt::to_string(options.threads));
  if (!options.isa.empty()) add("--isa", options.isa);
  return flags;
}

/// Options that say how a case is measured, not which case it is: in the command, not in the id.
std::vector<std::string> measuring_flags(const RunOptions& options) {
  const RunOptions defaults;
  std::vector<std::string> flags;
  const auto add = [&flags](std::string flag, std::string value) {
    flags.push_back(std::move(flag));
    flags.push_back(std::move(value));
  };
  if (to_string(options.stop) != to_string(defaults.stop)) add("--stop", to_string(options.stop));
  if (options.runs_per_call != 0) add("--runs-per-call", fmt::to_string(options.runs_per_call));
  if (to_string(options.check) != to_string(defaults.check)) {
    add("--check", to_string(options.check));
  }
  if (options.autotune) flags.push_back("--autotune");
  if (options.device_timeout_s != defaults.device_timeout_s) {
    add("--device-timeout", fmt::format("{:.0f}", options.device_timeout_s));
  }
  if (options.phases) flags.emplace_back("--phases");
  if (options.profile) flags.emplace_back("--profile");
  return flags;
}

const char* python_bool(bool value) { return value ? "True" : "False"; }

}  // namespace

Plan make_plan(const RunOptions& options, const std::vector<std::unique_ptr<Kernel>>& kernels) {
  Plan plan;
  plan.layers = make_layers(options, plan.notes);
  plan.columns = make_columns(options, kernels);
  plan.baseline = find_baseline(options, plan.columns);
  const std::int64_t cases =
      checked_product("plan", {std::ssize(plan.layers), std::ssize(options.per_act_token),
                               std::ssize(options.per_out_ch), std::ssize(options.batch_sizes),
                               std::ssize(plan.columns)});
  if (cases > kMaxCases) {
    fail(ErrorCode::kBadInput, "--batch-sizes: {} cases in all, more than {}; split the run", cases,
         kMaxCases);
  }
  const bool fp8 = std::count(options.schemes.begin(), options.schemes.end(), Scheme::kFp8) > 0;
  if (!fp8 && (options.per_act_token.size() > 1 || options.per_out_ch.size() > 1)) {
    plan.notes.emplace_back(
        "--limit-per-act-token, --limit-per-out-ch: only the fp8 scheme has them, and it is not in "
        "--schemes");
  }
  plan.comparisons.reserve(static_cast<std::size_t>(cases) / plan.columns.size());
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    Layer& layer = plan.layers[l];
    layer.first_comparison = plan.comparisons.size();
    for (const std::int64_t tokens : options.batch_sizes) {
      check_tokens(layer.shape, *layer.model, tokens);
    }
    for (const std::int64_t per_act_token : options.per_act_token) {
      for (const std::int64_t per_out_ch : options.per_out_ch) {
        for (const std::int64_t tokens : options.batch_sizes) {
          plan.comparisons.push_back({l, tokens, per_act_token != 0, per_out_ch != 0});
        }
      }
    }
    layer.comparisons = plan.comparisons.size() - layer.first_comparison;
  }
  return plan;
}

std::optional<std::size_t> baseline_of(const RunOptions& options, const Plan& plan,
                                       std::size_t column) {
  if (plan.baseline < 0) return std::nullopt;
  const auto baseline = static_cast<std::size_t>(plan.baseline);
  const bool by_name = options.baseline == plan.columns[baseline].name;
  if (by_name || !plan.columns[column].graph) return baseline;
  for (std::size_t other = 0; other < plan.columns.size(); ++other) {
    if (plan.columns[other].graph && plan.columns[other].kernel == plan.columns[baseline].kernel) {
      return other;
    }
  }
  return baseline;
}

int shown_threads(const Plan& plan, int threads) {
  const auto on_host = [](const Column& column) { return column.kernel->device() == nullptr; };
  return std::any_of(plan.columns.begin(), plan.columns.end(), on_host) ? threads : 1;
}

SchemeConfig scheme_config(const Comparison& comparison, const Column& column) {
  SchemeConfig config{.scheme = column.kernel->scheme()};
  if (config.scheme == Scheme::kFp8) {
    config.per_act_token = comparison.per_act_token;
    config.per_out_ch = comparison.per_out_ch;
  }
  return config;
}

Support case_support(const Layer& layer, const Comparison& comparison, const Column& column) {
  if (!layer.runnable.ok) return layer.runnable;
  if (column.graph && !column.kernel->has_graphs()) {
    return Support::no(fmt::format("{} has no CUDA graph to replay", column.kernel->name()));
  }
  const SchemeConfig config = scheme_config(comparison, column);
  try {
    validate(layer.shape, weight_format(config));
  } catch (const Error& error) {
    return Support::no(error.what());
  }
  Support support = column.kernel->supports(layer.shape, config);
  if (support.ok) support = column.kernel->supports_tokens(layer.shape, comparison.tokens);
  return support;
}

std::string case_id(const RunOptions& options, const Layer& layer, const Comparison& comparison,
                    const Column& column) {
  std::string id = fmt::format("{}/tp{}", layer.model->name, layer.tp);
  if (layer.shape.num_experts != layer.model->num_experts) {
    id += fmt::format("/e{}", layer.shape.num_experts);
  }
  id += fmt::format("/m{}", comparison.tokens);
  if (comparison.per_act_token) id += "/per_act_token";
  if (comparison.per_out_ch) id += "/per_out_ch";
  id += fmt::format("/{}/{}", name_of(column.kernel->scheme()), column.name);
  const std::vector<std::string> varied = varied_flags(options);
  for (std::size_t i = 0; i + 1 < varied.size(); i += 2) {
    id += fmt::format("/{}={}", varied[i].substr(2), varied[i + 1]);
  }
  if (layer.renormalize != layer.model->renormalize) {
    id += layer.renormalize ? "/renormalize" : "/no-renormalize";
  }
  return id;
}

std::string sub_label(const Layer& layer, const Comparison& comparison) {
  return fmt::format(
      "{}, num_experts={}, topk={}, per_act_token={} per_out_ch={}, MKN=(({}, {}, {}))",
      layer.model->name, layer.shape.num_experts, layer.shape.topk,
      python_bool(comparison.per_act_token), python_bool(comparison.per_out_ch), comparison.tokens,
      layer.shape.hidden, layer.shape.intermediate);
}

std::string repro_command(const RunOptions& options, const Layer& layer,
                          const Comparison& comparison, const Column& column) {
  std::vector<std::string> words = {"moebench",      "run",
                                    "--models",      std::string(layer.model->name),
                                    "--tp-sizes",    fmt::to_string(layer.tp),
                                    "--batch-sizes", fmt::to_string(comparison.tokens)};
  if (layer.shape.num_experts != layer.model->num_experts) {
    words.insert(words.end(), {"--limit-num-groups", fmt::to_string(layer.shape.num_experts)});
  }
  if (comparison.per_act_token) words.insert(words.end(), {"--limit-per-act-token", "1"});
  if (comparison.per_out_ch) words.insert(words.end(), {"--limit-per-out-ch", "1"});
  words.insert(words.end(), {"--schemes", name_of(column.kernel->scheme())});
  words.insert(words.end(), {"--graph", column.graph ? "on" : "off"});
  if (options.backend != "auto")
    words.insert(words.end(), {"--backend", column.kernel->backend_name()});
  if (layer.renormalize != layer.model->renormalize) {
    words.emplace_back(layer.renormalize ? "--renormalize" : "--no-renormalize");
  }
  for (const std::string& word : varied_flags(options)) words.push_back(word);
  for (const std::string& word : measuring_flags(options)) words.push_back(word);
  std::string command;
  for (const std::string& word : words) {
    if (!command.empty()) command += ' ';
    command += shell_quote(word);
  }
  return command;
}

CaseResult blank_result(const RunOptions& options, const Layer& layer, const Comparison& comparison,
                        const Column& column) {
  CaseResult result;
  result.id = case_id(options, layer, comparison, column);
  result.model = layer.model->name;
  result.num_experts = layer.shape.num_experts;
  result.topk = layer.shape.topk;
  result.hidden = layer.shape.hidden;
  result.intermediate = layer.shape.intermediate;
  result.tp = layer.tp;
  result.tokens = comparison.tokens;
  result.per_act_token = comparison.per_act_token;
  result.per_out_ch = comparison.per_out_ch;
  result.scheme = name_of(column.kernel->scheme());
  result.kernel = column.name;
  result.kernel_detail =
      column.kernel->case_detail(layer.shape, scheme_config(comparison, column), comparison.tokens);
  result.backend = column.kernel->backend_name();
  result.routing = to_string(options.routing);
  result.cache = name_of(options.cache);
  result.graph = column.graph;
  result.threads = options.threads;
  result.label = kTableLabel;
  result.sub_label = sub_label(layer, comparison);
  result.repro = repro_command(options, layer, comparison, column);
  return result;
}

}  // namespace moebench::cli
