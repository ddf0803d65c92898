#include "moebench/cli/machine.h"

#include <utility>

#include "moebench/core/error.h"
#include "moebench/measure/fingerprint.h"

namespace moebench::cli {

Machine open_machine(const RunOptions& options) {
  Machine machine;
  machine.backends = make_backends({.threads = thread_count(options), .forced_isa = options.isa});
  const bool any = options.backend == "auto";
  for (const std::unique_ptr<Backend>& backend : machine.backends) {
    BackendInfo info = backend->info();
    if (!any && info.name != options.backend) continue;
    if (info.available.ok) {
      if (!machine.notes.empty()) machine.notes.back() += fmt::format("; using {}", info.name);
      machine.chosen = std::move(info);
      machine.kernels = backend->kernels();
      return machine;
    }
    if (!any) {
      fail(ErrorCode::kUnavailable, "--backend: {} is not available ({}); use --backend auto",
           info.name, info.available.reason);
    }
    machine.notes.push_back(
        fmt::format("{}: not available ({})", info.name, info.available.reason));
  }
  if (!any) {
    fail(ErrorCode::kUnavailable, "--backend: {} is not part of this build; use --backend auto",
         options.backend);
  }
  fail(ErrorCode::kUnavailable,
       "--backend: no backend is available; moebench list backends says why");
}

int thread_count(const RunOptions& options) {
  return options.threads > 0 ? options.threads : allowed_cpus();
}

}  // namespace moebench::cli
