// What is computed: the shape of one MoE layer, and the schemes (which formats weights and
// activations use). y[m] = sum_j topk_weights[m,j] * ( w2[e] . ( silu(gate) * up ) ),  [gate, up] =
// w1[e] . a[m],  e = topk_ids[m,j]
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "moebench/core/dtype.h"
#include "moebench/quant/fp8.h"
#include "moebench/quant/nvfp4.h"

namespace moebench {

/// w1 [num_experts, 2*intermediate, hidden]: gate rows, then up rows. w2 [num_experts, hidden,
/// intermediate].
struct MoeShape {
  std::int64_t num_experts = 0;   ///< E
  std::int64_t topk = 0;          ///< experts per token, 1..E
  std::int64_t hidden = 0;        ///< K
  std::int64_t intermediate = 0;  ///< N, of one tensor-parallel rank
  ActType act = ActType::kFp16;   ///< type of a, of the intermediate rounding points and of y

  friend bool operator==(const MoeShape&, const MoeShape&) = default;
};

enum class Scheme : std::uint8_t { kNvfp4, kNvfp4W4A16, kFp8, kFp8Block };
inline constexpr Scheme kAllSchemes[] = {Scheme::kNvfp4, Scheme::kNvfp4W4A16, Scheme::kFp8,
                                         Scheme::kFp8Block};
[[nodiscard]] const char* name_of(Scheme scheme);  ///< "nvfp4", "nvfp4-w4a16", "fp8", "fp8-block"
[[nodiscard]] std::optional<Scheme> scheme_from(std::string_view name);
[[nodiscard]] const char* summary_of(Scheme scheme);  ///< one line for `list schemes`

/// A scheme with the options of the original benchmark's FP8 side.
struct SchemeConfig {
  Scheme scheme = Scheme::kNvfp4;
  bool per_act_token =
      false;                ///< kFp8: one dynamic activation scale per token instead of per tensor
  bool per_out_ch = false;  ///< kFp8: one weight scale per output channel instead of per expert
  friend bool operator==(const SchemeConfig&, const SchemeConfig&) = default;
};

/// How weights lie in memory: what two schemes must agree on to share packed weights.
enum class WeightFormat : std::uint8_t { kNvfp4, kFp8PerTensor, kFp8PerChannel, kFp8Block };
[[nodiscard]] WeightFormat weight_format(const SchemeConfig& config);
[[nodiscard]] const char* name_of(WeightFormat format);
[[nodiscard]] Fp8Scaling fp8_scaling(WeightFormat format);  ///< kNvfp4 is kInternal

/// Throws kBadInput (values named) for sizes < 1, topk > E, size products past 2^63-1, and for a
/// format's group rule: NVFP4 needs hidden and intermediate to be multiples of 16.
void validate(const MoeShape& shape, WeightFormat format);

/// Canonical bytes of one expert's weights with scales: w1 and w2. Whole layer: times num_experts.
[[nodiscard]] std::int64_t expert_weight_bytes(const MoeShape& shape, WeightFormat format);
[[nodiscard]] std::int64_t layer_weight_bytes(const MoeShape& shape, WeightFormat format);
/// 2 * tokens * topk * 3 * K * N.
[[nodiscard]] double layer_flops(const MoeShape& shape, std::int64_t tokens);

}  // namespace moebench
