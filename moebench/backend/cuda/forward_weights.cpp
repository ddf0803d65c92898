// A layer's weights in device memory: generated there, or packed on the host and copied.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>

#include "moebench/backend/cuda/forward.h"
#include "moebench/backend/cuda/generate.h"
#include "moebench/backend/cuda/pack.h"
#include "moebench/core/checked.h"

namespace moebench::cuda {
namespace {

constexpr Projection kProjections[] = {Projection::kGateUp, Projection::kDown};
constexpr std::int64_t kFloatBytes = sizeof(float);

MatrixGeometry geometry_of(const MoeShape& shape, WeightFormat format, Projection projection) {
  return matrix_geometry(projection, shape.hidden, shape.intermediate,
                         format == WeightFormat::kNvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes);
}

std::int64_t scale_count_of(const MoeShape& shape, WeightFormat format, Projection projection) {
  return projection == Projection::kGateUp
             ? weight_scale_count(format, 2 * shape.intermediate, shape.hidden)
             : weight_scale_count(format, shape.hidden, shape.intermediate);
}

std::int64_t packed_bytes_of(const MoeShape& shape, WeightFormat format, Projection projection) {
  const MatrixGeometry geometry = geometry_of(shape, format, projection);
  return checked_product("packed weights", {shape.num_experts, geometry.blocks, geometry.chunks,
                                            geometry.chunk_bytes});
}

std::int64_t scale_bytes_of(const MoeShape& shape, WeightFormat format, Projection projection) {
  return checked_product(
      "weight scales", {shape.num_experts, scale_count_of(shape, format, projection), kFloatBytes});
}

/// Where a thread packs one expert before it is copied.
class Staging {
 public:
  Staging(const DeviceWeights& weights)
      : stream_(make_stream()),
        packed_(std::max(weights.geometry(Projection::kGateUp).expert_bytes(),
                         weights.geometry(Projection::kDown).expert_bytes()),
                "packed weights") {}

  void upload(const DeviceWeights& weights, std::int64_t expert, const ExpertWeightsView& view) {
    for (const Projection projection : kProjections) {
      pack_expert(view, weights.shape(), weights.wide(), projection, packed_.as<std::byte>());
      const std::int64_t bytes = weights.geometry(projection).expert_bytes();
      copy_to_device(weights.packed(projection) + expert * bytes, packed_.as<std::byte>(), bytes,
                     stream_.get());
      upload_scales(weights, expert, projection, view);
    }
  }

 private:
  void upload_scales(const DeviceWeights& weights, std::int64_t expert, Projection projection,
                     const ExpertWeightsView& view) {
    const bool gate_up = projection == Projection::kGateUp;
    const std::int64_t count = weights.scale_count(projection);
    const float* scales = (gate_up ? view.fp8_w1 : view.fp8_w2).scales;
    if (view.format == WeightFormat::kNvfp4) {
      scales = &(gate_up ? view.nvfp4_w1 : view.nvfp4_w2).global_scale;
    }
    copy_to_device(weights.scales(projection) + expert * count, scales, count * kFloatBytes,
                   stream_.get());
  }

  Stream stream_;
  PinnedBuffer packed_;
};

/// Counts experts and keeps the first exception of any thread: none may leave a parallel region.
class SharedProgress {
 public:
  SharedProgress(const PackProgress& progress, std::int64_t experts)
      : progress_(progress), experts_(experts) {}

