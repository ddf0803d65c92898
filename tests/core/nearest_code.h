// A second, independent definition of rounding to a narrow format: the nearest entry of a table of
// values, a tie going to the even code. It shares nothing with moebench/core/dtype.cpp: the tables
// are made by counting up, in doubles.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace moebench::testing {

/// The non-negative values of a format in the order of their codes, up to and including the first
/// value past its range (where an infinity stands, or where saturation makes the encoder stay one
/// below).
struct ValueTable {
  std::vector<double> values;
};

/// `codes` magnitudes of a format with `mantissa_bits` stored bits and smallest positive value
/// 2^min_quantum.
inline ValueTable make_value_table(int mantissa_bits, int min_quantum, int codes) {
  ValueTable table;
  double value = 0.0;
  double step = std::exp2(min_quantum);
  for (int code = 0; code < codes; ++code) {
    table.values.push_back(value);
    value += step;
    // The step doubles with each binade, the subnormal one excepted.
    if (code + 1 >= (2 << mantissa_bits) && (code + 1) % (1 << mantissa_bits) == 0) step *= 2.0;
  }
  return table;
}

inline ValueTable e2m1_values() { return {{0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0}}; }
inline ValueTable e4m3_values() { return make_value_table(3, -9, 0x7F); }
inline ValueTable fp16_values() { return make_value_table(10, -24, 0x7C01); }
inline ValueTable bf16_values() { return make_value_table(7, -133, 0x7F81); }

/// Code of the value nearest to `magnitude` >= 0 (infinity allowed); a tie goes to the even code.
inline int nearest_code(const ValueTable& table, double magnitude) {
  const auto& values = table.values;
  const int last = static_cast<int>(values.size()) - 1;
  const auto above = std::upper_bound(values.begin(), values.end(), magnitude);
  const int lower = static_cast<int>(above - values.begin()) - 1;
  if (lower >= last) return last;
  const auto index = static_cast<std::size_t>(lower);
  const double middle = (values[index] + values[index + 1]) / 2.0;
  if (magnitude < middle) return lower;
  if (magnitude > middle) return lower + 1;
  return lower % 2 == 0 ? lower : lower + 1;
}

/// The boundaries between codes: halfway points of neighbours, each exact in a float for the
/// formats here.
inline std::vector<float> rounding_boundaries(const ValueTable& table) {
  std::vector<float> out;
  for (std::size_t i = 0; i + 1 < table.values.size(); ++i) {
    out.push_back(static_cast<float>((table.values[i] + table.values[i + 1]) / 2.0));
  }
  return out;
}

}  // namespace moebench::testing
