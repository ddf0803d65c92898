// The oracle's forward pass: which expert is visited when, the two GEMMs in double, the combine.
// What happens at a rounding point is in reference_rounding.cpp.
#include "moebench/moe/reference.h"

#include <algorithm>
#include <cmath>

#include "moebench/core/checked.h"
#include "moebench/moe/reference_gemm.h"
#include "moebench/moe/reference_rounding.h"

namespace moebench {
namespace {

using oracle::accumulated;
using oracle::at;
using oracle::dot;
using oracle::DotProduct;
using oracle::ExpertTask;
using oracle::FloatRange;
using oracle::HiddenRow;
using oracle::Interval;
using oracle::OperandRow;
using oracle::round_to_act;
using oracle::silu_times_up;
using oracle::WeightMatrix;

/// c2 of one pair and column: 16-bit codes of the ends and of the middle.
struct RoundedCodes {
  std::uint16_t lo, mid, hi;
};

/// Tokens of one expert that go through a weight row together: decoding is shared, and 16 rows of
/// 7168 doubles fit the L2.
constexpr std::int64_t kTokensAtOnce = 16;

class Forward {
 public:
  Forward(const MoeProblem& problem, const WeightSource& weights, std::vector<std::int64_t> tokens,
          int threads)
      : problem_(problem), weights_(weights), tokens_(std::move(tokens)), threads_(threads) {
    const std::int64_t pairs = static_cast<std::int64_t>(tokens_.size()) * problem.shape.topk;
    amax_.resize(at(pairs));
    overflow_.resize(at(pairs));
    c2_.resize(at(checked_product("reference", {pairs, problem.shape.hidden})));
  }

  ReferenceRows run(const std::optional<DynamicScaleClaim>& claim) {
    ReferenceRows out;
    out.tokens = tokens_;
    const std::size_t elements = tokens_.size() * at(problem_.shape.hidden);
    out.expected.resize(elements);
    out.radius.resize(elements);
    if (tokens_.empty()) return out;
    const bool tensor_scaled =
        problem_.scheme.scheme == Scheme::kFp8 && !problem_.scheme.per_act_token;
    if (tensor_scaled && claim) {
      out.defect = claim_form_defect(*claim);
      if (!out.defect.empty()) return out;
      both_gemms(FloatRange{claim->scale, claim->scale, claim->scale});
      out.defect = claim_value_defect(*claim);
    } else if (tensor_scaled) {
      gemms_around_own_scale();
    } else {
      both_gemms(std::nullopt);
    }
    combine(out);
    if (out.defect.empty()) out.defect = overflow_defect(out);
    return out;
  }

 private:
  using Pairs = std::span<const std::int64_t>;

  [[nodiscard]] std::int64_t token_of(std::int64_t pair) const {
    return tokens_[at(pair / problem_.shape.topk)];
  }

  template <typename Use>
  void for_each_expert(const Use& use) {
    oracle::for_each_task(oracle::tasks_by_expert(problem_, tokens_), threads_,
                          [&](const ExpertTask& task, int threads) {
                            weights_.with_expert(task.expert, [&](const ExpertWeightsView& view) {
                              const auto count = static_cast<std::int64_t>(task.pairs.size());
                              for (std::int64_t begin = 0; begin < count; begin += kTokensAtOnce) {
                                const std::int64_t size = std::min(kTokensAtOnce, count - begin);
                                use(task.expert, view,
                                    Pairs(task.pairs).subspan(at(begin), at(size)), threads);
                              }
                            });
                          });
  }

  void both_gemms(const std::optional<FloatRange>& tensor_scale) {
    for_each_expert(
        [&](std::int64_t expert, const ExpertWeightsView& view, Pairs pairs, int threads) {
          gemm2(expert, WeightMatrix(view, true), pairs,
                gemm1(expert, WeightMatrix(view, false), pairs, threads), tensor_scale, threads);
        });
  }

  /// The a2 scale depends on h of all pairs, so GEMM2 can only start when GEMM1 is through with all
  /// experts.
  void gemms_around_own_scale() {
    std::vector<HiddenRow> hidden(amax_.size());
    for_each_expert(
        [&](std::int64_t expert, const ExpertWeightsView& view, Pairs pairs, int threads) {
          std::vector<HiddenRow> rows = gemm1(expert, WeightMatrix(view, false), pairs, threads);
          for (std::size_t t = 0; t < pairs.size(); ++t) hidden[at(pairs[t])] = std::move(rows[t]);
        });
    const FloatRange scale = oracle::fp8_scale_range(amax_of_all_pairs());
    for_each_expert(
        [&](std::int64_t expert, const ExpertWeightsView& view, Pairs pairs, int threads) {
          std::vector<HiddenRow> rows;
          for (const std::int64_t pair : pairs) rows.push_back(std::move(hidden[at(pair)]));
          gemm2(expert, WeightMatrix(view, true), pairs, rows, scale, threads);
        });
  }

