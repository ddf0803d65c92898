#include "moebench/backend/triton/configs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moebench::triton {
namespace {

/// Twice the tokens change the best tile more than twice the columns do.
constexpr double kTokenWeight = 4.0;

double octaves(double a, double b) { return std::abs(std::log2(a / b)); }

double pairs_per_expert(std::int64_t tokens, std::int64_t topk, std::int64_t experts) {
  return static_cast<double>(std::max<std::int64_t>(tokens, 1) * topk) /
         static_cast<double>(experts);
}

double distance(const TuningEntry& entry, const MoeShape& shape, std::int64_t tokens) {
  const auto sizes = [](std::int64_t a, std::int64_t b) {
    return octaves(static_cast<double>(a), static_cast<double>(b));
  };
  return kTokenWeight * octaves(pairs_per_expert(tokens, shape.topk, shape.num_experts),
                                pairs_per_expert(entry.tokens, entry.topk, entry.experts)) +
         sizes(shape.hidden, entry.hidden) + sizes(shape.intermediate, entry.intermediate);
}

const EmbeddedKernel* find_kernel(const EmbeddedSet& set, int arch, ActType act,
                                  const TileConfig& tile) {
  const auto found =
      std::find_if(set.kernels.begin(), set.kernels.end(), [&](const EmbeddedKernel& kernel) {
        return kernel.arch == arch && kernel.act == act && kernel.tile == tile;
      });
  return found == set.kernels.end() ? nullptr : &*found;
}

const EmbeddedKernel* any_depth_kernel(const EmbeddedSet& set, int arch, ActType act, int block_m) {
  const EmbeddedKernel* best = nullptr;
  for (const EmbeddedKernel& kernel : set.kernels) {
    if (kernel.arch != arch || kernel.act != act || !kernel.tile.any_depth) continue;
    if (best == nullptr ||
        octaves(kernel.tile.block_m, block_m) < octaves(best->tile.block_m, block_m)) {
      best = &kernel;
    }
  }
  return best;
}

bool takes_depth(const EmbeddedKernel* kernel, std::int64_t depth) {
  return kernel != nullptr && (kernel->tile.any_depth || depth % kernel->tile.block_k == 0);
}

/// Of the same height, for this depth without masks; none where there is none.
const EmbeddedKernel* similar_kernel(const EmbeddedSet& set, int arch, ActType act,
                                     const TileConfig& tile, std::int64_t depth) {
  const EmbeddedKernel* best = nullptr;
  const auto unlike = [&](const EmbeddedKernel& kernel) {
    return octaves(kernel.tile.block_n, tile.block_n) + octaves(kernel.tile.block_k, tile.block_k);
  };
  for (const EmbeddedKernel& kernel : set.kernels) {
    if (kernel.arch != arch || kernel.act != act || kernel.tile.any_depth) continue;
    if (kernel.tile.block_m != tile.block_m || !takes_depth(&kernel, depth)) continue;
    if (best == nullptr || unlike(kernel) < unlike(*best)) best = &kernel;
  }
  return best;
}

bool is_for(const TuningEntry& entry, const MoeShape& shape, std::int64_t tokens) {
  return entry.experts == shape.num_experts && entry.topk == shape.topk &&
         entry.hidden == shape.hidden && entry.intermediate == shape.intermediate &&
         entry.tokens == tokens;
}

std::string origin_of(const TuningEntry& entry, const MoeShape& shape, std::int64_t tokens) {
  const std::string measured =
      entry.measured.empty() ? "not measured" : fmt::format("measured {}", entry.measured);
  if (is_for(entry, shape, tokens)) return fmt::format("table: {}", measured);
  return fmt::format("nearest entry of the table: E={} top-{} K={} N={} M={}, {}", entry.experts,
                     entry.topk, entry.hidden, entry.intermediate, entry.tokens, measured);
}

}  // namespace

std::string name_of(const TileConfig& tile) {
  return fmt::format("m{}n{}k{}w{}s{}{}{}", tile.block_m, tile.block_n, tile.block_k, tile.warps,
                     tile.stages, tile.transposed ? "t" : "", tile.any_depth ? "g" : "");
}

const TuningEntry* nearest_entry(std::span<const TuningEntry> table, int arch,
                                 const MoeShape& shape, std::int64_t tokens) {
  const TuningEntry* best = nullptr;
  for (const TuningEntry& entry : table) {
    if (entry.arch != arch) continue;
    if (best == nullptr || distance(entry, shape, tokens) < distance(*best, shape, tokens)) {
      best = &entry;
    }
  }
  return best;
}

std::optional<CaseConfig> choose_config(const EmbeddedSet& set, int arch, const MoeShape& shape,
                                        std::int64_t tokens) {
  const TuningEntry* entry = nearest_entry(set.tuning, arch, shape, tokens);
  const int block_m = entry == nullptr ? 1 : entry->gate_up.block_m;
  CaseConfig config;
  if (entry != nullptr) {
    config.gate_up = find_kernel(set, arch, shape.act, entry->gate_up);
    config.down = find_kernel(set, arch, shape.act, entry->down);
    config.gate_up_group = entry->gate_up_group;
    config.down_group = entry->down_group;
    config.origin = origin_of(*entry, shape, tokens);
    const auto fit = [&](const EmbeddedKernel*& kernel, const TileConfig& tile,
                         std::int64_t depth) {
      if (takes_depth(kernel, depth)) return;
      kernel = similar_kernel(set, arch, shape.act, tile, depth);
      if (kernel != nullptr)
        config.origin += fmt::format("; {} instead of {}", name_of(kernel->tile), name_of(tile));
    };
    fit(config.gate_up, entry->gate_up, shape.hidden);
    fit(config.down, entry->down, shape.intermediate);
  }
  // block_m is common to both: if one of them cannot run, both are replaced.
  if (config.gate_up == nullptr || config.down == nullptr) {
    config.gate_up = config.down = any_depth_kernel(set, arch, shape.act, block_m);
    config.origin = "for any depth, not measured";
  }
  if (config.gate_up == nullptr || config.down == nullptr) return std::nullopt;
  return config;
}

std::vector<const EmbeddedKernel*> usable_kernels(const EmbeddedSet& set, int arch, ActType act,
                                                  std::int64_t depth) {
  std::vector<const EmbeddedKernel*> out;
  for (const EmbeddedKernel& kernel : set.kernels) {
    if (kernel.arch == arch && kernel.act == act && takes_depth(&kernel, depth))
      out.push_back(&kernel);
  }
  return out;
}

std::int64_t max_aligned_rows(std::int64_t pairs, std::int64_t experts, int block_m) {
  // Every active expert has at least one pair, and at most block_m - 1 rows of padding.
  const std::int64_t active = std::min(pairs, experts);
  const std::int64_t rows = pairs + active * (block_m - 1);
  return rows / block_m * block_m;
}

}  // namespace moebench::triton
