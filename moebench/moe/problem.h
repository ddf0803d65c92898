// One case to compute: shape, scheme, tokens, routing and activation scales. What backends run and
// the reference judges.
#pragma once

#include <cstdint>
#include <vector>

#include "moebench/moe/layer.h"
#include "moebench/moe/routing.h"
#include "moebench/moe/weights.h"

namespace moebench {

/// Activation scales that are given, not computed in the timed call (static calibration).
struct ActivationScales {
  std::vector<float> a1_global_scale;  ///< kNvfp4: [E], divisor 448*6/amax, used after the permute
  std::vector<float> a2_global_scale;  ///< kNvfp4: [E]
  float a1_scale = 1.0F;               ///< kFp8 without per_act_token: static multiplier amax/448
};

struct MoeProblem {
  MoeShape shape;
  SchemeConfig scheme;
  std::int64_t tokens = 0;
  std::vector<std::uint16_t> a;  ///< [tokens, hidden] in shape.act
  Routing routing;
  ActivationScales scales;
};

/// Synthetic tokens: Philox stream kTokens, tag 0, row = token; irwin_hall * 2^-7 (standard
/// deviation 1.15).
[[nodiscard]] std::vector<std::uint16_t> synthetic_tokens(std::uint64_t seed, const MoeShape& shape,
                                                          std::int64_t tokens);
/// Small integers for the exact mode. They depend on the weight format: every activation scale must
/// be a power of two, and it is amax/6 in NVFP4 and amax/448 in FP8.
[[nodiscard]] std::vector<std::uint16_t> exact_tokens(std::uint64_t seed, const MoeShape& shape,
                                                      WeightFormat format, std::int64_t tokens);

/// Scales as an offline calibration would give them. a1: from the known bound of synthetic tokens.
/// a2: amax of h over a few calibration tokens (stream kCalibration) through the first experts'
/// unquantised weights, rounded up to a power of two: a pure function of (seed, shape), the same
/// for every batch size and on every machine.
[[nodiscard]] ActivationScales calibrate(std::uint64_t seed, const MoeShape& shape);

[[nodiscard]] MoeProblem synthetic_problem(std::uint64_t seed, const MoeShape& shape,
                                           const SchemeConfig& scheme, std::int64_t tokens,
                                           Routing routing, const ActivationScales& scales);
/// Counterpart of exact_weights(): every stage exact in FP32, results the same bits whatever the
/// summation order. The routing's weights are replaced by powers of two. Needs topk <= 512.
[[nodiscard]] MoeProblem exact_problem(std::uint64_t seed, const MoeShape& shape,
                                       const SchemeConfig& scheme, std::int64_t tokens,
                                       Routing routing);

/// Throws kBadInput for sizes that do not fit together, NaN or infinite tokens, scales not positive
/// and finite. 0 tokens is fine.
void validate(const MoeProblem& problem);

}  // namespace moebench
