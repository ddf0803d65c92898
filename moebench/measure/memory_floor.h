// What this machine can read and multiply per second, measured once at start: the floor that every
// result is compared with.
#pragma once

#include <cstdint>

#include "moebench/backend/machine_rates.h"

namespace moebench {

/// Of the host. Takes about a second. `buffer_bytes` is shared by the threads; 0 = 512 MiB or eight
/// times the last-level cache, whichever is more. It is capped to a quarter of the memory that is
/// free. `threads` 0 = all that this process may use.
[[nodiscard]] MachineRates measure_machine_rates(int threads, std::int64_t buffer_bytes = 0);

/// weight_bytes of the active experts / read rate: no kernel that streams its weights from memory
/// is faster. 0 where the rate is not known.
[[nodiscard]] double memory_floor_s(std::int64_t weight_bytes, const MachineRates& rates);

}  // namespace moebench