  template <typename Work>
  void guard(Work work) {
    if (stopped_.load()) return;
    try {
      work();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stopped_.store(true);
    }
  }
  void finish_expert() {
    const std::lock_guard lock(mutex_);
    ++done_;
    if (progress_) progress_(done_, experts_);
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const PackProgress& progress_;
  std::int64_t experts_;
  std::mutex mutex_;
  std::int64_t done_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> stopped_{false};
};

/// Threads that pack: more than these wait for the bus, and each holds an expert in pinned memory.
constexpr int kMaxPackThreads = 16;

void pack_on_host(const WeightSource& source, const DeviceWeights& weights,
                  const PackProgress& progress) {
  const std::int64_t experts = source.shape.num_experts;
  SharedProgress shared(progress, experts);
  int device = 0;
  cuda_check(cudaGetDevice(&device), "asking for the device");
  const int threads = static_cast<int>(
      std::min({experts, std::int64_t{kMaxPackThreads}, std::int64_t{omp_get_max_threads()}}));
#pragma omp parallel num_threads(threads)
  {
    std::unique_ptr<Staging> staging;
    shared.guard([&] {
      cuda_check(cudaSetDevice(device), "choosing the device");
      staging = std::make_unique<Staging>(weights);
    });
#pragma omp for schedule(dynamic)
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      shared.guard([&] {
        source.with_expert(
            expert, [&](const ExpertWeightsView& view) { staging->upload(weights, expert, view); });
        shared.finish_expert();
      });
    }
  }
  shared.rethrow();
}

/// Experts that are generated between two reports of progress.
constexpr std::int64_t kGenerateBatch = 16;

}  // namespace

DeviceWeights::DeviceWeights(const MoeShape& shape, WeightFormat format)
    : shape_(shape), format_(format) {
  for (const Projection projection : kProjections) {
    Matrix& matrix = projection == Projection::kGateUp ? gate_up_ : down_;
    matrix.packed = DeviceBuffer(packed_bytes_of(shape, format, projection), "packed weights");
    matrix.scales = DeviceBuffer(scale_bytes_of(shape, format, projection), "weight scales");
  }
}

std::int64_t DeviceWeights::bytes() const { return device_weight_bytes(shape_, format_); }

Wide DeviceWeights::wide() const {
  // E4M3 is exact in FP16.
  const bool bf16 = format_ == WeightFormat::kNvfp4 && shape_.act == ActType::kBf16;
  return bf16 ? Wide::kBf16 : Wide::kFp16;
}

MatrixGeometry DeviceWeights::geometry(Projection projection) const {
  return geometry_of(shape_, format_, projection);
}

std::uint8_t* DeviceWeights::packed(Projection projection) const {
  return of(projection).packed.as<std::uint8_t>();
}

float* DeviceWeights::scales(Projection projection) const {
  return of(projection).scales.as<float>();
}

std::int64_t DeviceWeights::scale_count(Projection projection) const {
  return scale_count_of(shape_, format_, projection);
}

const std::vector<float>& DeviceWeights::global_scales(Projection projection) const {
  return of(projection).global_scales;
}

void DeviceWeights::fetch_global_scales(cudaStream_t stream) {
  if (format_ != WeightFormat::kNvfp4) return;
  for (Matrix* matrix : {&gate_up_, &down_}) {
    matrix->global_scales.resize(static_cast<std::size_t>(shape_.num_experts));
    copy_to_host(matrix->global_scales.data(), matrix->scales.as<float>(), matrix->scales.bytes(),
                 stream);
  }
}

std::int64_t device_weight_bytes(const MoeShape& shape, WeightFormat format) {
  std::int64_t sum = 0;
  for (const Projection projection : kProjections) {
    sum = checked_sum("packed weights", sum, packed_bytes_of(shape, format, projection));
    sum = checked_sum("packed weights", sum, scale_bytes_of(shape, format, projection));
  }
  return sum;
}

std::shared_ptr<const DeviceWeights> pack_device(const WeightSource& source,
                                                 const PackProgress& progress) {
  if (source.synthetic_seed) {
    return generate_device(*source.synthetic_seed, source.shape, source.format, progress);
  }
  auto weights = std::make_shared<DeviceWeights>(source.shape, source.format);
  pack_on_host(source, *weights, progress);
  weights->fetch_global_scales(make_stream().get());
  return weights;
}

std::shared_ptr<const DeviceWeights> generate_device(std::uint64_t seed, const MoeShape& shape,
                                                     WeightFormat format,
                                                     const PackProgress& progress) {
  validate(shape, format);
  auto weights = std::make_shared<DeviceWeights>(shape, format);
  const Stream stream = make_stream();
  for (std::int64_t first = 0; first < shape.num_experts; first += kGenerateBatch) {
    const std::int64_t experts = std::min(kGenerateBatch, shape.num_experts - first);
    for (const Projection projection : kProjections) {
      GenerateArgs args{};
      args.seed = seed;
      args.projection = projection;
      args.hidden = shape.hidden;
      args.intermediate = shape.intermediate;
      args.format = format;
      args.wide = weights->wide();
      args.first_expert = first;
      args.experts = experts;
      args.scales = weights->scales(projection);
      args.packed = weights->packed(projection);
      cuda_check(enqueue_generate(args, stream.get()), "generating weights");
    }
    wait(stream.get(), "generating weights");
    if (progress) progress(first + experts, shape.num_experts);
  }
  weights->fetch_global_scales(stream.get());
  return weights;
}

}  // namespace moebench::cuda
