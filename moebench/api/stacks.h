// A caller's stacks of matrices as this library reads them: checked, and one expert at a time. Not
// installed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moebench/api/moebench.h"
#include "moebench/moe/weights.h"

namespace moebench {

[[nodiscard]] MoeShape shape_of(const MoeSizes& sizes, ActType act);
[[nodiscard]] SchemeConfig scheme_of(const Fp8MoeQuantConfig& config);
/// W4A16 where no activation scales are given.
[[nodiscard]] SchemeConfig scheme_of(const Nvfp4MoeQuantConfig& config);

void require_positive(const char* what, std::span<const float> values);
/// The lengths of all arrays, and what can be said of the configuration without reading them.
void require_layout(std::span<const std::uint8_t> w1, std::span<const std::uint8_t> w2,
                    const MoeSizes& sizes, const Nvfp4MoeQuantConfig& config);
void require_layout(std::span<const std::uint8_t> w1, std::span<const std::uint8_t> w2,
                    const MoeSizes& sizes, const Fp8MoeQuantConfig& config);

/// The global scale that a GEMM's weights were quantised with: w_gs = 1 / (alpha * a_gs).
[[nodiscard]] std::vector<float> implied_weight_scales(const char* alpha_name,
                                                       std::span<const float> alphas,
                                                       std::span<const float> a_gscale);

/// One of an NVFP4 layer's two stacks of matrices, as the caller holds it.
struct Nvfp4Stack {
  const char* name;
  std::int64_t rows;
  std::int64_t cols;
  std::span<const std::uint8_t> payload;
  std::span<const std::uint8_t> scales;
  ScaleLayout layout;
  std::vector<float> global_scales;

  /// `linear` holds the scales of a swizzled stack while the view is in use.
  [[nodiscard]] Nvfp4View expert(std::int64_t e, std::vector<std::uint8_t>& linear) const;
};

struct Fp8Stack {
  const char* name;
  std::int64_t rows;
  std::int64_t cols;
  Fp8Scaling scaling;
  std::span<const std::uint8_t> payload;
  std::span<const float> scales;

  [[nodiscard]] Fp8View expert(std::int64_t e) const;
};

/// The caller's stacks, expert by expert. They must outlive the source.
[[nodiscard]] WeightSource source_of(const MoeShape& shape, const Nvfp4Stack& w1,
                                     const Nvfp4Stack& w2);
[[nodiscard]] WeightSource source_of(const MoeShape& shape, WeightFormat format, const Fp8Stack& w1,
                                     const Fp8Stack& w2);

void validate_stack(const Nvfp4Stack& stack, std::int64_t experts);
void validate_stack(const Fp8Stack& stack, std::int64_t experts);

}  // namespace moebench
