// What this machine can read per second, measured once at start: the floor that every result is compared with.
#pragma once

#include <cstdint>

namespace moebench {

struct MachineRates {
  double read_bytes_per_s = 0.0;  ///< all threads streaming through memory far larger than the caches, best of several passes
  double flops_per_s = 0.0;       ///< peak of the multiply-add that the CPU kernels use, all threads (FP32 or BF16 inputs)
  int threads = 0;
};
/// Takes about a second. `buffer_bytes` is shared by the threads; it is capped to a fraction of free memory.
[[nodiscard]] MachineRates measure_machine_rates(int threads, std::int64_t buffer_bytes = std::int64_t{1} << 30);

/// weight_bytes of the active experts / read rate: no kernel that streams its weights from memory is faster.
[[nodiscard]] double memory_floor_s(std::int64_t weight_bytes, const MachineRates& rates);

}  // namespace moebench
