// W4A4 in integers, for CPUs with AVX-512, VBMI and VNNI: 2*E2M1 is a whole number up to 12, so the
// 16 products of a block are exact in VPDPBUSD; one FP32 multiply-add per block applies both
// scales, whose product is exact too. For the translation units of such ISAs only.
#pragma once

#include "moebench/backend/cpu/isa_avx512.h"

namespace moebench::cpu {
namespace {

/// 2*E2M1 + 12, four times: bits 4 and 5 of a VPERMB index are the neighbour nibble's. VPDPBUSD
/// wants its first operand unsigned; the 12 is taken back through the first summand of a block, -12
/// * sum of its tokens.
constexpr int kCodeOffset = 12;
alignas(64) constexpr std::uint8_t kTwiceE2m1Plus12[64] = {
    12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9,  8,  6,  4,  0,  12, 13, 14, 15, 16, 18,
    20, 24, 12, 11, 10, 9,  8,  6,  4,  0,  12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9,
    8,  6,  4,  0,  12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9,  8,  6,  4,  0};

/// Operand of a W4A4 step: [4 quads][tokens] of four 2*E2M1 bytes, [tokens] first summands (int32),
/// [tokens] scales (FP32). Quad 2v + i holds, in byte b, nibble p = 2b + i of vector v's lanes: k =
/// 8v + 2(p mod 4) + p/4 (layout.h).
constexpr int kQuads = 4;
constexpr std::int64_t kQuadBytes = 4;
constexpr std::int64_t kCodeStepBytes = (kQuads + 2) * kQuadBytes;
/// Both factors are doubled, and load_scales divides by 256.
constexpr float kCodeScaleFactor = 256.0F / 4.0F;

void store_nvfp4_codes(const std::uint8_t* payload, const std::uint8_t* scales, std::int64_t cols,
                       std::int64_t padded_cols, int tile_tokens, int token, std::byte* tile) {
  const __m128i values = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  const std::int64_t quad_stride = tile_tokens * kQuadBytes;
  std::byte* padding = tile + cols / kStepDepth * tile_tokens * kCodeStepBytes;
  for (std::int64_t i = 0; i < (padded_cols - cols) / kStepDepth * (kQuads + 2); ++i) {
    __builtin_memset(padding + i * quad_stride + token * kQuadBytes, 0, kQuadBytes);
  }
  for (std::int64_t step = 0; step < cols / kStepDepth; ++step) {
    const __m128i bytes =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(payload + step * kStepDepth / 2));
    const __m128i codes =
        _mm_and_si128(_mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4)), _mm_set1_epi8(0x0F));
    const __m128i twice = _mm_shuffle_epi8(_mm_shuffle_epi8(values, codes), order);
    std::int32_t quads[kQuads];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(quads), twice);
    const __m128i pair_sums = _mm_maddubs_epi16(_mm_set1_epi8(1), twice);
    std::int32_t sums[kQuads];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums),
                     _mm_madd_epi16(pair_sums, _mm_set1_epi16(1)));
    const std::int32_t first = -kCodeOffset * (sums[0] + sums[1] + sums[2] + sums[3]);
    const __m128i scale_bits = _mm_slli_epi16(_mm_cvtsi32_si128(scales[step]), 7);
    const float scale =
        _mm_cvtss_f32(_mm_cvtph_ps(scale_bits)) * (kE4m3AsFp16Factor * kCodeScaleFactor);

    std::byte* out = tile + step * tile_tokens * kCodeStepBytes + token * kQuadBytes;
    for (int quad = 0; quad < kQuads; ++quad) {
      __builtin_memcpy(out + quad * quad_stride, &quads[quad], kQuadBytes);
    }
    __builtin_memcpy(out + kQuads * quad_stride, &first, sizeof first);
    __builtin_memcpy(out + (kQuads + 1) * quad_stride, &scale, sizeof scale);
  }
}

__m512i broadcast_quad(const std::byte* from) {
  std::int32_t bits = 0;
  __builtin_memcpy(&bits, from, sizeof bits);
  return _mm512_set1_epi32(bits);
}

