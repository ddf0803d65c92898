// SIGINT and SIGTERM ask a run to stop; what is finished is kept and printed. A second SIGINT ends
// the process at once.
#pragma once

#include "moebench/measure/measure.h"
#include "moebench/moe/weights.h"

namespace moebench::cli {

/// Installs the handlers and ignores SIGPIPE (writes report EPIPE) and SIGXFSZ (they report EFBIG).
void install_signal_handlers();

/// Set by the handlers.
[[nodiscard]] const StopFlag& stop_flag();
/// Sets the flag without a signal: the reason to stop is our own.
void request_stop();
/// Throws Interrupted where the flag is set.
void throw_if_stopped();
/// 130 or 143 after a signal, 0 before one.
[[nodiscard]] int signal_exit_code();

/// A device is lost: tidying up after it at the end of the process may hang. main() then ends the
/// process without.
void expect_hanging_exit();
[[nodiscard]] bool exit_may_hang();

/// `source`, but reading an expert throws Interrupted once `stop` is set: packing and judging take
/// many seconds and ask for one expert after the other.
[[nodiscard]] WeightSource interruptible(WeightSource source, const StopFlag& stop);

}  // namespace moebench::cli
