// Timing one GEMM of a case, for --autotune.
#include "moebench/backend/triton/forward.h"

namespace moebench::triton {

double TritonForward::time_gemm(bool down, const LoadedKernel& kernel, int group_m, int runs,
                                cudaStream_t stream) const {
  const cuda::Event start = cuda::make_event();
  const cuda::Event stop = cuda::make_event();
  enqueue_gemm(down, kernel, group_m, stream);  // a first launch is no measurement
  cuda::cuda_check(cudaEventRecord(start.get(), stream), "starting the device's clock");
  for (int run = 0; run < runs; ++run) enqueue_gemm(down, kernel, group_m, stream);
  cuda::cuda_check(cudaEventRecord(stop.get(), stream), "stopping the device's clock");
  cuda::wait(stop.get(), "trying a tile configuration", runs + 1);
  return cuda::seconds_between(start.get(), stop.get()) / runs;
}

}  // namespace moebench::triton
