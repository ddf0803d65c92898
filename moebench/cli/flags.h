// Flags with their environment variables: which words belong to which flag. CLI11 splits and
// renders the help; what the words mean is the caller's, by one rule for both sources. The only
// place that knows CLI11.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace moebench::cli {

using Words = std::vector<std::string>;

/// A flag --some-name can also be given as MOEBENCH_SOME_NAME; the flag wins.
class FlagParser {
 public:
  /// Takes the words as given, at least one, and the name to blame: the flag or the variable.
  /// Throws kBadInput.
  using Apply = std::function<void(const std::string& source, const Words& words)>;

  /// Has --help and --version (which prints `version`) from the start.
  /// `command` is what the usage line names: "moebench check".
  FlagParser(const std::string& command, const std::string& description, const std::string& footer,
             const std::string& version);
  ~FlagParser();
  FlagParser(const FlagParser&) = delete;
  FlagParser& operator=(const FlagParser&) = delete;

  /// Heading in the help of the flags that follow.
  void group(const std::string& name);
  /// A flag with one value.
  void value(const std::string& names, const std::string& type, const std::string& help,
             Apply apply);
  /// A flag with one value or more.
  void list(const std::string& names, const std::string& type, const std::string& help,
            Apply apply);
  /// A flag without a value; "--x,!--no-x" gives both senses.
  void toggle(const std::string& names, const std::string& help, std::function<void(bool)> set);
  /// One word without a flag, optional.
  void positional(const std::string& name, const std::string& help, std::string& target);

  /// The environment variables of all its flags.
  [[nodiscard]] Words variables() const;

  /// The text to print for --help and --version, none for a command to run. Throws kBadInput.
  [[nodiscard]] std::optional<std::string> parse(Words args);

 private:
  struct Flag;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moebench::cli
