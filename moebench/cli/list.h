// `moebench list` and `moebench env`: what is there, and what this machine is.
#pragma once

#include "moebench/cli/console.h"
#include "moebench/cli/options.h"

namespace moebench::cli {

/// models, backends, schemes or routings, as text or JSON. What is not available is listed with the
/// reason.
[[nodiscard]] int list(const Invocation& invocation, Console& console);

/// The fingerprint that results carry; with --rates what the machine can read and multiply.
[[nodiscard]] int env(const Invocation& invocation, Console& console);

}  // namespace moebench::cli
