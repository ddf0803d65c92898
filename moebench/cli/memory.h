// How much memory a layer takes and how it is run in what there is: decided from sizes alone,
// before anything is allocated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moebench/cli/plan.h"

namespace moebench::cli {

/// Beside weights and scratch: code, thread stacks, allocator slack, results.
inline constexpr std::int64_t kMemoryReserve = std::int64_t{64} << 20;
/// Copies of tokens and routing that --cache rotate cycles through.
inline constexpr std::int64_t kRotatedCopies = 4;

/// Bytes that one layer takes in one memory. Formats are those that its runnable cases need, in
/// column order, the baseline's first; the same for every memory.
struct LayerMemory {
  std::vector<WeightFormat> formats;
  std::vector<std::int64_t>
      weights;  ///< packed, peak included; one per format, 0 for those that lie elsewhere
  std::vector<std::int64_t>
      working;  ///< scratch, tokens, outputs and oracle; one per comparison of the layer
};
/// `place`: the memory of this device; null: the host's.
[[nodiscard]] LayerMemory layer_memory(const RunOptions& options, const Plan& plan,
                                       const Layer& layer, const Device* place = nullptr);

enum class Arrangement : std::uint8_t {
  kTogether,  ///< all formats at once: kernels are measured interleaved
  kOneByOne,  ///< one format after the other
  kRefused,   ///< not even one format with the smallest comparison
};

struct MemoryDecision {
  Arrangement arrangement = Arrangement::kTogether;
  std::int64_t needed = 0;  ///< of the arrangement; kRefused: the least that would do
  std::int64_t available = 0;
  std::int64_t working_limit =
      0;  ///< comparisons whose working bytes are above this are refused on their own
  const Device* place = nullptr;  ///< whose memory; null: the host's
};
[[nodiscard]] MemoryDecision decide(const LayerMemory& memory, std::int64_t available);

/// A layer in one of the memories that its columns need.
struct Place {
  LayerMemory memory;
  MemoryDecision decision;
  std::string refused;  ///< refusal() of the whole layer; else empty
};
/// The host, with `available` bytes, then each device that a column runs on, with what it says is
/// available; a device that is lost has room for everything, so that its cases end with what
/// happened to it.
[[nodiscard]] std::vector<Place> layer_places(const RunOptions& options, const Plan& plan,
                                              const Layer& layer, std::int64_t available);
/// How the layer is run: one format after the other if any memory that it fits in asks for it;
/// refused if the host's memory, or each device's, is too small.
[[nodiscard]] Arrangement arrangement_of(const std::vector<Place>& places);
/// Whether the host's memory holds `bytes` beside the layer as it is run.
[[nodiscard]] bool has_room_for(std::int64_t bytes, const std::vector<Place>& places);
/// Empty, or why there is no memory for the case of `column` in the layer's `comparison`-th
/// comparison.
[[nodiscard]] std::string memory_refusal(const Plan& plan, const Layer& layer,
                                         const std::vector<Place>& places, std::size_t comparison,
                                         const Column& column);

/// The most experts (top-k .. the layer's) with which `layer` would not be refused; none if even
/// top-k do not fit.
[[nodiscard]] std::optional<std::int64_t> experts_that_fit(const RunOptions& options,
                                                           const Plan& plan, const Layer& layer,
                                                           std::int64_t available,
                                                           const Device* place = nullptr);

/// One line: "<model> ...: needs X GB, Y GB available [on cuda]; --limit-num-groups N would fit".
[[nodiscard]] std::string refusal(const RunOptions& options, const Plan& plan, const Layer& layer,
                                  const MemoryDecision& decision);
/// The same for one comparison of a layer that fits otherwise.
[[nodiscard]] std::string comparison_refusal(const Layer& layer, const Comparison& comparison,
                                             std::int64_t working, const MemoryDecision& decision);

/// "17.61 GB" (10^9).
[[nodiscard]] std::string gigabytes(std::int64_t bytes);

}  // namespace moebench::cli
