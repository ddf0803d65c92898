// One pass over a matrix for its largest magnitude; only rows that turn out not to be finite are
// looked at closely.
#include "moebench/quant/finite_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "moebench/core/checked.h"
#include "moebench/core/error.h"
#include "moebench/quant/quant_kernels.h"

namespace moebench::quant {

std::string first_at(const Defects& defects, std::int64_t cols) {
  return fmt::format("first at (row {}, col {})", defects.first / cols, defects.first % cols);
}

float require_finite(std::string_view what, std::span<const float> x, std::int64_t rows,
                     std::int64_t cols) {
  if (rows <= 0 || cols <= 0) {
    fail(ErrorCode::kBadInput, "{}: {} rows x {} columns; both must be positive", what, rows, cols);
  }
  const std::int64_t elements = checked_product(what, {rows, cols});
  if (static_cast<std::uint64_t>(elements) != x.size()) {
    fail(ErrorCode::kBadInput, "{}: {} values for {} rows x {} columns; pass exactly {}", what,
         x.size(), rows, cols, elements);
  }
  const Kernels& kernels = fastest_kernels();
  Defects not_finite;
  std::uint32_t largest = 0;
#pragma omp parallel
  {
    Defects mine;
    std::uint32_t my_largest = 0;
#pragma omp for schedule(static) nowait
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* values = x.data() + row * cols;
      const std::uint32_t amax = kernels.amax_bits(values, cols);
      my_largest = std::max(my_largest, amax);
      if (amax < static_cast<std::uint32_t>(kExponentBits)) continue;
      for (std::int64_t col = 0; col < cols; ++col) {
        if (!std::isfinite(values[col])) mine.add(row * cols + col);
      }
    }
#pragma omp critical(moebench_quant_finite_scan)
    {
      not_finite.merge(mine);
      largest = std::max(largest, my_largest);
    }
  }
  if (not_finite.count > 0) {
    fail(ErrorCode::kBadInput,
         "{}: {} of {} values are NaN or infinite, {}; quantise finite values", what,
         not_finite.count, elements, first_at(not_finite, cols));
  }
  return std::bit_cast<float>(largest);
}

}  // namespace moebench::quant
