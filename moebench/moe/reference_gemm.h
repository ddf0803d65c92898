// The plain double-precision pieces of the reference's GEMMs: which pairs go to which expert,
// weight rows decoded to doubles, dot products, and a parallel loop that exceptions may leave.
// Private to the reference.
#pragma once

#include <omp.h>

#include <array>
#include <cstdint>
#include <exception>
#include <vector>

#include "moebench/moe/problem.h"

namespace moebench::oracle {

[[nodiscard]] constexpr std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// body(i) for i in 0..count-1 on `threads` threads. What bodies throw is kept, and the lowest i's
/// thrown afterwards.
template <typename Body>
void parallel_for(std::int64_t count, int threads, const Body& body) {
  std::exception_ptr error;
  std::int64_t error_at = count;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (std::int64_t i = 0; i < count; ++i) {
    try {
      body(i);
    } catch (...) {
#pragma omp critical(moebench_reference_error)
      if (i < error_at) {
        error_at = i;
        error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

[[nodiscard]] inline int threads_or_all(int threads) {
  return threads > 0 ? threads : omp_get_max_threads();
}

/// Throws kBadInput for token rows outside the problem and for weights of another shape.
void require_rows(const MoeProblem& problem, const WeightSource& weights,
                  const std::vector<std::int64_t>& tokens);

/// Pairs of the sample that go to one expert; such a pair is (index of the row in the sample) *
/// topk + slot.
struct ExpertTask {
  std::int64_t expert = 0;
  std::vector<std::int64_t> pairs;
};
[[nodiscard]] std::vector<ExpertTask> tasks_by_expert(const MoeProblem& problem,
                                                      const std::vector<std::int64_t>& tokens);

/// use(task, threads for the work inside) for every task: experts side by side where there are
/// enough of them, else one after the other with all threads inside.
template <typename Use>
void for_each_task(const std::vector<ExpertTask>& tasks, int threads, const Use& use) {
  const auto count = static_cast<std::int64_t>(tasks.size());
  const bool side_by_side = count >= threads;
  parallel_for(count, side_by_side ? threads : 1,
               [&](std::int64_t i) { use(tasks[at(i)], side_by_side ? 1 : threads); });
}

struct DotProduct {
  double sum = 0.0;
  double abs_sum = 0.0;  ///< of the terms' magnitudes
};
[[nodiscard]] DotProduct dot(const double* w, const double* a, std::int64_t n);

/// One weight matrix of one expert, whichever format it has.
class WeightMatrix {
 public:
  WeightMatrix(const ExpertWeightsView& weights, bool down);
  /// Values without the scale that alpha() applies.
  void decode_row(std::int64_t row, double* out) const;
  /// The FP32 factor of the accumulated sum, in the order that the layer defines. NVFP4: 1 / (a_gs
  /// * w_gs); FP8 by tensor or row: a_scale * w_scale; FP8 by block: 1, the scales being in the
  /// values.
  [[nodiscard]] float alpha(std::int64_t row, float activation_scale) const;

 private:
  void decode_nvfp4_row(std::int64_t row, double* out) const;

  WeightFormat format_;
  Nvfp4View nvfp4_;
  Fp8View fp8_;
  std::array<double, 16> e2m1_{};
  std::array<double, 256> e4m3_{};
};

}  // namespace moebench::oracle
