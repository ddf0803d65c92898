// philox_row with AVX-512 (F, BW): eight counters at a time, one per 64-bit lane, so that the 32x32
// -> 64 multiply needs no shuffles. Only the low half of a lane is meaningful between rounds;
// vpmuludq ignores the rest.
#include <immintrin.h>

#include "moebench/moe/philox_kernels.h"

namespace moebench::philox {
namespace {

constexpr std::int64_t kBlocksPerStep = 8;
constexpr std::int64_t kValuesPerStep = kBlocksPerStep * kWordsPerBlock;
constexpr int kXor3 = 0x96;  // vpternlog truth table of a ^ b ^ c

/// Two state words interleaved: each 64-bit lane becomes (low word, high word).
__m512i interleave(__m512i low, __m512i high) {
  return _mm512_mask_mov_epi32(low, 0xAAAA, _mm512_slli_epi64(high, 32));
}

/// irwin_hall(word) * scale for 16 words: byte pairs, then 16-bit pairs, are summed by
/// multiply-adds with ones.
__m512 values_of(__m512i words, __m512 scale) {
  const __m512i pairs = _mm512_maddubs_epi16(words, _mm512_set1_epi8(1));
  const __m512i sums = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  const __m512i centred = _mm512_sub_epi32(sums, _mm512_set1_epi32(kByteSumMean));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(centred), scale);
}

std::int64_t fill(const RowKey& key, std::int64_t first, std::int64_t count, float* out) {
  const __m512i multiplier0 = _mm512_set1_epi64(kMultiplier0);
  const __m512i multiplier1 = _mm512_set1_epi64(kMultiplier1);
  __m512i keys0[kRounds];
  __m512i keys1[kRounds];
  for (int round = 0; round < kRounds; ++round) {
    const auto r = static_cast<std::uint32_t>(round);
    keys0[round] = _mm512_set1_epi64(static_cast<std::uint32_t>(key.seed) + r * kWeyl0);
    keys1[round] = _mm512_set1_epi64(static_cast<std::uint32_t>(key.seed >> 32) + r * kWeyl1);
  }
  // Blocks 0..3 in the even lanes, 4..7 in the odd ones: the 128-bit unpacks below then leave
  // values in order.
  __m512i position = _mm512_add_epi64(_mm512_set1_epi64(first / kWordsPerBlock),
                                      _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
  const __m512i row = _mm512_set1_epi64(key.row);
  const __m512i stream = _mm512_set1_epi64(key.stream);
  const __m512i tag = _mm512_set1_epi64(key.tag);
  const __m512 scale = _mm512_set1_ps(key.scale);

  const std::int64_t steps = count / kValuesPerStep;
  for (std::int64_t step = 0; step < steps; ++step) {
    __m512i c0 = position;
    __m512i c1 = row;
    __m512i c2 = stream;
    __m512i c3 = tag;
    for (int round = 0; round < kRounds; ++round) {
      const __m512i product0 = _mm512_mul_epu32(c0, multiplier0);
      const __m512i product1 = _mm512_mul_epu32(c2, multiplier1);
      c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), c1, keys0[round], kXor3);
      c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c3, keys1[round], kXor3);
      c1 = product1;
      c3 = product0;
    }
    const __m512i words01 = interleave(c0, c1);
    const __m512i words23 = interleave(c2, c3);
    float* to = out + step * kValuesPerStep;
    _mm512_storeu_ps(to, values_of(_mm512_unpacklo_epi64(words01, words23), scale));
    _mm512_storeu_ps(to + kValuesPerStep / 2,
                     values_of(_mm512_unpackhi_epi64(words01, words23), scale));
    position = _mm512_add_epi64(position, _mm512_set1_epi64(kBlocksPerStep));
  }
  return steps * kValuesPerStep;
}

}  // namespace

Fill avx512_fill() { return fill; }

}  // namespace moebench::philox
