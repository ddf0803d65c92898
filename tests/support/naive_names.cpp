// Names of summation orders and defects, and which defect means anything under which scheme.
#include "tests/support/naive_moe.h"

namespace moebench::testing {

std::string name_of(SumOrder order) {
  switch (order) {
    case SumOrder::kSequential:
      return "Sequential";
    case SumOrder::kReversed:
      return "Reversed";
    case SumOrder::kPairwise:
      return "Pairwise";
    case SumOrder::kLanes16:
      return "Lanes16";
    case SumOrder::kBlocks16:
      return "Blocks16";
    case SumOrder::kShuffled:
      return "Shuffled";
    case SumOrder::kDequantizedFirst:
      return "DequantizedFirst";
  }
  return "?";
}

std::string name_of(Defect defect) {
  switch (defect) {
    case Defect::kNone:
      return "None";
    case Defect::kSwappedNibbles:
      return "SwappedNibbles";
    case Defect::kScaleOffByOneBlock:
      return "ScaleOffByOneBlock";
    case Defect::kTransposedScaleTile:
      return "TransposedScaleTile";
    case Defect::kWrongExpert:
      return "WrongExpert";
    case Defect::kDroppedLastKBlock:
      return "DroppedLastKBlock";
    case Defect::kScaleErrorEverywhere:
      return "ScaleErrorEverywhere";
    case Defect::kScaleErrorOneExpert:
      return "ScaleErrorOneExpert";
    case Defect::kScaleErrorInGemm1:
      return "ScaleErrorInGemm1";
    case Defect::kGlobalScaleAsAlpha:
      return "GlobalScaleAsAlpha";
    case Defect::kGateUpSwapped:
      return "GateUpSwapped";
    case Defect::kRoutingWeightsSwapped:
      return "RoutingWeightsSwapped";
    case Defect::kMissingSilu:
      return "MissingSilu";
    case Defect::kUnquantizedTokens:
      return "UnquantizedTokens";
    case Defect::kUnquantizedHidden:
      return "UnquantizedHidden";
    case Defect::kUnroundedC1:
      return "UnroundedC1";
    case Defect::kForeignHiddenScale:
      return "ForeignHiddenScale";
  }
  return "?";
}

bool applies_to(Defect defect, const SchemeConfig& scheme) {
  const bool nvfp4 = scheme.scheme == Scheme::kNvfp4 || scheme.scheme == Scheme::kNvfp4W4A16;
  switch (defect) {
    case Defect::kTransposedScaleTile:
      return nvfp4 || scheme.scheme == Scheme::kFp8Block;
    case Defect::kScaleOffByOneBlock:
      return scheme.scheme != Scheme::kFp8 || scheme.per_out_ch;
    case Defect::kGlobalScaleAsAlpha:
      return nvfp4;
    case Defect::kUnquantizedTokens:
    case Defect::kUnquantizedHidden:
    case Defect::kForeignHiddenScale:
      return scheme.scheme != Scheme::kNvfp4W4A16;
    default:
      return true;
  }
}

}  // namespace moebench::testing
