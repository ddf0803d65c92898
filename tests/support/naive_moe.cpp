// See naive_moe.h. Pair by pair, element by element, FP32 throughout.
#include "tests/support/naive_moe.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <utility>

namespace moebench::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr std::int64_t kBlock = 16;

float sum_pairwise(std::span<const float> terms) {
  if (terms.size() == 1) return terms[0];
  const std::size_t half = terms.size() / 2;
  return sum_pairwise(terms.first(half)) + sum_pairwise(terms.subspan(half));
}

/// The same order for every sum of a length, as a kernel would have it; remembered, because
/// shuffling costs more than adding.
const std::vector<std::size_t>& shuffled_order(std::size_t n, std::uint64_t seed) {
  thread_local std::map<std::pair<std::size_t, std::uint64_t>, std::vector<std::size_t>> known;
  std::vector<std::size_t>& order = known[{n, seed}];
  if (order.empty()) {
    order.resize(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::mt19937_64 random(seed);
    std::shuffle(order.begin(), order.end(), random);
  }
  return order;
}

float sum(std::vector<float>& terms, const NaiveOptions& options) {
  if (terms.empty()) return 0.0F;
  switch (options.order) {
    case SumOrder::kReversed:
      std::reverse(terms.begin(), terms.end());
      break;
    case SumOrder::kShuffled: {
      const std::vector<std::size_t>& order = shuffled_order(terms.size(), options.seed);
      float total = 0.0F;
      for (const std::size_t i : order) total += terms[i];
      return total;
    }
    case SumOrder::kPairwise:
      return sum_pairwise(terms);
    case SumOrder::kLanes16: {
      std::vector<float> lanes(at(kBlock), 0.0F);
      for (std::size_t i = 0; i < terms.size(); ++i) lanes[i % lanes.size()] += terms[i];
      return sum_pairwise(lanes);
    }
    case SumOrder::kBlocks16: {
      std::vector<float> blocks;
      for (std::size_t i = 0; i < terms.size(); i += at(kBlock)) {
        const std::size_t end = std::min(terms.size(), i + at(kBlock));
        blocks.push_back(std::accumulate(terms.begin() + static_cast<std::ptrdiff_t>(i),
                                         terms.begin() + static_cast<std::ptrdiff_t>(end), 0.0F));
      }
      return std::accumulate(blocks.begin(), blocks.end(), 0.0F);
    }
    case SumOrder::kSequential:
    case SumOrder::kDequantizedFirst:
      break;
  }
  return std::accumulate(terms.begin(), terms.end(), 0.0F);
}

/// A row of either operand. Element i stands for values[i] * block_scales[i / 128] (if any) *
/// multiplier.
struct Row {
  std::vector<float> values;
  std::vector<float> block_scales;
  float scale = 1.0F;  // as the format stores it: NVFP4 divides by it, FP8 multiplies
};

class NaiveKernel {
 public:
  NaiveKernel(const MoeProblem& problem, const WeightSource& weights, const NaiveOptions& options)
      : problem_(problem), weights_(weights), options_(options) {}

  NaiveAnswer run();

 private:
  [[nodiscard]] bool has(Defect defect) const { return options_.defect == defect; }
  [[nodiscard]] bool nvfp4_weights() const { return weights_.format == WeightFormat::kNvfp4; }
  [[nodiscard]] bool per_tensor_activations() const {
    return problem_.scheme.scheme == Scheme::kFp8 && !problem_.scheme.per_act_token;
  }
  [[nodiscard]] float round16(float x) const {
    return decode_act(problem_.shape.act, encode_act(problem_.shape.act, x));
  }
  [[nodiscard]] std::int64_t expert_of(std::int64_t pair) const {
    const std::int64_t id = problem_.routing.topk_ids[at(pair)];
    const bool last_slot = pair % problem_.shape.topk == problem_.shape.topk - 1;
    return has(Defect::kWrongExpert) && last_slot ? (id + 1) % problem_.shape.num_experts : id;
  }

  [[nodiscard]] Row weight_row(const ExpertWeightsView& view, bool down, std::int64_t row) const;
  void decode_nvfp4(const Nvfp4View& matrix, bool down, std::int64_t row, Row& out) const;
  void decode_fp8(const Fp8View& matrix, bool down, std::int64_t row, Row& out) const;
  [[nodiscard]] Row nvfp4_activation(const std::vector<float>& x, float global_scale) const;
  [[nodiscard]] Row fp8_activation(const std::vector<float>& x, float scale) const;
  [[nodiscard]] Row fp8_block_activation(const std::vector<float>& x) const;
  [[nodiscard]] Row token_operand(std::int64_t token, std::int64_t expert) const;
  [[nodiscard]] Row hidden_operand(const std::vector<float>& h, std::int64_t expert) const;
  [[nodiscard]] float alpha(const Row& w, const Row& x) const;
  [[nodiscard]] float gemm_element(const Row& w, const Row& x, std::int64_t columns) const;
  [[nodiscard]] float silu(float x) const;
  void first_half(std::int64_t expert, const ExpertWeightsView& view);
  void second_half(std::int64_t expert, const ExpertWeightsView& view);
  void find_hidden_scale();
  [[nodiscard]] std::vector<std::uint16_t> combine() const;

  const MoeProblem& problem_;
  const WeightSource& weights_;
  NaiveOptions options_;
  std::vector<std::vector<float>> hidden_;  // [pair]
  std::vector<float> c2_;                   // [pair, hidden]
  DynamicScaleClaim claim_;
};

std::vector<std::uint8_t> linear_read_of_swizzled(const Nvfp4View& matrix) {
  const std::int64_t groups = matrix.cols / kNvfp4BlockSize;
  std::vector<std::uint8_t> swizzled(
      at(nvfp4_scale_bytes(matrix.rows, matrix.cols, ScaleLayout::kSwizzled128x4)));
  swizzle_scales({matrix.scales, at(matrix.rows * groups)}, matrix.rows, groups, swizzled);
  return swizzled;
}

void NaiveKernel::decode_nvfp4(const Nvfp4View& matrix, bool down, std::int64_t row,
                               Row& out) const {
  const std::int64_t groups = matrix.cols / kNvfp4BlockSize;
  std::vector<std::uint8_t> swizzled;
  if (has(Defect::kTransposedScaleTile) && !down) swizzled = linear_read_of_swizzled(matrix);
  const std::uint8_t* scales = swizzled.empty() ? matrix.scales : swizzled.data();
  for (std::int64_t c = 0; c < matrix.cols; ++c) {
    const bool high = (c % 2 == 1) != (has(Defect::kSwappedNibbles) && down);
    const std::uint8_t byte = matrix.payload[row * matrix.cols / 2 + c / 2];
    const std::uint8_t code = high ? byte >> 4 : byte & 0xF;
    std::int64_t scale_at = row * groups + c / kNvfp4BlockSize;
    if (has(Defect::kScaleOffByOneBlock)) scale_at = (scale_at + 1) % (matrix.rows * groups);
    out.values.push_back(decode_e2m1(code) * decode_e4m3(scales[scale_at]));
  }
  out.scale = matrix.global_scale;
}

void NaiveKernel::decode_fp8(const Fp8View& matrix, bool down, std::int64_t row, Row& out) const {
  const std::int64_t count = fp8_scale_count(matrix.rows, matrix.cols, matrix.scaling);
  const std::int64_t row_blocks = (matrix.rows + kFp8BlockSize - 1) / kFp8BlockSize;
  const std::int64_t col_blocks = (matrix.cols + kFp8BlockSize - 1) / kFp8BlockSize;
  const auto scale_of_column = [&](std::int64_t c) {
    std::int64_t index = fp8_scale_index(row, c, matrix.cols, matrix.scaling);
    if (has(Defect::kScaleOffByOneBlock)) index = (index + 1) % count;
    if (has(Defect::kTransposedScaleTile))
      index = (c / kFp8BlockSize * row_blocks + row / kFp8BlockSize) % count;
    return matrix.scales[index];
  };
  for (std::int64_t c = 0; c < matrix.cols; ++c) {
    const bool swap = has(Defect::kSwappedNibbles) && down && (c ^ 1) < matrix.cols;
    out.values.push_back(decode_e4m3(matrix.payload[row * matrix.cols + (swap ? c ^ 1 : c)]));
  }
  if (matrix.scaling == Fp8Scaling::kBlock128x128) {
    for (std::int64_t b = 0; b < col_blocks; ++b)
      out.block_scales.push_back(scale_of_column(b * kFp8BlockSize));
  } else {
    out.scale = scale_of_column(0);
  }
}

Row NaiveKernel::weight_row(const ExpertWeightsView& view, bool down, std::int64_t row) const {
  Row out;
  if (nvfp4_weights()) {
    decode_nvfp4(down ? view.nvfp4_w2 : view.nvfp4_w1, down, row, out);
  } else {
    decode_fp8(down ? view.fp8_w2 : view.fp8_w1, down, row, out);
  }
  return out;
}

Row NaiveKernel::nvfp4_activation(const std::vector<float>& x, float global_scale) const {
  const auto cols = static_cast<std::int64_t>(x.size());
  std::vector<std::uint8_t> payload(x.size() / 2);
  std::vector<std::uint8_t> scales(at(cols / kNvfp4BlockSize));
  quantize_nvfp4_row(x.data(), cols, global_scale, payload.data(), scales.data());
  Row out;
  out.scale = global_scale;
  for (std::int64_t c = 0; c < cols; ++c) {
    const std::uint8_t code = c % 2 == 1 ? payload[at(c / 2)] >> 4 : payload[at(c / 2)] & 0xF;
    out.values.push_back(decode_e2m1(code) * decode_e4m3(scales[at(c / kNvfp4BlockSize)]));
  }
  return out;
}

Row NaiveKernel::fp8_activation(const std::vector<float>& x, float scale) const {
  std::vector<std::uint8_t> payload(x.size());
  quantize_fp8_row(x.data(), static_cast<std::int64_t>(x.size()), scale, payload.data());
  Row out;
  out.scale = scale;
  std::transform(payload.begin(), payload.end(), std::back_inserter(out.values), decode_e4m3);
  return out;
}

Row NaiveKernel::fp8_block_activation(const std::vector<float>& x) const {
  Row out;
  for (std::size_t begin = 0; begin < x.size(); begin += at(kFp8BlockSize)) {
    const std::size_t size = std::min(at(kFp8BlockSize), x.size() - begin);
    const std::vector<float> group(x.begin() + static_cast<std::ptrdiff_t>(begin),
                                   x.begin() + static_cast<std::ptrdiff_t>(begin + size));
    const Row part = fp8_activation(group, fp8_scale(amax_of(group)));
    out.values.insert(out.values.end(), part.values.begin(), part.values.end());
    out.block_scales.push_back(part.scale);
  }
  return out;
}

Row NaiveKernel::token_operand(std::int64_t token, std::int64_t expert) const {
  std::vector<float> x;
  for (std::int64_t k = 0; k < problem_.shape.hidden; ++k) {
    x.push_back(decode_act(problem_.shape.act, problem_.a[at(token * problem_.shape.hidden + k)]));
  }
  if (has(Defect::kUnquantizedTokens)) {
    // Same alpha: the values carry what quantisation would have folded into them.
    Row out;
    if (problem_.scheme.scheme == Scheme::kNvfp4) {
      out.scale = problem_.scales.a1_global_scale[at(expert)];
      for (const float v : x) out.values.push_back(v * out.scale);
      return out;
    }
    out.values = x;
    if (problem_.scheme.scheme == Scheme::kFp8Block)
      out.block_scales.assign((x.size() + 127) / 128, 1.0F);
    return out;
  }
  switch (problem_.scheme.scheme) {
    case Scheme::kNvfp4:
      return nvfp4_activation(x, problem_.scales.a1_global_scale[at(expert)]);
    case Scheme::kNvfp4W4A16:
      break;
    case Scheme::kFp8:
      return fp8_activation(
          x, problem_.scheme.per_act_token ? fp8_scale(amax_of(x)) : problem_.scales.a1_scale);
    case Scheme::kFp8Block:
      return fp8_block_activation(x);
  }
  Row out;
  out.values = x;
  return out;
}

Row NaiveKernel::hidden_operand(const std::vector<float>& h, std::int64_t expert) const {
  const bool foreign = has(Defect::kForeignHiddenScale);
  if (has(Defect::kUnquantizedHidden) && problem_.scheme.scheme != Scheme::kNvfp4) {
    Row out;
    out.values = h;
    if (problem_.scheme.scheme == Scheme::kFp8Block)
      out.block_scales.assign((h.size() + 127) / 128, 1.0F);
    return out;
  }
  switch (problem_.scheme.scheme) {
    case Scheme::kNvfp4: {
      const float gs = problem_.scales.a2_global_scale[at(expert)];
      if (has(Defect::kUnquantizedHidden)) {
        Row out;
        out.scale = gs;
        for (const float v : h) out.values.push_back(v * gs);
        return out;
      }
      Row out = nvfp4_activation(h, foreign ? problem_.scales.a1_global_scale[at(expert)] : gs);
      out.scale = gs;  // alpha2 belongs to the right scale: the foreign one does not cancel
      return out;
    }
    case Scheme::kNvfp4W4A16:
      break;
    case Scheme::kFp8: {
      Row out;
      if (problem_.scheme.per_act_token) {
        const float scale = fp8_scale(amax_of(h));
        out = fp8_activation(h, foreign ? 2.0F * problem_.scales.a1_scale : scale);
        out.scale = scale;
      } else {
        out = fp8_activation(h, foreign ? 2.0F * problem_.scales.a1_scale : claim_.scale);
        out.scale = claim_.scale;
      }
      return out;
    }
    case Scheme::kFp8Block: {
      Row out = fp8_block_activation(h);
      if (foreign)
        std::rotate(out.block_scales.begin(), out.block_scales.begin() + 1, out.block_scales.end());
      return out;
    }
  }
  Row out;
  out.values = h;
  return out;
}

float NaiveKernel::alpha(const Row& w, const Row& x) const {
  if (!w.block_scales.empty()) return 1.0F;
  if (has(Defect::kGlobalScaleAsAlpha)) return w.scale;
  return nvfp4_weights() ? 1.0F / (x.scale * w.scale) : x.scale * w.scale;
}

float NaiveKernel::gemm_element(const Row& w, const Row& x, std::int64_t columns) const {
  const bool blocks = !w.block_scales.empty();
  if (options_.order == SumOrder::kDequantizedFirst) {
    std::vector<float> terms;
    terms.reserve(at(columns));
    for (std::int64_t c = 0; c < columns; ++c) {
      float a = w.values[at(c)];
      float b = x.values[at(c)];
      if (blocks) {
        a *= w.block_scales[at(c / kFp8BlockSize)];
        b *= x.block_scales[at(c / kFp8BlockSize)];
      } else if (nvfp4_weights()) {
        a /= w.scale;
        b /= x.scale;
      } else {
        a *= w.scale;
        b *= x.scale;
      }
      terms.push_back(a * b);
    }
    return sum(terms, options_);
  }
  std::vector<float> parts;
  const std::int64_t part = blocks ? kFp8BlockSize : columns;
  for (std::int64_t begin = 0; begin < columns; begin += part) {
    std::vector<float> terms;
    terms.reserve(at(part));
    for (std::int64_t c = begin; c < std::min(begin + part, columns); ++c) {
      terms.push_back(w.values[at(c)] * x.values[at(c)]);
    }
    float partial = sum(terms, options_);
    if (blocks) partial *= x.block_scales[at(begin / part)] * w.block_scales[at(begin / part)];
    parts.push_back(partial);
  }
  return sum(parts, options_) * alpha(w, x);
}

float NaiveKernel::silu(float x) const {
  if (has(Defect::kMissingSilu)) return x;
  if (options_.order == SumOrder::kPairwise) {  // the other common form
    constexpr float kLog2E = 1.44269504F;
    return x * (1.0F / (1.0F + std::exp2(-x * kLog2E)));
  }
  return x / (1.0F + std::exp(-x));
}

void NaiveKernel::first_half(std::int64_t expert, const ExpertWeightsView& view) {
  const std::int64_t n = problem_.shape.intermediate;
  const std::int64_t k = problem_.shape.hidden;
  const std::int64_t columns =
      has(Defect::kDroppedLastKBlock) ? std::max<std::int64_t>(k - kBlock, 0) : k;
  const float error =
      has(Defect::kScaleErrorInGemm1) && expert == options_.bad_expert ? kPlantedScaleError : 1.0F;
  const auto rounded = [&](float x) { return has(Defect::kUnroundedC1) ? x : round16(x); };
  std::vector<Row> rows;
  for (std::int64_t r = 0; r < 2 * n; ++r) rows.push_back(weight_row(view, false, r));
  for (std::int64_t pair = 0; pair < static_cast<std::int64_t>(hidden_.size()); ++pair) {
    if (expert_of(pair) != expert) continue;
    const Row x = token_operand(pair / problem_.shape.topk, expert);
    for (std::int64_t r = 0; r < n; ++r) {
      float gate = rounded(gemm_element(rows[at(r)], x, columns) * error);
      float up = rounded(gemm_element(rows[at(n + r)], x, columns) * error);
      if (has(Defect::kGateUpSwapped)) std::swap(gate, up);
      hidden_[at(pair)].push_back(round16(silu(gate) * up));
    }
  }
}

void NaiveKernel::find_hidden_scale() {
  float amax = -1.0F;
  for (std::size_t pair = 0; pair < hidden_.size(); ++pair) {
    const float of_pair = amax_of(hidden_[pair]);
    if (of_pair <= amax) continue;
    amax = of_pair;
    claim_.pair = static_cast<std::int64_t>(pair);
  }
  claim_.scale = fp8_scale(std::max(amax, 0.0F));
}

void NaiveKernel::second_half(std::int64_t expert, const ExpertWeightsView& view) {
  const std::int64_t n = problem_.shape.intermediate;
  const std::int64_t k = problem_.shape.hidden;
  const bool everywhere = has(Defect::kScaleErrorEverywhere);
  const bool here = has(Defect::kScaleErrorOneExpert) && expert == options_.bad_expert;
  std::vector<Row> rows;
  for (std::int64_t r = 0; r < k; ++r) rows.push_back(weight_row(view, true, r));
  for (std::int64_t pair = 0; pair < static_cast<std::int64_t>(hidden_.size()); ++pair) {
    if (expert_of(pair) != expert) continue;
    const Row x = hidden_operand(hidden_[at(pair)], expert);
    for (std::int64_t r = 0; r < k; ++r) {
      const float c2 =
          gemm_element(rows[at(r)], x, n) * (everywhere || here ? kPlantedScaleError : 1.0F);
      c2_[at(pair * k + r)] = round16(c2);
    }
  }
}

std::vector<std::uint16_t> NaiveKernel::combine() const {
  const std::int64_t k = problem_.shape.hidden;
  const std::int64_t topk = problem_.shape.topk;
  std::vector<std::uint16_t> y;
  for (std::int64_t token = 0; token < problem_.tokens; ++token) {
    for (std::int64_t c = 0; c < k; ++c) {
      float total = 0.0F;
      for (std::int64_t slot = 0; slot < topk; ++slot) {
        const bool swap = has(Defect::kRoutingWeightsSwapped) && topk > 1 && slot < 2;
        const float weight =
            problem_.routing.topk_weights[at(token * topk + (swap ? 1 - slot : slot))];
        total += c2_[at((token * topk + slot) * k + c)] * weight;
      }
      y.push_back(encode_act(problem_.shape.act, total));
    }
  }
  return y;
}

NaiveAnswer NaiveKernel::run() {
  const std::int64_t pairs = problem_.tokens * problem_.shape.topk;
  hidden_.resize(at(pairs));
  c2_.resize(at(pairs * problem_.shape.hidden));
  const auto each_expert = [&](void (NaiveKernel::*half)(std::int64_t, const ExpertWeightsView&)) {
    for (std::int64_t e = 0; e < problem_.shape.num_experts; ++e) {
      bool used = false;
      for (std::int64_t pair = 0; pair < pairs; ++pair) used = used || expert_of(pair) == e;
      if (used)
        weights_.with_expert(e, [&](const ExpertWeightsView& view) { (this->*half)(e, view); });
    }
  };
  each_expert(&NaiveKernel::first_half);
  if (per_tensor_activations()) find_hidden_scale();
  each_expert(&NaiveKernel::second_half);
  NaiveAnswer out{combine(), std::nullopt};
  if (per_tensor_activations() && problem_.tokens > 0) out.claim = claim_;
  return out;
}

}  // namespace

NaiveAnswer naive_forward(const MoeProblem& problem, const WeightSource& weights,
                          const NaiveOptions& options) {
  return NaiveKernel(problem, weights, options).run();
}

}  // namespace moebench::testing
