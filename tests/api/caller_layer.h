// A layer as a caller of the public interface holds it: stacked buffers and spans over them, taken
// from the test layers of tests/support.
#pragma once

#include <cstdint>
#include <vector>

#include "moebench/api/moebench.h"
#include "tests/support/moe_cases.h"

namespace moebench::testing {

struct CallerLayer {
  LayerCase source;  ///< the same layer for the reference
  MoeSizes sizes;
  std::vector<std::uint8_t> w1, w2;                ///< payloads of all experts
  std::vector<std::uint8_t> w1_blocks, w2_blocks;  ///< NVFP4 block scales
  std::vector<float> w1_scales, w2_scales;         ///< FP8 scales
  std::vector<float> g1_alphas, g2_alphas;
  ScaleLayout layout = ScaleLayout::kLinear;

  [[nodiscard]] const MoeProblem& problem() const { return source.problem; }
  [[nodiscard]] Nvfp4MoeQuantConfig nvfp4() const;
  [[nodiscard]] Fp8MoeQuantConfig fp8() const;
  [[nodiscard]] MoeLayer make(const MoeOptions& options) const;
  /// y of the problem's own tokens.
  [[nodiscard]] std::vector<std::uint16_t> run(MoeLayer& layer) const;
  /// The same through moe_forward_nvfp4 or moe_forward_fp8.
  [[nodiscard]] std::vector<std::uint16_t> forward(const MoeOptions& options) const;
};
[[nodiscard]] CallerLayer caller_layer(LayerCase source, ScaleLayout layout);

}  // namespace moebench::testing
