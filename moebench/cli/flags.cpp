#include "moebench/cli/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <utility>

#include "moebench/cli/values.h"
#include "moebench/core/error.h"

namespace moebench::cli {
namespace {

constexpr std::size_t kHelpColumn = 36;

/// "tp-sizes" -> "MOEBENCH_TP_SIZES", whatever the locale.
std::string variable_of(const std::string& flag) {
  std::string variable = "MOEBENCH_" + flag;
  for (char& c : variable) {
    if (c == '-') c = '_';
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return variable;
}

/// CLI11 marks the negative form of a toggle with "{false}", and leaves two empty lines between
/// groups.
std::string tidy(std::string help) {
  for (const auto& [clutter, instead] :
       {std::pair<std::string_view, std::string_view>{"{false}", ""}, {"\n\n\n", "\n\n"}}) {
    std::size_t at = 0;
    while ((at = help.find(clutter, at)) != std::string::npos) {
      help.replace(at, clutter.size(), instead);
    }
  }
  return help;
}

}  // namespace

struct FlagParser::Flag {
  Apply apply;
  Words words;
  bool is_toggle = false;
  bool on = false;
  CLI::Option* option = nullptr;
};

struct FlagParser::Impl {
  Impl(const std::string& command, const std::string& description) : app(description, command) {}

  Flag& add(Apply apply) {
    Flag& flag = flags.emplace_back();
    flag.apply = std::move(apply);
    return flag;
  }

  /// CLI11 takes whatever follows a flag for its value: "--out --quiet" would name a file.
  void require_no_flag_as_value(const Flag& flag) const {
    if (flag.is_toggle) return;
    for (const std::string& word : flag.words) {
      if (!word.starts_with('-') || app.get_option_no_throw(word) == nullptr) continue;
      fail(ErrorCode::kBadInput, "--{}: no value given, {} follows; give one before it",
           flag.option->get_lnames().front(), word);
    }
  }

  /// CLI11's own words for a wrong number of values name neither the flag's use nor a remedy.
  [[noreturn]] static void refuse_count(const std::string& message) {
    const std::string flag = message.substr(0, message.find(':'));
    if (message.find("At Most") != std::string::npos) {
      fail(ErrorCode::kBadInput, "{}: given more than once; give it once", printable(flag));
    }
    fail(ErrorCode::kBadInput, "{}: no value given; see moebench --help", printable(flag));
  }

  static void apply(const Flag& flag) {
    const std::string& name = flag.option->get_lnames().front();
    const std::string variable = variable_of(name);
    if (flag.option->count() > 0) {
      flag.apply("--" + name, flag.is_toggle ? Words{flag.on ? "1" : "0"} : flag.words);
    } else if (const char* text = std::getenv(variable.c_str()); text != nullptr && *text != '\0') {
      flag.apply(variable, {text});
    }
  }

  [[noreturn]] void refuse(const std::string& word) const {
    const std::string name = word.substr(0, word.find('='));
    if (!word.starts_with('-')) {
      fail(ErrorCode::kBadInput, "{}: unexpected argument; see moebench --help", printable(word));
    }
    Words names;
    for (const Flag& flag : flags) {
      for (const std::string& known : flag.option->get_lnames()) names.push_back("--" + known);
    }
    std::string hint = suggestion(name, names);
    if (hint.empty()) hint = "; see moebench --help";
    fail(ErrorCode::kBadInput, "{}: unknown flag{}", printable(name), hint);
  }

  CLI::App app;
  std::string group;
  std::deque<Flag> flags;  // a deque: CLI11 keeps references to what it fills
};

FlagParser::FlagParser(const std::string& command, const std::string& description,
                       const std::string& footer, const std::string& version)
    : impl_(std::make_unique<Impl>(command, description)) {
  CLI::App& app = impl_->app;
  app.allow_extras();
  app.set_help_flag("-h,--help", "Show this and exit")->group("General");
  app.set_version_flag("-V,--version", version, "Show the version and exit")->group("General");
  app.get_formatter()->column_width(kHelpColumn);
  app.footer(footer);
}

FlagParser::~FlagParser() = default;

void FlagParser::group(const std::string& name) { impl_->group = name; }

void FlagParser::value(const std::string& names, const std::string& type, const std::string& help,
                       Apply apply) {
  Flag& flag = impl_->add(std::move(apply));
  flag.words.resize(1);
  flag.option = impl_->app.add_option(names, flag.words.front(), help)->type_name(type);
  flag.option->group(impl_->group);
}

void FlagParser::list(const std::string& names, const std::string& type, const std::string& help,
                      Apply apply) {
  Flag& flag = impl_->add(std::move(apply));
  flag.option = impl_->app.add_option(names, flag.words, help)->type_name(type);
  flag.option->group(impl_->group);
}

void FlagParser::toggle(const std::string& names, const std::string& help,
                        std::function<void(bool)> set) {
  Flag& flag = impl_->add([set = std::move(set)](const std::string& source, const Words& words) {
    set(parse_switch(source, words.front()));
  });
  flag.is_toggle = true;
  flag.option = impl_->app.add_flag(names, flag.on, help);
  flag.option->group(impl_->group);
}

void FlagParser::positional(const std::string& name, const std::string& help, std::string& target) {
  impl_->app.add_option(name, target, help)->type_name("");
}

Words FlagParser::variables() const {
  Words names;
  for (const Flag& flag : impl_->flags)
    names.push_back(variable_of(flag.option->get_lnames().front()));
  return names;
}

std::optional<std::string> FlagParser::parse(Words args) {
  std::reverse(args.begin(), args.end());
  try {
    impl_->app.parse(std::move(args));
  } catch (const CLI::CallForHelp&) {
    return tidy(impl_->app.help());
  } catch (const CLI::CallForVersion& version) {
    return fmt::format("{}\n", version.what());
  } catch (const CLI::ArgumentMismatch& error) {
    Impl::refuse_count(error.what());
  } catch (const CLI::ParseError& error) {
    fail(ErrorCode::kBadInput, "{}; see moebench --help", printable(error.what()));
  }
  if (const Words extras = impl_->app.remaining(); !extras.empty()) impl_->refuse(extras.front());
  for (const Flag& flag : impl_->flags) impl_->require_no_flag_as_value(flag);
  for (const Flag& flag : impl_->flags) Impl::apply(flag);
  return std::nullopt;
}

}  // namespace moebench::cli
