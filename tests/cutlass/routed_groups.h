// Random routings with the groups that the device would make of them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "moebench/backend/cutlass/groups.h"
#include "moebench/moe/routing.h"
#include "tests/backend/cuda_plan_reference.h"

namespace moebench::cutlass_moe::testing {

struct Routed {
  std::int64_t experts = 0, topk = 0, tokens = 0;
  std::vector<std::int32_t> ids;
  cuda::testing::HostPlan plan;
  std::vector<Group> groups;
  std::string name;
};

/// Thread by thread what the kernel does.
inline std::vector<Group> make_groups(const cuda::testing::HostPlan& plan, std::int64_t count) {
  const auto groups = static_cast<std::int32_t>(count);
  std::vector<Group> out(static_cast<std::size_t>(groups), Group{-1, -1, -1, -1});
  std::int32_t before = 0;
  for (int thread = 0; thread < kGroupThreads; ++thread) {
    const GroupSpan span = groups_of_thread(groups, thread);
    place_groups(plan.header, plan.entries.data(), span, before, out.data());
    before += add_scale_rows(plan.header, plan.entries.data(), span);
  }
  return out;
}

inline Routed random_routed(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Routed out;
  out.experts = static_cast<std::int64_t>(1 + random() % 512);
  out.topk = static_cast<std::int64_t>(
      1 + random() % static_cast<std::uint64_t>(std::min<std::int64_t>(out.experts, 10)));
  out.tokens = static_cast<std::int64_t>(random() % (random() % 4 == 0 ? 3000 : 100));
  constexpr const char* kKinds[] = {"uniform", "balanced", "zipf:1.2", "hot:1@0.8", "single"};
  const std::string kind = kKinds[random() % std::size(kKinds)];
  out.ids =
      make_routing(parse_routing(kind), seed, out.tokens, out.experts, out.topk, true).topk_ids;
  out.plan = cuda::testing::make_host_plan(out.ids, out.experts, cuda::TileSet::kLarge);
  out.groups = make_groups(out.plan, max_groups(std::ssize(out.ids), out.experts));
  out.name = fmt::format("seed {}: {} tokens, E={} topk={} {}", seed, out.tokens, out.experts,
                         out.topk, kind);
  return out;
}

}  // namespace moebench::cutlass_moe::testing
