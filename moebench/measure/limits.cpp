// A process belongs to one cgroup per hierarchy, and the limits of all its ancestors hold, too:
// each is looked at.
#include "moebench/measure/limits.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

namespace moebench {
namespace {

constexpr std::int64_t kKib = 1024;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

bool lists(std::string_view comma_list, std::string_view word) {
  const std::vector<std::string> parts = split(comma_list, ',');
  return std::find(parts.begin(), parts.end(), word) != parts.end();
}

std::optional<std::int64_t> number_in_file(const std::string& path) {
  const std::optional<std::string> text = read_small_file(path);
  return text ? leading_number(*text) : std::nullopt;  // "max" is no number: no limit
}

/// Where a hierarchy is mounted, and which of its folders is seen there.
struct Mount {
  std::string point;
  std::string shown_root;
};

/// `controller` empty: the unified (v2) hierarchy.
std::optional<Mount> find_mount(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/mountinfo");
  // "31 23 0:28 <root> <mount point> <options> [<tag>...] - <type> <source> <super options>"
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const std::vector<std::string> before = split(std::string_view(line).substr(0, dash), ' ');
    const std::vector<std::string> after = split(std::string_view(line).substr(dash + 3), ' ');
    constexpr std::size_t kRootField = 3, kPointField = 4;
    if (before.size() <= kPointField || after.size() < 3) continue;
    const bool found = controller.empty() ? after[0] == "cgroup2"
                                          : after[0] == "cgroup" && lists(after[2], controller);
    if (found) return Mount{before[kPointField], before[kRootField]};
  }
  return std::nullopt;
}

std::optional<std::string> own_group(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line;
       std::getline(file, line);) {  // "4:memory:/path"; the unified hierarchy is "0::/path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers =
        std::string_view(line).substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : lists(controllers, controller))
      return line.substr(second + 1);
  }
  return std::nullopt;
}

/// Folders of this process's group and its ancestors, innermost first, up to the mount point. A
/// group that lies outside what is mounted (a container that sees only its own part) is represented
/// by the mount point itself.
std::vector<std::string> group_folders(const std::string& root, std::string_view controller) {
  const std::optional<Mount> mount = find_mount(root, controller);
  std::optional<std::string> group = own_group(root, controller);
  if (!mount || !group) return {};
  if (mount->shown_root != "/") {
    const bool below = group->starts_with(mount->shown_root);
    *group = below ? group->substr(mount->shown_root.size()) : std::string{};
  }
  if (group->find("..") != std::string::npos) group->clear();
  std::vector<std::string> folders;
  while (!group->empty() && *group != "/") {
    folders.push_back(root + mount->point + *group);
    group->resize(group->find_last_of('/') == std::string::npos ? 0 : group->find_last_of('/'));
  }
  folders.push_back(root + mount->point);
  return folders;
}

/// The names under which the two versions keep the same facts.
struct MemoryFiles {
  std::string_view controller, limit, usage, reclaimable;
};
constexpr std::array<MemoryFiles, 2> kMemoryFiles = {{
    {"", "/memory.max", "/memory.current", "inactive_file"},
    {"memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"},
}};

void apply_memory_group(const std::string& folder, const MemoryFiles& files, MemoryLimits& limits) {
  const std::optional<std::int64_t> limit = number_in_file(folder + std::string(files.limit));
  // Version 1 writes "no limit" as a number near 2^63.
  if (!limit || (limits.total_bytes > 0 && *limit >= limits.total_bytes)) return;
  limits.cgroup_limit_bytes = std::min(limits.cgroup_limit_bytes.value_or(*limit), *limit);
  const std::int64_t usage = number_in_file(folder + std::string(files.usage)).value_or(0);
  // File pages that nobody uses count as usage but are given back before the limit bites.
  const auto stat = read_key_values(folder + "/memory.stat", ' ');
  const auto cache = stat.find(std::string(files.reclaimable));
  const std::int64_t reclaimable =
      cache == stat.end() ? 0 : leading_number(cache->second).value_or(0);
  const std::int64_t room =
      std::max<std::int64_t>(*limit - std::max<std::int64_t>(usage - reclaimable, 0), 0);
  limits.available_bytes = std::min(limits.available_bytes.value_or(room), room);
}

std::optional<std::int64_t> meminfo_bytes(const std::map<std::string, std::string>& meminfo,
                                          const std::string& key) {
  const auto found = meminfo.find(key);
  const std::optional<std::int64_t> kib =
      found == meminfo.end() ? std::nullopt : leading_number(found->second);
  if (!kib || *kib > std::numeric_limits<std::int64_t>::max() / kKib) return std::nullopt;
  return *kib * kKib;
}

}  // namespace

std::optional<std::string> read_small_file(const std::string& path) {
  constexpr std::streamsize kMostBytes = 64 * kKib;
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::string text(static_cast<std::size_t>(kMostBytes), '\0');
  file.read(text.data(), kMostBytes);
  if (file.bad()) return std::nullopt;
  text.resize(static_cast<std::size_t>(file.gcount()));
  const std::size_t last = text.find_last_not_of(" \t\r\n");
  text.resize(last == std::string::npos ? 0 : last + 1);
  return text;
}

std::map<std::string, std::string> read_key_values(const std::string& path, char separator) {
  std::map<std::string, std::string> values;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t at = line.find(separator);
    if (at == std::string::npos) continue;
    const std::string_view text = line;
    values.emplace(trimmed(text.substr(0, at)), trimmed(text.substr(at + 1)));
  }
  return values;
}

std::optional<std::int64_t> leading_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value < 0) return std::nullopt;
  return value;
}

MemoryLimits read_memory_limits(const std::string& root) {
  const auto meminfo = read_key_values(root + "/proc/meminfo", ':');
  MemoryLimits limits;
  limits.total_bytes = meminfo_bytes(meminfo, "MemTotal").value_or(0);
  limits.available_bytes = meminfo_bytes(meminfo, "MemAvailable");
  for (const MemoryFiles& files : kMemoryFiles) {
    for (const std::string& folder : group_folders(root, files.controller))
      apply_memory_group(folder, files, limits);
  }
  return limits;
}

int threads_within(int cpus, std::optional<double> quota, int most) {
  int threads = std::min(cpus, most);
  // Compared as doubles: a quota may be larger than any int.
  if (quota && *quota < threads) threads = static_cast<int>(*quota);
  return std::max(threads, 1);
}

std::optional<double> read_cpu_quota(const std::string& root) {
  std::optional<double> tightest;
  const auto apply = [&](std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
    if (!quota || !period || *quota <= 0 || *period <= 0) return;  // "max" and -1: no quota
    const double cpus = static_cast<double>(*quota) / static_cast<double>(*period);
    tightest = std::min(tightest.value_or(cpus), cpus);
  };
  for (const std::string& folder : group_folders(root, "")) {
    const std::optional<std::string> text =
        read_small_file(folder + "/cpu.max");  // "<quota> <period>"
    const std::size_t space = text ? text->find(' ') : std::string::npos;
    if (space != std::string::npos)
      apply(leading_number(*text), leading_number(std::string_view(*text).substr(space + 1)));
  }
  for (const std::string& folder : group_folders(root, "cpu")) {
    apply(number_in_file(folder + "/cpu.cfs_quota_us"),
          number_in_file(folder + "/cpu.cfs_period_us"));
  }
  return tightest;
}

}  // namespace moebench
