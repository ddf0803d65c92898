// philox_row with AVX2: four counters at a time, one per 64-bit lane; see philox_avx512.cpp for the
// scheme.
#include <immintrin.h>

#include "moebench/moe/philox_kernels.h"

namespace moebench::philox {
namespace {

constexpr std::int64_t kBlocksPerStep = 4;
constexpr std::int64_t kValuesPerStep = kBlocksPerStep * kWordsPerBlock;

__m256i interleave(__m256i low, __m256i high) {
  return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA);
}

__m256 values_of(__m256i words, __m256 scale) {
  const __m256i pairs = _mm256_maddubs_epi16(words, _mm256_set1_epi8(1));
  const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  const __m256i centred = _mm256_sub_epi32(sums, _mm256_set1_epi32(kByteSumMean));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(centred), scale);
}

std::int64_t fill(const RowKey& key, std::int64_t first, std::int64_t count, float* out) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kMultiplier1);
  __m256i keys0[kRounds];
  __m256i keys1[kRounds];
  for (int round = 0; round < kRounds; ++round) {
    const auto r = static_cast<std::uint32_t>(round);
    keys0[round] = _mm256_set1_epi64x(static_cast<std::uint32_t>(key.seed) + r * kWeyl0);
    keys1[round] = _mm256_set1_epi64x(static_cast<std::uint32_t>(key.seed >> 32) + r * kWeyl1);
  }
  // Blocks 0, 1 in the even lanes, 2, 3 in the odd ones: the 128-bit unpacks below then leave
  // values in order.
  __m256i position =
      _mm256_add_epi64(_mm256_set1_epi64x(first / kWordsPerBlock), _mm256_setr_epi64x(0, 2, 1, 3));
  const __m256i row = _mm256_set1_epi64x(key.row);
  const __m256i stream = _mm256_set1_epi64x(key.stream);
  const __m256i tag = _mm256_set1_epi64x(key.tag);
  const __m256 scale = _mm256_set1_ps(key.scale);

  const std::int64_t steps = count / kValuesPerStep;
  for (std::int64_t step = 0; step < steps; ++step) {
    __m256i c0 = position;
    __m256i c1 = row;
    __m256i c2 = stream;
    __m256i c3 = tag;
    for (int round = 0; round < kRounds; ++round) {
      const __m256i product0 = _mm256_mul_epu32(c0, multiplier0);
      const __m256i product1 = _mm256_mul_epu32(c2, multiplier1);
      c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c1), keys0[round]);
      c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c3), keys1[round]);
      c1 = product1;
      c3 = product0;
    }
    const __m256i words01 = interleave(c0, c1);
    const __m256i words23 = interleave(c2, c3);
    float* to = out + step * kValuesPerStep;
    _mm256_storeu_ps(to, values_of(_mm256_unpacklo_epi64(words01, words23), scale));
    _mm256_storeu_ps(to + kValuesPerStep / 2,
                     values_of(_mm256_unpackhi_epi64(words01, words23), scale));
    position = _mm256_add_epi64(position, _mm256_set1_epi64x(kBlocksPerStep));
  }
  return steps * kValuesPerStep;
}

}  // namespace

Fill avx2_fill() { return fill; }

}  // namespace moebench::philox
