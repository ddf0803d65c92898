// The command line and the MOEBENCH_* environment as typed values. Parsing touches no device, no
// memory size and no file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moebench/measure/measure.h"
#include "moebench/moe/layer.h"
#include "moebench/moe/routing.h"
#include "moebench/moe/verify.h"

namespace moebench::cli {

enum class GraphMode : std::uint8_t { kOff, kOn, kBoth };
enum class Format : std::uint8_t { kTable, kMarkdown, kCsv, kJson, kJsonl };
enum class ColorMode : std::uint8_t { kAuto, kAlways, kNever };
enum class Verbosity : std::uint8_t { kQuiet, kNormal, kVerbose };

/// What `run` and `check` are asked to do. Defaults are the original's where it has the flag.
struct RunOptions {
  // Layers and batch sizes.
  std::vector<std::string> models = {"nvidia/DeepSeek-R1-FP4"};
  std::vector<std::int64_t> tp_sizes = {1};
  std::vector<std::int64_t> batch_sizes = {4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
  std::vector<std::int64_t> limit_k;  ///< empty: every K
  std::vector<std::int64_t> limit_n;  ///< empty: every N (after the split)
  std::vector<std::int64_t>
      limit_num_groups;  ///< experts to build and route to; empty: the model's
  std::vector<std::int64_t> per_act_token = {0};
  std::vector<std::int64_t> per_out_ch = {0};
  // Kernels.
  std::string backend = "auto";    ///< or names of backends, separated by commas
  double device_timeout_s = 60.0;  ///< before a device that does not answer is taken for hung
  std::vector<Scheme> schemes = {Scheme::kFp8, Scheme::kNvfp4};
  std::string baseline;              ///< kernel or scheme; empty: the fp8 kernel if there is one
  int threads = 0;                   ///< 0: all
  std::string isa;                   ///< empty: the fastest here
  std::string isa_source = "--isa";  ///< or MOEBENCH_ISA: what to blame for it
  GraphMode graph = GraphMode::kBoth;
  bool autotune = false;  ///< measure tile configurations where a kernel has several
  // Input.
  RoutingSpec routing;
  std::optional<bool> renormalize;  ///< none: as the model does
  ActType act = ActType::kFp16;
  std::uint64_t seed = 0;
  // Measuring.
  CacheMode cache = CacheMode::kWarm;
  StopRule stop;
  std::int64_t runs_per_call = 0;  ///< 0: as many as the clock needs
  bool phases = false;
  bool profile = false;
  CheckSpec check;
  // Output.
  Format format = Format::kTable;
  std::string out;
  std::string journal;
  std::string resume;
  bool dry_run = false;
  ColorMode color = ColorMode::kAuto;
  Verbosity verbosity = Verbosity::kNormal;
};

enum class Command : std::uint8_t { kRun, kCheck, kList, kEnv, kPrint };

/// Which flags were given: `check` has shapes, batch sizes and activation types of its own where
/// not.
struct LayersGiven {
  bool models = false;
  bool batch_sizes = false;
  bool act = false;
  std::string model_filter;  ///< the flag (or variable) that narrows the models' layers; else empty
  std::string routing;       ///< the flag (or variable) that set the routing; else empty
};

struct Invocation {
  Command command = Command::kRun;
  RunOptions run;         ///< kRun, kCheck; its backend, threads and isa also for kList
  LayersGiven given;      ///< kCheck
  std::string list_what;  ///< kList
  bool json = false;      ///< kList, kEnv
  bool rates = false;     ///< kEnv
  std::string text;       ///< kPrint: help or version
};

/// `args` without the program's name. Throws kBadInput with one line that names the flag and its
/// value.
[[nodiscard]] Invocation parse_command_line(const std::vector<std::string>& args);

/// A line for each variable MOEBENCH_... of `environment` that is no flag's: misspelt, it would be
/// ignored unseen. No more than a warning: scripts may have such variables of their own.
[[nodiscard]] std::vector<std::string> unknown_variables(const char* const* environment);

/// The format that `path`'s extension stands for; JSON where it says nothing.
[[nodiscard]] Format format_of_path(const std::string& path);

/// Most CPU threads that may be asked for.
inline constexpr std::int64_t kMaxThreads = 1024;

[[nodiscard]] const char* tool_version();

}  // namespace moebench::cli
