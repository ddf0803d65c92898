// The second table: for each case what a kernel engineer asks after the time: how many bytes, how
// near the floor, how much faster than the baseline and how sure, and whether the answer was right.
#include <algorithm>
#include <cmath>

#include "moebench/core/error.h"
#include "moebench/report/table.h"

namespace moebench {
namespace {

constexpr double kGiga = 1e9;
constexpr double kTera = 1e12;
constexpr std::size_t kNameBytes = 300;  // of a name in a table; the longest of ours has 120

struct Column {
  const char* header;
  bool left;
};
constexpr Column kColumns[] = {
    {"tokens", false}, {"kernel", true},    {"median", false},   {"95 % interval", false},
    {"active", false}, {"GB/s", false},     {"floor", false},    {"TFLOP/s", false},
    {"peak", false},   {"tokens/s", false}, {"speed-up", false}, {"verdict", true},
};
constexpr std::size_t kColumnCount = std::size(kColumns);
using Cells = std::vector<std::string>;

struct TimeUnit {
  double seconds;
  const char* symbol;
};
TimeUnit unit_of(double seconds) {
  if (seconds < 1e-6) return {1e-9, "ns"};
  if (seconds < 1e-3) return {1e-6, "us"};
  if (seconds < 1.0) return {1e-3, "ms"};
  return {1.0, "s"};
}

std::string three_figures(double value) {
  return fmt::format("{:.{}f}", value, value < 10 ? 2 : value < 100 ? 1 : 0);
}

/// Three significant figures and a unit.
std::string time_text(double seconds) {
  if (!(seconds > 0.0)) return "0";
  const TimeUnit unit = unit_of(seconds);
  return three_figures(seconds / unit.seconds) + " " + unit.symbol;
}

/// Both ends in the unit of the upper one. A single sample has none.
std::string interval_text(const CaseResult& r) {
  if (!shows_spread(r)) return "";
  if (!(r.ci_high_s > 0.0)) return "0";
  const TimeUnit unit = unit_of(r.ci_high_s);
  return fmt::format("{}..{} {}", three_figures(r.ci_low_s / unit.seconds),
                     three_figures(r.ci_high_s / unit.seconds), unit.symbol);
}

std::string percent_text(double share) {
  return fmt::format("{:.{}f} %", share * 100, share < 0.1 ? 1 : 0);
}

std::string verdict_text(const CaseResult& r) {
  const std::string noisy = !r.throttled.empty() ? ", throttled" : r.noisy ? ", noisy" : "";
  if (r.verdict != "pass" && r.verdict != "fail")
    return (r.verdict.empty() ? name_of(r.status) : printable(r.verdict)) + noisy;
  // With --cache rotate rows of several inputs are checked, and their sum is no share of one.
  const std::string rows = r.rows_checked > r.tokens
                               ? fmt::to_string(r.rows_checked)
                               : fmt::format("{}/{}", r.rows_checked, r.tokens);
  return fmt::format("{} {}, {:.1e}{}", r.verdict, rows, r.worst_row_error, noisy);
}

std::string speedup_text(const CaseResult& r) {
  if (!(r.speedup > 0.0)) return "";
  if (r.kernel == r.baseline) return "baseline";
  if (!shows_spread(r) || !(r.speedup_low > 0.0)) return fmt::format("{:.2f}", r.speedup);
  return fmt::format("{:.2f} ({:.2f}..{:.2f})", r.speedup, r.speedup_low, r.speedup_high);
}

Cells cells_of(const CaseResult& r) {
  const double tokens = static_cast<double>(r.tokens);
  const double bytes = static_cast<double>(r.weight_bytes);
  const bool timed = r.median_s > 0.0;
  Cells cells{fmt::format("{}", r.tokens), printable(r.kernel)};
  cells.push_back(time_text(r.median_s));
  cells.push_back(interval_text(r));
  cells.push_back(fmt::format("{}/{}", r.active_experts, r.num_experts));
  cells.push_back(timed ? fmt::format("{:.1f}", bytes / r.median_s / kGiga) : "");
  cells.push_back(timed && r.floor_s > 0.0 ? percent_text(r.floor_s / r.median_s) : "");
  cells.push_back(timed ? fmt::format("{:.3f}", r.flops / r.median_s / kTera) : "");
  cells.push_back(timed && r.peak_s > 0.0 ? percent_text(r.peak_s / r.median_s) : "");
  cells.push_back(timed ? fmt::format("{:.0f}", tokens / r.median_s) : "");
  cells.push_back(speedup_text(r));
  cells.push_back(verdict_text(r));
  return cells;
}

std::string aligned(const std::vector<Cells>& rows) {
  std::size_t widths[kColumnCount] = {};
  for (const Cells& row : rows) {
    for (std::size_t i = 0; i < kColumnCount; ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const Cells& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < kColumnCount; ++i) {
      line += i == 0 ? "" : "  ";
      line += kColumns[i].left ? fmt::format("{:<{}}", row[i], widths[i])
                               : fmt::format("{:>{}}", row[i], widths[i]);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

/// All of a sub label but the token count, under which its rows stand together.
std::string group_of(const CaseResult& r) {
  std::string group = fmt::format("{}, {} experts, top-{}, K={}, N={}", printable(r.model),
                                  r.num_experts, r.topk, r.hidden, r.intermediate);
  if (r.tp > 1) group += fmt::format(" (tp {})", r.tp);
  if (r.per_act_token || r.per_out_ch) {
    group += fmt::format(", per_act_token={} per_out_ch={}", r.per_act_token, r.per_out_ch);
  }
  return group + fmt::format(", {} routing, {} cache, {} thread{}", printable(r.routing),
                             printable(r.cache), r.threads, r.threads == 1 ? "" : "s");
}

/// When the rates were measured that the shares of these results go by.
std::string when_measured(std::span<const CaseResult> results) {
  bool around = false;
  bool at_start = false;
  for (const CaseResult& r : results) {
    if (r.samples_s.empty()) continue;
    (r.floor_low_bytes_per_s > 0.0 ? around : at_start) = true;
  }
  if (!around) return "at start";
  return at_start ? "around each row (devices, older files: at start)" : "around each row";
}

/// How far the host's rates moved from row to row: shares of times taken far apart go by different
/// rates.
std::string rate_line(std::span<const CaseResult> results) {
  double low_bytes = 0.0;
  double high_bytes = 0.0;
  double low_flops = 0.0;
  double high_flops = 0.0;
  for (const CaseResult& r : results) {
    if (r.samples_s.empty() || !(r.floor_low_bytes_per_s > 0.0)) continue;
    const bool first = !(high_bytes > 0.0);
    low_bytes = first ? r.floor_low_bytes_per_s : std::min(low_bytes, r.floor_low_bytes_per_s);
    low_flops = first ? r.peak_low_flops_per_s : std::min(low_flops, r.peak_low_flops_per_s);
    high_bytes = std::max(high_bytes, r.floor_bytes_per_s);
    high_flops = std::max(high_flops, r.peak_flops_per_s);
  }
  if (!(high_bytes > 0.0)) return "";
  return fmt::format("rates around the rows: {:.1f}..{:.1f} GB/s read, {:.3f}..{:.3f} TFLOP/s.\n",
                     low_bytes / kGiga, high_bytes / kGiga, low_flops / kTera, high_flops / kTera);
}

/// What the sensors of each device said over all its results.
std::string clock_lines(std::span<const CaseResult> results) {
  std::vector<CaseResult> devices;  // one per kernel_detail, with the extremes
  for (const CaseResult& r : results) {
    if (!(r.sm_clock_mhz > 0.0)) continue;
    const auto same = [&](const CaseResult& d) { return d.kernel_detail == r.kernel_detail; };
    const auto device = std::find_if(devices.begin(), devices.end(), same);
    if (device == devices.end()) {
      devices.push_back(r);
      continue;
    }
    device->sm_clock_mhz = std::max(device->sm_clock_mhz, r.sm_clock_mhz);
    device->sm_clock_low_mhz = std::min(device->sm_clock_low_mhz, r.sm_clock_low_mhz);
    device->temperature_c = std::max(device->temperature_c, r.temperature_c);
    device->power_w = std::max(device->power_w, r.power_w);
  }
  std::string out;
  for (const CaseResult& d : devices) {
    out += fmt::format(
        "clocks   {}: SM {:.0f}..{:.0f} MHz, memory {:.0f} MHz, up to {:.0f} C and {:.0f} W\n",
        printable(d.kernel_detail), d.sm_clock_low_mhz, d.sm_clock_mhz, d.memory_clock_mhz,
        d.temperature_c, d.power_w);
  }
  return out;
}

std::string case_notes(std::span<const CaseResult> results) {
  std::string out;
  for (const CaseResult& r : results) {
    if (r.status == Status::kOk) {
      if (r.noisy) out += fmt::format("noisy    {}: {}\n", printable(r.id), printable(r.noise));
      continue;
    }
    out +=
        fmt::format("{:<8} {}: {}\n", name_of(r.status), printable(r.id), printable(r.reason, 400));
    if (r.status != Status::kSkipped && !r.repro.empty())
      out += fmt::format("         again: {}\n", printable(r.repro, 1000));
  }
  return out;
}

}  // namespace

std::vector<TableEntry> table_entries(std::span<const CaseResult> results) {
  std::vector<TableEntry> entries;
  for (const CaseResult& r : results) {
    if (r.status != Status::kOk || r.samples_s.empty()) continue;
    // A resumed journal is a file like any other: no name may break the table or the terminal.
    entries.push_back({.label = printable(r.label, kNameBytes),
                       .sub_label = printable(r.sub_label, kNameBytes),
                       .description = printable(r.kernel, kNameBytes),
                       .env = std::nullopt,
                       .num_threads = r.threads,
                       .number_per_run = 1,  // samples are per call already
                       .raw_times = r.samples_s});
  }
  return entries;
}

std::string render_facts(std::span<const CaseResult> results) {
  std::vector<std::pair<std::string, std::vector<Cells>>> groups;
  for (const CaseResult& r : results) {
    if (r.samples_s.empty()) continue;
    const std::string name = group_of(r);
    auto group =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == name; });
    if (group == groups.end()) {
      Cells header;
      for (const Column& column : kColumns) header.emplace_back(column.header);
      group = groups.insert(groups.end(), {name, {std::move(header)}});
    }
    group->second.push_back(cells_of(r));
  }
  std::string out;
  for (const auto& [name, rows] : groups) out += name + "\n" + aligned(rows) + "\n";
  if (!groups.empty()) {
    out += "active: experts with a token, of all; GB/s: their weights over the median.\n";
    const std::string when = when_measured(results);
    out += fmt::format(
        "floor: the time to read those weights at the rate measured {}, over the median; above 100 "
        "% "
        "they came from a cache.\n",
        when);
    out += fmt::format(
        "peak: the time of its multiply-adds at the peak measured {} (BF16 or FP32), over the "
        "median; integers and FP8 may pass 100 %.\n",
        when);
    out += rate_line(results);
    out += "verdict: token rows checked of all, and the largest relative error of a row.\n";
    std::vector<std::string> baselines;
    for (const CaseResult& r : results) {
      if (r.speedup > 0.0 && std::count(baselines.begin(), baselines.end(), r.baseline) == 0) {
        baselines.push_back(r.baseline);
      }
    }
    for (std::string& name : baselines) name = printable(name);
    if (!baselines.empty()) {
      out += fmt::format("speed-up: over {}{}, with its 95 % interval.\n",
                         fmt::join(baselines, " and "),
                         baselines.size() > 1 ? ", like over like" : "");
    }
  }
  return out + clock_lines(results) + case_notes(results);
}

}  // namespace moebench
