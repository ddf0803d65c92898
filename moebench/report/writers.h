// A run in the file formats: json (one object), jsonl (one result a line), csv, md. Strings are
// escaped for each format.
#pragma once

#include <string>
#include <string_view>

#include "moebench/report/result.h"

namespace moebench {

[[nodiscard]] std::string to_json(const RunReport& report);
[[nodiscard]] std::string to_jsonl(const RunReport& report);
[[nodiscard]] std::string to_csv(const RunReport& report);
[[nodiscard]] std::string to_markdown(const RunReport& report);
[[nodiscard]] std::string result_to_json_line(const CaseResult& result);
/// Throws kBadInput (what is wrong, where) for anything but a result of this schema version.
[[nodiscard]] CaseResult result_from_json_line(std::string_view line);

/// Writes tmp + fsync + rename: an earlier file at `path` stays whole until the new one is. Throws
/// kIo with the cause.
void write_file_atomically(const std::string& path, std::string_view content);

}  // namespace moebench
