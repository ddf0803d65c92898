#include "moebench/cli/run_results.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "moebench/cli/machine.h"
#include "moebench/cli/signals.h"
#include "moebench/core/error.h"
#include "moebench/measure/fingerprint.h"
#include "moebench/measure/statistics.h"

namespace moebench::cli {
namespace {

int exit_code_of(ErrorCode code) {
  const int value = static_cast<int>(code);
  return code == ErrorCode::kInternal || code == ErrorCode::kIo ? 1 : value;
}

}  // namespace

void RunResults::resume(const std::string& path) {
  JournalContent content = read_journal(path);
  if (!content.warning.empty()) {
    console_.warn(fmt::format("{}: {}", printable(path), content.warning));
  }
  if (content.machine.empty()) {
    console_.warn(
        fmt::format("{}: does not say what machine its cases were measured on; they are "
                    "taken all the same",
                    printable(path)));
  }
  require_same_machine(path, content.machine, comparable_facts());
  for (CaseResult& result : content.results) {
    // An error may have been the moment's; a verdict stays.
    if (result.status == Status::kOk || result.status == Status::kFailed) {
      std::string id = result.id;
      resumed_.insert_or_assign(std::move(id), std::move(result));
    }
  }
  if (!resumed_.empty()) require_same_kernels(path);
}

void RunResults::keep_in(const std::string& path) { journal_ = Journal(path, comparable_facts()); }

const CaseResult* RunResults::find_resumed(std::size_t comparison, std::size_t column) const {
  if (resumed_.empty()) return nullptr;
  const Comparison& sizes = plan_.comparisons[comparison];
  const auto found =
      resumed_.find(case_id(options_, plan_.layers[sizes.layer], sizes, plan_.columns[column]));
  return found == resumed_.end() ? nullptr : &found->second;
}

/// An id names neither the device nor what the defaults of --isa and --threads were.
void RunResults::require_same_kernels(const std::string& path) const {
  for (std::size_t comparison = 0; comparison < plan_.comparisons.size(); ++comparison) {
    for (std::size_t column = 0; column < plan_.columns.size(); ++column) {
      const CaseResult* const found = find_resumed(comparison, column);
      if (found == nullptr) continue;
      // A case's own detail may go on with the tiles that were chosen for it.
      const std::string here = plan_.columns[column].kernel->detail();
      if (found->kernel_detail.starts_with(here)) continue;
      fail(ErrorCode::kBadInput,
           "{}: {} was measured with '{}', here it is '{}'; name another journal", printable(path),
           printable(found->id), printable(found->kernel_detail), printable(here));
    }
  }
}

bool RunResults::take_resumed(std::size_t comparison, std::size_t column) {
  const CaseResult* const found = find_resumed(comparison, column);
  if (found == nullptr) return false;
  ++(found->status == Status::kOk ? tally_.ok : tally_.failed);
  ++tally_.resumed;
  results_.insert_or_assign(case_index(comparison, column), *found);
  return true;
}

void RunResults::skip(std::size_t comparison, std::size_t column, const std::string& reason) {
  const Comparison& sizes = plan_.comparisons[comparison];
  CaseResult result =
      blank_result(options_, plan_.layers[sizes.layer], sizes, plan_.columns[column]);
  result.threads = shown_threads(plan_, thread_count(options_));
  result.status = Status::kSkipped;
  result.reason = reason;
  ++tally_.skipped;
  results_.insert_or_assign(case_index(comparison, column), std::move(result));
}

void RunResults::refuse_memory(std::size_t comparison, std::size_t column,
                               const std::string& reason) {
  tally_.memory_refused = true;
  skip(comparison, column, reason);
}

void RunResults::record(std::size_t comparison, Outcome outcome) {
  switch (outcome.result.status) {
    case Status::kOk:
      ++tally_.ok;
      break;
    case Status::kFailed:
      ++tally_.failed;
      console_.error(fmt::format("{}: {}; {}", outcome.result.id, outcome.result.reason,
                                 outcome.result.repro));
      break;
    case Status::kError:
      ++tally_.errors;
      if (tally_.error_exit == 0 || exit_code_of(outcome.error) == 1) {
        tally_.error_exit = exit_code_of(outcome.error);
      }
      console_.error(fmt::format("{}: {}", outcome.result.id, outcome.result.reason));
      break;
    case Status::kSkipped:
      ++tally_.skipped;
      break;
  }
  results_.insert_or_assign(case_index(comparison, outcome.column), std::move(outcome.result));
}

void RunResults::keep(std::size_t comparison, std::span<const std::size_t> columns) {
  for (const std::size_t column : columns) {
    CaseResult& result = results_.at(case_index(comparison, column));
    add_speedup(comparison, column, result);
    try {
      journal_.append(result);
    } catch (const Error& error) {
      console_.error(error.what());
      output_lost_ = true;
    }
  }
}

void RunResults::add_speedup(std::size_t comparison, std::size_t column, CaseResult& result) const {
  const std::optional<std::size_t> over = baseline_of(options_, plan_, column);
  if (!over || result.samples_s.empty()) return;
  const auto found = results_.find(case_index(comparison, *over));
  if (found == results_.end() || found->second.samples_s.empty()) return;
  const CaseResult& baseline = found->second;
  result.baseline = baseline.kernel;
  // A clock that saw no time pass at all gives no ratio.
  if (!(baseline.median_s > 0.0 && result.median_s > 0.0)) return;
  result.speedup = baseline.median_s / result.median_s;
  if (&baseline == &result) {
    result.speedup_low = result.speedup_high = 1.0;
    return;
  }
  const auto positive = [](const std::vector<double>& samples) {
    return std::all_of(samples.begin(), samples.end(), [](double s) { return s > 0.0; });
  };
  if (!positive(baseline.samples_s) || !positive(result.samples_s)) return;
  const Interval interval = bootstrap_ratio(baseline.samples_s, result.samples_s, options_.seed);
  result.speedup_low = interval.low;
  result.speedup_high = interval.high;
}

int RunResults::exit_code() {
  if (signal_exit_code() != 0) return signal_exit_code();
  if (tally_.failed > 0) return static_cast<int>(ErrorCode::kCheckFailed);
  if (output_lost_) return static_cast<int>(ErrorCode::kIo);
  if (tally_.memory_refused) return static_cast<int>(ErrorCode::kOutOfMemory);
  if (tally_.errors > 0) return tally_.error_exit;
  if (tally_.ok > 0) return 0;
  console_.error(
      fmt::format("nothing ran: {} cases skipped; the first because {}", tally_.skipped,
                  results_.empty() ? "the plan is empty" : results_.begin()->second.reason));
  return static_cast<int>(ErrorCode::kUnavailable);
}

}  // namespace moebench::cli
