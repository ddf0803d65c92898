// The layer once more, in long double and without any bound: an independent reading of
// docs/NUMERICS.md for testing the reference itself.
#pragma once

#include <vector>

#include "moebench/moe/problem.h"

namespace moebench::testing {

/// [tokens, hidden] after the rounding to 16 bits.
[[nodiscard]] std::vector<double> long_double_forward(const MoeProblem& problem,
                                                      const WeightSource& weights);

}  // namespace moebench::testing
