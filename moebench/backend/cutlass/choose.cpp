#include "moebench/backend/cutlass/grouped_gemm.h"

namespace moebench::cutlass_moe {

// Not measured: nobody has run these yet. Half a tile of tokens per expert, on average, leaves few
// experts with more than a tile; beyond, the larger tile reads the weights less often.
const GroupedGemm* choose_gemm(std::span<const GroupedGemm* const> gemms, int major, ActType out,
                               std::int64_t rows, std::int64_t groups) {
  const GroupedGemm* best = nullptr;
  for (const GroupedGemm* gemm : gemms) {
    if (gemm->major != major || gemm->out != out) continue;
    const bool roomy = 2 * rows <= std::int64_t{gemm->tile_tokens} * groups;
    const bool best_roomy = best != nullptr && 2 * rows <= std::int64_t{best->tile_tokens} * groups;
    // The smallest tile with room, else the largest.
    const bool better = best == nullptr || (roomy && !best_roomy) ||
                        (roomy == best_roomy && (roomy ? gemm->tile_tokens < best->tile_tokens
                                                       : gemm->tile_tokens > best->tile_tokens));
    if (better) best = gemm;
  }
  return best;
}

}  // namespace moebench::cutlass_moe
