// A plain FP32 kernel of the layer, written from docs/NUMERICS.md and sharing no code with the
// reference: what a right answer looks like in every summation order, and, with a planted defect,
// what wrong ones look like.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moebench/moe/problem.h"
#include "moebench/moe/reference.h"

namespace moebench::testing {

/// How a GEMM adds up its terms in FP32.
enum class SumOrder : std::uint8_t {
  kSequential,
  kReversed,
  kPairwise,
  kLanes16,           ///< 16 running sums, as vector registers hold them
  kBlocks16,          ///< sums of 16 terms, added one after the other
  kShuffled,          ///< a random order
  kDequantizedFirst,  ///< each operand multiplied by its scales before the product, alpha = 1
};
inline constexpr SumOrder kAllSumOrders[] = {
    SumOrder::kSequential, SumOrder::kReversed, SumOrder::kPairwise,         SumOrder::kLanes16,
    SumOrder::kBlocks16,   SumOrder::kShuffled, SumOrder::kDequantizedFirst,
};
[[nodiscard]] std::string name_of(SumOrder order);

/// What may be wrong with a kernel's arithmetic. Defects of the output buffer are planted by the
/// tests themselves.
enum class Defect : std::uint8_t {
  kNone,
  kSwappedNibbles,         ///< even and odd columns of w2 change places
  kScaleOffByOneBlock,     ///< each weight scale is its neighbour's (block, row or, per tensor,
                           ///< expert)
  kTransposedScaleTile,    ///< w1's scales in tensor-core order read as linear; FP8 blocks: row and
                           ///< column exchanged
  kWrongExpert,            ///< the last slot runs the expert after its own
  kDroppedLastKBlock,      ///< GEMM1 leaves out its last 16 columns
  kScaleErrorEverywhere,   ///< alpha2 is 3 % too large
  kScaleErrorOneExpert,    ///< alpha2 is 3 % too large for one expert
  kScaleErrorInGemm1,      ///< alpha1 is 3 % too large for one expert
  kGlobalScaleAsAlpha,     ///< NVFP4: alpha = w_gs
  kGateUpSwapped,          ///< silu(up) * gate
  kRoutingWeightsSwapped,  ///< slots 0 and 1 take each other's weight
  kMissingSilu,            ///< gate * up
  kUnquantizedTokens,      ///< the W4A16 answer under a W4A4 name
  kUnquantizedHidden,      ///< h goes into GEMM2 in 16 bits
  kUnroundedC1,            ///< GEMM1's result stays FP32
  kForeignHiddenScale,     ///< h is quantised with the scale that belongs to a1
};
inline constexpr Defect kAllDefects[] = {
    Defect::kSwappedNibbles,      Defect::kScaleOffByOneBlock,    Defect::kTransposedScaleTile,
    Defect::kWrongExpert,         Defect::kDroppedLastKBlock,     Defect::kScaleErrorEverywhere,
    Defect::kScaleErrorOneExpert, Defect::kScaleErrorInGemm1,     Defect::kGlobalScaleAsAlpha,
    Defect::kGateUpSwapped,       Defect::kRoutingWeightsSwapped, Defect::kMissingSilu,
    Defect::kUnquantizedTokens,   Defect::kUnquantizedHidden,     Defect::kUnroundedC1,
    Defect::kForeignHiddenScale};
[[nodiscard]] std::string name_of(Defect defect);
/// Whether the defect changes anything under this scheme (a per-tensor scale has no tile to
/// transpose).
[[nodiscard]] bool applies_to(Defect defect, const SchemeConfig& scheme);

inline constexpr float kPlantedScaleError = 1.03F;

struct NaiveOptions {
  SumOrder order = SumOrder::kSequential;
  Defect defect = Defect::kNone;
  std::uint64_t seed = 1;       ///< of the shuffled order
  std::int64_t bad_expert = 0;  ///< which expert the one-expert defects hit
};

struct NaiveAnswer {
  std::vector<std::uint16_t> y;            ///< [tokens, hidden]
  std::optional<DynamicScaleClaim> claim;  ///< kFp8 without per_act_token
};

[[nodiscard]] NaiveAnswer naive_forward(const MoeProblem& problem, const WeightSource& weights,
                                        const NaiveOptions& options);

}  // namespace moebench::testing
