// Times the loops of rate_kernels.h on all threads at once and keeps the best pass.
#include "moebench/measure/memory_floor.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "moebench/core/buffer.h"
#include "moebench/core/checked.h"
#include "moebench/measure/fingerprint.h"
#include "moebench/measure/rate_kernels.h"

namespace moebench {
namespace {

constexpr double kReadSeconds = 0.5;  // for further passes, once each kernel has had one
constexpr double kFlopSeconds =
    0.06;  // a pass; long enough for the clock frequency to settle under wide vectors
constexpr int kFlopPasses = 3;
// Of a reading in the midst of a run. The frequency has settled within a millisecond where the
// vectors are as wide before as after.
constexpr std::size_t kReadersNow = 2;  // the fastest two at start: their order is often chance
constexpr double kReadSecondsNow = 0.05;
constexpr double kFlopSecondsNow = 0.01;  // a pass
constexpr int kFlopPassesNow = 3;
constexpr std::int64_t kFreeMemoryShare = 4;  // 1/4 of the available memory at most
constexpr std::int64_t kLeastSlice = std::int64_t{1} << 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::int64_t default_buffer_bytes(int threads) {
  constexpr std::int64_t kMib = std::int64_t{1} << 20;
  return std::max(512 * kMib, 32 * kMib * threads);
}

/// Seconds that all threads take for `steps` steps each.
double seconds_of(const FlopKernel& kernel, int threads, std::int64_t steps) {
  std::atomic<float> kept{0.0F};  // the outcome must be used, or the work is not done
  const auto start = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads)
  kept.store(kernel.run(steps), std::memory_order_relaxed);
  return seconds_since(start);
}

/// Operations of all threads in `steps` steps each.
double operations(const FlopKernel& kernel, int threads, std::int64_t steps) {
  return static_cast<double>(steps) * static_cast<double>(kernel.flops_per_step) * threads;
}

double flops_per_s(const FlopKernel& kernel, int threads, const BetweenPasses& between) {
  constexpr std::int64_t kFirstSteps = 20'000;
  std::int64_t steps = kFirstSteps;
  double seconds = seconds_of(kernel, threads, steps);
  while (seconds < kFlopSeconds / 8) {
    steps *= 4;
    seconds = seconds_of(kernel, threads, steps);
  }
  steps =
      static_cast<std::int64_t>(static_cast<double>(steps) * std::max(kFlopSeconds / seconds, 1.0));
  double best = seconds_of(kernel, threads, steps);
  for (int pass = 1; pass < kFlopPasses; ++pass) {
    between();
    best = std::min(best, seconds_of(kernel, threads, steps));
  }
  return operations(kernel, threads, steps) / best;
}

}  // namespace

/// Memory in one slice per thread, each written first by the thread that reads it (so that it lies
/// on its NUMA node).
class HostRates::Stream {
 public:
  Stream(int threads, std::int64_t bytes, const BetweenPasses& between)
      : threads_(threads),
        slice_bytes_(round_up(std::max(bytes / threads, kLeastSlice), kReadSliceMultiple)),
        buffer_(checked_product("memory rate", {slice_bytes_, threads})) {
    // In parts: the first touch of a page is many times slower than a read.
    constexpr std::int64_t kPartWords = std::int64_t{1} << 22;
    const std::int64_t count = slice_bytes_ / 8;
    for (std::int64_t first = 0; first < count; first += kPartWords) {
      between();
      fill(first, std::min(first + kPartWords, count));
    }
  }

  [[nodiscard]] std::int64_t bytes() const { return buffer_.size(); }

  /// Seconds of one pass over everything.
  [[nodiscard]] double pass(const ReadKernel& kernel) const {
    const std::uint64_t* const words = buffer_.as<std::uint64_t>().data();
    std::uint64_t sum = 0;
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads_) reduction(+ : sum)
    for (std::int64_t slice = omp_get_thread_num(); slice < threads_;
         slice += omp_get_num_threads()) {
      sum += kernel.sum(words + slice * (slice_bytes_ / 8), slice_bytes_);
    }
    const double seconds = seconds_since(start);
    if (sum != expected_sum_) {
      fail(ErrorCode::kInternal,
           "memory rate: {} with {} streams read a sum of {:#x}, not {:#x}; suspect the memory",
           kernel.isa, kernel.streams, sum, expected_sum_);
    }
    return seconds;
  }

 private:
  /// Words `first` to `last` of each slice.
  void fill(std::int64_t first, std::int64_t last) {
    constexpr std::uint64_t kSpread =
        0x9E3779B97F4A7C15;  // odd: consecutive words differ in all bytes
    std::uint64_t* const words = buffer_.as<std::uint64_t>().data();
    const std::int64_t count = slice_bytes_ / 8;
    std::uint64_t sum = 0;
#pragma omp parallel num_threads(threads_) reduction(+ : sum)
    for (std::int64_t slice = omp_get_thread_num(); slice < threads_;
         slice += omp_get_num_threads()) {
      std::uint64_t* const out = words + slice * count;
      for (std::int64_t i = first; i < last; ++i) {
        out[i] = static_cast<std::uint64_t>(slice * count + i + 1) * kSpread;
        sum += out[i];
      }
    }
    expected_sum_ += sum;
  }

  int threads_;
  std::int64_t slice_bytes_;
  Buffer buffer_;
  std::uint64_t expected_sum_ = 0;
};

