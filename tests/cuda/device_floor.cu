// What the parts of a grouped GEMM that nothing can leave out take on this device when they run for
// seconds, at its power limit if they reach it: reading packed NVFP4 weights through the ring, and
// multiplying, alone and together. No expansion, no tokens from memory, no epilogue. Needs a
// device, so it is no part of the test suite: device_floor; a line for each size of tile.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <vector>

#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/gemm_ring.cuh"

namespace moebench::cuda {
namespace {

constexpr int kChunkBytes = kTileBlocks * kNvfp4ChunkBytes;  ///< of weights, for a thread block
constexpr int kStages = 8;
constexpr int kTileBytes = kMaxTileTokens * kOperandChunkBytes;
constexpr int kBytes = 1024 + kTileBytes + kStages * kChunkBytes + 2 * kStages * 8;
constexpr int kSteps = kChunkDepth / 16;
/// DeepSeek-R1's layer: 256 experts' three matrices of 7168 by 2048.
constexpr std::int64_t kLayerChunks = std::int64_t{256} * 3 * 7168 * 2048 / (256 * kChunkDepth);

struct FloorArgs {
  const std::uint8_t* weights;
  std::int64_t weight_chunks;
  int chunks;  ///< of each thread block
  float* sums;
  long long* clocks;
};

__device__ std::uint32_t hash_of(std::uint32_t x) {
  x = (x ^ (x >> 16)) * 2246822519U;
  x = (x ^ (x >> 13)) * 3266489917U;
  return x ^ (x >> 16);
}
/// Two FP16 numbers such as products E2M1 x E4M3 are: of random sign and magnitude, 5 bits of
/// mantissa.
__device__ std::uint32_t random_pair(std::uint32_t at) {
  return (hash_of(at) & 0x8FE08FE0) | 0x30003000;
}

template <int N, bool kMultiplies, bool kReads>
__global__ void __launch_bounds__(kGemmThreads, 1)
    floor_kernel(const __grid_constant__ FloorArgs args) {
  std::uint8_t* const shared = ptx::dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t tokens = (base + 1023) / 1024 * 1024;
  const std::uint32_t ring = tokens + kTileBytes;
  const std::uint32_t full = ring + kStages * kChunkBytes;
  const std::uint32_t empty = full + kStages * 8;
  auto* const words = reinterpret_cast<std::uint32_t*>(shared + (tokens - base));
  for (unsigned i = threadIdx.x; i < kTileBytes / 4; i += kGemmThreads)
    words[i] = random_pair(i + blockIdx.x * 65537);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::barrier_init(full + stage * 8, 1);
      ptx::barrier_init(empty + stage * 8, kConsumerThreads);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  const long long begin = clock64();
  RingPosition at;
  if (threadIdx.x >= kConsumerThreads) {
    ptx::fewer_registers<kProducerRegisters<false>>();
    if (kReads && threadIdx.x == kConsumerThreads) {
      // Neighbouring chunks are read at the same time by neighbouring blocks.
      std::int64_t next = blockIdx.x;
      for (int chunk = 0; chunk < args.chunks; ++chunk) {
        ptx::barrier_wait(empty + at.stage * 8, at.phase ^ 1);
        ptx::barrier_expect(full + at.stage * 8, kChunkBytes);
        ptx::copy_to_shared(ring + at.stage * kChunkBytes, args.weights + next * kChunkBytes,
                            kChunkBytes, full + at.stage * 8, ptx::policy_evict_first());
        next += gridDim.x;
        if (next >= args.weight_chunks) next -= args.weight_chunks;
        at.advance(kStages);
      }
    }
    return;
  }
  ptx::more_registers<kConsumerRegisters<false>>();
  std::uint32_t a[kSteps][4];
#pragma unroll
  for (int i = 0; i < kSteps * 4; ++i)
    a[i / 4][i % 4] = random_pair((blockIdx.x * kGemmThreads + threadIdx.x) * 64 + i);
  float sums[kGroupBlocks][N / 2] = {};
  const std::uint64_t operand = operand_descriptor(ptx::same_in_warp(tokens));
  for (int chunk = 0; chunk < args.chunks; ++chunk) {
    if constexpr (kReads) ptx::barrier_wait(full + at.stage * 8, at.phase);
    if constexpr (kMultiplies) {
#pragma unroll
      for (int block = 0; block < kGroupBlocks; ++block) {
#pragma unroll
        for (auto& fragment : a) ptx::keep_before(fragment);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          const int offset = step / 4 * (N * kSwizzleBytes) + step % 4 * 32;
          ptx::Wgmma<false, N>::multiply(sums[block], a[step], operand + (offset >> 4));
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
      }
    }
    if constexpr (kReads) {
      ptx::barrier_arrive_if(empty + at.stage * 8, true);
      at.advance(kStages);
    }
  }
  ptx::wgmma_wait<0>();
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kGroupBlocks * N / 2; ++i) sum += sums[i / (N / 2)][i % (N / 2)];
  args.sums[blockIdx.x * kConsumerThreads + threadIdx.x] = sum;
  if (threadIdx.x == 0) args.clocks[blockIdx.x] = clock64() - begin;
}

struct Floor {
  double layer_us;
  double mhz;
};

template <int N, bool kMultiplies, bool kReads>
Floor measure(const FloorArgs& args, int grid) {
  constexpr double kSeconds = 2.0;
  const auto kernel = floor_kernel<N, kMultiplies, kReads>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "preparing");
  Event begin = make_event();
  Event end = make_event();
  std::vector<Floor> runs;
  std::vector<long long> clocks(static_cast<std::size_t>(grid));
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
         kSeconds) {
    constexpr int kLaunches = 8;  // without a rest
    cuda_check(cudaEventRecord(begin.get(), nullptr), "measuring");
    for (int i = 0; i < kLaunches; ++i) kernel<<<grid, kGemmThreads, kBytes>>>(args);
    cuda_check(cudaGetLastError(), "measuring");
    cuda_check(cudaEventRecord(end.get(), nullptr), "measuring");
    wait(end.get(), "measuring");
    cuda_check(cudaMemcpy(clocks.data(), args.clocks, clocks.size() * sizeof(long long),
                          cudaMemcpyDeviceToHost),
               "reading the clocks");
    const double seconds = seconds_between(begin.get(), end.get()) / kLaunches;
    const double chunks = static_cast<double>(args.chunks) * grid;
    runs.push_back(
        {seconds * 1e6 * static_cast<double>(kLayerChunks) / chunks,
         static_cast<double>(*std::max_element(clocks.begin(), clocks.end())) / seconds * 1e-6});
  }
  // The second half: the clock has come to rest.
  std::vector<Floor> late(runs.begin() + static_cast<std::ptrdiff_t>(runs.size() / 2), runs.end());
  std::sort(late.begin(), late.end(),
            [](const Floor& x, const Floor& y) { return x.layer_us < y.layer_us; });
  return late[late.size() / 2];
}

