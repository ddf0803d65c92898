// --dry-run: what a run would do, and in what memory. Nothing is built.
#pragma once

#include <string>

#include "moebench/cli/console.h"
#include "moebench/cli/memory.h"
#include "moebench/cli/plan.h"

namespace moebench::cli {

/// One line: the layer, each format's bytes, the rest, the sum, and what follows from it.
[[nodiscard]] std::string describe_memory(const Layer& layer, const LayerMemory& memory,
                                          const MemoryDecision& decision);

/// Prints layers and cases; returns the exit code that a run would have if all went well.
[[nodiscard]] int print_plan(const RunOptions& options, const Plan& plan, std::int64_t available,
                             Console& console);

}  // namespace moebench::cli
