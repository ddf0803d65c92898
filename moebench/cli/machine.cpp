#include "moebench/cli/machine.h"

#include <omp.h>

#include <algorithm>
#include <utility>

#include "moebench/cli/signals.h"
#include "moebench/cli/values.h"
#include "moebench/core/error.h"
#include "moebench/measure/fingerprint.h"

namespace moebench::cli {
namespace {

void take(Machine& machine, const Backend& backend, BackendInfo info) {
  machine.chosen.push_back(std::move(info));
  for (std::unique_ptr<Kernel>& kernel : backend.kernels()) {
    machine.kernels.push_back(std::move(kernel));
  }
}

/// Backends with kernels of another make for the same device.
void take_companions(Machine& machine, const Backend& first) {
  if (first.device() == nullptr) return;
  for (const std::unique_ptr<Backend>& backend : machine.backends) {
    if (backend.get() == &first || backend->device() != first.device()) continue;
    take(machine, *backend, backend->info());
  }
}

void take_first_available(Machine& machine) {
  std::string last_reason;  // one cause, a driver that is missing, say, is told once
  for (const std::unique_ptr<Backend>& backend : machine.backends) {
    if (backend->is_companion()) continue;
    BackendInfo info = backend->info();
    if (info.available.ok) {
      if (!machine.notes.empty()) machine.notes.back() += fmt::format("; using {}", info.name);
      take(machine, *backend, std::move(info));
      take_companions(machine, *backend);
      return;
    }
    if (info.available.reason == last_reason) continue;
    last_reason = info.available.reason;
    machine.notes.push_back(fmt::format("{}: not available ({})", info.name, last_reason));
  }
  fail(ErrorCode::kUnavailable,
       "--backend: no backend is available; moebench list backends says why");
}

/// OpenMP would run fewer than were asked for, and results would name the wrong number.
void require_threads(const RunOptions& options) {
  const int limit = omp_get_thread_limit();
  if (options.threads > limit) {
    fail(ErrorCode::kBadInput, "--threads: {}, but OMP_THREAD_LIMIT is {}; raise it or use fewer",
         options.threads, limit);
  }
}

}  // namespace

const Backend& available_backend(const std::vector<std::unique_ptr<Backend>>& backends,
                                 const std::string& name) {
  for (const std::unique_ptr<Backend>& backend : backends) {
    if (backend->name() != name) continue;
    const Support available = backend->info().available;
    if (available.ok) return *backend;
    fail(ErrorCode::kUnavailable, "--backend: {} is not available ({}); use --backend auto", name,
         available.reason);
  }
  fail(ErrorCode::kUnavailable, "--backend: {} is not part of this build; use --backend auto",
       name);
}

std::vector<std::string> backend_names(const RunOptions& options) {
  return split_list(std::vector<std::string>{options.backend});
}

BackendOptions backend_options(const RunOptions& options) {
  return {.threads = thread_count(options),
          .forced_isa = options.isa,
          .isa_source = options.isa_source,
          .device_timeout_s = options.device_timeout_s,
          .routing = to_string(options.routing),
          .autotune = options.autotune};
}

Machine open_machine(const RunOptions& options) {
  Machine machine;
  require_threads(options);
  machine.backends = make_backends(backend_options(options));
  if (options.backend == "auto") {
    take_first_available(machine);
  } else {
    for (const std::string& name : backend_names(options)) {
      const Backend& backend = available_backend(machine.backends, name);
      take(machine, backend, backend.info());
    }
  }
  if (options.threads == 0 && thread_count(options) < allowed_cpus()) {
    machine.notes.push_back(
        fmt::format("threads: {} for {} CPUs, a CPU quota or OMP_THREAD_LIMIT allows no more",
                    thread_count(options), allowed_cpus()));
  }
  return machine;
}

std::vector<Device*> devices_of(const std::vector<std::unique_ptr<Kernel>>& kernels) {
  std::vector<Device*> devices;
  for (const std::unique_ptr<Kernel>& kernel : kernels) {
    Device* const device = kernel->device();
    if (device != nullptr && std::count(devices.begin(), devices.end(), device) == 0) {
      devices.push_back(device);
    }
  }
  return devices;
}

void expect_hanging_exit_after(const Machine& machine) {
  for (const Device* device : devices_of(machine.kernels)) {
    if (!device->lost().empty()) expect_hanging_exit();
  }
}

void add_rates(std::vector<std::pair<std::string, std::string>>& facts, const std::string& prefix,
               const MachineRates& rates) {
  const auto rate = [&](const char* key, double value) {
    if (value > 0.0) facts.emplace_back(prefix + key, fmt::format("{:.4g}", value));
  };
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) facts.emplace_back(prefix + key, value);
  };
  rate(".read_bytes_per_s", rates.read_bytes_per_s);
  text(".read_kind", rates.read_kind);
  rate(".flops_per_s", rates.flops_per_s);
  text(".flops_kind", rates.flops_kind);
  rate(".bf16_flops_per_s", rates.bf16_flops_per_s);
  rate(".fp8_flops_per_s", rates.fp8_flops_per_s);
}

int thread_count(const RunOptions& options) {
  static const int by_default = default_threads();
  return options.threads > 0 ? options.threads : by_default;
}

}  // namespace moebench::cli
