// What this machine can read and multiply per second, measured once at start: the floor that every
// result is compared with.
#pragma once

#include <cstdint>
#include <string>

namespace moebench {

struct MachineRates {
  double read_bytes_per_s = 0.0;  ///< all threads streaming through memory far larger than the
                                  ///< caches, best of several passes
  double flops_per_s = 0.0;  ///< peak of the multiply-add that the CPU kernels use, all threads
                             ///< (FP32 or BF16 inputs)
  int threads = 0;
  std::string read_kind;  ///< loads and streams a thread of the best pass: "avx512, 4 streams"
  std::string
      flops_kind;  ///< which of the two below is the peak, and its instructions: "fp32 fma, avx512"
  double fp32_flops_per_s =
      0.0;  ///< FP32 multiply-add (2 operations each), the widest vectors here
  double bf16_flops_per_s = 0.0;  ///< BF16 dot product into FP32; 0 where the CPU has none
  std::int64_t buffer_bytes = 0;  ///< memory that was streamed through
};
/// Takes about a second. `buffer_bytes` is shared by the threads; 0 = 512 MiB or eight times the
/// last-level cache, whichever is more. It is capped to a quarter of the memory that is free.
/// `threads` 0 = all that this process may use.
[[nodiscard]] MachineRates measure_machine_rates(int threads, std::int64_t buffer_bytes = 0);

/// weight_bytes of the active experts / read rate: no kernel that streams its weights from memory
/// is faster. 0 where the rate is not known.
[[nodiscard]] double memory_floor_s(std::int64_t weight_bytes, const MachineRates& rates);

}  // namespace moebench
