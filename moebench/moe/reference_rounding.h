// Interval arithmetic of the layer's rounding points, for the reference only: what every
// FP32-accumulating kernel may hold where exact accumulation holds `mid`. Private to reference.cpp
// and to the tests of the oracle.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "moebench/moe/problem.h"

namespace moebench::oracle {

/// Half an FP32 ulp of a number in [1, 2), relative: the unit in which FP32 rounding slack is
/// counted.
inline constexpr double kFp32Unit = 0x1p-24;

struct Interval {
  double lo = 0.0;
  double mid = 0.0;
  double hi = 0.0;
};

/// alpha * (dot +- accumulation error +- spread). `abs_dot` is the sum of |terms|, `spread` what
/// uncertain inputs add.
[[nodiscard]] Interval accumulated(double dot, double abs_dot, double spread, float alpha);
/// Each end rounded to 16 bits; rounding is monotone, so every attainable 16-bit value lies in the
/// result.
[[nodiscard]] Interval round_to_act(ActType act, const Interval& x);
/// silu(gate) * up before its rounding, with the slack of an FP32 evaluation.
[[nodiscard]] Interval silu_times_up(const Interval& gate, const Interval& up);

/// h of one (token, expert) pair, [intermediate]; 16-bit values, exact in float.
struct HiddenRow {
  std::vector<float> lo, mid, hi;
  explicit HiddenRow(std::int64_t n = 0)
      : lo(static_cast<std::size_t>(n)),
        mid(static_cast<std::size_t>(n)),
        hi(static_cast<std::size_t>(n)) {}
};
[[nodiscard]] bool is_finite(const HiddenRow& h);

struct FloatRange {
  float lo = 0.0F;
  float mid = 0.0F;
  float hi = 0.0F;
};
/// max |h| over elements [begin, end).
[[nodiscard]] FloatRange amax_range(const HiddenRow& h, std::int64_t begin, std::int64_t end);
/// Scales of all attainable amax; lo = 0 where the amax may be 0 (whose scale is 1) or not.
[[nodiscard]] FloatRange fp8_scale_range(const FloatRange& amax);

/// An element whose quantised value depends on how a kernel accumulated: it lies within `radius` of
/// `values[index]`.
struct UncertainElement {
  std::int64_t index;
  double radius;
};

/// One operand row of a GEMM, dequantised but for the scale that the kernel applies to the sum
/// (fp8-block, whose scales change along the row, has them in `values`).
struct OperandRow {
  std::vector<double> values;
  std::vector<UncertainElement> uncertain;
  float scale = 1.0F;  ///< NVFP4: global scale (divisor); fp8: multiplier; else 1
};

/// Token `token` as the GEMM1 operand of expert `expert`.
[[nodiscard]] OperandRow quantize_token(const MoeProblem& problem, std::int64_t token,
                                        std::int64_t expert);

/// h as the GEMM2 operand of expert `expert`. `tensor_scale`: the a2 scale where it is one for all
/// pairs (kFp8 without per_act_token), else unused.
[[nodiscard]] OperandRow quantize_hidden(const MoeProblem& problem, std::int64_t expert,
                                         const HiddenRow& h,
                                         const std::optional<FloatRange>& tensor_scale);

}  // namespace moebench::oracle
