// Checks that the functions of the public interface share. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moebench/core/error.h"

namespace moebench {

/// Throws kBadInput unless a buffer has `wanted` elements; `formula` is how the caller gets there.
inline void require_length(const char* argument, std::size_t got, std::int64_t wanted,
                           const char* formula) {
  if (got != static_cast<std::size_t>(wanted)) {
    fail(ErrorCode::kBadInput, "{}: holds {} elements; give {} = {}", argument, got, formula,
         wanted);
  }
}

}  // namespace moebench