template <int N>
void report(const FloorArgs& args, int grid) {
  const Floor multiplied = measure<N, true, false>(args, grid);
  const Floor read = measure<N, false, true>(args, grid);
  const Floor both = measure<N, true, true>(args, grid);
  const double flop = static_cast<double>(kLayerChunks) * 2.0 * 256.0 * kChunkDepth * N;
  std::printf(
      "tiles of %d: multiplying %.0f us (%.0f TFLOP/s, %.0f MHz), reading %.0f us (%.0f GB/s, %.0f "
      "MHz), both %.0f us (%.0f TFLOP/s, %.0f GB/s, %.0f MHz)\n",
      N, multiplied.layer_us, flop / multiplied.layer_us * 1e-6, multiplied.mhz, read.layer_us,
      static_cast<double>(kLayerChunks) * kChunkBytes / read.layer_us * 1e-3, read.mhz,
      both.layer_us, flop / both.layer_us * 1e-6,
      static_cast<double>(kLayerChunks) * kChunkBytes / both.layer_us * 1e-3, both.mhz);
  std::fflush(stdout);
}

void run() {
  int device = 0;
  int grid = 0;
  cuda_check(cudaGetDevice(&device), "asking for the device");
  cuda_check(cudaDeviceGetAttribute(&grid, cudaDevAttrMultiProcessorCount, device),
             "asking for the multiprocessors");
  FloorArgs args{};
  args.weight_chunks = kLayerChunks;
  args.chunks = static_cast<int>(kLayerChunks / grid);
  const DeviceBuffer weights(args.weight_chunks * kChunkBytes, "weights");
  const DeviceBuffer sums(std::int64_t{grid} * kConsumerThreads * 4, "sums");
  const DeviceBuffer clocks(std::int64_t{grid} * 8, "clocks");
  args.weights = weights.as<std::uint8_t>();
  args.sums = sums.as<float>();
  args.clocks = clocks.as<long long>();
  report<16>(args, grid);
  report<32>(args, grid);
  report<40>(args, grid);
  report<64>(args, grid);
  report<72>(args, grid);
}

}  // namespace
}  // namespace moebench::cuda

int main() {
  try {
    moebench::cuda::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "device_floor: %s\n", error.what());
    return 1;
  }
  return 0;
}
