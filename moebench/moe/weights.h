// Where a layer's weights come from: one expert at a time, quantised, in canonical form. Backends
// pack from this, the reference reads it again, so neither depends on the other and no 16-bit copy
// of a layer ever exists.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "moebench/moe/layer.h"

namespace moebench {

/// One expert, canonical: w1 [2N, K] and w2 [K, N] in one of the two formats (the other pair is
/// empty).
struct ExpertWeights {
  WeightFormat format = WeightFormat::kNvfp4;
  Nvfp4Matrix nvfp4_w1, nvfp4_w2;
  Fp8Matrix fp8_w1, fp8_w2;
};

struct ExpertWeightsView {
  WeightFormat format = WeightFormat::kNvfp4;
  Nvfp4View nvfp4_w1, nvfp4_w2;
  Fp8View fp8_w1, fp8_w2;
};
[[nodiscard]] ExpertWeightsView view(const ExpertWeights& weights);
[[nodiscard]] ExpertWeights make_expert_weights(const MoeShape& shape,
                                                WeightFormat format);  ///< allocated, unset

/// with_expert calls `use` with one expert's weights; the view is valid during the call only. Safe
/// to call from several threads. A generated source keeps one expert's buffer per thread that
/// called it at the same time.
using WithExpert = std::function<void(const ExpertWeightsView&)>;
struct WeightSource {
  MoeShape shape;
  WeightFormat format = WeightFormat::kNvfp4;
  std::function<void(std::int64_t expert, const WithExpert& use)> with_expert;
  /// One row of the weights before quantisation (w1 row r < 2N, w2 row r < K), for the format
  /// error; empty where only the quantised form exists (a caller's buffers).
  std::function<void(std::int64_t expert, bool down, std::int64_t row, float* out)> unquantized_row;
  /// Set where the source is synthetic_weights() of this seed and nothing else: who packs from it
  /// may as well make the weights himself.
  std::optional<std::uint64_t> synthetic_seed = std::nullopt;
};

/// Standard deviation 147.8 * 2^-13 = 0.018, as in trained layers; |w| <= 510 * 2^-13 = 0.062.
inline constexpr float kWeightStep = 0x1p-13F;

/// Unquantised weight row: Philox stream kGateUp / kDown, tag = expert.
void synthetic_weight_row(std::uint64_t seed, std::int64_t expert, bool down, std::int64_t row,
                          std::int64_t cols, float* out);

/// Fills `out` (made by make_expert_weights) with expert `expert` of seed `seed`: each of w1 and w2
/// with its own amax, found in a first pass over the same values: rows are generated twice, never
/// stored. (fp8-block: once per block.) Uses all OpenMP threads, or only the calling one inside a
/// parallel region.
void quantize_synthetic_expert(std::uint64_t seed, const MoeShape& shape, std::int64_t expert,
                               ExpertWeights& out);

/// The synthetic layer of `seed` as a source. Per-expert amax values are remembered after first use
/// (thread-safe).
[[nodiscard]] WeightSource synthetic_weights(std::uint64_t seed, const MoeShape& shape,
                                             WeightFormat format);

/// Small-integer weights with power-of-two scales: with exact_tokens() every stage is exact
/// whatever the summation order (the argument stands in exact.cpp). Needs hidden >= 2.
[[nodiscard]] WeightSource exact_weights(std::uint64_t seed, const MoeShape& shape,
                                         WeightFormat format);

/// Canonical weights that somebody holds for all experts (index = expert); not copied, must outlive
/// the source.
[[nodiscard]] WeightSource resident_weights(const MoeShape& shape,
                                            std::span<const ExpertWeightsView> experts);

}  // namespace moebench
