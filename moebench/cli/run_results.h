// What a run has found so far: a result for each case, its line in the journal, and the exit code
// that all of them make.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>

#include "moebench/cli/console.h"
#include "moebench/cli/layer_bench.h"
#include "moebench/cli/options.h"
#include "moebench/cli/plan.h"
#include "moebench/report/journal.h"

namespace moebench::cli {

/// Cases are named by their comparison and column in the plan.
class RunResults {
 public:
  RunResults(const RunOptions& options, const Plan& plan, Console& console)
      : options_(options), plan_(plan), console_(console) {}

  /// Reads a journal whose finished cases need not run again. Throws kBadInput where they are of
  /// another machine, build, device or CPU path.
  void resume(const std::string& path);
  /// How many cases of this run the resumed journal has given so far.
  [[nodiscard]] std::int64_t resumed() const { return tally_.resumed; }
  /// Finished cases go to this journal from here on.
  void keep_in(const std::string& path);

  /// True where the resumed journal holds the case: it is then a result of this run.
  [[nodiscard]] bool take_resumed(std::size_t comparison, std::size_t column);
  void skip(std::size_t comparison, std::size_t column, const std::string& reason);
  /// Skipped for want of memory.
  void refuse_memory(std::size_t comparison, std::size_t column, const std::string& reason);
  void record(std::size_t comparison, Outcome outcome);
  /// Speed-ups need all results of the comparison so far; then they are final and go to the
  /// journal.
  void keep(std::size_t comparison, std::span<const std::size_t> columns);
  /// stdout, --out or the journal could not be written.
  void lose_output() { output_lost_ = true; }

  /// In the plan's order.
  [[nodiscard]] const std::map<std::size_t, CaseResult>& by_case() const { return results_; }
  /// Says so where nothing ran.
  [[nodiscard]] int exit_code();

 private:
  /// What the exit code is made of.
  struct Tally {
    std::int64_t ok = 0, failed = 0, skipped = 0, errors = 0, resumed = 0;
    bool memory_refused = false;
    int error_exit = 0;  ///< of the first error; 1 where any was of our own
  };

  /// The resumed journal's result of a case; null where it has none.
  [[nodiscard]] const CaseResult* find_resumed(std::size_t comparison, std::size_t column) const;
  void require_same_kernels(const std::string& path) const;
  void add_speedup(std::size_t comparison, std::size_t column, CaseResult& result) const;
  [[nodiscard]] std::size_t case_index(std::size_t comparison, std::size_t column) const {
    return comparison * plan_.columns.size() + column;
  }

  const RunOptions& options_;
  const Plan& plan_;
  Console& console_;
  Journal journal_;
  std::unordered_map<std::string, CaseResult> resumed_;
  std::map<std::size_t, CaseResult> results_;  // by case index: the plan's order
  Tally tally_;
  bool output_lost_ = false;
};

}  // namespace moebench::cli
