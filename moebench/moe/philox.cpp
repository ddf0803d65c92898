// Philox4x32-10: the scalar form, which is the definition, and the choice of a vector form at run
// time.
#include "moebench/moe/philox.h"

#include <cstdlib>
#include <string_view>

#include "moebench/moe/philox_kernels.h"

namespace moebench {
namespace philox {
namespace {

std::int64_t fill_scalar(const RowKey& key, std::int64_t first, std::int64_t count, float* out) {
  PhiloxBlock block{};
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t i = first + n;
    const auto lane = static_cast<std::size_t>(i % kWordsPerBlock);
    if (lane == 0) {
      block = philox4x32(
          key.seed, {static_cast<std::uint32_t>(i / kWordsPerBlock), key.row, key.stream, key.tag});
    }
    out[n] = static_cast<float>(irwin_hall(block[lane])) * key.scale;
  }
  return count;
}

/// MOEBENCH_ISA is read once: the choice must not change within a process. Names above avx512
/// (avx512_bf16, amx) and unknown ones bound nothing here; the backend registry is what refuses an
/// unknown name.
Isa upper_bound() {
  const char* forced = std::getenv("MOEBENCH_ISA");
  for (const Isa isa : kAllIsas) {
    if (forced != nullptr && std::string_view(forced) == name_of(isa)) {
      return isa;
    }
  }
  return Isa::kAvx512;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

Fill fill_for(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return fill_scalar;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") ? avx2_fill() : nullptr;
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? avx512_fill()
                                                                                     : nullptr;
  }
  return nullptr;
}

Fill fastest_fill() {
  static const Fill chosen = [] {
    Fill best = fill_scalar;
    const Isa bound = upper_bound();
    for (const Isa isa : kAllIsas) {
      const Fill candidate = isa <= bound ? fill_for(isa) : nullptr;
      best = candidate != nullptr ? candidate : best;
    }
    return best;
  }();
  return chosen;
}

void fill_values(Fill fill, const RowKey& key, std::int64_t first, std::int64_t count, float* out) {
  const std::int64_t done = fill(key, first, count, out);
  fill_scalar(key, first + done, count - done, out + done);
}

}  // namespace philox

PhiloxBlock philox4x32(std::uint64_t seed, PhiloxBlock counter) {
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{philox::kMultiplier0} * counter[0];
    const std::uint64_t product1 = std::uint64_t{philox::kMultiplier1} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key0,
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key1,
               static_cast<std::uint32_t>(product0)};
    key0 += philox::kWeyl0;
    key1 += philox::kWeyl1;
  }
  return counter;
}

void philox_row_scalar(std::uint64_t seed, Stream stream, std::uint32_t tag, std::uint32_t row,
                       float scale, std::int64_t count, float* out) {
  philox::fill_values(philox::fill_for(philox::Isa::kPortable),
                      {seed, static_cast<std::uint32_t>(stream), tag, row, scale}, 0, count, out);
}

void philox_row(std::uint64_t seed, Stream stream, std::uint32_t tag, std::uint32_t row,
                float scale, std::int64_t count, float* out) {
  philox::fill_values(philox::fastest_fill(),
                      {seed, static_cast<std::uint32_t>(stream), tag, row, scale}, 0, count, out);
}

}  // namespace moebench
