// The command: parses, dispatches, and turns what nobody else could handle into one line and an
// exit code.
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "moebench/cli/check.h"
#include "moebench/cli/console.h"
#include "moebench/cli/list.h"
#include "moebench/cli/options.h"
#include "moebench/cli/run.h"
#include "moebench/cli/signals.h"
#include "moebench/core/error.h"

namespace {

using namespace moebench;
using namespace moebench::cli;

int dispatch(const std::vector<std::string>& argv) {
  const Invocation invocation = parse_command_line({argv.begin() + 1, argv.end()});
  Console console(invocation.run.verbosity, invocation.run.color);
  if (invocation.command != Command::kPrint) {
    for (const std::string& line : unknown_variables(environ)) console.warn(line);
  }
  switch (invocation.command) {
    case Command::kPrint:
      console.out(invocation.text);
      return written(console);
    case Command::kList:
      return list(invocation, console);
    case Command::kEnv:
      return env(invocation, console);
    case Command::kCheck:
      return check(invocation, console);
    case Command::kRun:
      return run(invocation.run, argv, console);
  }
  return 0;
}

int report(int exit_code, const std::string& message) {
  Console(Verbosity::kNormal, ColorMode::kNever).error(message);
  return exit_code;
}

int run_command(int argc, char** argv) {
  open_standard_descriptors();
  install_signal_handlers();
  try {
    std::vector<std::string> words(argv, argv + argc);
    if (words.empty()) words.emplace_back("moebench");
    return dispatch(words);
  } catch (const Error& error) {
    return report(error.exit_code(), error.what());
  } catch (const Interrupted&) {
    return signal_exit_code();
  } catch (const std::bad_alloc&) {
    return report(static_cast<int>(ErrorCode::kOutOfMemory),
                  "host memory ran out; use smaller sizes");
  } catch (const std::exception& unexpected) {
    return report(static_cast<int>(ErrorCode::kInternal), printable(unexpected.what()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int exit_code = run_command(argc, argv);
  // Everything is written and closed: a driver that waits for a hung kernel would keep the process.
  if (exit_may_hang()) std::_Exit(exit_code);
  return exit_code;
}
