// What a machine, or a device of it, can read and multiply per second: measured, never looked up.
// The floor that every result is compared with.
#pragma once

#include <cstdint>
#include <string>

namespace moebench {

struct MachineRates {
  double read_bytes_per_s = 0.0;  ///< streaming through memory far larger than the caches, best of
                                  ///< several passes
  double flops_per_s = 0.0;  ///< peak of the multiply-add that the kernels use; 0: not measured
  int threads = 0;           ///< of the host; 0 for a device
  std::string read_kind;     ///< how the best pass read: "avx512, 4 streams"
  std::string flops_kind;    ///< which of those below is the peak: "fp32 fma, avx512"
  double fp32_flops_per_s = 0.0;  ///< FP32 multiply-add (2 operations each), the widest vectors
  double bf16_flops_per_s = 0.0;  ///< BF16 products into FP32; 0 where there are none
  double fp8_flops_per_s = 0.0;   ///< E4M3 products into FP32; 0 where there are none
  std::int64_t buffer_bytes = 0;  ///< memory that was streamed through
};

}  // namespace moebench
