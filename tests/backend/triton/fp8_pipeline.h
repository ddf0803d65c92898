// The FP8 layer as the Triton kernels compute it, on the host: their rounding points, and the
// tensor core's sums as its accumulator is known to make them. What the device will answer, before
// it is asked.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "moebench/moe/problem.h"
#include "moebench/moe/reference.h"

namespace moebench::testing {

/// How a product sum over K is formed.
enum class Accumulation : std::uint8_t {
  kHardware,  ///< one Hopper FP8 accumulation over all of K
  kPromoted,  ///< Hopper FP8 accumulations of `promote_every` columns, added up in FP32
  kWidened,   ///< exact products, FP32 sums
};

struct PipelineOptions {
  Accumulation accumulation = Accumulation::kWidened;
  std::int64_t promote_every = 128;
  bool weight_in_gemm2 = false;  ///< MUL_ROUTED_WEIGHT: before the rounding of c2 to 16 bits
};

struct PipelineAnswer {
  std::vector<std::uint16_t> y;
  std::optional<DynamicScaleClaim> claim;
};

/// All tokens; kFp8 only.
[[nodiscard]] PipelineAnswer run_fp8_pipeline(const MoeProblem& problem,
                                              const WeightSource& weights,
                                              const PipelineOptions& options);

/// The sum of a[i] * w[i] as Hopper's FP8 MMA forms it: steps of 32 products, each aligned with the
/// sum so far to the largest exponent among them and cut off 13 bits below it.
[[nodiscard]] float hopper_fp8_sum(const float* a, const float* w, std::int64_t count);

}  // namespace moebench::testing
