#include "moebench/cli/dry_run.h"

#include <algorithm>
#include <utility>

#include "moebench/core/error.h"

namespace moebench::cli {
namespace {

/// Long plans are written in pieces of about this size.
constexpr std::size_t kPieceBytes = 1 << 16;

const char* name_of(Arrangement arrangement) {
  switch (arrangement) {
    case Arrangement::kTogether:
      return "all formats at once";
    case Arrangement::kOneByOne:
      return "one format after the other";
    case Arrangement::kRefused:
      return "does not fit";
  }
  return "";
}

}  // namespace

std::string describe_memory(const Layer& layer, const Place& place) {
  const auto& [memory, decision, refused] = place;
  const MoeShape& shape = layer.shape;
  std::string line = fmt::format("{} tp{}, E={} top-{} K={} N={}{}:", layer.model->name, layer.tp,
                                 shape.num_experts, shape.topk, shape.hidden, shape.intermediate,
                                 decision.place != nullptr ? ", on " + decision.place->name() : "");
  if (memory.formats.empty()) return line + " nothing to run";
  for (std::size_t i = 0; i < memory.formats.size(); ++i) {
    if (memory.weights[i] == 0) continue;  // in another memory
    line +=
        fmt::format(" {} {},", moebench::name_of(memory.formats[i]), gigabytes(memory.weights[i]));
  }
  const std::int64_t working = *std::max_element(memory.working.begin(), memory.working.end());
  return line + fmt::format(" beside them {}; needs {} of {}: {}",
                            gigabytes(working + kMemoryReserve), gigabytes(decision.needed),
                            gigabytes(decision.available), name_of(decision.arrangement));
}

int print_plan(const RunOptions& options, const Plan& plan, std::int64_t available,
               Console& console) {
  std::int64_t runnable = 0;
  bool refused_any = false;
  std::string text = fmt::format("{} layers, {} comparisons, {} cases\n", plan.layers.size(),
                                 plan.comparisons.size(), plan.cases());
  for (const Layer& layer : plan.layers) {
    const std::vector<Place> places = layer_places(options, plan, layer, available);
    for (const Place& place : places) {
      text += describe_memory(layer, place) + "\n";
      if (!place.refused.empty()) console.error(place.refused);
    }
    for (std::size_t c = 0; c < layer.comparisons; ++c) {
      const Comparison& comparison = plan.comparisons[layer.first_comparison + c];
      for (const Column& column : plan.columns) {
        const Support support = case_support(layer, comparison, column);
        text += "  " + case_id(options, layer, comparison, column);
        if (!support.ok) {
          text += "  skipped: " + support.reason;
        } else if (!memory_refusal(plan, layer, places, c, column).empty()) {
          text += "  skipped: not enough memory";
          refused_any = true;
        } else {
          ++runnable;
        }
        text += '\n';
      }
      if (text.size() >= kPieceBytes) console.out(std::exchange(text, {}));
    }
  }
  console.out(text);
  if (const int code = written(console); code != 0) return code;
  if (refused_any) return static_cast<int>(ErrorCode::kOutOfMemory);
  if (runnable > 0) return 0;
  console.error("nothing could run: every case is skipped, with its reason beside it");
  return static_cast<int>(ErrorCode::kUnavailable);
}

}  // namespace moebench::cli
