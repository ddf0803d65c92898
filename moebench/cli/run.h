// `moebench run`: plan, memory, then each layer's comparisons; results to the journal at once, to
// the tables at the end.
#pragma once

#include <string>
#include <vector>

#include "moebench/cli/console.h"
#include "moebench/cli/machine.h"
#include "moebench/cli/options.h"

namespace moebench::cli {

/// `argv` as given, for the record. Returns the exit code; throws Error for what stops the whole
/// run.
[[nodiscard]] int run(const RunOptions& options, const std::vector<std::string>& argv,
                      Console& console, const OpenMachine& open = open_machine);

}  // namespace moebench::cli
