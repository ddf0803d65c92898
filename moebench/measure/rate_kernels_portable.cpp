// Rate loops for architectures without hand-written ones: plain loops that the compiler vectorises
// for its baseline.
#include <array>

#include "moebench/measure/rate_kernels.h"

namespace moebench {
namespace {

template <int kStreams>
std::uint64_t sum_words(const std::uint64_t* words, std::int64_t bytes) {
  const std::int64_t stream = bytes / 8 / kStreams;
  std::array<std::uint64_t, kStreams> sums{};
  for (std::int64_t i = 0; i < stream; ++i) {
    for (int s = 0; s < kStreams; ++s) sums[static_cast<std::size_t>(s)] += words[s * stream + i];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

constexpr std::size_t kChains = 32;

float multiply_add(std::int64_t steps) {
  volatile float factor_source = 0.999F;
  volatile float term_source = 0.001F;
  const float factor = factor_source;
  const float term = term_source;
  std::array<float, kChains> chains{};
  for (std::int64_t step = 0; step < steps; ++step) {
    for (float& chain : chains) chain = chain * factor + term;
  }
  float total = 0.0F;
  for (const float chain : chains) total += chain;
  return total;
}

}  // namespace

std::vector<ReadKernel> read_kernels() {
  return {
      {"portable", 1, sum_words<1>}, {"portable", 4, sum_words<4>}, {"portable", 8, sum_words<8>}};
}

std::vector<FlopKernel> flop_kernels() { return {{"portable", false, 2 * kChains, multiply_add}}; }

}  // namespace moebench