  std::vector<HiddenRow> gemm1(std::int64_t expert, const WeightMatrix& w1, Pairs pairs,
                               int threads) {
    const std::int64_t n = problem_.shape.intermediate;
    const std::int64_t k = problem_.shape.hidden;
    const ActType act = problem_.shape.act;
    std::vector<OperandRow> a;
    for (const std::int64_t pair : pairs)
      a.push_back(oracle::quantize_token(problem_, token_of(pair), expert));
    std::vector<HiddenRow> hidden(pairs.size(), HiddenRow(n));
    oracle::parallel_for(n, threads, [&](std::int64_t r) {
      std::vector<double> gate_row(at(k));
      std::vector<double> up_row(at(k));
      w1.decode_row(r, gate_row.data());
      w1.decode_row(n + r, up_row.data());
      for (std::size_t t = 0; t < a.size(); ++t) {
        const double* x = a[t].values.data();
        const DotProduct g = dot(gate_row.data(), x, k);
        const DotProduct u = dot(up_row.data(), x, k);
        const Interval gate = accumulated(g.sum, g.abs_sum, 0.0, w1.alpha(r, a[t].scale));
        const Interval up = accumulated(u.sum, u.abs_sum, 0.0, w1.alpha(n + r, a[t].scale));
        const Interval h =
            round_to_act(act, silu_times_up(round_to_act(act, gate), round_to_act(act, up)));
        hidden[t].lo[at(r)] = static_cast<float>(h.lo);
        hidden[t].mid[at(r)] = static_cast<float>(h.mid);
        hidden[t].hi[at(r)] = static_cast<float>(h.hi);
      }
    });
    for (std::size_t t = 0; t < pairs.size(); ++t) {
      overflow_[at(pairs[t])] = oracle::is_finite(hidden[t]) ? 0 : 1;
      if (overflow_[at(pairs[t])] != 0)
        hidden[t] = HiddenRow(n);  // reported as a defect; nothing to compute on
      amax_[at(pairs[t])] = oracle::amax_range(hidden[t], 0, n);
    }
    return hidden;
  }

  void gemm2(std::int64_t expert, const WeightMatrix& w2, Pairs pairs,
             const std::vector<HiddenRow>& hidden, const std::optional<FloatRange>& tensor_scale,
             int threads) {
    const std::int64_t n = problem_.shape.intermediate;
    const std::int64_t k = problem_.shape.hidden;
    const ActType act = problem_.shape.act;
    std::vector<OperandRow> h;
    for (const HiddenRow& row : hidden)
      h.push_back(oracle::quantize_hidden(problem_, expert, row, tensor_scale));
    oracle::parallel_for(k, threads, [&](std::int64_t c) {
      std::vector<double> w(at(n));
      w2.decode_row(c, w.data());
      for (std::size_t t = 0; t < h.size(); ++t) {
        const DotProduct d = dot(w.data(), h[t].values.data(), n);
        double spread = 0.0;
        for (const oracle::UncertainElement& u : h[t].uncertain)
          spread += std::abs(w[at(u.index)]) * u.radius;
        const Interval c2 = accumulated(d.sum, d.abs_sum, spread, w2.alpha(c, h[t].scale));
        c2_[at(pairs[t] * k + c)] = {encode_act(act, c2.lo), encode_act(act, c2.mid),
                                     encode_act(act, c2.hi)};
      }
    });
  }

  void combine(ReferenceRows& out) const {
    const std::int64_t k = problem_.shape.hidden;
    const auto rows = static_cast<std::int64_t>(tokens_.size());
    oracle::parallel_for(rows, threads_, [&](std::int64_t row) {
      for (std::int64_t column = 0; column < k; ++column) {
        const Interval y = oracle::round_to_act(problem_.shape.act, weighted_sum(row, column));
        out.expected[at(row * k + column)] = y.mid;
        out.radius[at(row * k + column)] = std::max(y.hi - y.mid, y.mid - y.lo);
      }
    });
  }

  /// sum_j topk_weights_j * c2_j in FP32: topk products and topk-1 additions, each off by at most
  /// one unit of the sum of magnitudes (a kernel with fused multiply-add rounds less often).
  [[nodiscard]] Interval weighted_sum(std::int64_t row, std::int64_t column) const {
    const std::int64_t topk = problem_.shape.topk;
    Interval sum;
    double magnitudes = 0.0;
    for (std::int64_t slot = 0; slot < topk; ++slot) {
      const RoundedCodes& c2 = c2_[at((row * topk + slot) * problem_.shape.hidden + column)];
      const double weight = problem_.routing.topk_weights[at(tokens_[at(row)] * topk + slot)];
      const double lo = weight * double{decode_act(problem_.shape.act, c2.lo)};
      const double hi = weight * double{decode_act(problem_.shape.act, c2.hi)};
      sum.mid += weight * double{decode_act(problem_.shape.act, c2.mid)};
      sum.lo += std::min(lo, hi);
      sum.hi += std::max(lo, hi);
      magnitudes += std::max(std::abs(lo), std::abs(hi));
    }
    const double slack = static_cast<double>(topk + 1) * oracle::kFp32Unit * magnitudes;
    return {sum.lo - slack, sum.mid, sum.hi + slack};
  }

