// The tensor cores' rates: two warpgroups per multiprocessor multiply the same tiles of random
// numbers in shared memory over and over. (Zeros would run faster than real data: less power.)
#include <algorithm>

#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/layout.h"
#include "moebench/backend/cuda/mma_rates.h"
#include "moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {
namespace {

constexpr int kThreads = 256;  ///< two warpgroups
constexpr int kRowBytes = 128;
constexpr int kRowsA = 64;
constexpr int kRowsB = 256;
constexpr int kSharedBytes = (kRowsA + kRowsB) * kRowBytes + 1024;
constexpr int kStepsPerRow = 4;  ///< a step is 32 bytes of depth: 16 BF16 or 32 E4M3
constexpr int kRounds = 2048;
constexpr int kSums = 128;

#define MOEBENCH_OUT4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MOEBENCH_OUT16(i) \
  MOEBENCH_OUT4(i), MOEBENCH_OUT4(i + 4), MOEBENCH_OUT4(i + 8), MOEBENCH_OUT4(i + 12)
#define MOEBENCH_OUT64(i) \
  MOEBENCH_OUT16(i), MOEBENCH_OUT16(i + 16), MOEBENCH_OUT16(i + 32), MOEBENCH_OUT16(i + 48)
#define MOEBENCH_NAMES10(t)                                                                        \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t \
  "9"
#define MOEBENCH_NAMES128 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " MOEBENCH_NAMES10(1) ", " MOEBENCH_NAMES10(2) ", " MOEBENCH_NAMES10( \
      3) ", " MOEBENCH_NAMES10(4) ", " MOEBENCH_NAMES10(5) ", " MOEBENCH_NAMES10(6) ", " MOEBENCH_NAMES10(      \
      7) ", " MOEBENCH_NAMES10(8) ", " MOEBENCH_NAMES10(9) ", " MOEBENCH_NAMES10(10) ", " MOEBENCH_NAMES10(     \
      11) ", %120, %121, %122, %123, %124, %125, %126, %127"

template <bool kFp8>
__device__ __forceinline__ void multiply(float (&d)[kSums], std::uint64_t a, std::uint64_t b) {
  if constexpr (kFp8) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k32.f32.e4m3.e4m3 {" MOEBENCH_NAMES128
                 "}, %128, %129, 1, 1, 1;\n"
                 : MOEBENCH_OUT64(0), MOEBENCH_OUT64(64)
                 : "l"(a), "l"(b));
  } else {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" MOEBENCH_NAMES128
                 "}, %128, %129, 1, 1, 1, 0, 0;\n"
                 : MOEBENCH_OUT64(0), MOEBENCH_OUT64(64)
                 : "l"(a), "l"(b));
  }
}

template <bool kFp8>
__global__ void __launch_bounds__(kThreads, 1) multiply_over_and_over(float* out) {
  extern __shared__ std::uint8_t shared[];
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t aligned = (base + 1023) / 1024 * 1024;
  auto* words = reinterpret_cast<std::uint32_t*>(shared + (aligned - base));
  // Magnitudes between 0.5 and 2, random signs and mantissas.
  constexpr std::uint32_t kRandom = kFp8 ? 0x87878787 : 0x807F807F;
  constexpr std::uint32_t kExponent = kFp8 ? 0x38383838 : 0x3F803F80;
  for (int i = static_cast<int>(threadIdx.x); i < (kRowsA + kRowsB) * kRowBytes / 4;
       i += kThreads) {
    std::uint32_t hash = (static_cast<std::uint32_t>(i) + blockIdx.x * 65537U) * 2654435761U;
    hash = (hash ^ (hash >> 15)) * 2246822519U;
    words[i] = ((hash ^ (hash >> 13)) & kRandom) | kExponent;
  }
  // The tensor cores read what ordinary stores wrote.
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const std::uint64_t a = operand_descriptor(aligned);
  const std::uint64_t b = operand_descriptor(aligned + kRowsA * kRowBytes);
  constexpr std::uint64_t kStep = 32 >> 4;
  float d[kSums] = {};
  for (int round = 0; round < kRounds; ++round) {
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kStepsPerRow; ++step)
      multiply<kFp8>(d, a + step * kStep, b + step * kStep);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
  }
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kSums; ++i) sum += d[i];
  out[blockIdx.x * kThreads + threadIdx.x] = sum;  // so that the work has a result
}

template <bool kFp8>
double measure(float* out, int multiprocessors, cudaStream_t stream) {
  constexpr int kLaunches = 8;
  constexpr double kDepth = kFp8 ? 32.0 : 16.0;
  const double operations =
      2.0 * kRowsA * kRowsB * kDepth * kStepsPerRow * kRounds * (kThreads / 128) * multiprocessors;
  cuda_check(cudaFuncSetAttribute(multiply_over_and_over<kFp8>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
             "preparing the rate of the tensor cores");
  Event begin = make_event();
  Event end = make_event();
  double best = 0.0;
  for (int launch = 0; launch < kLaunches; ++launch) {
    cuda_check(cudaEventRecord(begin.get(), stream), "measuring the tensor cores");
    multiply_over_and_over<kFp8><<<multiprocessors, kThreads, kSharedBytes, stream>>>(out);
    cuda_check(cudaGetLastError(), "measuring the tensor cores");
    cuda_check(cudaEventRecord(end.get(), stream), "measuring the tensor cores");
    wait(end.get(), "measuring the tensor cores");
    const double seconds = seconds_between(begin.get(), end.get());
    if (launch > 0) best = std::max(best, operations / seconds);  // the first loads the code
  }
  return best;
}

}  // namespace

MmaRates measure_mma_rates(cudaStream_t stream, int multiprocessors) {
  const DeviceBuffer out(std::int64_t{multiprocessors} * kThreads * 4,
                         "the rate of the tensor cores");
  return {measure<false>(out.as<float>(), multiprocessors, stream),
          measure<true>(out.as<float>(), multiprocessors, stream)};
}

}  // namespace moebench::cuda
