// The backends that a command works with: chosen by --backend, opened with --threads and --isa.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/cli/options.h"

namespace moebench::cli {

struct Machine {
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<BackendInfo> chosen;               ///< side by side, in the order asked for
  std::vector<std::unique_ptr<Kernel>> kernels;  ///< of the chosen backends
  std::vector<std::string> notes;                ///< "cuda: not available (no driver); using cpu"
};

/// --backend auto takes the first backend that is available and says which it passed over; a list
/// takes all that it names. Throws kUnavailable, with the cause, where an asked-for backend or ISA
/// is not here.
[[nodiscard]] Machine open_machine(const RunOptions& options);

/// How a command comes by its machine: open_machine(), or what a test puts in its place.
using OpenMachine = std::function<Machine(const RunOptions&)>;

/// Throws kUnavailable, with the cause, where `name` is not there or cannot run here.
[[nodiscard]] const Backend& available_backend(
    const std::vector<std::unique_ptr<Backend>>& backends, const std::string& name);

/// What --backend names: "auto" alone, or backends.
[[nodiscard]] std::vector<std::string> backend_names(const RunOptions& options);
[[nodiscard]] BackendOptions backend_options(const RunOptions& options);

/// The devices that `kernels` run on, each once.
[[nodiscard]] std::vector<Device*> devices_of(const std::vector<std::unique_ptr<Kernel>>& kernels);

/// Tells main() if a device of the machine is lost.
void expect_hanging_exit_after(const Machine& machine);

/// Appends "<prefix>.read_bytes_per_s" and what else was measured, as text.
void add_rates(std::vector<std::pair<std::string, std::string>>& facts, const std::string& prefix,
               const MachineRates& rates);

/// --threads, or default_threads().
[[nodiscard]] int thread_count(const RunOptions& options);

}  // namespace moebench::cli
