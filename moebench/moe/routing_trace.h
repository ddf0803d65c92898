// Reads a routing from a trace file, an untrusted input. Internal to moebench/moe.
#pragma once

#include <cstdint>
#include <string>

#include "moebench/moe/routing.h"

namespace moebench {

inline constexpr std::int64_t kMaxTraceBytes = std::int64_t{1} << 30;
inline constexpr std::size_t kMaxTraceLineBytes = std::size_t{1} << 20;
/// Routers scale their weights by 2.8 at most; anything far above is a broken file.
inline constexpr float kMaxTraceWeight = 1024.0F;

/// The first `tokens` tokens of the file: one line each, `topk` entries "id:weight" or all of them
/// "id" (equal weights), separated by spaces or tabs; '#' starts a comment, blank lines are
/// skipped, lines may end in CRLF. `renormalize` divides given weights by their sum. Throws
/// kBadInput with `path:line`.
[[nodiscard]] Routing read_routing_trace(const std::string& path, std::int64_t tokens,
                                         std::int64_t num_experts, std::int64_t topk,
                                         bool renormalize);

}  // namespace moebench
