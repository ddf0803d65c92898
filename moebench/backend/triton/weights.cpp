#include "moebench/backend/triton/weights.h"

#include <algorithm>

#include "moebench/backend/triton/kernels.h"
#include "moebench/core/checked.h"

namespace moebench::triton {
namespace {

constexpr const char* kWhat = "FP8 weights";
constexpr std::int64_t kFloatBytes = sizeof(float);
/// Experts that are generated between two reports of progress.
constexpr std::int64_t kGenerateBatch = 16;

std::int64_t expert_codes(const MoeShape& shape, bool down) {
  return checked_product(kWhat, {down ? 1 : 2, shape.hidden, shape.intermediate});
}

std::int64_t expert_scales(const MoeShape& shape, WeightFormat format, bool down) {
  if (format != WeightFormat::kFp8PerChannel) return 1;
  return down ? shape.hidden : 2 * shape.intermediate;
}

std::int64_t code_bytes(const MoeShape& shape, bool down) {
  return checked_product(kWhat, {shape.num_experts, expert_codes(shape, down)});
}

std::int64_t scale_bytes(const MoeShape& shape, WeightFormat format, bool down) {
  return checked_product(kWhat,
                         {shape.num_experts, expert_scales(shape, format, down), kFloatBytes});
}

void generate(const WeightSource& source, const TritonWeights& weights,
              const PackProgress& progress) {
  const MoeShape& shape = source.shape;
  validate(shape, source.format);
  const cuda::Stream stream = cuda::make_stream();
  for (std::int64_t first = 0; first < shape.num_experts; first += kGenerateBatch) {
    const std::int64_t experts = std::min(kGenerateBatch, shape.num_experts - first);
    for (const bool down : {false, true}) {
      GenerateCanonicalArgs args{};
      args.seed = *source.synthetic_seed;
      args.down = down;
      args.hidden = shape.hidden;
      args.intermediate = shape.intermediate;
      args.per_channel = source.format == WeightFormat::kFp8PerChannel;
      args.first_expert = first;
      args.experts = experts;
      args.scales = weights.scales(down);
      args.codes = weights.codes(down);
      cuda::cuda_check(enqueue_generate_canonical(args, stream.get()), "generating weights");
    }
    cuda::wait(stream.get(), "generating weights");
    if (progress) progress(first + experts, shape.num_experts);
  }
}

void copy(const WeightSource& source, const TritonWeights& weights, const PackProgress& progress) {
  const MoeShape& shape = source.shape;
  const cuda::Stream stream = cuda::make_stream();
  for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
    source.with_expert(expert, [&](const ExpertWeightsView& view) {
      for (const bool down : {false, true}) {
        const Fp8View& from = down ? view.fp8_w2 : view.fp8_w1;
        const std::int64_t codes = expert_codes(shape, down);
        const std::int64_t scales = expert_scales(shape, source.format, down);
        cuda::copy_to_device(weights.codes(down) + expert * codes, from.payload, codes,
                             stream.get());
        cuda::copy_to_device(weights.scales(down) + expert * scales, from.scales,
                             scales * kFloatBytes, stream.get());
      }
    });
    if (progress) progress(expert + 1, shape.num_experts);
  }
}

}  // namespace

TritonWeights::TritonWeights(const MoeShape& shape, WeightFormat format)
    : shape_(shape), format_(format) {
  for (const bool down : {false, true}) {
    Matrix& matrix = down ? down_ : gate_up_;
    matrix.codes = cuda::DeviceBuffer(code_bytes(shape, down), kWhat);
    matrix.scales = cuda::DeviceBuffer(scale_bytes(shape, format, down), "weight scales");
  }
}

std::int64_t TritonWeights::bytes() const { return triton_weight_bytes(shape_, format_); }

std::int64_t triton_weight_bytes(const MoeShape& shape, WeightFormat format) {
  std::int64_t sum = 0;
  for (const bool down : {false, true}) {
    sum = checked_sum(kWhat, sum, code_bytes(shape, down));
    sum = checked_sum(kWhat, sum, scale_bytes(shape, format, down));
  }
  return sum;
}

std::shared_ptr<const TritonWeights> pack_triton(const WeightSource& source,
                                                 const PackProgress& progress) {
  auto weights = std::make_shared<TritonWeights>(source.shape, source.format);
  if (source.synthetic_seed) {
    generate(source, *weights, progress);
  } else {
    copy(source, *weights, progress);
  }
  return weights;
}

}  // namespace moebench::triton