HostRates::HostRates(int threads, std::int64_t buffer_bytes, const BetweenPasses& between) {
  const BetweenPasses ask = between ? between : [] {};
  at_start_.threads = threads > 0 ? threads : allowed_cpus();
  const std::int64_t wanted =
      buffer_bytes > 0 ? buffer_bytes : default_buffer_bytes(at_start_.threads);
  stream_ = std::make_unique<Stream>(
      at_start_.threads, std::min(wanted, available_memory_bytes() / kFreeMemoryShare), ask);
  at_start_.buffer_bytes = stream_->bytes();
  measure_reading(ask);
  measure_multiply_adds(ask);
}

HostRates::~HostRates() = default;
HostRates::HostRates(HostRates&&) noexcept = default;
HostRates& HostRates::operator=(HostRates&&) noexcept = default;

std::int64_t HostRates::held_bytes() const { return stream_ ? stream_->bytes() : 0; }
void HostRates::release_memory() { stream_.reset(); }

void HostRates::measure_reading(const BetweenPasses& between) {
  const std::vector<ReadKernel> kernels = read_kernels();
  const auto start = std::chrono::steady_clock::now();
  std::vector<double> best(kernels.size());
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    between();
    best[k] = stream_->pass(kernels[k]);
  }
  // The rest of the time goes to the faster half: a slower one does not become the best.
  std::vector<std::size_t> order(kernels.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
  const auto faster = [&](std::size_t a, std::size_t b) { return best[a] < best[b]; };
  std::sort(order.begin(), order.end(), faster);
  order.resize((order.size() + 1) / 2);
  std::size_t turn = 0;
  do {
    between();
    const std::size_t k = order[turn++ % order.size()];
    best[k] = std::min(best[k], stream_->pass(kernels[k]));
  } while (seconds_since(start) < kReadSeconds);
  std::sort(order.begin(), order.end(), faster);
  const ReadKernel& fastest = kernels[order.front()];
  at_start_.read_bytes_per_s = static_cast<double>(stream_->bytes()) / best[order.front()];
  at_start_.read_kind = fmt::format("{}, {} stream{} a thread", fastest.isa, fastest.streams,
                                    fastest.streams == 1 ? "" : "s");
  order.resize(std::min(order.size(), kReadersNow));
  for (const std::size_t k : order) readers_.push_back(kernels[k]);
}

/// The widest form of each kind is the first that flop_kernels() names: for BF16, AMX tiles.
void HostRates::measure_multiply_adds(const BetweenPasses& between) {
  for (const FlopKernel& kernel : flop_kernels()) {
    double& rate = kernel.bf16 ? at_start_.bf16_flops_per_s : at_start_.fp32_flops_per_s;
    if (rate > 0.0) continue;
    between();
    rate = flops_per_s(kernel, at_start_.threads, between);
    multipliers_.push_back(kernel);
    multiplier_rates_.push_back(rate);
    if (rate > at_start_.flops_per_s) {
      at_start_.flops_per_s = rate;
      at_start_.flops_kind =
          fmt::format("{}, {}", kernel.bf16 ? "bf16 dot" : "fp32 multiply-add", kernel.isa);
    }
  }
}

RateReading HostRates::read_now() const {
  RateReading reading;
  if (stream_) {
    const auto start = std::chrono::steady_clock::now();
    std::size_t pass = 0;
    do {
      const double seconds = stream_->pass(readers_[pass++ % readers_.size()]);
      reading.read_bytes_per_s =
          std::max(reading.read_bytes_per_s, static_cast<double>(stream_->bytes()) / seconds);
    } while (pass < readers_.size() || seconds_since(start) < kReadSecondsNow);
  }
  // All kinds: which is the faster at start is chance, too, where one of them had a bad second.
  for (std::size_t k = 0; k < multipliers_.size(); ++k) {
    const FlopKernel& kernel = multipliers_[k];
    const auto steps = static_cast<std::int64_t>(std::max(
        1.0, multiplier_rates_[k] * kFlopSecondsNow / operations(kernel, at_start_.threads, 1)));
    for (int pass = 0; pass < kFlopPassesNow; ++pass) {
      reading.flops_per_s =
          std::max(reading.flops_per_s, operations(kernel, at_start_.threads, steps) /
                                            seconds_of(kernel, at_start_.threads, steps));
    }
  }
  return reading;
}

MachineRates measure_machine_rates(int threads, std::int64_t buffer_bytes,
                                   const BetweenPasses& between) {
  return HostRates(threads, buffer_bytes, between).at_start();
}

double memory_floor_s(std::int64_t weight_bytes, double read_bytes_per_s) {
  return read_bytes_per_s > 0.0 ? static_cast<double>(weight_bytes) / read_bytes_per_s : 0.0;
}

}  // namespace moebench
