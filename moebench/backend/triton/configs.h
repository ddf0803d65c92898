// Which tiles a case runs with: the nearest row of the tuning table, and whether anybody measured
// it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moebench/backend/triton/embedded.h"
#include "moebench/moe/layer.h"

namespace moebench::triton {

/// "m16n128k128w4s4", as in configs.json.
[[nodiscard]] std::string name_of(const TileConfig& tile);

/// What one case runs with. Both GEMMs share the sorted pairs, so their block_m is the same.
struct CaseConfig {
  const EmbeddedKernel* gate_up = nullptr;
  const EmbeddedKernel* down = nullptr;
  int gate_up_group = 1, down_group = 1;  ///< group_m of fused_moe.py
  std::string origin;                     ///< "tuned on ...", "nearest entry: ... (not measured)"
};

/// The row that is nearest by pairs per expert, then by layer size; none for an architecture that
/// has no rows.
[[nodiscard]] const TuningEntry* nearest_entry(std::span<const TuningEntry> table, int arch,
                                               const MoeShape& shape, std::int64_t tokens);

/// Kernels for this case, by the table; a tile that was not compiled for the layer's type or cannot
/// take its depth is replaced by the most similar one of the same block_m that can, or, where there
/// is none, both are by any-depth ones of the nearest block_m. None where the set has nothing that
/// runs it.
[[nodiscard]] std::optional<CaseConfig> choose_config(const EmbeddedSet& set, int arch,
                                                      const MoeShape& shape, std::int64_t tokens);

/// Every pair of kernels that --autotune tries for this case: equal block_m, either GEMM.
[[nodiscard]] std::vector<const EmbeddedKernel*> usable_kernels(const EmbeddedSet& set, int arch,
                                                                ActType act, std::int64_t depth);

/// Rows that moe-align needs at most: every active expert's pairs padded to block_m.
[[nodiscard]] std::int64_t max_aligned_rows(std::int64_t pairs, std::int64_t experts, int block_m);

}  // namespace moebench::triton
