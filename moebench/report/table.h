// The timing table in the layout of torch.utils.benchmark.Compare, to the byte, and the table of
// facts below it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moebench/report/result.h"

namespace moebench {

/// As torch.utils.benchmark's Measurement with its TaskSpec; raw_times are seconds of
/// `number_per_run` calls.
struct TableEntry {
  std::string label, sub_label, description;
  std::optional<std::string> env;
  int num_threads = 1;
  std::int64_t number_per_run = 1;
  std::vector<double> raw_times;
};

struct TableStyle {
  bool trim_significant_figures = false;
  bool highlight_warnings = false;
  enum class Color : std::uint8_t { kNone, kColumnwise, kRowwise } color = Color::kNone;
};

/// What str(Compare(entries)) gives, ends included. Rules: docs of --format table.
[[nodiscard]] std::string render_compare(std::span<const TableEntry> entries,
                                         const TableStyle& style);

/// One entry per kOk result, in order.
[[nodiscard]] std::vector<TableEntry> table_entries(std::span<const CaseResult> results);

/// The second table: what a kernel engineer asks next. Skipped, failed and error cases are listed
/// with their reasons.
[[nodiscard]] std::string render_facts(std::span<const CaseResult> results);

}  // namespace moebench
