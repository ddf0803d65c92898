// Overflow-checked arithmetic for sizes: every byte count of the project is computed with these.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <type_traits>

#include "moebench/core/error.h"

namespace moebench {

/// Product of non-negative factors; throws kBadInput if it passes 2^63-1 (`what` names the quantity
/// in the message).
[[nodiscard]] inline std::int64_t checked_product(std::string_view what,
                                                  std::initializer_list<std::int64_t> factors) {
  std::int64_t product = 1;
  for (const std::int64_t factor : factors) {
    if (factor < 0 || __builtin_mul_overflow(product, factor, &product)) {
      fail(ErrorCode::kBadInput, "{}: needs {} bytes, more than 2^63-1; use smaller sizes", what,
           fmt::join(factors, "*"));
    }
  }
  return product;
}

[[nodiscard]] inline std::int64_t checked_sum(std::string_view what, std::int64_t a,
                                              std::int64_t b) {
  std::int64_t sum = 0;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum)) {
    fail(ErrorCode::kBadInput, "{}: {} + {} bytes, more than 2^63-1; use smaller sizes", what, a,
         b);
  }
  return sum;
}

/// Narrowing that throws instead of wrapping.
template <typename To, typename From>
[[nodiscard]] To checked_cast(From value) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  To result{};
  if (__builtin_add_overflow(value, From{0}, &result)) {
    fail(ErrorCode::kInternal, "value {} does not fit its type", value);
  }
  return result;
}

/// For a >= 0, b > 0; ceil_div cannot overflow, round_up can where a is within b of 2^63-1.
[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}
[[nodiscard]] constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return ceil_div(a, b) * b;
}

}  // namespace moebench
