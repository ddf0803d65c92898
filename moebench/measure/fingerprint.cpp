// Gathers the fingerprint from /proc, /sys, uname and the build. Reads a handful of small files;
// never fails, for a result without one of these facts is still a result.
#include "moebench/measure/fingerprint.h"

#include <fmt/format.h>
#include <omp.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "moebench/measure/build_info.h"
#include "moebench/measure/limits.h"

namespace moebench {
namespace {

const std::string kUnknown = "unknown";
const std::string kNone = "none";

std::string or_unknown(const std::map<std::string, std::string>& values, const std::string& key) {
  const auto found = values.find(key);
  return found == values.end() || found->second.empty() ? kUnknown : found->second;
}

/// The project's names for the ISAs its kernels use, by the kernel's flags that each needs (the
/// kernel lists a feature only if it also saves the registers). "avx512" stands for F, BW, DQ and
/// VL together.
std::string isa_names(const std::string& flags) {
  struct Isa {
    std::string_view name;
    std::vector<std::string_view> needs;
  };
  static const std::vector<Isa> kIsas = {
      {"avx2", {"avx2", "fma", "f16c"}},
      {"avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}},
      {"avx512_bf16", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"}},
      {"avx512_fp16", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_fp16"}},
      {"amx_bf16", {"amx_tile", "amx_bf16"}},
  };
  const std::string padded = " " + flags + " ";
  std::string names;
  for (const Isa& isa : kIsas) {
    const bool has = std::all_of(isa.needs.begin(), isa.needs.end(), [&](std::string_view flag) {
      return padded.find(fmt::format(" {} ", flag)) != std::string::npos;
    });
    if (!has) continue;
    if (!names.empty()) names += ',';
    names += isa.name;
  }
  return names.empty() ? "portable" : names;
}

/// "[always] madvise never" -> "always".
std::string chosen_in_brackets(const std::optional<std::string>& text) {
  if (!text) return kUnknown;
  const std::size_t open = text->find('[');
  const std::size_t close = text->find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return kUnknown;
  return text->substr(open + 1, close - open - 1);
}

std::string cache_size(const std::string& level, const std::string& type) {
  constexpr int kMostCaches = 16;
  for (int index = 0; index < kMostCaches; ++index) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/", index);
    if (read_small_file(folder + "level") != level) continue;
    if (read_small_file(folder + "type") != type) continue;
    const std::optional<std::string> size = read_small_file(folder + "size");
    if (!size) return kUnknown;
    const std::int64_t number = leading_number(*size).value_or(0);
    const std::int64_t unit =
        size->ends_with("M") ? 1024 * 1024 : (size->ends_with("K") ? 1024 : 1);
    return number > 0 ? std::to_string(number * unit) : kUnknown;
  }
  return kUnknown;
}

std::string kernel_release() {
  utsname names{};
  return uname(&names) == 0 ? fmt::format("{} {}", names.sysname, names.release) : kUnknown;
}

std::string architecture() {
  utsname names{};
  return uname(&names) == 0 ? names.machine : kUnknown;
}

void add_cpu(Fingerprint& out) {
  const auto cpu = read_key_values("/proc/cpuinfo", ':');
  const std::optional<double> quota = read_cpu_quota("");
  out.emplace_back("cpu.model", or_unknown(cpu, "model name"));
  out.emplace_back("cpu.vendor", or_unknown(cpu, "vendor_id"));
  out.emplace_back("cpu.architecture", architecture());
  out.emplace_back("cpu.family", or_unknown(cpu, "cpu family"));
  out.emplace_back("cpu.model_number", or_unknown(cpu, "model"));
  out.emplace_back("cpu.stepping", or_unknown(cpu, "stepping"));
  out.emplace_back("cpu.microcode", or_unknown(cpu, "microcode"));
  out.emplace_back("cpu.threads", std::to_string(allowed_cpus()));
  out.emplace_back("cpu.online", std::to_string(sysconf(_SC_NPROCESSORS_ONLN)));
  out.emplace_back("cpu.quota", quota ? fmt::format("{:.2f}", *quota) : kNone);
  out.emplace_back("cpu.isa", isa_names(or_unknown(cpu, "flags")));
  out.emplace_back("cpu.l1d_bytes", cache_size("1", "Data"));
  out.emplace_back("cpu.l2_bytes", cache_size("2", "Unified"));
  out.emplace_back("cpu.l3_bytes", cache_size("3", "Unified"));
  out.emplace_back(
      "cpu.governor",
      read_small_file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").value_or(kUnknown));
}

void add_memory(Fingerprint& out) {
  const MemoryLimits limits = read_memory_limits("");
  out.emplace_back("memory.total_bytes",
                   limits.total_bytes > 0 ? std::to_string(limits.total_bytes) : kUnknown);
  out.emplace_back("memory.available_bytes", std::to_string(available_memory_bytes()));
  out.emplace_back("memory.cgroup_limit_bytes",
                   limits.cgroup_limit_bytes ? std::to_string(*limits.cgroup_limit_bytes) : kNone);
  out.emplace_back(
      "memory.huge_pages",
      chosen_in_brackets(read_small_file("/sys/kernel/mm/transparent_hugepage/enabled")));
}

void add_build(Fingerprint& out) {
  const BuildInfo& build = build_info();
  const auto text = [](std::string_view value) {
    return value.empty() ? kNone : std::string(value);
  };
  out.emplace_back("build.version", build.version);
  out.emplace_back("build.commit", build.commit);
  out.emplace_back("build.compiler", build.compiler);
  out.emplace_back("build.flags", text(build.flags));
  out.emplace_back("build.type", text(build.type));
  out.emplace_back("build.sanitizers", text(build.sanitizers));
  out.emplace_back("build.thread_library", build.thread_library);
  out.emplace_back("build.cuda", build.cuda);
}

}  // namespace

Fingerprint fingerprint() {
  Fingerprint out;
  add_cpu(out);
  add_memory(out);
  out.emplace_back("os.kernel", kernel_release());
  add_build(out);
  return out;
}

Fingerprint comparable_facts() {
  constexpr std::string_view kOfTheCpu[] = {"cpu.model",   "cpu.vendor",       "cpu.architecture",
                                            "cpu.family",  "cpu.model_number", "cpu.stepping",
                                            "cpu.threads", "cpu.quota",        "cpu.isa"};
  Fingerprint facts = fingerprint();
  std::erase_if(facts, [&](const auto& fact) {
    return !fact.first.starts_with("build.") &&
           std::find(std::begin(kOfTheCpu), std::end(kOfTheCpu), fact.first) == std::end(kOfTheCpu);
  });
  return facts;
}

std::int64_t available_memory_bytes() {
  const MemoryLimits limits = read_memory_limits("");
  if (limits.available_bytes) return *limits.available_bytes;
  return std::int64_t{sysconf(_SC_AVPHYS_PAGES)} *
         sysconf(_SC_PAGESIZE);  // no /proc: free pages, a low estimate
}

int default_threads() {
  return threads_within(allowed_cpus(), read_cpu_quota(""), omp_get_thread_limit());
}

int allowed_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  // The fixed set holds 1024 CPUs; the call fails on a larger machine, where all online ones are
  // the best guess.
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(CPU_COUNT(&allowed), 1);
  return static_cast<int>(std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L));
}

}  // namespace moebench
