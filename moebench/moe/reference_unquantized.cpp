// The yardstick of format error: the same layer in double with weights and activations as they were
// before quantisation.
#include <cmath>
#include <iterator>
#include <numeric>

#include "moebench/core/checked.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/reference_gemm.h"

namespace moebench {
namespace {

using oracle::at;
using oracle::ExpertTask;

/// Doubles [pairs of the task][columns].
using Rows = std::vector<std::vector<double>>;

double dot(const std::vector<double>& a, const float* w) {
  return std::inner_product(a.begin(), a.end(), w, 0.0);
}

Rows token_rows_of(const MoeProblem& problem, const std::vector<std::int64_t>& tokens,
                   const ExpertTask& task) {
  const std::int64_t k = problem.shape.hidden;
  Rows a;
  for (const std::int64_t pair : task.pairs) {
    const auto first = problem.a.begin() + tokens[at(pair / problem.shape.topk)] * k;
    a.emplace_back();
    for (auto bits = first; bits != first + k; ++bits)
      a.back().push_back(decode_act(problem.shape.act, *bits));
  }
  return a;
}

Rows hidden_rows(const MoeShape& shape, const WeightSource& weights, std::int64_t expert,
                 const Rows& a, int threads) {
  Rows h(a.size(), std::vector<double>(at(shape.intermediate)));
  oracle::parallel_for(shape.intermediate, threads, [&](std::int64_t r) {
    std::vector<float> gate_row(at(shape.hidden));
    std::vector<float> up_row(at(shape.hidden));
    weights.unquantized_row(expert, false, r, gate_row.data());
    weights.unquantized_row(expert, false, shape.intermediate + r, up_row.data());
    for (std::size_t t = 0; t < a.size(); ++t) {
      const double gate = dot(a[t], gate_row.data());
      h[t][at(r)] = gate / (1.0 + std::exp(-gate)) * dot(a[t], up_row.data());
    }
  });
  return h;
}

}  // namespace

std::vector<double> unquantized_forward(const MoeProblem& problem, const WeightSource& weights,
                                        const std::vector<std::int64_t>& token_rows, int threads) {
  oracle::require_rows(problem, weights, token_rows);
  if (!weights.unquantized_row) {
    fail(ErrorCode::kBadInput,
         "format error: these weights exist in quantised form only; leave the figure out");
  }
  const std::int64_t k = problem.shape.hidden;
  const std::int64_t topk = problem.shape.topk;
  std::vector<double> c2(
      at(checked_product("format error", {static_cast<std::int64_t>(token_rows.size()), topk, k})));
  oracle::for_each_task(oracle::tasks_by_expert(problem, token_rows),
                        oracle::threads_or_all(threads), [&](const ExpertTask& task, int inner) {
                          const Rows a = token_rows_of(problem, token_rows, task);
                          const Rows h = hidden_rows(problem.shape, weights, task.expert, a, inner);
                          oracle::parallel_for(k, inner, [&](std::int64_t c) {
                            std::vector<float> row(at(problem.shape.intermediate));
                            weights.unquantized_row(task.expert, true, c, row.data());
                            for (std::size_t t = 0; t < h.size(); ++t)
                              c2[at(task.pairs[t] * k + c)] = dot(h[t], row.data());
                          });
                        });
  std::vector<double> y(token_rows.size() * at(k));
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(y.size()); ++i) {
    const std::int64_t row = i / k;
    for (std::int64_t slot = 0; slot < topk; ++slot) {
      const double weight = problem.routing.topk_weights[at(token_rows[at(row)] * topk + slot)];
      y[at(i)] += weight * c2[at((row * topk + slot) * k + i % k)];
    }
  }
  return y;
}

}  // namespace moebench
