// One finished case as plain values: what the journal stores and every output format is made from.
// Knows no kernels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moebench {

inline constexpr int kResultSchemaVersion = 1;

/// Status of a case: "ok", "failed" (wrong answer, never timed), "skipped" (with reason), "error"
/// (with reason).
enum class Status : std::uint8_t { kOk, kFailed, kSkipped, kError };
[[nodiscard]] const char* name_of(Status status);

struct CaseResult {
  std::string
      id;  ///< stable: "<model>/tp1/m4/fp8/cpu_moe_fp8" and options that differ from the default
  std::string model;
  std::int64_t num_experts = 0, topk = 0, hidden = 0, intermediate = 0, tp = 1, tokens = 0;
  bool per_act_token = false, per_out_ch = false;
  std::string scheme, kernel, kernel_detail, routing, cache;
  std::string backend;  ///< "cpu", "cuda"
  bool graph = false;
  int threads = 1;
  std::string label, sub_label;  ///< of the timing table
  // Timing, per call. samples_s is empty unless status is kOk.
  std::vector<double> samples_s;
  std::int64_t calls_per_sample = 1;
  double median_s = 0, iqr_s = 0, ci_low_s = 0, ci_high_s = 0;
  bool noisy = false;
  std::string noise;
  // Facts.
  std::int64_t active_experts = 0, largest_group = 0,
               weight_bytes = 0;  ///< weight_bytes: of the active experts
  double floor_s = 0;             ///< weight_bytes / floor_bytes_per_s
  double flops = 0;
  double peak_s = 0;  ///< flops / peak_flops_per_s; 0 where that is not known
  // Rates that the machine showed around this case, or (a device, files of before: 0) at start.
  double floor_bytes_per_s = 0;      ///< read rate that floor_s goes by
  double floor_low_bytes_per_s = 0;  ///< lowest reading around the case; 0: none was taken
  double peak_flops_per_s = 0;       ///< peak of multiply-adds that peak_s goes by
  double peak_low_flops_per_s = 0;   ///< lowest reading around the case; 0: none was taken
  double speedup = 0, speedup_low = 0,
         speedup_high = 0;  ///< over the baseline; 0 where there is none
  std::string baseline;
  // Verdict.
  std::string verdict;  ///< "pass", "fail", "unchecked", "" where it never ran
  std::int64_t rows_checked = 0;
  double worst_row_error = 0, worst_bound_share = 0, format_error = 0;
  std::vector<std::pair<std::string, double>> phases_s;
  // The device's sensors while it was measured; 0 and empty where there are none.
  double sm_clock_mhz = 0, sm_clock_low_mhz = 0, memory_clock_mhz = 0;  ///< median, lowest, median
  double temperature_c = 0, power_w = 0;                                ///< highest
  std::string throttled;  ///< reasons that held at any time: "sw power cap"
  Status status = Status::kOk;
  std::string reason;  ///< why skipped, failed or error: one line
  std::string repro;   ///< one command line that runs this case again
};

/// Whether an interval can be told at all: one sample says nothing of the next.
[[nodiscard]] inline bool shows_spread(const CaseResult& result) {
  return result.samples_s.size() > 1;
}

/// Of all phases; 0 without any.
[[nodiscard]] double phases_sum_s(const CaseResult& result);

/// A whole run: what `--format json` prints.
struct RunReport {
  std::string tool_version;
  std::vector<std::string> argv;
  std::vector<std::pair<std::string, std::string>> env;
  std::vector<CaseResult> results;
};

}  // namespace moebench
