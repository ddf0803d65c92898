// The backend that a command works with: chosen by --backend, opened with --threads and --isa.
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
  BackendInfo chosen;
  std::vector<std::unique_ptr<Kernel>> kernels;  ///< of the chosen backend
  std::vector<std::string> notes;                ///< "cuda: not available (no driver); using cpu"
};

/// --backend auto takes the first backend that is available and says which it passed over. Throws
/// kUnavailable, with the cause, where the asked-for backend or ISA is not here.
[[nodiscard]] Machine open_machine(const RunOptions& options);

/// How a command comes by its machine: open_machine(), or what a test puts in its place.
using OpenMachine = std::function<Machine(const RunOptions&)>;

/// --threads, or the CPUs that this process may use.
[[nodiscard]] int thread_count(const RunOptions& options);

}  // namespace moebench::cli
