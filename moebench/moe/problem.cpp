// Synthetic tokens, the static calibration of activation scales, and the check that a case fits
// together.
#include "moebench/moe/problem.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "moebench/core/checked.h"
#include "moebench/core/dtype.h"
#include "moebench/moe/philox.h"

namespace moebench {
namespace {

/// Tokens are irwin_hall * 2^-7: standard deviation 1.15, magnitude at most 510 * 2^-7 < 4.
constexpr float kTokenStep = 0x1p-7F;
constexpr float kTokenBound = 4.0F;

// Enough products that the amax is within a factor of two of what 2048 tokens reach; 0.1 s for the
// largest layers.
constexpr std::int64_t kCalibrationExperts = 2;
constexpr std::int64_t kCalibrationTokens = 16;
/// |irwin_hall| <= 510, so that many products fit an int32 sum.
constexpr std::int64_t kMaxInt32Products = std::numeric_limits<std::int32_t>::max() / (510 * 510);

/// irwin_hall values of one row as integers; `floats` is scratch.
void integer_row(std::uint64_t seed, Stream stream, std::int64_t tag, std::int64_t row,
                 std::span<float> floats, std::span<std::int16_t> out) {
  philox_row(seed, stream, static_cast<std::uint32_t>(tag), static_cast<std::uint32_t>(row), 1.0F,
             static_cast<std::int64_t>(floats.size()), floats.data());
  std::transform(floats.begin(), floats.end(), out.begin(),
                 [](float value) { return static_cast<std::int16_t>(value); });
}

/// Exact, so that the calibration does not depend on how a compiler orders the sum.
std::int64_t integer_dot(std::span<const std::int16_t> a, std::span<const std::int16_t> b) {
  std::int64_t total = 0;
  for (std::size_t begin = 0; begin < a.size(); begin += kMaxInt32Products) {
    const std::size_t end = std::min(a.size(), begin + static_cast<std::size_t>(kMaxInt32Products));
    std::int32_t part = 0;
    for (std::size_t i = begin; i < end; ++i) {
      part += a[i] * b[i];
    }
    total += part;
  }
  return total;
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

/// amax of h = silu(gate) * up of the calibration tokens in one expert.
double hidden_amax(std::uint64_t seed, const MoeShape& shape, std::int64_t expert,
                   std::span<const std::int16_t> tokens) {
  constexpr double kProductStep =
      static_cast<double>(kTokenStep) * static_cast<double>(kWeightStep);
  const auto hidden = static_cast<std::size_t>(shape.hidden);
  double amax = 0.0;
  // Allocation may throw, which must not happen inside the region: every thread's scratch is made
  // before it.
  struct Scratch {
    std::vector<float> floats;
    std::vector<std::int16_t> gate, up;
  };
  constexpr std::int64_t kWorthThreads =
      1 << 18;  // weights; below, waking the threads costs more than it saves
  const int threads = shape.hidden * shape.intermediate < kWorthThreads ? 1 : omp_get_max_threads();
  std::vector<Scratch> scratch(static_cast<std::size_t>(threads));
  for (Scratch& s : scratch) {
    s = {std::vector<float>(hidden), std::vector<std::int16_t>(hidden),
         std::vector<std::int16_t>(hidden)};
  }
#pragma omp parallel for num_threads(threads) schedule(static) reduction(max : amax)
  for (std::int64_t n = 0; n < shape.intermediate; ++n) {
    Scratch& s = scratch[static_cast<std::size_t>(omp_get_thread_num())];
    integer_row(seed, Stream::kGateUp, expert, n, s.floats, s.gate);
    integer_row(seed, Stream::kGateUp, expert, shape.intermediate + n, s.floats, s.up);
    for (std::size_t token = 0; token < static_cast<std::size_t>(kCalibrationTokens); ++token) {
      const auto a = tokens.subspan(token * hidden, hidden);
      const double gate = static_cast<double>(integer_dot(a, s.gate)) * kProductStep;
      const double up = static_cast<double>(integer_dot(a, s.up)) * kProductStep;
      amax = std::max(amax, std::abs(silu(gate) * up));
    }
  }
  return amax;
}

float round_up_to_power_of_two(double x) {
  int exponent = 0;
  const double fraction =
      std::frexp(x, &exponent);  // x = fraction * 2^exponent, fraction in [0.5, 1)
  return static_cast<float>(std::ldexp(1.0, fraction == 0.5 ? exponent - 1 : exponent));
}

void require_scale(std::string_view name, std::int64_t expert, float scale) {
  if (!(scale > 0.0F) || std::isinf(scale)) {
    fail(ErrorCode::kBadInput, "{}: expert {} has {}; scales must be positive and finite", name,
         expert, scale);
  }
}

void require_global_scales(std::string_view name, std::span<const float> scales,
                           std::int64_t num_experts) {
  if (static_cast<std::int64_t>(scales.size()) != num_experts) {
    fail(ErrorCode::kBadInput, "{}: {} values for {} experts; give one per expert", name,
         scales.size(), num_experts);
  }
  for (std::size_t expert = 0; expert < scales.size(); ++expert) {
    require_scale(name, static_cast<std::int64_t>(expert), scales[expert]);
  }
}

void require_finite_tokens(const MoeProblem& problem) {
  std::int64_t count = 0;
  std::int64_t first = -1;
  for (std::size_t i = 0; i < problem.a.size(); ++i) {
    if (!std::isfinite(decode_act(problem.shape.act, problem.a[i]))) {
      first = count == 0 ? static_cast<std::int64_t>(i) : first;
      ++count;
    }
  }
  if (count > 0) {
    fail(ErrorCode::kBadInput,
         "a: {} NaN or infinite values, the first at token {}, column {}; give finite tokens",
         count, first / problem.shape.hidden, first % problem.shape.hidden);
  }
}

}  // namespace

std::vector<std::uint16_t> synthetic_tokens(std::uint64_t seed, const MoeShape& shape,
                                            std::int64_t tokens) {
  std::vector<std::uint16_t> a(
      static_cast<std::size_t>(checked_product("tokens", {tokens, shape.hidden})));
  std::vector<float> row(static_cast<std::size_t>(shape.hidden));
  for (std::int64_t token = 0; token < tokens; ++token) {
    philox_row(seed, Stream::kTokens, 0, static_cast<std::uint32_t>(token), kTokenStep,
               shape.hidden, row.data());
    std::transform(row.begin(), row.end(), a.begin() + token * shape.hidden,
                   [&](float value) { return encode_act(shape.act, value); });
  }
  return a;
}

ActivationScales calibrate(std::uint64_t seed, const MoeShape& shape) {
  const auto hidden = static_cast<std::size_t>(shape.hidden);
  std::vector<float> floats(hidden);
  std::vector<std::int16_t> tokens(static_cast<std::size_t>(kCalibrationTokens) * hidden);
  for (std::size_t token = 0; token < static_cast<std::size_t>(kCalibrationTokens); ++token) {
    integer_row(seed, Stream::kCalibration, 0, static_cast<std::int64_t>(token), floats,
                std::span(tokens).subspan(token * hidden, hidden));
  }
  double amax = 0.0;
  for (std::int64_t expert = 0; expert < std::min(kCalibrationExperts, shape.num_experts);
       ++expert) {
    amax = std::max(amax, hidden_amax(seed, shape, expert, tokens));
  }
  const auto experts = static_cast<std::size_t>(shape.num_experts);
  ActivationScales scales;
  scales.a1_global_scale.assign(experts, nvfp4_global_scale(kTokenBound));
  scales.a2_global_scale.assign(
      experts, nvfp4_global_scale(amax > 0.0 ? round_up_to_power_of_two(amax) : 1.0F));
  scales.a1_scale = fp8_scale(kTokenBound);
  return scales;
}

MoeProblem synthetic_problem(std::uint64_t seed, const MoeShape& shape, const SchemeConfig& scheme,
                             std::int64_t tokens, Routing routing, const ActivationScales& scales) {
  validate(shape, weight_format(scheme));
  MoeProblem problem{
      shape, scheme, tokens, synthetic_tokens(seed, shape, tokens), std::move(routing), scales};
  validate(problem);
  return problem;
}

void validate(const MoeProblem& problem) {
  const MoeShape& shape = problem.shape;
  validate(shape, weight_format(problem.scheme));
  if (problem.tokens < 0 || problem.routing.tokens != problem.tokens ||
      problem.routing.topk != shape.topk) {
    fail(ErrorCode::kBadInput,
         "routing: made for {} tokens and topk {}, the case has {} and {}; make both alike",
         problem.routing.tokens, problem.routing.topk, problem.tokens, shape.topk);
  }
  if (static_cast<std::int64_t>(problem.a.size()) !=
      checked_product("tokens", {problem.tokens, shape.hidden})) {
    fail(ErrorCode::kBadInput,
         "a: {} values for {} tokens of {} columns; give tokens * hidden values", problem.a.size(),
         problem.tokens, shape.hidden);
  }
  validate(problem.routing, shape.num_experts);
  require_finite_tokens(problem);
  if (problem.scheme.scheme == Scheme::kNvfp4) {
    require_global_scales("a1_global_scale", problem.scales.a1_global_scale, shape.num_experts);
    require_global_scales("a2_global_scale", problem.scales.a2_global_scale, shape.num_experts);
  }
  if (problem.scheme.scheme == Scheme::kFp8 && !problem.scheme.per_act_token) {
    const float scale = problem.scales.a1_scale;
    if (!(scale > 0.0F) || std::isinf(scale)) {
      fail(ErrorCode::kBadInput, "a1_scale: is {}; scales must be positive and finite", scale);
    }
  }
}

}  // namespace moebench
