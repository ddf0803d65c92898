// See reference_rounding.h. Slow and obvious: scalar encoders, every case written out.
#include "moebench/moe/reference_rounding.h"

#include <algorithm>
#include <cmath>

#include "moebench/core/checked.h"
#include "moebench/moe/reference.h"

namespace moebench::oracle {
namespace {

/// alpha's own two FP32 roundings, one more for a kernel that applies the two scales one after the
/// other, and the final multiply: four half-ulps of the scaled sum.
constexpr double kScalingUnits = 4.0;

/// FP32 silu: exp to 4 ulp (8 units), 1 + exp, the division or reciprocal-and-multiply, the
/// multiply by up: 16 units. An exp that is computed as exp2(x * log2(e)) in FP32 is off by the
/// rounding of its argument, in proportion to |gate|.
constexpr double kSiluUnits = 16.0;
constexpr double kSiluUnitsPerGate = 2.0;
/// Below this gate, exp(-gate) nears the top of FP32 and a kernel's silu may be flushed to zero.
constexpr double kFlushGate = -80.0;
/// Where silu has its minimum.
constexpr double kSiluMinimum = -1.2784645427610738;

/// Rounding to E4M3 takes no magnitude further from zero than to twice itself (from just above half
/// the least subnormal).
constexpr double kRoundingGrowth = 2.0;

double silu(double x) { return x / (1.0 + std::exp(-x)); }

struct Ends {
  double lo;
  double hi;
};

Ends silu_range(double lo, double hi) {
  const double at_lo = silu(lo);
  const double at_hi = silu(hi);
  Ends out{std::min(at_lo, at_hi), std::max(at_lo, at_hi)};
  if (lo < kSiluMinimum && kSiluMinimum < hi) out.lo = silu(kSiluMinimum);
  if (lo < kFlushGate) out.hi = std::max(out.hi, 0.0);
  return out;
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

void add_uncertain(OperandRow& row, std::int64_t index, double lo, double hi) {
  const double mid = row.values[at(index)];
  const double radius = std::max({hi - mid, mid - lo, 0.0});
  if (radius > 0.0) row.uncertain.push_back({index, radius});
}

std::vector<double> decode_nvfp4(const std::vector<float>& x, float global_scale) {
  const auto cols = static_cast<std::int64_t>(x.size());
  std::vector<std::uint8_t> payload(x.size() / 2);
  std::vector<std::uint8_t> scales(at(cols / kNvfp4BlockSize));
  quantize_nvfp4_row_scalar(x.data(), cols, global_scale, payload.data(), scales.data());
  std::vector<double> out(x.size());
  for (std::int64_t i = 0; i < cols; ++i) {
    const std::uint8_t pair = payload[at(i / 2)];
    const std::uint8_t code = i % 2 == 0 ? pair & 0xF : pair >> 4;
    out[at(i)] = double{decode_e2m1(code)} * double{decode_e4m3(scales[at(i / kNvfp4BlockSize)])};
  }
  return out;
}

/// Appends decode(e4m3(x / scale)) * factor to `out`.
void append_fp8(const float* x, std::int64_t count, float scale, double factor,
                std::vector<double>& out) {
  std::vector<std::uint8_t> payload(at(count));
  quantize_fp8_row_scalar(x, count, scale, payload.data());
  for (const std::uint8_t code : payload) out.push_back(double{decode_e4m3(code)} * factor);
}

bool any_uncertain(const HiddenRow& h, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    if (h.lo[at(i)] != h.hi[at(i)]) return true;
  }
  return false;
}

/// The block's scale code and every element's code over all attainable h: both are monotone, so
/// their ends bound them.
void add_uncertain_nvfp4_block(const HiddenRow& h, std::int64_t begin, float global_scale,
                               OperandRow& row) {
  const std::int64_t end = begin + kNvfp4BlockSize;
  if (!any_uncertain(h, begin, end)) return;
  const FloatRange amax = amax_range(h, begin, end);
  const int first_code = encode_e4m3(global_scale * (amax.lo / kE2m1Max));
  const int last_code = encode_e4m3(global_scale * (amax.hi / kE2m1Max));
  for (std::int64_t i = begin; i < end; ++i) {
    double lo = row.values[at(i)];
    double hi = lo;
    for (int code = first_code; code <= last_code; ++code) {
      const float sf = decode_e4m3(static_cast<std::uint8_t>(code));
      const float multiplier = sf == 0.0F ? 0.0F : global_scale / sf;
      lo = std::min(lo, double{decode_e2m1(encode_e2m1(h.lo[at(i)] * multiplier))} * double{sf});
      hi = std::max(hi, double{decode_e2m1(encode_e2m1(h.hi[at(i)] * multiplier))} * double{sf});
    }
    add_uncertain(row, i, lo, hi);
  }
}

/// Elements [begin, end) of `row`, whose values carry decode(code) * unit / scale.mid: unit =
/// scale.mid where the scale is inside the values (fp8-block), 1 where alpha applies it.
void add_uncertain_fp8(const HiddenRow& h, std::int64_t begin, std::int64_t end,
                       const FloatRange& scale, double unit, OperandRow& row) {
  const bool fixed_scale = scale.lo == scale.hi;
  if (fixed_scale && !any_uncertain(h, begin, end)) return;
  const double per_scale = unit / double{scale.mid};
  for (std::int64_t i = begin; i < end; ++i) {
    const float lo = h.lo[at(i)];
    const float hi = h.hi[at(i)];
    if (fixed_scale && lo == hi) continue;
    if (scale.lo == 0.0F) {
      add_uncertain(row, i, std::min(lo, 0.0F) * kRoundingGrowth / scale.mid * unit,
                    std::max(hi, 0.0F) * kRoundingGrowth / scale.mid * unit);
      continue;
    }
    const double least = decode_e4m3(encode_e4m3(std::min(lo / scale.lo, lo / scale.hi)));
    const double most = decode_e4m3(encode_e4m3(std::max(hi / scale.lo, hi / scale.hi)));
    const double low_end = std::min(least * double{scale.lo}, least * double{scale.hi});
    const double high_end = std::max(most * double{scale.lo}, most * double{scale.hi});
    add_uncertain(row, i, low_end * per_scale, high_end * per_scale);
  }
}

OperandRow quantize_hidden_fp8_block(const HiddenRow& h) {
  OperandRow row;
  const auto n = static_cast<std::int64_t>(h.mid.size());
  for (std::int64_t begin = 0; begin < n; begin += kFp8BlockSize) {
    const std::int64_t end = std::min(begin + kFp8BlockSize, n);
    const FloatRange scale = fp8_scale_range(amax_range(h, begin, end));
    append_fp8(h.mid.data() + begin, end - begin, scale.mid, scale.mid, row.values);
    add_uncertain_fp8(h, begin, end, scale, scale.mid, row);
  }
  return row;
}

}  // namespace

Interval accumulated(double dot, double abs_dot, double spread, float alpha) {
  const double scale = std::abs(double{alpha});
  const double mid = dot * double{alpha};
  const double radius = (kAccumulationUlps * kFp32Unit * abs_dot + spread) * scale +
                        kScalingUnits * kFp32Unit * std::abs(mid);
  return {mid - radius, mid, mid + radius};
}

Interval round_to_act(ActType act, const Interval& x) {
  return {double{decode_act(act, encode_act(act, x.lo))},
          double{decode_act(act, encode_act(act, x.mid))},
          double{decode_act(act, encode_act(act, x.hi))}};
}

Interval silu_times_up(const Interval& gate, const Interval& up) {
  const Ends s = silu_range(gate.lo, gate.hi);
  const auto [least, most] = std::minmax({s.lo * up.lo, s.lo * up.hi, s.hi * up.lo, s.hi * up.hi});
  const double steepest = std::max(std::abs(gate.lo), std::abs(gate.hi));
  const double relative = (kSiluUnits + kSiluUnitsPerGate * steepest) * kFp32Unit;
  return {least - relative * std::abs(least), silu(gate.mid) * up.mid,
          most + relative * std::abs(most)};
}

bool is_finite(const HiddenRow& h) {
  const auto finite = [](float x) { return std::isfinite(x); };
  return std::all_of(h.lo.begin(), h.lo.end(), finite) &&
         std::all_of(h.mid.begin(), h.mid.end(), finite) &&
         std::all_of(h.hi.begin(), h.hi.end(), finite);
}

FloatRange amax_range(const HiddenRow& h, std::int64_t begin, std::int64_t end) {
  FloatRange out;
  for (std::int64_t i = begin; i < end; ++i) {
    const float lo = h.lo[at(i)];
    const float hi = h.hi[at(i)];
    const bool spans_zero = lo < 0.0F && hi > 0.0F;
    out.lo = std::max(out.lo, spans_zero ? 0.0F : std::min(std::abs(lo), std::abs(hi)));
    out.mid = std::max(out.mid, std::abs(h.mid[at(i)]));
    out.hi = std::max({out.hi, std::abs(lo), std::abs(hi)});
  }
  return out;
}

FloatRange fp8_scale_range(const FloatRange& amax) {
  FloatRange out{fp8_scale(amax.lo), fp8_scale(amax.mid), fp8_scale(amax.hi)};
  // An amax of 0 gives scale 1, larger than the scale of a tiny amax; lo = 0 says that both are
  // attainable.
  if (amax.lo == 0.0F && amax.hi > 0.0F) out = {0.0F, out.mid, std::max(out.hi, 1.0F)};
  return out;
}

OperandRow quantize_token(const MoeProblem& problem, std::int64_t token, std::int64_t expert) {
  const std::int64_t cols = problem.shape.hidden;
  std::vector<float> x(at(cols));
  for (std::int64_t i = 0; i < cols; ++i)
    x[at(i)] = decode_act(problem.shape.act, problem.a[at(token * cols + i)]);
  OperandRow row;
  switch (problem.scheme.scheme) {
    case Scheme::kNvfp4:
      row.scale = problem.scales.a1_global_scale[at(expert)];
      row.values = decode_nvfp4(x, row.scale);
      break;
    case Scheme::kNvfp4W4A16:
      row.values.assign(x.begin(), x.end());
      break;
    case Scheme::kFp8:
      row.scale = problem.scheme.per_act_token ? fp8_scale(amax_of(x)) : problem.scales.a1_scale;
      append_fp8(x.data(), cols, row.scale, 1.0, row.values);
      break;
    case Scheme::kFp8Block:
      for (std::int64_t begin = 0; begin < cols; begin += kFp8BlockSize) {
        const std::int64_t count = std::min(kFp8BlockSize, cols - begin);
        const float scale = fp8_scale(amax_of(std::span(x).subspan(at(begin), at(count))));
        append_fp8(x.data() + begin, count, scale, scale, row.values);
      }
      break;
  }
  return row;
}

OperandRow quantize_hidden(const MoeProblem& problem, std::int64_t expert, const HiddenRow& h,
                           const std::optional<FloatRange>& tensor_scale) {
  const auto n = static_cast<std::int64_t>(h.mid.size());
  OperandRow row;
  switch (problem.scheme.scheme) {
    case Scheme::kNvfp4:
      row.scale = problem.scales.a2_global_scale[at(expert)];
      row.values = decode_nvfp4(h.mid, row.scale);
      for (std::int64_t i = 0; i < n; i += kNvfp4BlockSize)
        add_uncertain_nvfp4_block(h, i, row.scale, row);
      break;
    case Scheme::kNvfp4W4A16:
      row.values.assign(h.mid.begin(), h.mid.end());
      for (std::int64_t i = 0; i < n; ++i) add_uncertain(row, i, h.lo[at(i)], h.hi[at(i)]);
      break;
    case Scheme::kFp8: {
      const FloatRange scale = problem.scheme.per_act_token ? fp8_scale_range(amax_range(h, 0, n))
                                                            : tensor_scale.value();
      row.scale = scale.mid;
      append_fp8(h.mid.data(), n, scale.mid, 1.0, row.values);
      add_uncertain_fp8(h, 0, n, scale, 1.0, row);
      break;
    }
    case Scheme::kFp8Block:
      row = quantize_hidden_fp8_block(h);
      break;
  }
  return row;
}

}  // namespace moebench::oracle
