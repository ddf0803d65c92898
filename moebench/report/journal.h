// Append-only record of finished cases: one JSON line each, fsynced, so that an interrupt, SIGKILL
// or a full disk loses no finished case. Reports are derived from results, never the only copy of
// them.
#pragma once

#include <string>
#include <vector>

#include "moebench/report/result.h"

namespace moebench {

class Journal {
 public:
  Journal() = default;  ///< keeps nothing
  explicit Journal(const std::string&
                       path);  ///< opens for append, first line {schema_version, tool}; throws kIo
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
  std::vector<CaseResult> results;
  std::string warning;  ///< "last line truncated, N bytes ignored" or empty
};
/// Throws kBadInput for another schema version, duplicate keys, NaN or a broken line that is not
/// the last.
[[nodiscard]] JournalContent read_journal(const std::string& path);

}  // namespace moebench
