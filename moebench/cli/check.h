// `moebench check`: correctness only. Every kernel, scheme option and CPU path that this machine
// has, against the oracle.
#pragma once

#include "moebench/cli/console.h"
#include "moebench/cli/machine.h"
#include "moebench/cli/options.h"

namespace moebench::cli {

/// Prints a line per kernel, options and shape, then "N passed, N failed, N skipped". Exit code 1
/// on a failure.
[[nodiscard]] int check(const Invocation& invocation, Console& console,
                        const OpenMachine& open = open_machine);

}  // namespace moebench::cli
