// The synthetic layer in canonical order: the pieces of the other generator, rows in place of
// blocks.
#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/generate_pieces.h"
#include "moebench/backend/triton/kernels.h"

namespace moebench::triton {
namespace {

using cuda::GeneratedMatrix;
using cuda::Projection;

constexpr int kThreads = 256;
constexpr int kWarpThreads = 32;
constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;

__device__ GeneratedMatrix matrix_of(const GenerateCanonicalArgs& args, std::int64_t expert) {
  return {args.seed, static_cast<std::uint32_t>(expert),
          args.down ? Projection::kDown : Projection::kGateUp, args.hidden, args.intermediate};
}

__host__ __device__ std::int64_t scales_of_one(const GenerateCanonicalArgs& args,
                                               std::int64_t rows) {
  return args.per_channel ? rows : 1;
}

/// blockIdx.x: row, blockIdx.y: expert. The largest integer, in the scale's place.
__global__ void __launch_bounds__(kThreads) find_row_largest(GenerateCanonicalArgs args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t expert = args.first_expert + blockIdx.y;
  const GeneratedMatrix matrix = matrix_of(args, expert);
  std::uint32_t largest = 0;
  for (std::int64_t column = std::int64_t{threadIdx.x} * cuda::kPhiloxColumns;
       column < matrix.columns(); column += std::int64_t{kThreads} * cuda::kPhiloxColumns) {
    largest = max(largest, cuda::largest_integer(matrix, row, column));
  }
  largest = __reduce_max_sync(kAllLanes, largest);
  auto* place = reinterpret_cast<std::uint32_t*>(args.scales) +
                expert * scales_of_one(args, matrix.rows()) + (args.per_channel ? row : 0);
  if (threadIdx.x % kWarpThreads == 0) atomicMax(place, largest);
}

__global__ void __launch_bounds__(kThreads) turn_into_scales(float* scales, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto largest = static_cast<float>(__float_as_uint(scales[i]));
  scales[i] = cuda::fp8_scale_of(cuda::multiply(largest, cuda::kGeneratedStep));
}

/// blockIdx.x: row, blockIdx.y: expert.
__global__ void __launch_bounds__(kThreads) generate_row(GenerateCanonicalArgs args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t expert = args.first_expert + blockIdx.y;
  const GeneratedMatrix matrix = matrix_of(args, expert);
  const std::int64_t columns = matrix.columns();
  const float scale =
      args.scales[expert * scales_of_one(args, matrix.rows()) + (args.per_channel ? row : 0)];
  std::uint8_t* out = args.codes + (expert * matrix.rows() + row) * columns;
  for (std::int64_t column = std::int64_t{threadIdx.x} * cuda::kPhiloxColumns; column < columns;
       column += std::int64_t{kThreads} * cuda::kPhiloxColumns) {
    std::int32_t integers[cuda::kPhiloxColumns];
    cuda::generate_integers(matrix, row, column, integers);
    float quotients[cuda::kPhiloxColumns];
    for (int i = 0; i < cuda::kPhiloxColumns; ++i) {
      quotients[i] = cuda::divide(
          cuda::multiply(static_cast<float>(integers[i]), cuda::kGeneratedStep), scale);
    }
    // Columns are multiples of 16: never past the row's end.
    *reinterpret_cast<std::uint32_t*>(out + column) =
        cuda::e4m3_codes(quotients[0], quotients[1]) | cuda::e4m3_codes(quotients[2], quotients[3])
                                                           << 16;
  }
}

}  // namespace

cudaError_t enqueue_generate_canonical(const GenerateCanonicalArgs& args, cudaStream_t stream) {
  if (args.experts == 0) return cudaSuccess;
  const std::int64_t rows = args.down ? args.hidden : 2 * args.intermediate;
  const std::int64_t count = args.experts * scales_of_one(args, rows);
  float* scales = args.scales + args.first_expert * scales_of_one(args, rows);
  cudaError_t error =
      cudaMemsetAsync(scales, 0, static_cast<std::size_t>(count) * sizeof(float), stream);
  if (error != cudaSuccess) return error;
  const dim3 blocks(static_cast<unsigned>(rows), static_cast<unsigned>(args.experts));
  error = cuda::launch_alone(find_row_largest, blocks, kThreads, stream, args);
  if (error != cudaSuccess) return error;
  error = cuda::launch_alone(turn_into_scales,
                             dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)),
                             kThreads, stream, scales, count);
  if (error != cudaSuccess) return error;
  return cuda::launch_alone(generate_row, blocks, kThreads, stream, args);
}

}  // namespace moebench::triton