/// Two strips at once while their sums and eight registers of weights fit.
template <int Tokens>
constexpr int kCodeStrips = Tokens <= 8 ? 2 : 1;

/// Tiles of fewer than kPrefetchFrom tokens leave it to the CPU to prefetch.
template <int Tokens, int kPrefetchFrom>
void multiply_nvfp4_codes(const TileArgs& args) {
  constexpr bool kPrefetch = Tokens >= kPrefetchFrom;
  constexpr int kStrips = kCodeStrips<Tokens>;
  constexpr std::int64_t kQuadStride = Tokens * kQuadBytes;
  const __m512i table = _mm512_load_si512(kTwiceE2m1Plus12);
  for (int strip = 0; strip < Avx512Fp32::kStrips; strip += kStrips) {
    Sums<Avx512Fp32, Tokens, kStrips> total;
    total.clear();
    const std::uint8_t* values = args.slab + kChunkScaleBytes + strip * kNvfp4PanelStepBytes;
    const std::byte* operand = args.operand;
    for (std::int64_t chunk = 0; chunk < args.steps; chunk += kChunkSteps) {
      const std::uint8_t* scales =
          args.slab + chunk / kChunkSteps * kChunkBytes + strip * kPanelRows;
      if (kPrefetch) prefetch_ahead<kChunkScaleBytes>(scales);
#pragma GCC unroll 1
      for (int step = 0; step < kChunkSteps; ++step) {
        if (kPrefetch) prefetch_ahead<kNvfp4StepBytes>(values);
        __m512i weights[kStrips][kQuads];
        __m512 weight_scale[kStrips];
        unroll<kStrips>([&](auto s) MOEBENCH_INLINE {
          unroll<kQuads / 2>([&](auto v) MOEBENCH_INLINE {
            const __m512i codes = _mm512_loadu_si512(values + s.kValue * kNvfp4PanelStepBytes +
                                                     v.kValue * kCacheLine);
            weights[s.kValue][2 * v.kValue] = _mm512_permutexvar_epi8(codes, table);
            weights[s.kValue][2 * v.kValue + 1] =
                _mm512_permutexvar_epi8(_mm512_srli_epi16(codes, 4), table);
          });
          weight_scale[s.kValue] = Avx512Fp32::load_scales(scales + s.kValue * kPanelRows);
        });
        unroll<Tokens>([&](auto t) MOEBENCH_INLINE {
          const std::byte* token = operand + t.kValue * kQuadBytes;
          const __m512i first = broadcast_quad(token + kQuads * kQuadStride);
          const __m512 token_scale =
              _mm512_castsi512_ps(broadcast_quad(token + (kQuads + 1) * kQuadStride));
          unroll<kStrips>([&](auto s) MOEBENCH_INLINE {
            __m512i sum = first;
            unroll<kQuads>([&](auto quad) MOEBENCH_INLINE {
              sum = _mm512_dpbusd_epi32(sum, weights[s.kValue][quad.kValue],
                                        broadcast_quad(token + quad.kValue * kQuadStride));
            });
            total.v[t.kValue][s.kValue] = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(sum), _mm512_mul_ps(weight_scale[s.kValue], token_scale),
                total.v[t.kValue][s.kValue]);
          });
        });
        values += kNvfp4StepBytes;
        scales += kScaleStepBytes;
        operand += Tokens * kCodeStepBytes;
      }
      values += kChunkScaleBytes;
    }
    total.store(args.sums, strip);
  }
}

template <int kPrefetchFrom>
void fill_nvfp4_codes(CpuKernels& table) {
  constexpr int kNvfp4 = index_of(TileFormat::kNvfp4);
  table.operand_step_bytes[kNvfp4] = kCodeStepBytes;
  table.store_nvfp4_operand = store_nvfp4_codes;
  unroll<Avx512Fp32::kTileTokens>([&](auto t) {
    table.multiply_tile[kNvfp4][t.kValue] = multiply_nvfp4_codes<t.kValue + 1, kPrefetchFrom>;
  });
}

}  // namespace
}  // namespace moebench::cpu
