#include "moebench/backend/cuda/device_kernels.h"

#include "moebench/backend/cuda/device.h"

namespace moebench::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kFillBlocks = 1024;

__global__ void fill_kernel(std::uint16_t* out, std::int64_t count, std::uint16_t value) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    out[i] = value;
  }
}

__global__ void overwrite_kernel(uint4* out, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const auto low = static_cast<unsigned>(i);
    out[i] = make_uint4(low, low, low, low);
  }
}

__global__ void hold_kernel(std::int64_t clocks) {
  const std::int64_t start = clock64();
  while (clock64() - start < clocks) {
  }
}

__device__ unsigned long long words_of(uint4 v) {
  return ((static_cast<unsigned long long>(v.y) << 32) | v.x) +
         ((static_cast<unsigned long long>(v.w) << 32) | v.z);
}

/// One atomic a warp.
__device__ void add_to_sum(unsigned long long value, unsigned long long* sum) {
  for (int lane = 16; lane > 0; lane /= 2) value += __shfl_down_sync(0xFFFFFFFFU, value, lane);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, value);
}

__global__ void stream_fill_kernel(uint4* out, std::int64_t count, unsigned long long* sum) {
  constexpr unsigned long long kSpread =
      0x9E3779B97F4A7C15ULL;  // odd: neighbours differ in all bytes
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  unsigned long long mine = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const unsigned long long low = (2ULL * static_cast<unsigned long long>(i) + 1ULL) * kSpread;
    const unsigned long long high = (2ULL * static_cast<unsigned long long>(i) + 2ULL) * kSpread;
    const uint4 v = make_uint4(static_cast<unsigned>(low), static_cast<unsigned>(low >> 32),
                               static_cast<unsigned>(high), static_cast<unsigned>(high >> 32));
    out[i] = v;
    mine += words_of(v);
  }
  add_to_sum(mine, sum);
}

__device__ uint4 load_once(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

/// Each block reads pieces of kLoads * blockDim.x consecutive 16-byte words, a grid apart.
template <int kLoads>
__global__ void stream_read_kernel(const uint4* in, std::int64_t count, unsigned long long* sum) {
  const std::int64_t piece = std::int64_t{kLoads} * blockDim.x;
  unsigned long long mine = 0;
  for (std::int64_t base = blockIdx.x * piece; base < count; base += gridDim.x * piece) {
    uint4 v[kLoads];
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      const std::int64_t at = base + std::int64_t{l} * blockDim.x + threadIdx.x;
      v[l] = at < count ? load_once(in + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int l = 0; l < kLoads; ++l) mine += words_of(v[l]);
  }
  add_to_sum(mine, sum);
}

}  // namespace

void enqueue_fill(std::uint16_t* out, std::int64_t count, std::uint16_t value,
                  cudaStream_t stream) {
  if (count == 0) return;
  fill_kernel<<<kFillBlocks, kThreads, 0, stream>>>(out, count, value);
  check_launch("filling memory");
}

void enqueue_overwrite(void* buffer, std::int64_t bytes, cudaStream_t stream) {
  overwrite_kernel<<<kFillBlocks, kThreads, 0, stream>>>(static_cast<uint4*>(buffer), bytes / 16);
  check_launch("flushing the cache");
}

void enqueue_hold(std::int64_t clocks, cudaStream_t stream) {
  hold_kernel<<<1, 1, 0, stream>>>(clocks);
  check_launch("holding the queue");
}

void enqueue_stream_fill(void* buffer, std::int64_t bytes, unsigned long long* sum,
                         cudaStream_t stream) {
  stream_fill_kernel<<<kFillBlocks, kThreads, 0, stream>>>(static_cast<uint4*>(buffer), bytes / 16,
                                                           sum);
  check_launch("filling the stream");
}

void enqueue_stream_read(const StreamRead& how, const void* buffer, std::int64_t bytes,
                         unsigned long long* sum, int multiprocessors, cudaStream_t stream) {
  const int blocks = how.blocks_per_multiprocessor * multiprocessors;
  const auto* const in = static_cast<const uint4*>(buffer);
  switch (how.loads_in_flight) {
    case 4:
      stream_read_kernel<4><<<blocks, how.threads, 0, stream>>>(in, bytes / 16, sum);
      break;
    case 8:
      stream_read_kernel<8><<<blocks, how.threads, 0, stream>>>(in, bytes / 16, sum);
      break;
    default:
      stream_read_kernel<16><<<blocks, how.threads, 0, stream>>>(in, bytes / 16, sum);
      break;
  }
  check_launch("streaming through memory");
}

}  // namespace moebench::cuda
