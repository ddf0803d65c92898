#include "tests/cuda/device_check_kernels.h"

#include "moebench/backend/cuda/quantize.h"

namespace moebench::cuda {
namespace {

constexpr int kBlocks = 1024;
constexpr int kThreads = 256;

__global__ void compare_e4m3(unsigned long long* wrong) {
  constexpr std::uint64_t kLast = 0xFFFFFFFF;
  constexpr std::uint64_t kStep = std::uint64_t{kBlocks} * kThreads;
  for (std::uint64_t bits = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; bits <= kLast;
       bits += kStep) {
    const float x = float_of(static_cast<std::uint32_t>(bits));
    if (x != x) continue;
    if (e4m3_code(x) != rounded_e4m3_code(x)) atomicAdd(wrong, 1ULL);
  }
}

}  // namespace

cudaError_t enqueue_compare_e4m3(unsigned long long* wrong, cudaStream_t stream) {
  compare_e4m3<<<kBlocks, kThreads, 0, stream>>>(wrong);
  return cudaGetLastError();
}

}  // namespace moebench::cuda
