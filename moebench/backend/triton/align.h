// From the experts of each token to rows that a grouped GEMM can take tile by tile: (token, slot)
// pairs sorted by expert, each expert's padded to a multiple of block_m with a number that is no
// pair.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moebench::triton {

struct Alignment {
  std::vector<std::int32_t> sorted_pairs;  ///< pairs of an expert in ascending order
  std::vector<std::int32_t> tile_experts;  ///< [sorted_pairs / block_m]
};

/// On the host, slow and obvious: what the device's align kernel must write. An expert without
/// pairs gets no tile; padding is the number of pairs.
[[nodiscard]] inline Alignment align_pairs(std::span<const std::int32_t> topk_ids,
                                           std::int64_t experts, int block_m) {
  const auto pairs = static_cast<std::int32_t>(topk_ids.size());
  const auto block = static_cast<std::size_t>(block_m);
  Alignment out;
  for (std::int32_t expert = 0; expert < experts; ++expert) {
    for (std::int32_t pair = 0; pair < pairs; ++pair) {
      if (topk_ids[static_cast<std::size_t>(pair)] == expert) out.sorted_pairs.push_back(pair);
    }
    while (out.sorted_pairs.size() % block != 0) out.sorted_pairs.push_back(pairs);
    out.tile_experts.resize(out.sorted_pairs.size() / block, expert);
  }
  return out;
}

}  // namespace moebench::triton
