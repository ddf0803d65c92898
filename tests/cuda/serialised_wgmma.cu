// What check_machine_code is there to find: registers of a multiplication under way are written, so
// that ptxas lets each multiplication wait for the one before.
#include "moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {

__global__ void serialised_wgmma(float* out, std::uint64_t operand, int count) {
  float sums[16] = {};
  std::uint32_t a[4] = {threadIdx.x, 1, 2, 3};
  for (int i = 0; i < count; ++i) {
    ptx::wgmma_fence();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      a[j] += threadIdx.x;
      ptx::Wgmma<false, 32>::multiply(sums, a, operand + j);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
  }
  for (int j = 0; j < 16; ++j) out[j * blockDim.x + threadIdx.x] = sums[j];
}

}  // namespace moebench::cuda
