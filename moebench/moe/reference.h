// The oracle: a double-precision forward on the same quantised bits, with the layer's rounding
// points, and for every output element the radius that FP32 accumulation order may move it by. Slow
// and obvious; judged only by its own tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moebench/moe/problem.h"

namespace moebench {

/// What the kernel itself found where the layer's definition depends on all rows at once (kFp8
/// without per_act_token: the a2 scale is amax(h)/448 over all pairs). The oracle uses it after
/// checking it: no sampled row may exceed it, and the pair that attained it is recomputed.
struct DynamicScaleClaim {
  float scale = 0.0F;
  std::int64_t pair = -1;  ///< token*topk + slot that holds the amax
};

/// Expected rows and, per element, how far an answer with another FP32 accumulation order may lie.
/// How: |c - c_ref| <= gamma * sum|w*a| makes each c1 an interval; the interval goes through the
/// 16-bit roundings, silu and the quantiser (an element that sits at a rounding boundary gets the
/// distance to the other code as radius), through GEMM2 as sum |w2| * radius, and through the final
/// roundings.
struct ReferenceRows {
  std::vector<std::int64_t> tokens;  ///< the token rows that were computed, ascending
  std::vector<double> expected;      ///< [rows, hidden], after the rounding to 16 bits
  std::vector<double> radius;        ///< [rows, hidden]
  std::string defect;  ///< why no answer can pass (a wrong claim, an overflow of the 16-bit type);
                       ///< else empty
};

/// gamma in units of 2^-24: a random-sign sum of n FP32 terms errs by well under 1 unit of
/// sum|terms| (sequential, n = 7168: 0.65 at one sigma); 8 covers it twelve-fold and is far below
/// what any planted defect moves.
inline constexpr double kAccumulationUlps = 8.0;

/// `token_rows` in any order, repeats ignored. `claim` is read for kFp8 without per_act_token only;
/// it may be missing if all rows are asked for (the oracle then finds the scale, at the price of
/// visiting each expert twice). Every expert that a row goes to is visited once. threads 0: all.
/// The result does not depend on `threads`. Throws kBadInput for rows or weights that do not fit
/// the problem, kInternal for a claim that is missing or whose token is not among the rows. A claim
/// that is wrong is the kernel's fault: `defect`, which judge() fails on.
[[nodiscard]] ReferenceRows reference_forward(const MoeProblem& problem,
                                              const WeightSource& weights,
                                              std::vector<std::int64_t> token_rows,
                                              const std::optional<DynamicScaleClaim>& claim,
                                              int threads);

/// The same rows with unquantised weights and activations in double, nothing rounded: the yardstick
/// of format error. [rows, hidden] in the order of `token_rows`. Throws kBadInput where the source
/// has no unquantised form.
[[nodiscard]] std::vector<double> unquantized_forward(const MoeProblem& problem,
                                                      const WeightSource& weights,
                                                      const std::vector<std::int64_t>& token_rows,
                                                      int threads);

}  // namespace moebench
