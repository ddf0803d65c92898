// Append-only record of finished cases: one JSON line each, fsynced, so that an interrupt, SIGKILL
// or a full disk loses no finished case. Reports are derived from results, never the only copy of
// them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "moebench/report/result.h"

namespace moebench {

/// What all cases of a journal were measured on, key and value; empty in files of before.
using JournalMachine = std::vector<std::pair<std::string, std::string>>;

class Journal {
 public:
  Journal() = default;  ///< keeps nothing
  /// Opens for append; the first line is {schema_version, tool, machine}. Throws kIo, and kBadInput
  /// for a file that is no journal or one of another machine.
  explicit Journal(const std::string& path, const JournalMachine& machine = {});
  ~Journal();
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&& other) noexcept;
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// One write() of one line, then fsync. Throws kIo with the cause; the journal is then closed and
  /// later appends are no-ops, so that a full disk costs the file but not the run.
  void append(const CaseResult& result);

 private:
  int fd_ = -1;
  std::string path_;
};

struct JournalContent {
  JournalMachine machine;
  std::vector<CaseResult> results;
  std::string warning;  ///< "last line truncated, N bytes ignored" or empty
};
/// Throws kBadInput for another schema version, duplicate keys, NaN or a broken line that is not
/// the last.
[[nodiscard]] JournalContent read_journal(const std::string& path);

/// Throws kBadInput, with both values, where a fact that both have differs. Times of two machines
/// or builds in one file would be compared as if they were of one.
void require_same_machine(const std::string& path, const JournalMachine& in_journal,
                          const JournalMachine& here);

}  // namespace moebench
