#include "moebench/backend/cutlass/weights.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <mutex>

#include "moebench/backend/cutlass/groups.h"
#include "moebench/core/checked.h"

namespace moebench::cutlass_moe {
namespace {

using cuda::Projection;

constexpr const char* kWhat = "packed weights";
constexpr Projection kProjections[] = {Projection::kGateUp, Projection::kDown};
/// Threads that pack: more than these wait for the bus.
constexpr int kMaxPackThreads = 16;

/// Keeps the first exception of any thread: none may leave a parallel region.
class FirstError {
 public:
  template <typename Work>
  void guard(Work work) {
    {
      const std::lock_guard lock(mutex_);
      if (error_) return;
    }
    try {
      work();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

std::int64_t MatrixSize::swizzled_bytes() const {
  return nvfp4_scale_bytes(rows, depth, ScaleLayout::kSwizzled128x4);
}

MatrixSize matrix_size(const MoeShape& shape, Projection projection) {
  return projection == Projection::kGateUp ? MatrixSize{2 * shape.intermediate, shape.hidden}
                                           : MatrixSize{shape.hidden, shape.intermediate};
}

std::int64_t CutlassWeights::bytes_of(const MoeShape& shape) {
  std::int64_t sum = 0;
  for (const Projection projection : kProjections) {
    const MatrixSize size = matrix_size(shape, projection);
    sum = checked_sum(kWhat, sum,
                      checked_product(kWhat, {shape.num_experts, size.rows, size.depth / 2}));
    sum =
        checked_sum(kWhat, sum, checked_product(kWhat, {shape.num_experts, size.swizzled_bytes()}));
  }
  return sum;
}

CutlassWeights::CutlassWeights(const WeightSource& source,
                               const std::function<void(std::int64_t, std::int64_t)>& progress)
    : shape_(source.shape) {
  static_cast<void>(bytes_of(shape_));  // the products below fit
  const std::int64_t experts = shape_.num_experts;
  for (const Projection projection : kProjections) {
    const MatrixSize size = matrix_size(shape_, projection);
    Matrix& matrix = matrices_[static_cast<int>(projection)];
    matrix.payload = cuda::DeviceBuffer(experts * size.payload_bytes(), kWhat);
    matrix.scales = cuda::DeviceBuffer(experts * size.swizzled_bytes(), "weight scales");
    matrix.global_scales.resize(static_cast<std::size_t>(experts));
  }
  int device = 0;
  cuda::cuda_check(cudaGetDevice(&device), "asking for the device");
  const int threads = static_cast<int>(
      std::min({experts, std::int64_t{kMaxPackThreads}, std::int64_t{omp_get_max_threads()}}));
  FirstError first;
  std::mutex progress_mutex;
  std::int64_t done = 0;
#pragma omp parallel num_threads(threads)
  {
    cuda::Stream stream;
    first.guard([&] {
      cuda::cuda_check(cudaSetDevice(device), "choosing the device");
      stream = cuda::make_stream();
    });
#pragma omp for schedule(dynamic)
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      first.guard([&] {
        source.with_expert(
            expert, [&](const ExpertWeightsView& view) { upload(expert, view, stream.get()); });
        const std::lock_guard lock(progress_mutex);
        ++done;
        if (progress) progress(done, experts);
      });
    }
  }
  first.rethrow();
}

void CutlassWeights::upload(std::int64_t expert, const ExpertWeightsView& view,
                            cudaStream_t stream) {
  for (const Projection projection : kProjections) {
    const MatrixSize size = matrix_size(shape_, projection);
    const Nvfp4View& from = projection == Projection::kGateUp ? view.nvfp4_w1 : view.nvfp4_w2;
    Matrix& matrix = matrices_[static_cast<int>(projection)];
    std::vector<std::uint8_t> swizzled(static_cast<std::size_t>(size.swizzled_bytes()));
    const std::int64_t groups = size.depth / kNvfp4BlockSize;
    swizzle_scales({from.scales, static_cast<std::size_t>(size.rows * groups)}, size.rows, groups,
                   swizzled);
    cuda::copy_to_device(matrix.payload.as<std::uint8_t>() + expert * size.payload_bytes(),
                         from.payload, size.payload_bytes(), stream);
    cuda::copy_to_device(matrix.scales.as<std::uint8_t>() + expert * size.swizzled_bytes(),
                         swizzled.data(), size.swizzled_bytes(), stream);
    matrix.global_scales[static_cast<std::size_t>(expert)] = from.global_scale;
  }
}

const std::uint8_t* CutlassWeights::payload(Projection projection) const {
  return matrices_[static_cast<int>(projection)].payload.as<std::uint8_t>();
}
const std::uint8_t* CutlassWeights::scales(Projection projection) const {
  return matrices_[static_cast<int>(projection)].scales.as<std::uint8_t>();
}
const std::vector<float>& CutlassWeights::global_scales(Projection projection) const {
  return matrices_[static_cast<int>(projection)].global_scales;
}

}  // namespace moebench::cutlass_moe
