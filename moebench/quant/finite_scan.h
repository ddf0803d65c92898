// Counting what must not be in a matrix and remembering where it was first. Internal to
// moebench/quant.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

namespace moebench::quant {

/// How many elements had one defect, and the smallest flat index (row * cols + col) among them.
struct Defects {
  std::int64_t count = 0;
  std::int64_t first = std::numeric_limits<std::int64_t>::max();

  void add(std::int64_t index) {
    ++count;
    if (index < first) first = index;
  }
  void merge(const Defects& other) {
    count += other.count;
    if (other.first < first) first = other.first;
  }
};

/// "first at (row 3, col 17)" for a flat index.
[[nodiscard]] std::string first_at(const Defects& defects, std::int64_t cols);

/// Throws kBadInput unless x has rows * cols values, both sizes are positive, and all values are
/// finite. Returns amax.
float require_finite(std::string_view what, std::span<const float> x, std::int64_t rows,
                     std::int64_t cols);

}  // namespace moebench::quant
