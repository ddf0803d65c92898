#include "moebench/backend/triton/tuned.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "moebench/core/error.h"

namespace moebench::triton {
namespace {

/// A line is some 200 bytes; a file of more than this is not ours.
constexpr std::uintmax_t kMaxFileBytes = 8 << 20;
constexpr int kMaxGroup = 1 << 16;

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    const std::size_t tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

const EmbeddedKernel* named(const EmbeddedSet& set, std::string_view name, const TuningKey& key,
                            std::int64_t depth) {
  for (const EmbeddedKernel* kernel : usable_kernels(set, key.arch, key.shape.act, depth)) {
    if (kernel->name == name) return kernel;
  }
  return nullptr;
}

bool parse_group(std::string_view text, int& group) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), group);
  return error == std::errc{} && end == text.data() + text.size() && group >= 1 &&
         group <= kMaxGroup;
}

/// key, gate_up, down, gate_up_group, down_group
std::optional<CaseConfig> parse(std::string_view line, const EmbeddedSet& set, const TuningKey& key,
                                std::string_view key_text) {
  const std::vector<std::string_view> fields = split(line);
  if (fields.size() != 5 || fields[0] != key_text) return std::nullopt;
  CaseConfig config;
  config.gate_up = named(set, fields[1], key, key.shape.hidden);
  config.down = named(set, fields[2], key, key.shape.intermediate);
  if (config.gate_up == nullptr || config.down == nullptr ||
      !parse_group(fields[3], config.gate_up_group) || !parse_group(fields[4], config.down_group) ||
      config.gate_up->tile.block_m != config.down->tile.block_m) {
    return std::nullopt;
  }
  config.origin = "measured here by --autotune";
  return config;
}

}  // namespace

std::string to_string(const TuningKey& key) {
  std::string device = printable(key.device);
  std::replace(device.begin(), device.end(), '\t', ' ');
  return fmt::format(
      "{} sm_{} E={} topk={} K={} N={} {} {}{} M={} {} {}", device, key.arch, key.shape.num_experts,
      key.shape.topk, key.shape.hidden, key.shape.intermediate, name_of(key.shape.act),
      key.scheme.per_act_token ? "per-token " : "",
      key.scheme.per_out_ch ? "per-channel" : "per-tensor", key.tokens, key.routing, key.cubins);
}

std::string tuned_file_path() {
  constexpr const char* kFile = "moebench/triton-tuned";
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return fmt::format("{}/{}", cache, kFile);
  const char* const home = std::getenv("HOME");
  if (home != nullptr && home[0] == '/') return fmt::format("{}/.cache/{}", home, kFile);
  return {};
}

std::optional<CaseConfig> find_tuned(const std::string& path, const EmbeddedSet& set,
                                     const TuningKey& key) {
  std::error_code error;
  if (path.empty() || !std::filesystem::is_regular_file(path, error) ||
      std::filesystem::file_size(path, error) > kMaxFileBytes || error) {
    return std::nullopt;
  }
  std::ifstream file(path);
  const std::string key_text = to_string(key);
  std::optional<CaseConfig> found;
  std::string line;
  while (std::getline(file, line)) {
    if (auto config = parse(line, set, key, key_text)) found = std::move(config);
  }
  return found;
}

bool append_tuned(const std::string& path, const TuningKey& key, const CaseConfig& config) {
  if (path.empty()) return false;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const std::string line = fmt::format("{}\t{}\t{}\t{}\t{}\n", to_string(key), config.gate_up->name,
                                       config.down->name, config.gate_up_group, config.down_group);
  constexpr mode_t kMode = 0644;
  const int file =
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, kMode);
  if (file < 0) return false;
  struct stat facts {};
  const bool regular = fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
  const bool written =
      regular && write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  return close(file) == 0 && written;
}

}  // namespace moebench::triton