  [[nodiscard]] FloatRange amax_of_all_pairs() const {
    FloatRange out;
    for (const FloatRange& amax : amax_) {
      out = {std::max(out.lo, amax.lo), std::max(out.mid, amax.mid), std::max(out.hi, amax.hi)};
    }
    return out;
  }

  [[nodiscard]] std::string claim_form_defect(const DynamicScaleClaim& claim) const {
    const std::int64_t pairs = problem_.tokens * problem_.shape.topk;
    if (!std::isfinite(claim.scale) || claim.scale <= 0.0F) {
      return fmt::format("a2 scale: the kernel reports {}, not a positive number", claim.scale);
    }
    if (claim.pair < 0 || claim.pair >= pairs) {
      return fmt::format("a2 scale: the kernel reports pair {} as its origin, outside 0..{}",
                         claim.pair, pairs - 1);
    }
    return {};
  }

  /// The claimed pair must attain the scale, and no computed pair may pass it.
  [[nodiscard]] std::string claim_value_defect(const DynamicScaleClaim& claim) const {
    const std::int64_t topk = problem_.shape.topk;
    for (std::int64_t pair = 0; pair < static_cast<std::int64_t>(amax_.size()); ++pair) {
      const FloatRange scale = oracle::fp8_scale_range(amax_[at(pair)]);
      const bool nothing_here = amax_[at(pair)].hi == 0.0F;  // its scale of 1 stands for "no amax"
      const std::int64_t token = token_of(pair);
      if (!nothing_here && scale.lo > claim.scale) {
        return fmt::format(
            "a2 scale: the kernel used {}, but h of token {} slot {} needs at least {}",
            claim.scale, token, pair % topk, scale.lo);
      }
      if (token * topk + pair % topk == claim.pair &&
          (claim.scale < scale.lo || claim.scale > scale.hi)) {
        return fmt::format(
            "a2 scale: the kernel used {} from token {} slot {}, whose h gives {} to {}",
            claim.scale, token, pair % topk, scale.lo, scale.hi);
      }
    }
    return {};
  }

  [[nodiscard]] std::string overflow_defect(const ReferenceRows& out) const {
    const char* what = name_of(problem_.shape.act);
    for (std::int64_t pair = 0; pair < static_cast<std::int64_t>(overflow_.size()); ++pair) {
      if (overflow_[at(pair)] == 0) continue;
      return fmt::format(
          "reference: h of token {} slot {} overflows {}; use bf16 or smaller activations",
          token_of(pair), pair % problem_.shape.topk, what);
    }
    for (std::size_t i = 0; i < out.expected.size(); ++i) {
      if (std::isfinite(out.expected[i]) && std::isfinite(out.radius[i])) continue;
      const auto k = at(problem_.shape.hidden);
      return fmt::format(
          "reference: the output of token {} overflows {} at column {}; use bf16 or smaller "
          "activations",
          out.tokens[i / k], what, i % k);
    }
    return {};
  }

  const MoeProblem& problem_;
  const WeightSource& weights_;
  std::vector<std::int64_t> tokens_;
  int threads_;
  std::vector<FloatRange> amax_;        // per pair
  std::vector<std::uint8_t> overflow_;  // per pair
  std::vector<RoundedCodes> c2_;        // [pairs, hidden]
};

}  // namespace

ReferenceRows reference_forward(const MoeProblem& problem, const WeightSource& weights,
                                std::vector<std::int64_t> token_rows,
                                const std::optional<DynamicScaleClaim>& claim, int threads) {
  validate(problem);
  std::sort(token_rows.begin(), token_rows.end());
  token_rows.erase(std::unique(token_rows.begin(), token_rows.end()), token_rows.end());
  oracle::require_rows(problem, weights, token_rows);
  if (weights.format != weight_format(problem.scheme)) {
    fail(ErrorCode::kBadInput, "reference: scheme {} needs {} weights, not {}",
         name_of(problem.scheme.scheme), name_of(weight_format(problem.scheme)),
         name_of(weights.format));
  }
  const bool sampled =
      !token_rows.empty() && static_cast<std::int64_t>(token_rows.size()) < problem.tokens;
  if (problem.scheme.scheme == Scheme::kFp8 && !problem.scheme.per_act_token && sampled) {
    if (!claim) {
      fail(ErrorCode::kInternal,
           "reference: a sample of rows cannot give the a2 scale of all; pass the kernel's claim");
    }
    const std::int64_t token = claim->pair / problem.shape.topk;
    const bool exists = claim->pair >= 0 && token < problem.tokens;
    if (exists && !std::binary_search(token_rows.begin(), token_rows.end(), token)) {
      fail(ErrorCode::kInternal,
           "reference: row {}, which the kernel's a2 scale comes from, is not in the sample",
           token);
    }
  }
  return Forward(problem, weights, std::move(token_rows), oracle::threads_or_all(threads))
      .run(claim);
}

}  // namespace moebench
