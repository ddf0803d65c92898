// The trace reader: lines are read one by one with a length limit, so memory does not grow with the
// file.
#include "moebench/moe/routing_trace.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include "moebench/core/error.h"

namespace moebench {
namespace {

/// A regular file of bounded size, read line by line.
class LineReader {
 public:
  explicit LineReader(const std::string& path) : name_(printable(path)) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer before fstat refuses it.
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0) {
      fail(ErrorCode::kBadInput, "{}: cannot be opened: {}; name a readable trace file", name_,
           std::strerror(errno));
    }
    try {
      require_regular();
    } catch (...) {
      ::close(fd_);
      throw;
    }
  }
  ~LineReader() { ::close(fd_); }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::int64_t line_number() const { return line_number_; }

  /// The next line without its end, or false at the end of the file.
  bool next(std::string& line) {
    line.clear();
    bool any = false;
    while (begin_ < end_ || refill()) {
      any = true;
      const char* from = chunk_.data() + begin_;
      const auto* newline = static_cast<const char*>(std::memchr(from, '\n', end_ - begin_));
      const std::size_t length =
          newline != nullptr ? static_cast<std::size_t>(newline - from) : end_ - begin_;
      line.append(from, length);
      begin_ += length + (newline != nullptr ? 1 : 0);
      if (line.size() > kMaxTraceLineBytes) {
        fail(ErrorCode::kBadInput,
             "{}:{}: the line is longer than {} bytes; write one token per line", name_,
             line_number_ + 1, kMaxTraceLineBytes);
      }
      if (newline != nullptr) {
        break;
      }
    }
    line_number_ += any ? 1 : 0;
    return any;
  }

 private:
  void require_regular() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) {
      fail(ErrorCode::kBadInput, "{}: cannot be examined: {}; name a readable trace file", name_,
           std::strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
      fail(ErrorCode::kBadInput, "{}: is not a regular file; name a trace file", name_);
    }
    if (status.st_size > kMaxTraceBytes) {
      fail(ErrorCode::kBadInput, "{}: has {} bytes, more than {}; split the trace", name_,
           status.st_size, kMaxTraceBytes);
    }
  }

  bool refill() {
    ssize_t got = 0;
    do {
      got = ::read(fd_, chunk_.data(), chunk_.size());
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
      fail(ErrorCode::kBadInput, "{}: cannot be read: {}; name a readable trace file", name_,
           std::strerror(errno));
    }
    bytes_read_ += got;
    if (bytes_read_ > kMaxTraceBytes) {
      fail(ErrorCode::kBadInput, "{}: grew past {} bytes while it was read; use a finished trace",
           name_, kMaxTraceBytes);
    }
    begin_ = 0;
    end_ = static_cast<std::size_t>(got);
    return got > 0;
  }

  std::string name_;
  int fd_ = -1;
  std::array<char, 64 * 1024> chunk_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::int64_t bytes_read_ = 0;
  std::int64_t line_number_ = 0;
};

struct Entry {
  std::int32_t id = 0;
  float weight = 0.0F;
  bool has_weight = false;
};

/// One token's line, entry by entry; knows where it stands for its messages.
class TokenLine {
 public:
  TokenLine(const LineReader& reader, std::string_view text) : reader_(reader), rest_(text) {
    rest_ = rest_.substr(0, rest_.find('#'));
    if (!rest_.empty() && rest_.back() == '\r') {
      rest_.remove_suffix(1);
    }
    skip_blanks();
  }

  [[nodiscard]] bool empty() const { return rest_.empty(); }

  Entry next(std::int64_t num_experts) {
    const std::string_view word = rest_.substr(0, rest_.find_first_of(kBlanks));
    rest_.remove_prefix(word.size());
    skip_blanks();
    Entry entry;
    const std::size_t colon = word.find(':');
    entry.has_weight = colon != std::string_view::npos;
    entry.id = parse<std::int32_t>(word.substr(0, colon), word, "an expert id");
    if (entry.id < 0 || entry.id >= num_experts) {
      reject("expert {} is not in 0..{}; fix the id or the number of experts", entry.id,
             num_experts - 1);
    }
    if (entry.has_weight) {
      entry.weight = parse<float>(word.substr(colon + 1), word, "a weight");
      if (!(entry.weight >= 0.0F && entry.weight <= kMaxTraceWeight)) {
        reject("weight {} of expert {} is not in 0..{}; fix the weight", entry.weight, entry.id,
               kMaxTraceWeight);
      }
    }
    return entry;
  }

  template <typename... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kBadInput, "{}:{}: {}", reader_.name(), reader_.line_number(),
         fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  static constexpr std::string_view kBlanks = " \t";

  void skip_blanks() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlanks), rest_.size()));
  }

  template <typename Number>
  Number parse(std::string_view text, std::string_view word, std::string_view what) const {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range) {
      reject("\"{}\" is out of range for {}; write id:weight or id", printable(word), what);
    }
    if (error != std::errc() || end != text.data() + text.size()) {
      reject("\"{}\" is not {}; write id:weight or id", printable(word), what);
    }
    return value;
  }

  const LineReader& reader_;
  std::string_view rest_;
};

/// Appends one token to the routing.
void read_token(TokenLine& line, std::int64_t num_experts, std::int64_t topk, bool renormalize,
                Routing& routing) {
  const std::size_t first = routing.topk_ids.size();
  bool weighted = false;
  for (std::int64_t slot = 0; slot < topk; ++slot) {
    if (line.empty()) {
      line.reject("{} experts, topk is {}; write exactly topk entries", slot, topk);
    }
    const Entry entry = line.next(num_experts);
    const auto begin = routing.topk_ids.begin() + static_cast<std::ptrdiff_t>(first);
    if (std::find(begin, routing.topk_ids.end(), entry.id) != routing.topk_ids.end()) {
      line.reject("expert {} a second time; a token's experts must differ", entry.id);
    }
    if (slot > 0 && entry.has_weight != weighted) {
      line.reject("some entries have a weight and some have not; give all or none");
    }
    weighted = entry.has_weight;
    routing.topk_ids.push_back(entry.id);
    routing.topk_weights.push_back(weighted ? entry.weight : 1.0F / static_cast<float>(topk));
  }
  if (!line.empty()) {
    line.reject("more than {} experts, the topk; write exactly topk entries", topk);
  }
  if (weighted && renormalize) {
    const auto weights = std::span(routing.topk_weights).subspan(first);
    double sum = 0.0;
    for (const float weight : weights) {
      sum += static_cast<double>(weight);
    }
    if (sum == 0.0) {
      line.reject("all weights are 0 and cannot be renormalised; give a positive weight");
    }
    for (float& weight : weights) {
      weight = static_cast<float>(static_cast<double>(weight) / sum);
    }
  }
}

}  // namespace

Routing read_routing_trace(const std::string& path, std::int64_t tokens, std::int64_t num_experts,
                           std::int64_t topk, bool renormalize) {
  LineReader reader(path);
  Routing routing;
  routing.topk = topk;
  std::string text;
  while (routing.tokens < tokens && reader.next(text)) {
    TokenLine line(reader, text);
    if (!line.empty()) {
      read_token(line, num_experts, topk, renormalize, routing);
      ++routing.tokens;
    }
  }
  if (routing.tokens < tokens) {
    fail(ErrorCode::kBadInput,
         "{}: holds {} tokens, {} are asked for; use a longer trace or fewer tokens", reader.name(),
         routing.tokens, tokens);
  }
  return routing;
}

}  // namespace moebench
