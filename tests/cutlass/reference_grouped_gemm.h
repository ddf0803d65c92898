// A GroupedGemm of plain arithmetic, which runs on any device.
#pragma once

#include "moebench/backend/cutlass/grouped_gemm.h"

namespace moebench::cutlass_moe::testing {

[[nodiscard]] const GroupedGemm& reference_gemm(ActType type);

}  // namespace moebench::cutlass_moe::testing
