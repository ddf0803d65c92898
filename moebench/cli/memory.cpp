#include "moebench/cli/memory.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "moebench/core/checked.h"

namespace moebench::cli {
namespace {

/// The oracle keeps expected values, radii and a stage's intervals as doubles, in each of the
/// checked rows.
constexpr std::int64_t kOracleDoublesPerElement = 8;
/// Threads that quantise an expert of their own while packing or judging.
constexpr std::int64_t kExpertsInFlight = 4;

std::int64_t checked_rows(const RunOptions& options, std::int64_t tokens) {
  switch (options.check.kind) {
    case CheckSpec::Kind::kFull:
      return tokens;
    case CheckSpec::Kind::kSample:
      // The row that holds the dynamic scale's claim comes on top.
      return std::min(tokens, options.check.sample_rows + 1);
    case CheckSpec::Kind::kOff:
      return 0;
  }
  return 0;
}

/// What the columns on `device` hold there beside weights while `comparison` runs.
std::int64_t device_working_bytes(const RunOptions& options, const Plan& plan, const Layer& layer,
                                  const Comparison& comparison, const Device* device) {
  const std::int64_t copies = options.cache == CacheMode::kRotate ? kRotatedCopies : 1;
  std::int64_t bytes = 0;
  for (const Column& column : plan.columns) {
    if (column.kernel->device() != device || !case_support(layer, comparison, column).ok) continue;
    const std::int64_t scratch = column.kernel->scratch_bytes(
        layer.shape, scheme_config(comparison, column), comparison.tokens);
    bytes = checked_sum("memory", bytes, checked_product("memory", {copies, scratch}));
  }
  return bytes;
}

/// Everything but weights that comparing `comparison` holds at once in the host's memory.
std::int64_t working_bytes(const RunOptions& options, const Plan& plan, const Layer& layer,
                           const Comparison& comparison) {
  const std::int64_t copies = options.cache == CacheMode::kRotate ? kRotatedCopies : 1;
  const std::int64_t tokens = comparison.tokens;
  const MoeShape& shape = layer.shape;
  const std::int64_t activation = checked_product("tokens", {tokens, shape.hidden, 2});
  // ids and weights of the routing and its logits while it is drawn.
  const std::int64_t routing = checked_product(
      "routing", {tokens, shape.topk + shape.num_experts, std::int64_t{sizeof(double)}});
  const std::int64_t rows = checked_rows(options, tokens);
  const std::int64_t oracle =
      checked_product("check", {rows, shape.hidden + 3 * shape.intermediate * shape.topk,
                                kOracleDoublesPerElement, std::int64_t{sizeof(double)}});
  std::int64_t bytes = oracle;
  for (const Column& column : plan.columns) {
    if (!case_support(layer, comparison, column).ok) continue;
    const std::int64_t scratch =
        column.kernel->device() != nullptr
            ? 0
            : column.kernel->scratch_bytes(shape, scheme_config(comparison, column), tokens);
    // Input, answer and the verified copy of it; scratch per prepared copy.
    bytes = checked_sum("memory", bytes, checked_product("memory", {copies, scratch}));
    bytes = checked_sum("memory", bytes, checked_product("memory", {copies + 2, activation}));
    bytes = checked_sum("memory", bytes, checked_product("memory", {copies, routing}));
  }
  return bytes;
}

/// The columns' formats over the layer's comparisons: the two fp8 switches are all that can change
/// them. One comparison of each kind is enough for a column, if it can run at all.
std::vector<WeightFormat> needed_formats(const Plan& plan, const Layer& layer, const Device* place,
                                         std::vector<std::int64_t>& weights) {
  std::vector<WeightFormat> formats;
  // Each layout of a format is packed for itself.
  std::map<std::pair<WeightFormat, std::string>, std::int64_t> of_layout;
  const auto add = [&](const Comparison& comparison, const Column& column) {
    const SchemeConfig config = scheme_config(comparison, column);
    const WeightFormat format = weight_format(config);
    const std::int64_t bytes =
        column.kernel->device() == place ? column.kernel->packed_bytes(layer.shape, config) : 0;
    const auto found = std::find(formats.begin(), formats.end(), format);
    const auto index = static_cast<std::size_t>(found - formats.begin());
    if (found == formats.end()) {
      formats.push_back(format);
      weights.push_back(0);
    }
    std::int64_t& known = of_layout[{format, column.kernel->weight_layout()}];
    if (bytes <= known) return;
    weights[index] = checked_sum("memory", weights[index], bytes - known);
    known = bytes;
  };
  std::vector<std::size_t> order(plan.columns.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (plan.baseline >= 0)
    std::rotate(order.begin(), order.begin() + plan.baseline, order.begin() + plan.baseline + 1);
  std::vector<bool> seen[2][2];  // by column
  for (std::size_t c = 0; c < layer.comparisons; ++c) {
    const Comparison& comparison = plan.comparisons[layer.first_comparison + c];
    std::vector<bool>& added = seen[comparison.per_act_token][comparison.per_out_ch];
    added.resize(order.size());
    for (const std::size_t column : order) {
      if (added[column] || !case_support(layer, comparison, plan.columns[column]).ok) continue;
      add(comparison, plan.columns[column]);
      added[column] = true;
    }
  }
  return formats;
}

/// A device that does not answer has room for everything: its cases end with what happened to it.
std::int64_t available_on(const Device& device) {
  constexpr std::int64_t kEverything = std::numeric_limits<std::int64_t>::max();
  if (!device.lost().empty()) return kEverything;
  try {
    return device.memory().available;
  } catch (const Error&) {
    return kEverything;
  }
}

/// " on cuda" for a device's memory.
std::string on(const MemoryDecision& decision) {
  return decision.place != nullptr ? " on " + decision.place->name() : "";
}

}  // namespace

LayerMemory layer_memory(const RunOptions& options, const Plan& plan, const Layer& layer,
                         const Device* place) {
  LayerMemory memory;
  memory.formats = needed_formats(plan, layer, place, memory.weights);
  if (memory.formats.empty()) return memory;
  if (place != nullptr) {
    for (std::size_t c = 0; c < layer.comparisons; ++c) {
      memory.working.push_back(device_working_bytes(
          options, plan, layer, plan.comparisons[layer.first_comparison + c], place));
    }
    return memory;
  }
  std::int64_t in_flight = 0;
  for (const WeightFormat format : memory.formats) {
    in_flight = std::max(
        in_flight,
        checked_product("experts", {expert_weight_bytes(layer.shape, format), kExpertsInFlight}));
  }
  memory.working.reserve(layer.comparisons);
  for (std::size_t c = 0; c < layer.comparisons; ++c) {
    const Comparison& comparison = plan.comparisons[layer.first_comparison + c];
    memory.working.push_back(
        checked_sum("memory", in_flight, working_bytes(options, plan, layer, comparison)));
  }
  return memory;
}

MemoryDecision decide(const LayerMemory& memory, std::int64_t available) {
  MemoryDecision decision{.available = available};
  decision.working_limit = std::numeric_limits<std::int64_t>::max();
  if (memory.formats.empty() || memory.working.empty()) return decision;
  const std::int64_t largest_format =
      *std::max_element(memory.weights.begin(), memory.weights.end());
  std::int64_t all_formats = 0;
  for (const std::int64_t bytes : memory.weights)
    all_formats = checked_sum("memory", all_formats, bytes);
  const std::int64_t base = checked_sum("memory", largest_format, kMemoryReserve);
  const std::int64_t smallest = *std::min_element(memory.working.begin(), memory.working.end());
  if (checked_sum("memory", base, smallest) > available) {
    decision.arrangement = Arrangement::kRefused;
    decision.needed = base + smallest;
    return decision;
  }
  decision.working_limit = available - base;
  std::int64_t working = 0;  // of the largest comparison that can run at all
  for (const std::int64_t bytes : memory.working) {
    if (bytes <= decision.working_limit) working = std::max(working, bytes);
  }
  const std::int64_t together = checked_sum("memory", all_formats + kMemoryReserve, working);
  decision.arrangement = together <= available ? Arrangement::kTogether : Arrangement::kOneByOne;
  decision.needed = decision.arrangement == Arrangement::kTogether ? together : base + working;
  return decision;
}

std::vector<Place> layer_places(const RunOptions& options, const Plan& plan, const Layer& layer,
                                std::int64_t available) {
  std::vector<Place> places;
  const auto add = [&](const Device* device, std::int64_t bytes) {
    Place& place = places.emplace_back();
    place.memory = layer_memory(options, plan, layer, device);
    place.decision = decide(place.memory, bytes);
    place.decision.place = device;
    if (place.decision.arrangement == Arrangement::kRefused) {
      place.refused = refusal(options, plan, layer, place.decision);
    }
  };
  add(nullptr, available);
  for (const Column& column : plan.columns) {
    const Device* const device = column.kernel->device();
    const auto known = [&](const Place& place) { return place.decision.place == device; };
    if (std::any_of(places.begin(), places.end(), known)) continue;
    add(device, available_on(*device));
  }
  return places;
}

Arrangement arrangement_of(const std::vector<Place>& places) {
  const auto any = [&](Arrangement arrangement) {
    return std::any_of(places.begin(), places.end(), [&](const Place& place) {
      return place.decision.arrangement == arrangement;
    });
  };
  const auto refused = [](const Place& place) {
    return place.decision.arrangement == Arrangement::kRefused;
  };
  const bool no_device =
      places.size() > 1 && std::all_of(places.begin() + 1, places.end(), refused);
  const bool nothing_on_host =
      std::all_of(places.front().memory.weights.begin(), places.front().memory.weights.end(),
                  [](std::int64_t bytes) { return bytes == 0; });
  if (refused(places.front()) || (no_device && nothing_on_host)) return Arrangement::kRefused;
  return any(Arrangement::kOneByOne) ? Arrangement::kOneByOne : Arrangement::kTogether;
}

bool has_room_for(std::int64_t bytes, const std::vector<Place>& places) {
  const MemoryDecision& host = places.front().decision;
  if (host.arrangement == Arrangement::kRefused) return true;  // takes nothing
  return checked_sum("memory", host.needed, bytes) <= host.available;
}

std::string memory_refusal(const Plan& plan, const Layer& layer, const std::vector<Place>& places,
                           std::size_t comparison, const Column& column) {
  for (const Place& place : places) {
    const Device* const device = place.decision.place;
    if (device != nullptr && device != column.kernel->device()) continue;
    if (!place.refused.empty()) return place.refused;
    if (place.memory.working.empty()) continue;
    const std::int64_t working = place.memory.working[comparison];
    if (working > place.decision.working_limit) {
      return comparison_refusal(layer, plan.comparisons[layer.first_comparison + comparison],
                                working, place.decision);
    }
  }
  return {};
}

std::optional<std::int64_t> experts_that_fit(const RunOptions& options, const Plan& plan,
                                             const Layer& layer, std::int64_t available,
                                             const Device* place) {
  const auto fits = [&](std::int64_t experts) {
    Layer smaller = layer;
    smaller.shape.num_experts = experts;
    return decide(layer_memory(options, plan, smaller, place), available).arrangement !=
           Arrangement::kRefused;
  };
  std::int64_t low = layer.shape.topk;
  if (!fits(low)) return std::nullopt;
  std::int64_t high = layer.shape.num_experts;  // refused
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

std::string refusal(const RunOptions& options, const Plan& plan, const Layer& layer,
                    const MemoryDecision& decision) {
  const std::optional<std::int64_t> experts =
      experts_that_fit(options, plan, layer, decision.available, decision.place);
  return fmt::format("{}: needs {}, {} available{}; {}", layer.model->name,
                     gigabytes(decision.needed), gigabytes(decision.available), on(decision),
                     experts ? fmt::format("--limit-num-groups {} would fit", *experts)
                             : "not even its top-k experts would fit, use smaller --batch-sizes or "
                               "a larger --tp-sizes");
}

std::string comparison_refusal(const Layer& layer, const Comparison& comparison,
                               std::int64_t working, const MemoryDecision& decision) {
  return fmt::format(
      "{}: {} tokens need {} beside the weights, {} available{}; use smaller --batch-sizes",
      layer.model->name, comparison.tokens, gigabytes(working), gigabytes(decision.working_limit),
      on(decision));
}

std::string gigabytes(std::int64_t bytes) {
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace moebench::cli
