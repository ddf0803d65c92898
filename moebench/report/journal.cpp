#include "moebench/report/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "moebench/core/error.h"
#include "moebench/report/file_io.h"
#include "moebench/report/result_json.h"
#include "moebench/report/writers.h"

namespace moebench {
namespace {

constexpr std::int64_t kMaxJournalBytes = std::int64_t{1} << 30;
constexpr const char* kTool = "moebench";

nlohmann::ordered_json header() {
  return {{"schema_version", kResultSchemaVersion}, {"tool", kTool}};
}

std::string header_line(const JournalMachine& machine) {
  nlohmann::ordered_json object = header();
  for (const auto& [key, value] : machine) object["machine"][key] = value;
  return compact(object) + "\n";
}

/// Of a text without a newline: whether it may be what an interrupted first append has left.
bool is_cut_off_header(std::string_view text) {
  std::string start = compact(header());
  start.pop_back();  // "}"
  return start.starts_with(text) || text.starts_with(start);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

[[nodiscard]] std::string read_whole(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    fail(ErrorCode::kBadInput, "{}: not a regular file; name a journal file", printable(path));
  }
  if (status.st_size > kMaxJournalBytes) {
    fail(ErrorCode::kBadInput,
         "{}: {} bytes, more than the {} that a journal may have; name another file",
         printable(path), status.st_size, kMaxJournalBytes);
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    const ssize_t got =
        ::pread(fd, text.data() + have, text.size() - have, static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(ErrorCode::kIo, "{}: reading failed: {}; check the disk", printable(path),
           std::strerror(errno));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  text.resize(have);
  return text;
}

/// Most of all it is a report of --out that is taken for its journal.
[[noreturn]] void refuse_other_file(const std::string& path) {
  fail(ErrorCode::kBadInput,
       "{}: not a journal of this tool; name a --journal, or the FILE.journal of an --out FILE",
       printable(path));
}

nlohmann::ordered_json parse_header(std::string_view line, const std::string& path) {
  try {
    return parse_object(line, path);
  } catch (const Error&) {
    refuse_other_file(path);
  }
}

JournalMachine machine_of(const nlohmann::ordered_json& header, const std::string& where) {
  JournalMachine machine;
  if (!header.contains("machine")) return machine;
  const nlohmann::ordered_json& facts = header["machine"];
  const auto is_text = [](const nlohmann::ordered_json& value) { return value.is_string(); };
  if (!facts.is_object() || !std::all_of(facts.begin(), facts.end(), is_text)) {
    fail(ErrorCode::kBadInput, "{}: field 'machine' is no object of strings; the file is damaged",
         where);
  }
  for (const auto& [key, value] : facts.items()) {
    machine.emplace_back(key, value.get<std::string>());
  }
  return machine;
}

JournalMachine check_header(std::string_view line, const std::string& path) {
  const std::string where = fmt::format("{}: line 1", printable(path));
  const nlohmann::ordered_json header = parse_header(line, path);
  if (!header.contains("tool") || header["tool"] != kTool || !header.contains("schema_version")) {
    refuse_other_file(path);
  }
  if (header["schema_version"] != kResultSchemaVersion) {
    fail(ErrorCode::kBadInput,
         "{}: schema version {}, this tool writes version {}; name another file", where,
         printable(compact(header["schema_version"]), 40), kResultSchemaVersion);
  }
  return machine_of(header, where);
}

JournalContent parse_journal(std::string_view text, const std::string& path) {
  JournalContent content;
  std::int64_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      if (line_number == 1 && !is_cut_off_header(text)) refuse_other_file(path);
      // The newline is the last byte of an append: without it the append did not finish.
      content.warning =
          fmt::format("last line (line {}) is cut off, {} bytes ignored", line_number, text.size());
      break;
    }
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line_number == 1) {
      content.machine = check_header(line, path);
    } else if (!line.empty()) {
      const std::string where = fmt::format("{}: line {}", printable(path), line_number);
      content.results.push_back(result_from_json(parse_object(line, where), where));
    }
  }
  return content;
}

}  // namespace

Journal::Journal(const std::string& path, const JournalMachine& machine) : path_(path) {
  Descriptor fd(::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666));
  if (fd.get() < 0) {
    fail(ErrorCode::kIo, "{}: the journal cannot be opened: {}; choose another place",
         printable(path), std::strerror(errno));
  }
  const std::string existing = read_whole(fd.get(), path);
  const std::size_t first_line = existing.find('\n');
  if (first_line == std::string::npos) {
    // Empty, or cut off inside the very first append: nothing finished is in it. Anything else is
    // somebody's file.
    if (!is_cut_off_header(existing)) refuse_other_file(path);
    if (::ftruncate(fd.get(), 0) != 0) {
      fail(ErrorCode::kIo, "{}: cannot be written: {}; choose another place", printable(path),
           std::strerror(errno));
    }
    write_all(fd.get(), header_line(machine), path);
    sync_folder_of(path);
  } else {
    require_same_machine(path, check_header(std::string_view(existing).substr(0, first_line), path),
                         machine);
    // A cut-off last line holds no finished case; it must not swallow the next append.
    const auto whole = static_cast<off_t>(existing.rfind('\n') + 1);
    if (whole != static_cast<off_t>(existing.size()) && ::ftruncate(fd.get(), whole) != 0) {
      fail(ErrorCode::kIo, "{}: cannot be repaired: {}; choose another place", printable(path),
           std::strerror(errno));
    }
  }
  sync_to_disk(fd.get(), path);
  fd_ = fd.release();
}

Journal::~Journal() {
  if (fd_ >= 0) ::close(fd_);
}

Journal::Journal(Journal&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

Journal& Journal::operator=(Journal&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

void Journal::append(const CaseResult& result) {
  if (fd_ < 0) return;
  try {
    write_all(fd_, result_to_json_line(result) + "\n", path_);
    sync_to_disk(fd_, path_);
  } catch (const Error&) {
    ::close(std::exchange(fd_, -1));
    throw;
  }
}

JournalContent read_journal(const std::string& path) {
  // O_NONBLOCK: a FIFO without a writer must not hang the open.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0) {
    fail(ErrorCode::kBadInput, "{}: cannot be opened: {}; name a journal file", printable(path),
         std::strerror(errno));
  }
  const std::string text = read_whole(fd.get(), path);
  if (text.empty()) fail(ErrorCode::kBadInput, "{}: empty; name a journal file", printable(path));
  return parse_journal(text, path);
}

void require_same_machine(const std::string& path, const JournalMachine& in_journal,
                          const JournalMachine& here) {
  std::string first;
  int others = -1;
  for (const auto& [key, value] : in_journal) {
    for (const auto& [key_here, value_here] : here) {
      if (key != key_here || value == value_here || ++others > 0) continue;
      first = fmt::format("{} was '{}', here it is '{}'", printable(key), printable(value),
                          printable(value_here));
    }
  }
  if (others < 0) return;
  fail(ErrorCode::kBadInput, "{}: measured on another machine or build: {}{}; name another journal",
       printable(path), first, others == 0 ? "" : fmt::format(" ({} more differ)", others));
}

}  // namespace moebench
