// Results that the tests of this folder write, read and print.
#pragma once

#include "moebench/report/result.h"

namespace moebench::test {

inline CaseResult timed_result() {
  CaseResult r;
  r.id = "qwen3-30b-a3b/tp1/m4/fp8/cpu_moe_fp8";
  r.model = "qwen3-30b-a3b";
  r.num_experts = 8;
  r.topk = 2;
  r.hidden = 2048;
  r.intermediate = 768;
  r.tokens = 4;
  r.scheme = "fp8";
  r.kernel = "cpu_moe_fp8";
  r.kernel_detail = "avx512, 2 threads";
  r.routing = "uniform";
  r.cache = "warm";
  r.threads = 2;
  r.label = "label";
  r.sub_label = "row";
  r.samples_s = {1.1e-3, 0.1, 1.0 / 3.0};
  r.calls_per_sample = 3;
  r.median_s = 0.1;
  r.iqr_s = 0.16;
  r.ci_low_s = 1.1e-3;
  r.ci_high_s = 1.0 / 3.0;
  r.noisy = true;
  r.noise = "IQR 160 % of the median";
  r.active_experts = 6;
  r.largest_group = 2;
  r.weight_bytes = 28'311'552;
  r.floor_s = 1e-3;
  r.flops = 7.5e7;
  r.peak_s = 1e-4;
  r.floor_bytes_per_s = 28.3e9;
  r.floor_low_bytes_per_s = 21.5e9;
  r.peak_flops_per_s = 750e9;
  r.peak_low_flops_per_s = 611e9;
  r.speedup = 1.25;
  r.speedup_low = 1.2;
  r.speedup_high = 1.3;
  r.baseline = "cpu_moe_fp8";
  r.verdict = "pass";
  r.rows_checked = 4;
  r.worst_row_error = 1.5e-4;
  r.worst_bound_share = 0.25;
  r.format_error = 0.03;
  r.phases_s = {{"route", 1e-6}, {"gemm1", 2e-3}};
  r.status = Status::kOk;
  r.repro = "moebench --models qwen3-30b-a3b";
  return r;
}

inline CaseResult skipped_result() {
  CaseResult r;
  r.id = "m/tp7/m4/nvfp4/cpu_moe_fp4";
  r.model = "m";
  r.scheme = "nvfp4";
  r.kernel = "cpu_moe_fp4";
  r.tokens = 4;
  r.status = Status::kSkipped;
  r.reason = "N=232 is no multiple of 16";
  r.repro = "moebench --tp-sizes 7";
  return r;
}

}  // namespace moebench::test
