#include "moebench/cli/signals.h"

#include <csignal>
#include <cstdlib>
#include <utility>

namespace moebench::cli {
namespace {

constexpr int kSignalExitBase = 128;  // the shell's convention: 128 + signal number

StopFlag stop_requested{false};
std::atomic<int> received_signal{0};
std::atomic<bool> hanging_exit{false};
static_assert(StopFlag::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void on_signal(int signal_number) {
  const int earlier = received_signal.exchange(signal_number);
  if (earlier == SIGINT && signal_number == SIGINT) std::_Exit(kSignalExitBase + SIGINT);
  stop_requested.store(true);
}

void handle(int signal_number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal_number, &action, nullptr);
}

}  // namespace

void install_signal_handlers() {
  handle(SIGINT, on_signal);
  handle(SIGTERM, on_signal);
  handle(SIGPIPE, SIG_IGN);
  handle(SIGXFSZ, SIG_IGN);
}

const StopFlag& stop_flag() { return stop_requested; }
void request_stop() { stop_requested.store(true); }
void throw_if_stopped() {
  if (stop_requested.load()) throw Interrupted{};
}

void expect_hanging_exit() { hanging_exit.store(true); }
bool exit_may_hang() { return hanging_exit.load(); }

int signal_exit_code() {
  const int signal_number = received_signal.load();
  return signal_number == 0 ? 0 : kSignalExitBase + signal_number;
}

WeightSource interruptible(WeightSource source, const StopFlag& stop) {
  auto inner = std::move(source.with_expert);
  source.with_expert = [inner = std::move(inner), &stop](std::int64_t expert,
                                                         const WithExpert& use) {
    if (stop.load(std::memory_order_relaxed)) throw Interrupted{};
    inner(expert, use);
  };
  if (auto row = std::move(source.unquantized_row)) {
    source.unquantized_row = [row = std::move(row), &stop](std::int64_t expert, bool down,
                                                           std::int64_t r, float* out) {
      if (stop.load(std::memory_order_relaxed)) throw Interrupted{};
      row(expert, down, r, out);
    };
  }
  return source;
}

}  // namespace moebench::cli
