// A finished run in the format that was asked for, on stdout and in --out.
#pragma once

#include <string>

#include "moebench/cli/console.h"
#include "moebench/cli/options.h"
#include "moebench/report/result.h"

namespace moebench::cli {

[[nodiscard]] std::string render(const RunReport& report, Format format, bool colored);

/// Where results are kept beside stdout.
struct Files {
  std::string journal;
  bool journal_is_implied = false;  ///< stands in for --out until that is written, then goes away
};
/// --journal, else --resume, else FILE.journal of --out. Throws kBadInput for a path that could not
/// be written.
[[nodiscard]] Files choose_files(const RunOptions& options);

/// Refuses an --out that could not be written at the end of a long run: a folder, a device, a
/// folder that is not there or not writable. Throws kBadInput.
void check_output_path(const std::string& flag, const std::string& path);

}  // namespace moebench::cli
