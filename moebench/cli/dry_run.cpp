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

std::string describe_memory(const Layer& layer, const LayerMemory& memory,
                            const MemoryDecision& decision) {
  const MoeShape& shape = layer.shape;
  std::string line = fmt::format("{} tp{}, E={} top-{} K={} N={}:", layer.model->name, layer.tp,
                                 shape.num_experts, shape.topk, shape.hidden, shape.intermediate);
  if (memory.formats.empty()) return line + " nothing to run";
  for (std::size_t i = 0; i < memory.formats.size(); ++i) {
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
    const LayerMemory memory = layer_memory(options, plan, layer);
    const MemoryDecision decision = decide(memory, available);
    const bool refused = decision.arrangement == Arrangement::kRefused;
    text += describe_memory(layer, memory, decision) + "\n";
    if (refused) console.error(refusal(options, plan, layer, decision));
    for (std::size_t c = 0; c < layer.comparisons; ++c) {
      const Comparison& comparison = plan.comparisons[layer.first_comparison + c];
      const bool too_large = !memory.working.empty() && memory.working[c] > decision.working_limit;
      for (const Column& column : plan.columns) {
        const Support support = case_support(layer, comparison, column);
        text += "  " + case_id(options, layer, comparison, column);
        if (!support.ok) {
          text += "  skipped: " + support.reason;
        } else if (refused || too_large) {
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
  if (refused_any) return static_cast<int>(ErrorCode::kOutOfMemory);
  if (runnable > 0) return 0;
  console.error("nothing could run: every case is skipped, with its reason beside it");
  return static_cast<int>(ErrorCode::kUnavailable);
}

}  // namespace moebench::cli
