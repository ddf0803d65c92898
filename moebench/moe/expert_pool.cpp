// The pool of expert buffers behind generated weight sources.
#include "moebench/moe/expert_pool.h"

#include <utility>

#include "moebench/core/error.h"

namespace moebench {

std::unique_ptr<ExpertWeights> ExpertPool::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<ExpertWeights> buffer = std::move(free_.back());
      free_.pop_back();
      return buffer;
    }
  }
  return std::make_unique<ExpertWeights>(make_expert_weights(shape_, format_));
}

void ExpertPool::with_buffer(const std::function<void(ExpertWeights&)>& use) {
  std::unique_ptr<ExpertWeights> buffer = take();
  use(*buffer);  // if this throws, the buffer is freed instead of returned
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(buffer));
}

void require_expert(std::int64_t expert, std::int64_t num_experts) {
  if (expert < 0 || expert >= num_experts) {
    fail(ErrorCode::kInternal, "expert {} was asked for, the layer has {}", expert, num_experts);
  }
}

WeightSource generated_source(const MoeShape& shape, WeightFormat format,
                              std::function<void(std::int64_t, ExpertWeights&)> fill_expert) {
  WeightSource source{shape, format, {}, {}};
  source.with_expert = [pool = std::make_shared<ExpertPool>(shape, format),
                        num_experts = shape.num_experts, fill_expert = std::move(fill_expert)](
                           std::int64_t expert, const WithExpert& use) {
    require_expert(expert, num_experts);
    pool->with_buffer([&](ExpertWeights& buffer) {
      fill_expert(expert, buffer);
      use(view(buffer));
    });
  };
  return source;
}

}  // namespace moebench
