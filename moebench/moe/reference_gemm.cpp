// See reference_gemm.h.
#include "moebench/moe/reference_gemm.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "moebench/core/error.h"

namespace moebench::oracle {

void require_rows(const MoeProblem& problem, const WeightSource& weights,
                  const std::vector<std::int64_t>& tokens) {
  for (const std::int64_t token : tokens) {
    if (token >= 0 && token < problem.tokens) continue;
    fail(ErrorCode::kBadInput, "reference: row {} of {} tokens; ask for 0..{}", token,
         problem.tokens, problem.tokens - 1);
  }
  const MoeShape& have = weights.shape;
  const MoeShape& want = problem.shape;
  if (have.num_experts == want.num_experts && have.hidden == want.hidden &&
      have.intermediate == want.intermediate)
    return;
  fail(
      ErrorCode::kBadInput,
      "reference: weights are for {} experts, {}x{}, the problem for {}, {}x{}; use the same shape",
      have.num_experts, have.hidden, have.intermediate, want.num_experts, want.hidden,
      want.intermediate);
}

std::vector<ExpertTask> tasks_by_expert(const MoeProblem& problem,
                                        const std::vector<std::int64_t>& tokens) {
  std::vector<ExpertTask> by_id(at(problem.shape.num_experts));
  const std::int64_t topk = problem.shape.topk;
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    for (std::int64_t slot = 0; slot < topk; ++slot) {
      const std::int32_t expert = problem.routing.topk_ids[at(tokens[row] * topk + slot)];
      by_id[at(expert)].pairs.push_back(static_cast<std::int64_t>(row) * topk + slot);
    }
  }
  std::vector<ExpertTask> tasks;
  for (std::int64_t e = 0; e < problem.shape.num_experts; ++e) {
    if (by_id[at(e)].pairs.empty()) continue;
    tasks.push_back({e, std::move(by_id[at(e)].pairs)});
  }
  return tasks;
}

// Independent lanes let the compiler use vector registers without being allowed
// to reorder anything.
DotProduct dot(const double* w, const double* a, std::int64_t n) {
  constexpr std::int64_t kLanes = 8;
  std::array<double, kLanes> sum{};
  std::array<double, kLanes> abs_sum{};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const double term = w[i + l] * a[i + l];
      sum[at(l)] += term;
      abs_sum[at(l)] += std::abs(term);
    }
  }
  DotProduct out{std::accumulate(sum.begin(), sum.end(), 0.0),
                 std::accumulate(abs_sum.begin(), abs_sum.end(), 0.0)};
  for (; i < n; ++i) {
    out.sum += w[i] * a[i];
    out.abs_sum += std::abs(w[i] * a[i]);
  }
  return out;
}

WeightMatrix::WeightMatrix(const ExpertWeightsView& weights, bool down)
    : format_(weights.format),
      nvfp4_(down ? weights.nvfp4_w2 : weights.nvfp4_w1),
      fp8_(down ? weights.fp8_w2 : weights.fp8_w1) {
  for (std::size_t i = 0; i < e2m1_.size(); ++i)
    e2m1_[i] = decode_e2m1(static_cast<std::uint8_t>(i));
  for (std::size_t i = 0; i < e4m3_.size(); ++i)
    e4m3_[i] = decode_e4m3(static_cast<std::uint8_t>(i));
}

void WeightMatrix::decode_row(std::int64_t row, double* out) const {
  if (format_ == WeightFormat::kNvfp4) {
    decode_nvfp4_row(row, out);
    return;
  }
  const std::uint8_t* payload = fp8_.payload + row * fp8_.cols;
  if (format_ != WeightFormat::kFp8Block) {
    for (std::int64_t c = 0; c < fp8_.cols; ++c) out[c] = e4m3_[payload[c]];
    return;
  }
  for (std::int64_t begin = 0; begin < fp8_.cols; begin += kFp8BlockSize) {
    const double scale = fp8_.scales[fp8_scale_index(row, begin, fp8_.cols, fp8_.scaling)];
    const std::int64_t end = std::min(begin + kFp8BlockSize, fp8_.cols);
    for (std::int64_t c = begin; c < end; ++c) out[c] = e4m3_[payload[c]] * scale;
  }
}

void WeightMatrix::decode_nvfp4_row(std::int64_t row, double* out) const {
  const std::uint8_t* payload = nvfp4_.payload + row * (nvfp4_.cols / 2);
  const std::uint8_t* scales = nvfp4_.scales + row * (nvfp4_.cols / kNvfp4BlockSize);
  for (std::int64_t c = 0; c < nvfp4_.cols; c += 2) {
    const double scale = e4m3_[scales[c / kNvfp4BlockSize]];
    out[c] = e2m1_[payload[c / 2] & 0xF] * scale;
    out[c + 1] = e2m1_[payload[c / 2] >> 4] * scale;
  }
}

float WeightMatrix::alpha(std::int64_t row, float activation_scale) const {
  switch (format_) {
    case WeightFormat::kNvfp4:
      return 1.0F / (activation_scale * nvfp4_.global_scale);
    case WeightFormat::kFp8Block:
      return 1.0F;
    case WeightFormat::kFp8PerTensor:
    case WeightFormat::kFp8PerChannel:
      break;
  }
  return activation_scale * fp8_.scales[fp8_scale_index(row, 0, fp8_.cols, fp8_.scaling)];
}

}  // namespace moebench::oracle
