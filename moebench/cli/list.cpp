#include "moebench/cli/list.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/cli/machine.h"
#include "moebench/cli/signals.h"
#include "moebench/core/error.h"
#include "moebench/measure/fingerprint.h"
#include "moebench/measure/memory_floor.h"
#include "moebench/model/presets.h"

namespace moebench::cli {
namespace {

using Json = nlohmann::ordered_json;

/// A table of text: columns as wide as their widest cell, the last one ragged.
std::string align(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string json_text(const Json& json) { return json.dump(2) + "\n"; }

std::string availability(const Support& support) {
  return support.ok ? "available" : "not available: " + support.reason;
}

/// auto lists all that there are.
bool asked_for(const RunOptions& options, const Backend& backend) {
  const std::vector<std::string> names = backend_names(options);
  return options.backend == "auto" || std::count(names.begin(), names.end(), backend.name()) > 0;
}

std::string list_models(bool json) {
  Json array = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"model", "experts", "top-k", "K", "N", "renorm", "runs", "its own router"}};
  for (const ModelPreset& model : model_presets()) {
    const Support support = computable(model);
    array.push_back({{"name", model.name},
                     {"num_experts", model.num_experts},
                     {"topk", model.topk},
                     {"hidden", model.hidden},
                     {"intermediate", model.intermediate},
                     {"renormalize", model.renormalize},
                     {"routing_note", model.routing_note},
                     {"activation", model.activation},
                     {"formats", model.formats},
                     {"confidence", std::string(1, model.confidence)},
                     {"note", model.note},
                     {"available", support.ok},
                     {"reason", support.reason}});
    rows.push_back({std::string(model.name), fmt::to_string(model.num_experts),
                    fmt::to_string(model.topk), fmt::to_string(model.hidden),
                    fmt::to_string(model.intermediate), model.renormalize ? "yes" : "no",
                    support.ok ? "yes" : "no", std::string(model.routing_note)});
    if (!support.ok) rows.back().back() += "; not run: " + support.reason;
  }
  return json ? json_text(array) : align(rows);
}

std::string list_backends(const RunOptions& options, bool json) {
  Json array = Json::array();
  std::string text;
  for (const auto& backend : make_backends(backend_options(options))) {
    if (!asked_for(options, *backend)) continue;
    const BackendInfo info = backend->info();
    Json kernels = Json::array();
    std::vector<std::vector<std::string>> rows;
    for (const auto& kernel : backend->kernels()) {
      kernels.push_back({{"name", kernel->name()},
                         {"scheme", name_of(kernel->scheme())},
                         {"detail", kernel->detail()}});
      rows.push_back({"  " + kernel->name(), name_of(kernel->scheme()), kernel->detail()});
    }
    array.push_back({{"name", info.name},
                     {"available", info.available.ok},
                     {"reason", info.available.reason},
                     {"detail", info.detail},
                     {"kernels", std::move(kernels)}});
    text += fmt::format("{}: {}{}\n{}", info.name, availability(info.available),
                        info.detail.empty() ? "" : " (" + info.detail + ")", align(rows));
  }
  return json ? json_text(array) : text;
}

std::string list_schemes(const RunOptions& options, bool json) {
  Json array = Json::array();
  std::vector<std::vector<std::string>> rows;
  std::vector<std::pair<Scheme, std::string>> kernels;
  for (const auto& backend : make_backends(backend_options(options))) {
    if (!asked_for(options, *backend)) continue;
    for (const auto& kernel : backend->kernels())
      kernels.emplace_back(kernel->scheme(), kernel->name());
  }
  for (const Scheme scheme : kAllSchemes) {
    std::vector<std::string> names;
    for (const auto& [of, name] : kernels) {
      if (of == scheme) names.push_back(name);
    }
    array.push_back({{"name", name_of(scheme)},
                     {"summary", summary_of(scheme)},
                     {"available", !names.empty()},
                     {"reason", names.empty() ? "no kernel here" : ""},
                     {"kernels", names}});
    rows.push_back({name_of(scheme), summary_of(scheme),
                    names.empty() ? "not available: no kernel here"
                                  : fmt::format("{}", fmt::join(names, ", "))});
  }
  return json ? json_text(array) : align(rows);
}

std::string list_routings(bool json) {
  constexpr std::array<std::pair<const char*, const char*>, 6> kRoutings = {{
      {"uniform", "each set of top-k experts equally likely"},
      {"balanced", "every expert gets the same number of tokens, give or take one"},
      {"zipf:S", "popularity of the expert of rank r as 1/(r+1)^S"},
      {"hot:K@F", "a fraction F of the tokens goes to the same K experts"},
      {"single", "all tokens to the same top-k experts"},
      {"trace:FILE", "from a file: one line per token, \"id:weight\" or \"id\" times top-k"},
  }};
  Json array = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, summary] : kRoutings) {
    array.push_back({{"name", name}, {"summary", summary}, {"available", true}, {"reason", ""}});
    rows.push_back({name, summary});
  }
  return json ? json_text(array) : align(rows);
}

}  // namespace

int list(const Invocation& invocation, Console& console) {
  if (invocation.list_what == "models") {
    console.out(list_models(invocation.json));
  } else if (invocation.list_what == "backends") {
    console.out(list_backends(invocation.run, invocation.json));
  } else if (invocation.list_what == "schemes") {
    console.out(list_schemes(invocation.run, invocation.json));
  } else {
    console.out(list_routings(invocation.json));
  }
  return written(console);
}

int env(const Invocation& invocation, Console& console) {
  const std::vector<std::unique_ptr<Backend>> backends =
      make_backends(backend_options(invocation.run));
  if (invocation.run.backend != "auto") {
    for (const std::string& name : backend_names(invocation.run)) {
      (void)available_backend(backends, name);
    }
  }
  Fingerprint facts = fingerprint();
  if (invocation.rates) {
    const MachineRates rates =
        measure_machine_rates(thread_count(invocation.run), 0, throw_if_stopped);
    facts.emplace_back("rates.threads", fmt::to_string(rates.threads));
    add_rates(facts, "rates", rates);
  }
  for (const auto& backend : backends) {
    if (!asked_for(invocation.run, *backend)) continue;
    if (signal_exit_code() != 0) throw Interrupted{};
    Device* const device = backend->is_companion() ? nullptr : backend->device();
    if (device == nullptr) continue;
    for (const auto& fact : device->facts()) facts.push_back(fact);
    if (invocation.rates) add_rates(facts, "rates." + device->name(), device->measure_rates());
  }
  if (signal_exit_code() != 0) throw Interrupted{};
  Json object = Json::object();
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : facts) {
    object[key] = value;
    rows.push_back({key, value});
  }
  console.out(invocation.json ? json_text(object) : align(rows));
  return written(console);
}

}  // namespace moebench::cli
