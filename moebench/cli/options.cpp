// Which flags each command has, and what their words mean.
#include "moebench/cli/options.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "moebench/cli/flags.h"
#include "moebench/cli/values.h"
#include "moebench/core/error.h"
#include "moebench/model/presets.h"

namespace moebench::cli {
namespace {

constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMaxTpSize = 1 << 20;

const std::vector<std::string> kCommands = {"run", "list", "check", "env"};
const std::vector<std::string> kFormats = {"table", "md", "csv", "json", "jsonl"};
const std::vector<std::string> kGraphModes = {"off", "on", "both"};
const std::vector<std::string> kColorModes = {"auto", "always", "never"};
const std::vector<std::string> kBackends = {"auto", "cpu", "cuda", "triton", "cutlass"};
const std::vector<std::string> kActs = {"fp16", "bf16"};
const std::vector<std::string> kListKinds = {"models", "backends", "schemes", "routings"};

constexpr const char* kCommandsHelp =
    "Which low-precision MoE kernel is fastest for this layer on this machine, and is its answer "
    "right?\n"
    "\n"
    "Commands: run (the default)  measure, each answer verified first\n"
    "          list WHAT          models, backends, schemes or routings\n"
    "          check              correctness only: every kernel against the reference\n"
    "          env                what this machine is";
constexpr const char* kHelpFooter =
    "Lists are separated by spaces or commas; 1:64:8 and 1:4096:x2 are ranges. Each flag can also "
    "be\n"
    "given as an environment variable: MOEBENCH_BATCH_SIZES=\"16 32\". Exit codes: 0 ok, 1 a wrong "
    "answer,\n"
    "2 bad input, 4 nothing could run, 5 not enough memory, 6 output not written, 130/143 "
    "interrupted.";

std::string version_text() { return fmt::format("moebench {}", tool_version()); }

FlagParser::Apply integers(std::vector<std::int64_t>& target, std::int64_t low, std::int64_t high) {
  return [&target, low, high](const std::string& source, const Words& words) {
    target = parse_integer_list(source, words, low, high);
  };
}

/// `what` is named where the word is empty: "a file".
FlagParser::Apply word_into(std::string& target, const char* what) {
  return [&target, what](const std::string& source, const Words& words) {
    if (words.front().empty()) fail(ErrorCode::kBadInput, "{}: empty; name {}", source, what);
    target = words.front();
  };
}

template <typename Enum>
FlagParser::Apply choice(Enum& target, const std::vector<std::string>& names) {
  return [&target, &names](const std::string& source, const Words& words) {
    target = static_cast<Enum>(parse_choice(source, words.front(), names));
  };
}

/// For the parsers of other folders, whose messages need not know which flag the text came from.
template <typename Value, typename Parse>
FlagParser::Apply parsed(Value& target, Parse parse) {
  return [&target, parse](const std::string& source, const Words& words) {
    try {
      target = parse(words.front());
    } catch (const Error& error) {
      const std::string_view what = error.what();
      if (what.starts_with("--")) throw;
      fail(error.code(), "{}: {}", source, what);
    }
  };
}

void apply_models(RunOptions& options, const std::string& source, const Words& words) {
  options.models = split_list(words);
  if (options.models.empty()) {
    fail(ErrorCode::kBadInput, "{}: no model given; see moebench list models", source);
  }
  if (std::ssize(options.models) > kMaxListValues) {
    fail(ErrorCode::kBadInput, "{}: more than {} names; split the run", source, kMaxListValues);
  }
}

void apply_schemes(RunOptions& options, const std::string& source, const Words& words) {
  Words names;
  for (const Scheme scheme : kAllSchemes) names.emplace_back(name_of(scheme));
  options.schemes.clear();
  for (const std::string& item : split_list(words)) {
    const Scheme scheme = kAllSchemes[parse_choice(source, item, names)];
    if (std::count(options.schemes.begin(), options.schemes.end(), scheme) == 0) {
      options.schemes.push_back(scheme);
    }
  }
  if (options.schemes.empty()) {
    fail(ErrorCode::kBadInput, "{}: no scheme given; use some of {}", source,
         fmt::join(names, ", "));
  }
}

void apply_backends(RunOptions& options, const std::string& source, const Words& words) {
  Words names;
  for (const std::string& item : split_list(words)) {
    const std::string& name = kBackends[parse_choice(source, item, kBackends)];
    if (std::count(names.begin(), names.end(), name) == 0) names.push_back(name);
  }
  if (names.empty()) {
    fail(ErrorCode::kBadInput, "{}: no backend given; use some of {}", source,
         fmt::join(kBackends, ", "));
  }
  if (names.size() > 1 && std::count(names.begin(), names.end(), "auto") > 0) {
    fail(ErrorCode::kBadInput, "{}: auto beside another; name backends, or auto alone", source);
  }
  options.backend = fmt::format("{}", fmt::join(names, ","));
}

/// What the help of a command says of its defaults.
struct LayerDefaults {
  const char* models;
  const char* batch_sizes;
  const char* switches;  ///< of the two fp8 scale switches
};
constexpr LayerDefaults kRunDefaults = {"nvidia/DeepSeek-R1-FP4", "4 8 16 ... 2048", "0"};
constexpr LayerDefaults kCheckDefaults = {"small shapes at the kernels' boundaries",
                                          "0 to 48; with --models 4 8 16 ... 2048", "0 1"};

/// A flag that narrows or splits the models' layers.
void add_filter_flag(FlagParser& flags, LayersGiven& given, const char* name, const char* help,
                     std::vector<std::int64_t>& target, std::int64_t high) {
  flags.list(name, "N", help, [&, high](const std::string& source, const Words& words) {
    target = parse_integer_list(source, words, 1, high);
    given.model_filter = source;
  });
}

void add_layer_flags(FlagParser& flags, RunOptions& options, LayersGiven& given,
                     const LayerDefaults& defaults) {
  flags.group("Layers");
  flags.list("--models", "NAME", fmt::format("Presets ({})", defaults.models),
             [&options, &given](const std::string& source, const Words& words) {
               apply_models(options, source, words);
               given.models = true;
             });
  add_filter_flag(flags, given, "--tp-sizes", "Tensor-parallel splits of N (1)", options.tp_sizes,
                  kMaxTpSize);
  flags.list("--batch-sizes", "N", fmt::format("Tokens M ({})", defaults.batch_sizes),
             [&options, &given](const std::string& source, const Words& words) {
               options.batch_sizes = parse_integer_list(source, words, 0, kMaxInt64);
               given.batch_sizes = true;
             });
  add_filter_flag(flags, given, "--limit-k", "Keep only these K", options.limit_k, kMaxInt64);
  add_filter_flag(flags, given, "--limit-n", "Keep only these N, after the split", options.limit_n,
                  kMaxInt64);
  add_filter_flag(flags, given, "--limit-num-groups",
                  "Experts to build and route to, one layer each (the model's)",
                  options.limit_num_groups, kMaxInt64);
  flags.list("--limit-per-act-token", "0|1",
             fmt::format("fp8: scale per token, per tensor or both ({})", defaults.switches),
             integers(options.per_act_token, 0, 1));
  flags.list(
      "--limit-per-out-ch", "0|1",
      fmt::format("fp8: scale per output channel, per tensor or both ({})", defaults.switches),
      integers(options.per_out_ch, 0, 1));
}

void add_autotune_flag(FlagParser& flags, RunOptions& options) {
  flags.group("Kernels");
  flags.toggle("--autotune",
               "Measure triton_moe's tile configurations first, kept in the user's cache",
               [&options](bool on) { options.autotune = on; });
}

void add_machine_flags(FlagParser& flags, RunOptions& options) {
  flags.group("Kernels");
  flags.list("--backend", "auto|cpu|cuda|triton|cutlass",
             "Whose kernels, side by side (auto: the fastest here)",
             [&options](const std::string& source, const Words& words) {
               apply_backends(options, source, words);
             });
  flags.value("--device-timeout", "S", "Seconds before a silent device is taken for hung (60)",
              [&options](const std::string& source, const Words& words) {
                constexpr std::int64_t kMaxTimeout = 86'400;
                options.device_timeout_s =
                    static_cast<double>(parse_integer(source, words.front(), 1, kMaxTimeout));
              });
  flags.value("--threads", "N", "CPU threads (one for each CPU here)",
              [&options](const std::string& source, const Words& words) {
                options.threads =
                    static_cast<int>(parse_integer(source, words.front(), 0, kMaxThreads));
              });
  flags.value("--isa", "NAME", "Force the CPU path: portable, avx2, ... (the fastest here)",
              [&options](const std::string& source, const Words& words) {
                word_into(options.isa, "an ISA, as moebench check lists them")(source, words);
                options.isa_source = source;
              });
}

void add_scheme_flag(FlagParser& flags, RunOptions& options, const std::string& defaults) {
  flags.group("Kernels");
  flags.list("--schemes", "NAME", fmt::format("nvfp4, nvfp4-w4a16, fp8, fp8-block ({})", defaults),
             [&options](const std::string& source, const Words& words) {
               apply_schemes(options, source, words);
             });
}

void add_input_flags(FlagParser& flags, RunOptions& options, LayersGiven& given,
                     const char* default_act) {
  flags.group("Input");
  flags.value("--routing", "SPEC",
              "uniform, balanced, zipf:S, hot:K@F, single or trace:FILE (uniform)",
              [&options, &given](const std::string& source, const Words& words) {
                parsed(options.routing, parse_routing)(source, words);
                given.routing = source;
              });
  flags.toggle("--renormalize,!--no-renormalize",
               "Top-k weights divided by their sum, or not (as the model)",
               [&options](bool on) { options.renormalize = on; });
  flags.value("--act", "fp16|bf16", fmt::format("16-bit activation type ({})", default_act),
              [&options, &given](const std::string& source, const Words& words) {
                choice(options.act, kActs)(source, words);
                given.act = true;
              });
  flags.value("--seed", "N", "Of weights, tokens and routing (0)",
              [&options](const std::string& source, const Words& words) {
                options.seed = parse_unsigned(source, words.front());
              });
}

void add_measure_flags(FlagParser& flags, RunOptions& options) {
  flags.group("Kernels");
  flags.value("--baseline", "NAME", "Kernel or scheme that speed-ups are over (the fp8 kernel)",
              word_into(options.baseline, "a kernel or a scheme"));
  flags.value("--graph", "off|on|both", "CUDA graph replay (both, where there is such a thing)",
              choice(options.graph, kGraphModes));
  flags.group("Measuring");
  flags.value("--cache", "warm|cold|rotate", "State of the caches before a call (warm)",
              parsed(options.cache, parse_cache_mode));
  flags.value("--stop", "RULE", "stdrel:0.5%, time:5s or count:100 (stdrel:0.5%)",
              parsed(options.stop, parse_stop_rule));
  flags.value("--runs-per-call", "N",
              "Calls per sample; times are always per call (as the clock needs)",
              [&options](const std::string& source, const Words& words) {
                constexpr std::int64_t kMaxRuns = 1'000'000;
                options.runs_per_call = parse_integer(source, words.front(), 0, kMaxRuns);
              });
  flags.value("--check", "SPEC", "full, sample:N or off (sample:8)",
              parsed(options.check, parse_check));
  flags.toggle("--phases", "Also time the phases of a call",
               [&options](bool on) { options.phases = on; });
  flags.toggle("--profile", "One call per case after one verified run, for a profiler",
               [&options](bool on) { options.profile = on; });
}

void add_output_flags(FlagParser& flags, RunOptions& options) {
  flags.group("Output");
  flags.value("-o,--format", "NAME", "table, md, csv, json or jsonl on stdout (table)",
              choice(options.format, kFormats));
  flags.value("--out", "FILE", "Also to FILE, in the format of its extension (json)",
              word_into(options.out, "a file"));
  flags.value("--journal", "FILE", "Append each finished case (FILE.journal of --out)",
              word_into(options.journal, "a file"));
  flags.value("--resume", "FILE", "Skip the cases that this journal holds, and go on in it",
              word_into(options.resume, "a file"));
  flags.toggle("--dry-run", "Print the plan with its memory estimates and exit",
               [&options](bool on) { options.dry_run = on; });
}

void add_console_flags(FlagParser& flags, RunOptions& options) {
  flags.group("Output");
  flags.value("--color", "auto|always|never", "Colours in the table (auto)",
              choice(options.color, kColorModes));
  flags.toggle("-q,--quiet", "No notes and no progress", [&options](bool on) {
    if (on) options.verbosity = Verbosity::kQuiet;
  });
  flags.toggle("-v,--verbose", "Say more on stderr", [&options](bool on) {
    if (on) options.verbosity = Verbosity::kVerbose;
  });
}

void add_run_flags(FlagParser& flags, Invocation& invocation) {
  add_layer_flags(flags, invocation.run, invocation.given, kRunDefaults);
  add_scheme_flag(flags, invocation.run, "fp8,nvfp4");
  add_machine_flags(flags, invocation.run);
  add_autotune_flag(flags, invocation.run);
  add_input_flags(flags, invocation.run, invocation.given, "fp16");
  add_measure_flags(flags, invocation.run);
  add_output_flags(flags, invocation.run);
  add_console_flags(flags, invocation.run);
}

std::optional<std::string> parse_run(Invocation& invocation, const Words& args) {
  FlagParser flags("moebench", kCommandsHelp, kHelpFooter, version_text());
  add_run_flags(flags, invocation);
  return flags.parse(args);
}

void add_check_flags(FlagParser& flags, Invocation& invocation) {
  add_layer_flags(flags, invocation.run, invocation.given, kCheckDefaults);
  add_scheme_flag(flags, invocation.run, "all");
  add_machine_flags(flags, invocation.run);
  add_autotune_flag(flags, invocation.run);
  add_input_flags(flags, invocation.run, invocation.given, "both; with --models fp16");
  add_console_flags(flags, invocation.run);
}

std::optional<std::string> parse_check_command(Invocation& invocation, const Words& args) {
  FlagParser flags("moebench check",
                   "moebench check: every kernel, scheme option and CPU path against the reference",
                   kHelpFooter, version_text());
  add_check_flags(flags, invocation);
  const LayersGiven& given = invocation.given;
  invocation.run.schemes.assign(std::begin(kAllSchemes), std::end(kAllSchemes));
  invocation.run.per_act_token = {0, 1};
  invocation.run.per_out_ch = {0, 1};
  if (std::optional<std::string> text = flags.parse(args)) return text;
  // What would be ignored is refused: a check that passed must be the one that was asked for.
  if (!given.models && !given.model_filter.empty()) {
    fail(ErrorCode::kBadInput, "{}: check's own shapes have none of it; add --models",
         given.model_filter);
  }
  if (!given.models && !given.batch_sizes && !given.routing.empty()) {
    fail(ErrorCode::kBadInput, "{}: check's own batch sizes have their own; add --batch-sizes",
         given.routing);
  }
  return std::nullopt;
}

void add_list_flags(FlagParser& flags, Invocation& invocation) {
  flags.positional("what", "models, backends, schemes or routings", invocation.list_what);
  add_machine_flags(flags, invocation.run);
  flags.group("Output");
  flags.toggle("--json", "As JSON", [&invocation](bool on) { invocation.json = on; });
  add_console_flags(flags, invocation.run);
}

std::optional<std::string> parse_list(Invocation& invocation, const Words& args) {
  FlagParser flags(
      "moebench list",
      "moebench list models|backends|schemes|routings: what is there, and why not where not",
      kHelpFooter, version_text());
  add_list_flags(flags, invocation);
  if (std::optional<std::string> text = flags.parse(args)) return text;
  if (invocation.list_what.empty()) {
    fail(ErrorCode::kBadInput, "list: nothing named; use one of {}", fmt::join(kListKinds, ", "));
  }
  (void)parse_choice("list", invocation.list_what, kListKinds);
  return std::nullopt;
}

void add_env_flags(FlagParser& flags, Invocation& invocation) {
  flags.group("Output");
  flags.toggle("--json", "As JSON", [&invocation](bool on) { invocation.json = on; });
  flags.toggle("--rates", "Also measure the read bandwidth and the peak arithmetic rate",
               [&invocation](bool on) { invocation.rates = on; });
  add_machine_flags(flags, invocation.run);
  add_console_flags(flags, invocation.run);
}

std::optional<std::string> parse_env(Invocation& invocation, const Words& args) {
  FlagParser flags("moebench env", "moebench env: the machine, as every result records it",
                   kHelpFooter, version_text());
  add_env_flags(flags, invocation);
  return flags.parse(args);
}

/// Of the flags of all commands: a variable that is set for one is no mistake under another.
Words known_variables() {
  Words names = {"MOEBENCH_TEST_ROUNDS"};  // the tests' own
  for (const auto add_flags : {add_run_flags, add_check_flags, add_list_flags, add_env_flags}) {
    Invocation unused;
    FlagParser flags("", "", "", "");
    add_flags(flags, unused);
    const Words of_command = flags.variables();
    names.insert(names.end(), of_command.begin(), of_command.end());
  }
  return names;
}

}  // namespace

Invocation parse_command_line(const std::vector<std::string>& args) {
  Invocation invocation;
  Words rest = args;
  std::string command = "run";
  if (!rest.empty() && !rest.front().starts_with('-')) {
    command = rest.front();
    rest.erase(rest.begin());
    if (std::count(kCommands.begin(), kCommands.end(), command) == 0) {
      fail(ErrorCode::kBadInput, "{}: unknown command, there are {}{}", printable(command),
           fmt::join(kCommands, ", "), suggestion(command, kCommands));
    }
  }
  std::optional<std::string> text;
  if (command == "check") {
    invocation.command = Command::kCheck;
    text = parse_check_command(invocation, rest);
  } else if (command == "list") {
    invocation.command = Command::kList;
    text = parse_list(invocation, rest);
  } else if (command == "env") {
    invocation.command = Command::kEnv;
    text = parse_env(invocation, rest);
  } else {
    text = parse_run(invocation, rest);
  }
  if (text) {
    invocation.command = Command::kPrint;
    invocation.text = *text;
  }
  return invocation;
}

std::vector<std::string> unknown_variables(const char* const* environment) {
  constexpr std::string_view kPrefix = "MOEBENCH_";
  Words messages;
  Words known;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view variable = *environment;
    const std::size_t equals = variable.find('=');
    if (!variable.starts_with(kPrefix) || equals >= variable.size() - 1) continue;
    if (known.empty()) known = known_variables();
    const std::string name(variable.substr(0, equals));
    if (std::count(known.begin(), known.end(), name) > 0) continue;
    // Without what all names have in common: a misspelling may be a third of the rest.
    Words rests;
    for (const std::string& other : known) rests.push_back(other.substr(kPrefix.size()));
    const std::string closest = closest_name(name.substr(kPrefix.size()), rests);
    messages.push_back(fmt::format("{}: no such variable, its value '{}' is ignored; {}",
                                   printable(name), printable(variable.substr(equals + 1)),
                                   closest.empty()
                                       ? "see moebench --help"
                                       : fmt::format("did you mean {}{}?", kPrefix, closest)));
  }
  return messages;
}

Format format_of_path(const std::string& path) {
  const auto ends = [&path](std::string_view extension) {
    return std::string_view(path).ends_with(extension);
  };
  if (ends(".jsonl")) return Format::kJsonl;
  if (ends(".csv")) return Format::kCsv;
  if (ends(".md")) return Format::kMarkdown;
  if (ends(".txt")) return Format::kTable;
  return Format::kJson;
}

const char* tool_version() { return MOEBENCH_VERSION; }

}  // namespace moebench::cli
