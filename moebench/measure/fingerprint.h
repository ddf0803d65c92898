// What a result was measured on: CPU, ISA, memory, limits, compiler, build. Key-value text, stable
// keys.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace moebench {

/// e.g. {"cpu.model", "..."}, {"cpu.threads", "2"}, {"cpu.isa", "avx2,avx512,avx512_bf16"},
/// {"memory.available_bytes", ...},
/// {"os.kernel", ...}, {"build.compiler", ...}, {"build.version", ...}, {"build.commit", ...}. No
/// host name, no user name, no path. Every key is always there, in the same order: a fact that this
/// machine does not give is "unknown", a limit that is not set is "none". Keys and meanings:
/// docs/MEASURING.md.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;
[[nodiscard]] Fingerprint fingerprint();

/// Those facts that times must agree in to be compared: the CPU, how much of it may be used, and
/// the build. Not what changes from day to day on one machine.
[[nodiscard]] Fingerprint comparable_facts();

/// Memory that this process may still take: MemAvailable, less where a cgroup limit is tighter.
[[nodiscard]] std::int64_t available_memory_bytes();

/// CPUs that this process may run on (its affinity mask), at least 1.
[[nodiscard]] int allowed_cpus();

/// Threads for whoever names no number: one for each allowed CPU, as far as the cgroups' quota and
/// OMP_THREAD_LIMIT go.
[[nodiscard]] int default_threads();

}  // namespace moebench
