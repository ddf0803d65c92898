#include "moebench/cli/output.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "moebench/core/error.h"
#include "moebench/report/table.h"
#include "moebench/report/writers.h"

namespace moebench::cli {
namespace {

/// --phases: a line per case, in call order, with shares of their sum. They are timed in runs of
/// their own: the last figure says what those runs differ from the measured ones.
std::string phase_lines(const std::vector<CaseResult>& results) {
  constexpr double kMicroseconds = 1e6;
  std::string text;
  for (const CaseResult& result : results) {
    if (result.phases_s.empty()) continue;
    text += fmt::format("phases   {}:", result.id);
    const double sum = phases_sum_s(result);
    for (const auto& [phase, seconds] : result.phases_s) {
      text += fmt::format(" {} {:.1f} us ({:.1f} %),", phase, seconds * kMicroseconds,
                          sum > 0.0 ? seconds / sum * 100 : 0.0);
    }
    text += fmt::format(" sum {:.1f} us", sum * kMicroseconds);
    if (result.median_s > 0.0) {
      text += fmt::format(", {:+.1f} % of the median call", (sum / result.median_s - 1) * 100);
    }
    text += "\n";
  }
  return text;
}

std::string render_tables(const RunReport& report, bool colored) {
  TableStyle style;
  style.highlight_warnings = true;
  // The question is which kernel is fastest for one batch size: colours compare within a row.
  if (colored) style.color = TableStyle::Color::kRowwise;
  std::string text;
  const std::vector<TableEntry> entries = table_entries(report.results);
  if (!entries.empty()) text = render_compare(entries, style) + "\n";
  return text + render_facts(report.results) + phase_lines(report.results);
}

}  // namespace

std::string render(const RunReport& report, Format format, bool colored) {
  switch (format) {
    case Format::kTable:
      return render_tables(report, colored);
    case Format::kMarkdown:
      return to_markdown(report);
    case Format::kCsv:
      return to_csv(report);
    case Format::kJson:
      return to_json(report);
    case Format::kJsonl:
      return to_jsonl(report);
  }
  fail(ErrorCode::kInternal, "output format {}", static_cast<int>(format));
}

namespace {

/// Whatever way leads there: "r.json", "./r.json", a link.
bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  if (std::filesystem::equivalent(a, b, ignored)) return true;
  return std::filesystem::weakly_canonical(a, ignored) ==
         std::filesystem::weakly_canonical(b, ignored);
}

/// The report is renamed over its target: a journal there would be lost, a trace overwritten.
void require_a_file_of_its_own(const RunOptions& options) {
  if (options.out.empty()) return;
  const std::string trace =
      options.routing.kind == RoutingSpec::Kind::kTrace ? options.routing.trace_path : "";
  for (const auto& [flag, path] :
       {std::pair<const char*, std::string>{"--journal", options.journal},
        {"--resume", options.resume},
        {"--routing trace", trace}}) {
    if (!path.empty() && same_file(options.out, path)) {
      fail(ErrorCode::kBadInput, "--out: {} is the file of {}, too; name another file",
           printable(options.out), flag);
    }
  }
}

}  // namespace

Files choose_files(const RunOptions& options) {
  Files files;
  require_a_file_of_its_own(options);
  if (!options.out.empty()) check_output_path("--out", options.out);
  files.journal = !options.journal.empty() ? options.journal : options.resume;
  if (!files.journal.empty()) {
    check_output_path(options.journal.empty() ? "--resume" : "--journal", files.journal);
  } else if (!options.out.empty()) {
    files.journal = options.out + ".journal";
    files.journal_is_implied = true;
    struct stat status {};
    if (::stat(files.journal.c_str(), &status) == 0 && status.st_size > 0) {
      fail(ErrorCode::kBadInput,
           "--out: {} is left from an unfinished run; --resume it, or remove it",
           printable(files.journal));
    }
  }
  return files;
}

void check_output_path(const std::string& flag, const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    if (!S_ISREG(status.st_mode)) {
      fail(ErrorCode::kBadInput, "{}: {} is no regular file; name a file", flag, printable(path));
    }
    if (::access(path.c_str(), W_OK) != 0) {
      fail(ErrorCode::kBadInput, "{}: {} cannot be written ({}); name another file", flag,
           printable(path), std::strerror(errno));
    }
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail(ErrorCode::kBadInput, "{}: folder {} cannot be written ({}); name another file", flag,
         printable(folder), std::strerror(errno));
  }
}

}  // namespace moebench::cli
