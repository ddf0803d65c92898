// What a result was measured on: CPU, ISA, memory, limits, compiler, build. Key-value text, stable keys.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace moebench {

/// e.g. {"cpu.model", "..."}, {"cpu.threads", "2"}, {"cpu.isa", "avx2,avx512,avx512_bf16"}, {"memory.available_bytes", ...},
/// {"os.kernel", ...}, {"build.compiler", ...}, {"build.version", ...}, {"build.commit", ...}. No host name, no user name.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;
[[nodiscard]] Fingerprint fingerprint();

/// Memory that this process may still take: MemAvailable, less where a cgroup limit is tighter.
[[nodiscard]] std::int64_t available_memory_bytes();

}  // namespace moebench
