// Canonical weights to the device's packed layout, on the host.
#pragma once

#include <cstddef>

#include "moebench/backend/cuda/layout.h"
#include "moebench/moe/weights.h"

namespace moebench::cuda {

/// One matrix of one expert to `out`: matrix_geometry(...).expert_bytes() bytes, all of them
/// written; padding is zero. `wide` is read for NVFP4 only. A zero block scale zeroes its block.
/// Throws kBadInput for block scales that are negative or NaN.
void pack_expert(const ExpertWeightsView& weights, const MoeShape& shape, Wide wide,
                 Projection projection, std::byte* out);

}  // namespace moebench::cuda
