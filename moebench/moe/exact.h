// Magnitudes of the exact mode, shared by its weights, tokens and scales; the argument stands in
// exact.cpp. Internal to moebench/moe and its tests.
#pragma once

#include <cstdint>

#include "moebench/moe/layer.h"

namespace moebench::exact {

/// Columns with k % 16 == 0 hold every token's amax, columns with k % 16 == 1 the value 4: one of
/// each in every group that shares an activation scale.
inline constexpr std::int64_t kAnchorStride = 16;
inline constexpr float kGateAnchor = 4.0F;
/// amax/6 resp. amax/448 must be a power of two.
inline constexpr float kNvfp4TokenAmax = 6.0F;
inline constexpr float kFp8TokenAmax = 7.0F;
[[nodiscard]] constexpr float token_amax(WeightFormat format) {
  return format == WeightFormat::kNvfp4 ? kNvfp4TokenAmax : kFp8TokenAmax;
}

inline constexpr int kDrawsPerRow = 8;  ///< non-zero weights of an up or down row, at most
inline constexpr float kGateWeight = 64.0F;
inline constexpr float kUpWeight = 0x1p-4F;
inline constexpr float kDownWeight = 0x1p-5F;

/// amax of h in every group of every row: anchor gate times anchor up.
[[nodiscard]] constexpr float hidden_amax(WeightFormat format) {
  return kGateWeight * kGateAnchor * (static_cast<float>(kDrawsPerRow) * kUpWeight) *
         token_amax(format);
}
static_assert(hidden_amax(WeightFormat::kNvfp4) == 6 * 128.0F);
static_assert(hidden_amax(WeightFormat::kFp8Block) == 448 * 2.0F);

/// topk weights are 2^-1 .. 2^-4; this many of them keep y finite and exact.
inline constexpr std::int64_t kMaxTopk = 512;

}  // namespace moebench::exact
