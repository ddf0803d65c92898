// Three passes over the integers behind the weights: the largest of whatever shares a scale, the
// scales, the codes.
#include "moebench/backend/cuda/generate.h"

#include "moebench/backend/cuda/forward_launch.h"

namespace moebench::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kThreads = 128;
constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;
static_assert(kChunkDepth == kWarpThreads * kPhiloxColumns);

__device__ GeneratedMatrix matrix_of(const GenerateArgs& args, std::int64_t expert) {
  return {args.seed, static_cast<std::uint32_t>(expert), args.projection, args.hidden,
          args.intermediate};
}

/// A warp takes a row, a lane 4 columns of each chunk. blockIdx.y is the expert.
__global__ void __launch_bounds__(kThreads) find_largest(GenerateArgs args) {
  const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const std::int64_t expert = args.first_expert + blockIdx.y;
  const GeneratedMatrix matrix = matrix_of(args, expert);
  if (row >= matrix.rows()) return;
  const std::int64_t chunks = divide_up(matrix.columns(), kChunkDepth);
  auto* largest_of = reinterpret_cast<std::uint32_t*>(args.scales) +
                     expert * weight_scale_count(args.format, matrix.rows(), matrix.columns());
  const auto publish = [&](std::uint32_t largest, std::int64_t chunk) {
    largest = __reduce_max_sync(kAllLanes, largest);
    if (lane == 0) {
      atomicMax(largest_of + fp8_scale_place(args.format, row, chunk, chunks), largest);
    }
  };
  std::uint32_t largest = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::uint32_t here =
        largest_integer(matrix, row, chunk * kChunkDepth + lane * kPhiloxColumns);
    if (args.format == WeightFormat::kFp8Block) {
      publish(here, chunk);
    } else {
      largest = max(largest, here);
    }
  }
  if (args.format != WeightFormat::kFp8Block) publish(largest, 0);
}

__global__ void __launch_bounds__(kThreads)
    find_scales(float* scales, std::int64_t count, bool nvfp4) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto largest = static_cast<float>(__float_as_uint(scales[i]));
  const float amax = multiply(largest, kGeneratedStep);
  scales[i] = nvfp4 ? nvfp4_global_scale_of(amax) : fp8_scale_of(amax);
}

/// blockIdx.x: block of the matrix, blockIdx.y: expert. The threads take the pieces of its chunks
/// in turn.
template <bool kNvfp4>
__global__ void __launch_bounds__(kThreads) generate_blocks(GenerateArgs args) {
  constexpr int kPieces = kNvfp4 ? kNvfp4ChunkPieces : kFp8ChunkPieces;
  const std::int64_t expert = args.first_expert + blockIdx.y;
  const std::int64_t block = blockIdx.x;
  const GeneratedMatrix matrix = matrix_of(args, expert);
  const MatrixGeometry geometry = matrix_geometry(args.projection, args.hidden, args.intermediate,
                                                  kNvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes);
  std::uint8_t* chunks =
      args.packed + expert * geometry.expert_bytes() + block * geometry.block_bytes();
  const float* scales =
      args.scales + expert * weight_scale_count(args.format, matrix.rows(), matrix.columns());
  for (std::int64_t i = threadIdx.x; i < geometry.chunks * kPieces; i += kThreads) {
    const std::int64_t chunk = i / kPieces;
    const auto piece = static_cast<int>(i % kPieces);
    std::uint8_t* out = chunks + chunk * geometry.chunk_bytes;
    if constexpr (kNvfp4) {
      generate_nvfp4_piece(matrix, args.wide, *scales, block, chunk, piece, out);
    } else {
      generate_fp8_piece(matrix, args.format, scales, block, chunk, piece, out);
    }
  }
}

}  // namespace

cudaError_t enqueue_generate(const GenerateArgs& args, cudaStream_t stream) {
  if (args.experts == 0) return cudaSuccess;
  const bool nvfp4 = args.format == WeightFormat::kNvfp4;
  const GeneratedMatrix matrix{args.seed, 0, args.projection, args.hidden, args.intermediate};
  const MatrixGeometry geometry = matrix_geometry(args.projection, args.hidden, args.intermediate,
                                                  nvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes);
  const std::int64_t scale_count = weight_scale_count(args.format, matrix.rows(), matrix.columns());
  float* scales = args.scales + args.first_expert * scale_count;
  const std::int64_t count = args.experts * scale_count;
  const auto experts = static_cast<unsigned>(args.experts);
  const auto blocks_of = [experts](std::int64_t blocks) {
    return dim3(static_cast<unsigned>(blocks), experts);
  };
  cudaError_t error =
      cudaMemsetAsync(scales, 0, static_cast<std::size_t>(count) * sizeof(float), stream);
  if (error != cudaSuccess) return error;
  error = launch_alone(find_largest, blocks_of(divide_up(matrix.rows() * kWarpThreads, kThreads)),
                       kThreads, stream, args);
  if (error != cudaSuccess) return error;
  error = launch_alone(find_scales, dim3(static_cast<unsigned>(divide_up(count, kThreads))),
                       kThreads, stream, scales, count, nvfp4);
  if (error != cudaSuccess) return error;
  return launch_alone(nvfp4 ? generate_blocks<true> : generate_blocks<false>,
                      blocks_of(geometry.blocks), kThreads, stream, args);
}

}  // namespace moebench::cuda
