// --dry-run: what a run would do, and in what memory. Nothing is built.
#pragma once

#include <string>

#include "moebench/cli/console.h"
#include "moebench/cli/memory.h"
#include "moebench/cli/plan.h"

namespace moebench::cli {

/// One line: the layer, the memory where not the host's, each format's bytes in it, the rest, the
/// sum, and what follows.
[[nodiscard]] std::string describe_memory(const Layer& layer, const Place& place);

/// Prints layers and cases; returns the exit code that a run would have if all went well.
[[nodiscard]] int print_plan(const RunOptions& options, const Plan& plan, std::int64_t available,
                             Console& console);

}  // namespace moebench::cli
