// Philox4x32-10 (Salmon et al., SC'11): the counter-based generator behind weights, tokens and
// routing. Any value can be made again from (seed, stream, position), on any machine, in any order.
#pragma once

#include <array>
#include <cstdint>

namespace moebench {

using PhiloxBlock = std::array<std::uint32_t, 4>;

/// One block for counter (c0..c3) under key (seed low word, seed high word).
[[nodiscard]] PhiloxBlock philox4x32(std::uint64_t seed, PhiloxBlock counter);

/// What a random stream is for; the third counter word, so that no two uses ever share a counter.
enum class Stream : std::uint32_t {
  kGateUp = 1,
  kDown = 2,
  kTokens = 3,
  kLogits = 4,
  kCalibration = 5,
  kSampleRows = 6
};

/// Sum of the four bytes of a word, minus 510: Irwin-Hall(4), near-normal with standard deviation
/// 147.8, within +-510. Times a power of two it is exact in every format involved, cheap on every
/// ISA (psadbw, dp4a).
[[nodiscard]] constexpr std::int32_t irwin_hall(std::uint32_t word) {
  return static_cast<std::int32_t>((word & 0xFF) + ((word >> 8) & 0xFF) + ((word >> 16) & 0xFF) +
                                   (word >> 24)) -
         510;
}

/// `count` values irwin_hall(word_i) * scale of one row: word_i = philox({i/4, row, stream,
/// tag})[i%4]. The plain name is vectorised, same bits.
void philox_row_scalar(std::uint64_t seed, Stream stream, std::uint32_t tag, std::uint32_t row,
                       float scale, std::int64_t count, float* out);
void philox_row(std::uint64_t seed, Stream stream, std::uint32_t tag, std::uint32_t row,
                float scale, std::int64_t count, float* out);

}  // namespace moebench
