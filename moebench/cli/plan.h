// What a run will do: layers, the comparisons on each (one row of the timing table), and the
// columns that meet in each of them. A case is a comparison times a column; plans of 10^6 cases
// stay small because cases are made on the fly.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/cli/options.h"
#include "moebench/model/presets.h"
#include "moebench/report/result.h"

namespace moebench::cli {

/// The label of the original benchmark's table.
inline constexpr const char* kTableLabel =
    "NVFP4 Blockscaled CUTLASS MOE vs FP8 Tensor Scaled Triton";

/// Most cases that one plan may hold.
inline constexpr std::int64_t kMaxCases = 1'000'000;

/// One contestant of every comparison: a kernel, as it is or replayed from a CUDA graph.
struct Column {
  const Kernel* kernel = nullptr;
  bool graph = false;
  std::string name;  ///< of the table's column and of the result: the kernel's, "_cuda_graphs"
                     ///< added for a replay
};

struct Layer {
  const ModelPreset* model = nullptr;
  std::int64_t tp = 1;
  MoeShape shape;
  bool renormalize = false;
  Support runnable;  ///< no: every case of this layer is skipped with the reason
  std::size_t first_comparison = 0;
  std::size_t comparisons = 0;
};

/// Kernels that compute the same tokens on the same layer, side by side.
struct Comparison {
  std::size_t layer = 0;
  std::int64_t tokens = 0;
  bool per_act_token = false;  ///< of the fp8 columns
  bool per_out_ch = false;
};

struct Plan {
  std::vector<Column> columns;
  std::vector<Layer> layers;
  std::vector<Comparison> comparisons;
  std::ptrdiff_t baseline = -1;    ///< index into columns, -1 for none
  std::vector<std::string> notes;  ///< what the user should know, one line each
  [[nodiscard]] std::size_t cases() const { return comparisons.size() * columns.size(); }
};

/// Throws kBadInput for unknown models, for experts above a model's or below its top-k, for sizes
/// that overflow, for an unknown baseline; kUnavailable where a filter leaves nothing or no kernel
/// is there. `kernels` must outlive the plan.
[[nodiscard]] Plan make_plan(const RunOptions& options,
                             const std::vector<std::unique_ptr<Kernel>>& kernels);

/// The column that `column`'s speed-up is over: the baseline, and for a replayed graph the
/// baseline's replay where that is measured and the baseline was not asked for by its kernel's
/// name. None where the plan has no baseline.
[[nodiscard]] std::optional<std::size_t> baseline_of(const RunOptions& options, const Plan& plan,
                                                     std::size_t column);
/// What the timing table says of all columns: the threads of the CPU's kernels, 1 where every
/// column runs on a device.
[[nodiscard]] int shown_threads(const Plan& plan, int threads);

/// The scheme of `column` in `comparison`: the fp8 switches apply to fp8 alone.
[[nodiscard]] SchemeConfig scheme_config(const Comparison& comparison, const Column& column);
/// Whether the case can run, judged from its sizes alone.
[[nodiscard]] Support case_support(const Layer& layer, const Comparison& comparison,
                                   const Column& column);

/// "<model>/tp1[/e32]/m4[/per_act_token][/per_out_ch]/fp8/cpu_moe_fp8", then each option that
/// differs from its default.
[[nodiscard]] std::string case_id(const RunOptions& options, const Layer& layer,
                                  const Comparison& comparison, const Column& column);
/// As the original prints it: "<model>, num_experts=256, topk=8, per_act_token=False
/// per_out_ch=False, MKN=((4, 2048, 7168))".
[[nodiscard]] std::string sub_label(const Layer& layer, const Comparison& comparison);
/// A shell command that runs this case alone.
[[nodiscard]] std::string repro_command(const RunOptions& options, const Layer& layer,
                                        const Comparison& comparison, const Column& column);
/// All that is known before the case runs: names, sizes, labels, weight format, id, repro.
[[nodiscard]] CaseResult blank_result(const RunOptions& options, const Layer& layer,
                                      const Comparison& comparison, const Column& column);

}  // namespace moebench::cli
