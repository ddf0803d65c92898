// The AMX kernels of kernels.h, written over a class `Tiles` of tile instructions: amx.cpp gives
// the CPU's own, the tests an emulation in plain C++. For translation units with AVX-512, VBMI and
// VNNI only, like isa_avx512.h.
//
// A tile product is C[tokens][16 rows] += A[tokens][32 k] * B[16 pairs of k][16 rows]. A is
// activations, B weights: a register of expanded weight pairs is one row of B, so both panels of a
// slab over two steps are two B tiles (a "tile step"). C stays in tiles over the whole depth,
// or over a part of it (TileArgs::first_part).
//
// Weights as BF16: E2M1 * E4M3 and E4M3 are exact in FP16, never subnormal there (2^-10 at least),
// and have at most 6 significant bits; an arithmetic shift right by 3 and a mask make BF16 of them
// without re-biasing the exponent, which divides by 2^112. Tile products flush denormals, so the
// activations are multiplied by 2^96 and the sums by 2^16: every product is then a multiple of
// 2^-50 or more (2^-10 * 2^-24, the smallest FP16 token, * 2^-16), and no sum exceeds 2^29 (2688 *
// 65504 * 8192 k is 2^41, * 2^-16).
//
// FP16 tokens have 11 significant bits: BF16(x) and the rest, whose sum is exact, in two products.
#pragma once

#include "moebench/backend/cpu/nvfp4_codes.h"

namespace moebench::cpu {
namespace {

inline constexpr int kTileTokens = 16;  ///< rows of an activation tile
inline constexpr std::int64_t kTileRowBytes = 64;
inline constexpr std::int64_t kTileBytes = kPanelRows * kTileRowBytes;
inline constexpr std::int64_t kTileSteps = 2;                   ///< steps of a tile: 32 k
inline constexpr std::int64_t kTileStepBytes = 2 * kTileBytes;  ///< both panels
inline constexpr std::int64_t kBlockTileSteps = 2;              ///< expanded ahead: a chunk
inline constexpr std::int64_t kBlockBytes = kBlockTileSteps * kTileStepBytes;
inline constexpr std::int64_t kTileStepDepth = kTileSteps * kStepDepth;

inline constexpr float kActivationFactor = 0x1p96F;
inline constexpr float kSumFactor = 0x1p16F;

// Crossovers measured on two cores of a Xeon with AMX (family 6, model 207), 2026-11-23; see
// docs/CPU_KERNELS.md.

/// W4A4 up to this many tokens in integers instead of tiles: 53 ms against 52 at 6 tokens an
/// expert, 64 against 54 at 8.
inline constexpr int kIntegerTokens = 6;
/// FP16 tokens and NVFP4 weights up to this many in FP32 instead of two products of tiles: 48 ms
/// against 61 at 1 token an expert, 60 against 59 at 2.
inline constexpr int kFp32Tokens = 1;
/// Of 2 MB of second-level cache: what the tokens of an expert may take while expanded slabs pass.
inline constexpr std::int64_t kCachedOperandBytes = std::int64_t{1} << 20;

/// Memory operand of LDTILECFG.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tile registers: sums of panel 0 and 1 for the first activation tile (or the first of two chains
// of sums), the same for the second, activations, weights of panel 0 and 1.
inline constexpr int kSumTile = 0;
inline constexpr int kSecondSumTile = 2;
inline constexpr int kOperandTile = 4;
inline constexpr int kWeightTile = 6;

/// A tile's tokens as rows of one or two activation tiles, as even as possible.
struct TokenRows {
  int first;
  int second;
};
template <int kActTiles>
TokenRows token_rows(int tokens) {
  if (kActTiles == 1) return {tokens, tokens};
  return {(tokens + 1) / 2, tokens / 2};
}

inline TileConfig tile_config(TokenRows rows) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    const bool second = (tile >= kSecondSumTile && tile < kOperandTile) || tile == kOperandTile + 1;
    const int tile_rows = tile >= kWeightTile ? kTileTokens : second ? rows.second : rows.first;
    config.row_bytes[tile] = kTileRowBytes;
    config.rows[tile] = static_cast<std::uint8_t>(tile_rows);
  }
  return config;
}

/// FP16 of at most 8 significant bits and no subnormals to BF16 / 2^112.
MOEBENCH_INLINE inline __m512i fp16_to_low_bf16(__m512i fp16) {
  return _mm512_and_si512(_mm512_srai_epi16(fp16, 3),
                          _mm512_set1_epi16(static_cast<std::int16_t>(0x8FFF)));
}

/// E2M1 values times 256 as FP16, twice, for a VPERMW without a mask. 256 takes back what an E4M3
/// code loses when its bits are read as FP16.
alignas(64) inline constexpr std::uint16_t kE2m1Times256Fp16[32] = {
    0x0000, 0x5800, 0x5C00, 0x5E00, 0x6000, 0x6200, 0x6400, 0x6600, 0x8000, 0xD800, 0xDC00,
    0xDE00, 0xE000, 0xE200, 0xE400, 0xE600, 0x0000, 0x5800, 0x5C00, 0x5E00, 0x6000, 0x6200,
    0x6400, 0x6600, 0x8000, 0xD800, 0xDC00, 0xDE00, 0xE000, 0xE200, 0xE400, 0xE600};

/// A scale's code in the high byte of both words of its row's lane; lanes 4i.. from 16-byte group
/// i, which holds all 16 codes.
alignas(64) inline constexpr std::int8_t kScaleToWords[64] = {
    -1, 0,  -1, 0,  -1, 1,  -1, 1,  -1, 2,  -1, 2,  -1, 3,  -1, 3,  -1, 4,  -1, 4,  -1, 5,
    -1, 5,  -1, 6,  -1, 6,  -1, 7,  -1, 7,  -1, 8,  -1, 8,  -1, 9,  -1, 9,  -1, 10, -1, 10,
    -1, 11, -1, 11, -1, 12, -1, 12, -1, 13, -1, 13, -1, 14, -1, 14, -1, 15, -1, 15};

/// A tile step is expanded in so many units, and multiplied in as many: in turn, because the CPU
/// does not look far enough ahead to run one's expansion beside the other's products (16 tokens:
/// 250 cycles a tile step one after the other, 164 in turn; 32 tokens: 369 and 147).
inline constexpr int kUnits = 8;

/// Weights::expand_unit<i> writes an eighth of the B tiles [panel][16 pairs][16 rows] of tile step
/// `tile_step` of a block.
template <class Tiles>
struct Nvfp4Weights {
  static constexpr std::int64_t kBlockSourceBytes = kChunkBytes;

  /// A unit: a step, a panel, a vector of four pairs.
  template <int kUnit, int kTileStep>
  MOEBENCH_INLINE static void expand_unit(const std::uint8_t* chunk, std::uint8_t* out) {
    constexpr int kStep = kTileStep * kTileSteps + kUnit / 4;
    constexpr int kPanel = kUnit / 2 % 2;
    constexpr int kVector = kUnit % 2;
    const std::uint8_t* from = chunk + kChunkScaleBytes + kStep * kNvfp4StepBytes +
                               kPanel * kNvfp4PanelStepBytes + kVector * kCacheLine;
    __builtin_prefetch(from + kPrefetchBytes);
    const std::uint8_t* scales = chunk + kStep * kScaleStepBytes + kPanel * kPanelRows;
    if (kUnit == 0) __builtin_prefetch(scales + kPrefetchBytes);
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
    const __m512i scale = _mm512_srli_epi16(
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(codes), _mm512_load_si512(kScaleToWords)), 1);
    const __m512i values = _mm512_loadu_si512(from);
    const __m512i table = _mm512_load_si512(kE2m1Times256Fp16);
    out += kPanel * kTileBytes + (kUnit / 4 * kPairsPerStep + 4 * kVector) * kTileRowBytes;
    unroll<4>([&](auto j) MOEBENCH_INLINE {
      const __m512i e2m1 = _mm512_permutexvar_epi16(_mm512_srli_epi16(values, 4 * j.kValue), table);
      _mm512_store_si512(out + j.kValue * kTileRowBytes,
                         fp16_to_low_bf16(Tiles::multiply_fp16(e2m1, scale)));
    });
  }
};

template <class Tiles>
struct Fp8Weights {
  static constexpr std::int64_t kBlockSourceBytes = kBlockTileSteps * kTileSteps * kFp8StepBytes;

  /// A unit: a step, a panel, two vectors of two pairs.
  template <int kUnit, int kTileStep>
  MOEBENCH_INLINE static void expand_unit(const std::uint8_t* block, std::uint8_t* out) {
    constexpr int kStep = kTileStep * kTileSteps + kUnit / 4;
    constexpr int kPanel = kUnit / 2 % 2;
    constexpr int kHalf = kUnit % 2;
    const __m512i zeros = _mm512_setzero_si512();
    const __m512i magnitude = _mm512_set1_epi16(static_cast<std::int16_t>(kE4m3AsFp16Mask));
    const __m512i factor = _mm512_set1_epi16(0x5C00);  // 256
    block += kStep * kFp8StepBytes + kPanel * kFp8PanelStepBytes + kHalf * 2 * kCacheLine;
    out += kPanel * kTileBytes + (kUnit / 4 * kPairsPerStep + 4 * kHalf) * kTileRowBytes;
    unroll<2>([&](auto vector) MOEBENCH_INLINE {
      const std::uint8_t* from = block + vector.kValue * kCacheLine;
      __builtin_prefetch(from + kPrefetchBytes);
      const __m512i codes = _mm512_loadu_si512(from);
      const auto store = [&](int pair, __m512i words) MOEBENCH_INLINE {
        const __m512i fp16 = _mm512_and_si512(_mm512_srai_epi16(words, 1), magnitude);
        _mm512_store_si512(out + (2 * vector.kValue + pair) * kTileRowBytes,
                           fp16_to_low_bf16(Tiles::multiply_fp16(fp16, factor)));
      };
      store(0, _mm512_unpacklo_epi8(zeros, codes));
      store(1, _mm512_unpackhi_epi8(zeros, codes));
    });
  }
};

/// The tile steps of a block, of which the slab has `steps` steps left: an odd one is filled up
/// with zeros.
template <class Weights>
void expand_block(const std::uint8_t* from, std::int64_t steps, std::uint8_t* out) {
  unroll<kBlockTileSteps>([&](auto tile_step) MOEBENCH_INLINE {
    constexpr int kFirst = tile_step.kValue * kTileSteps;
    std::uint8_t* to = out + tile_step.kValue * kTileStepBytes;
    unroll<kUnits>([&](auto unit) MOEBENCH_INLINE {
      constexpr int kStep = kFirst + unit.kValue / 4;
      if (kStep < steps) {
        Weights::template expand_unit<unit.kValue, tile_step.kValue>(from, to);
      } else if (kFirst < steps) {
        std::uint8_t* rows = to + unit.kValue / 2 % 2 * kTileBytes +
                             (kPairsPerStep + unit.kValue % 2 * 4) * kTileRowBytes;
        unroll<4>([&](auto row) MOEBENCH_INLINE {
          _mm512_store_si512(rows + row.kValue * kTileRowBytes, _mm512_setzero_si512());
        });
      }
    });
  });
}

/// Expands one block ahead of the products, so that a tile is loaded long after it was stored: to
/// args.expanded, or, where that is null, to a ring.
template <class Weights>
class ExpandingSource {
 public:
  explicit ExpandingSource(const TileArgs& args)
      : next_(args.slab),
        left_(args.steps),
        kept_(args.expanded),
        out_(kept_ != nullptr ? kept_ : ring_[0]) {
    expand_whole();
  }
  /// The block that was expanded last. Then the next one may be.
  const std::uint8_t* take() {
    std::uint8_t* block = out_;
    out_ = kept_ != nullptr ? out_ + kBlockBytes : ring_[out_ == ring_[0] ? 1 : 0];
    return block;
  }
  [[nodiscard]] bool next_is_whole() const { return left_ >= kBlockTileSteps * kTileSteps; }
  template <int kUnit, int kTileStep>
  MOEBENCH_INLINE void expand_unit() {
    Weights::template expand_unit<kUnit, kTileStep>(next_, out_ + kTileStep * kTileStepBytes);
  }
  void expand_whole() {
    if (left_ > 0) expand_block<Weights>(next_, left_, out_);
    advance();
  }
  void advance() {
    next_ += Weights::kBlockSourceBytes;
    left_ -= kBlockTileSteps * kTileSteps;
  }

 private:
  const std::uint8_t* next_;
  std::int64_t left_;  ///< steps from next_ on
  std::uint8_t* kept_;
  std::uint8_t* out_;
  alignas(64) std::uint8_t ring_[2][kBlockBytes];
};

/// Blocks that an ExpandingSource has kept.
class ExpandedSource {
 public:
  explicit ExpandedSource(const TileArgs& args) : next_(args.expanded) {}
  const std::uint8_t* take() {
    const std::uint8_t* block = next_;
    next_ += kBlockBytes;
    return block;
  }
  [[nodiscard]] bool next_is_whole() const { return true; }
  template <int kUnit, int kTileStep>
  MOEBENCH_INLINE void expand_unit() {}
  void expand_whole() {}
  void advance() {}

 private:
  const std::uint8_t* next_;
};

constexpr std::int64_t tile_steps(std::int64_t steps) {
  return (steps + kTileSteps - 1) / kTileSteps;
}
constexpr std::int64_t blocks_of(std::int64_t steps) {
  return (tile_steps(steps) + kBlockTileSteps - 1) / kBlockTileSteps;
}

/// Sums of up to 32 tokens in tiles. kParts: BF16 values that a token value is split into.
template <class Tiles, int kActTiles, int kParts>
class TileSums {
 public:
  explicit TileSums(int tokens) : rows_(token_rows<kActTiles>(tokens)), tokens_(tokens) {
    Tiles::configure(tile_config(rows_));
    clear();
  }
  ~TileSums() { Tiles::release(); }
  TileSums(const TileSums&) = delete;
  TileSums& operator=(const TileSums&) = delete;

  void clear() {
    unroll<4>([](auto tile) MOEBENCH_INLINE { Tiles::template zero<tile.kValue>(); });
  }
  [[nodiscard]] std::int64_t operand_step_bytes() const { return kParts * tokens_ * kTileRowBytes; }

  /// A block's products, in turn with the expansion of the next one.
  template <class Source>
  MOEBENCH_INLINE void add_block(Source& source, const std::byte* operand) const {
    const std::uint8_t* weights = source.take();
    unroll<kBlockTileSteps>([&](auto tile_step) MOEBENCH_INLINE {
      unroll<kUnits>([&](auto unit) MOEBENCH_INLINE {
        multiply_unit<tile_step.kValue, unit.kValue>(weights, operand);
        source.template expand_unit<unit.kValue, tile_step.kValue>();
      });
      weights += kTileStepBytes;
      operand += operand_step_bytes();
    });
    source.advance();
  }
  /// The `count` tile steps of a block, then all of the next block.
  template <class Source>
  void add_last_blocks(Source& source, const std::byte* operand, std::int64_t count) const {
    const std::uint8_t* weights = source.take();
    unroll<kBlockTileSteps>([&](auto tile_step) MOEBENCH_INLINE {
      if (tile_step.kValue >= count) return;
      unroll<kUnits>([&](auto unit) MOEBENCH_INLINE {
        multiply_unit<tile_step.kValue, unit.kValue>(weights, operand);
      });
      weights += kTileStepBytes;
      operand += operand_step_bytes();
    });
    source.expand_whole();
  }

  /// [tokens][32], without kSumFactor.
  void store(float* sums) const {
    constexpr std::int64_t kStride = kSlabRows * 4;
    Tiles::template store<kSumTile>(sums, kStride);
    Tiles::template store<kSumTile + 1>(sums + kPanelRows, kStride);
    if constexpr (kActTiles == 2) {
      float* second = sums + rows_.first * kSlabRows;
      Tiles::template store<kSecondSumTile>(second, kStride);
      Tiles::template store<kSecondSumTile + 1>(second + kPanelRows, kStride);
    } else {  // two chains
      alignas(64) float other[kTileTokens * kSlabRows];
      Tiles::template store<kSecondSumTile>(other, kStride);
      Tiles::template store<kSecondSumTile + 1>(other + kPanelRows, kStride);
      for (std::int64_t i = 0; i < tokens_ * kSlabRows; i += kPanelRows) {
        _mm512_storeu_ps(sums + i,
                         _mm512_add_ps(_mm512_loadu_ps(sums + i), _mm512_load_ps(other + i)));
      }
    }
  }
  /// The four tiles as they are, to go on with after another part of the depth.
  void save(float* tiles) const {
    unroll<4>([&](auto tile) MOEBENCH_INLINE {
      Tiles::template store<tile.kValue>(tiles + tile.kValue * kTileFloats, kTileRowBytes);
    });
  }
  void restore(const float* tiles) {
    unroll<4>([&](auto tile) MOEBENCH_INLINE {
      Tiles::template load<tile.kValue>(tiles + tile.kValue * kTileFloats, kTileRowBytes);
    });
  }

 private:
  static constexpr std::int64_t kTileFloats = kTileBytes / 4;
  static_assert(4 * kTileFloats == kMaxTileTokens * kSlabRows);

  template <int kRegister>
  MOEBENCH_INLINE void load_operand(const std::byte* operand, int part, int first_row) const {
    Tiles::template load<kRegister>(operand + (part * tokens_ + first_row) * kTileRowBytes,
                                    kTileRowBytes);
  }
  template <int kPanel>
  MOEBENCH_INLINE static void load_weights(const std::uint8_t* weights) {
    Tiles::template load<kWeightTile + kPanel>(weights + kPanel * kTileBytes, kTileRowBytes);
  }
  template <int kSums, int kOperand, int kPanel>
  MOEBENCH_INLINE static void dot() {
    Tiles::template dot<kSums + kPanel, kOperand, kWeightTile + kPanel>();
  }
  /// An eighth of a tile step: loads shortly before their products, products apart.
  /// One activation tile: two chains of sums, for even and odd steps, or for the parts of a split
  /// value, because a product waits for the one before it.
  template <int kParity, int kUnit>
  MOEBENCH_INLINE void multiply_unit(const std::uint8_t* weights, const std::byte* operand) const {
    if constexpr (kActTiles == 1 && kParts == 1) {
      constexpr int kOperand = kOperandTile + kParity;
      constexpr int kSums = kSumTile + 2 * kParity;
      if constexpr (kUnit == 0) load_weights<0>(weights);
      if constexpr (kUnit == 1) load_operand<kOperand>(operand, 0, 0);
      if constexpr (kUnit == 3) dot<kSums, kOperand, 0>();
      if constexpr (kUnit == 4) load_weights<1>(weights);
      if constexpr (kUnit == 6) dot<kSums, kOperand, 1>();
    } else if constexpr (kActTiles == 1) {
      if constexpr (kUnit == 0) load_weights<0>(weights);
      if constexpr (kUnit == 1) load_operand<kOperandTile>(operand, 0, 0);
      if constexpr (kUnit == 2) dot<kSumTile, kOperandTile, 0>();
      if constexpr (kUnit == 3) load_operand<kOperandTile + 1>(operand, 1, 0);
      if constexpr (kUnit == 4) dot<kSecondSumTile, kOperandTile + 1, 0>();
      if constexpr (kUnit == 5) load_weights<1>(weights);
      if constexpr (kUnit == 6) dot<kSumTile, kOperandTile, 1>();
      if constexpr (kUnit == 7) dot<kSecondSumTile, kOperandTile + 1, 1>();
    } else if constexpr (kParts == 1) {
      if constexpr (kUnit == 0) load_weights<0>(weights);
      if constexpr (kUnit == 1) load_operand<kOperandTile>(operand, 0, 0);
      if constexpr (kUnit == 2) dot<kSumTile, kOperandTile, 0>();
      if constexpr (kUnit == 3) load_weights<1>(weights);
      if constexpr (kUnit == 4) dot<kSumTile, kOperandTile, 1>();
      if constexpr (kUnit == 5) load_operand<kOperandTile + 1>(operand, 0, rows_.first);
      if constexpr (kUnit == 6) dot<kSecondSumTile, kOperandTile + 1, 0>();
      if constexpr (kUnit == 7) dot<kSecondSumTile, kOperandTile + 1, 1>();
    } else {  // a part in four units
      constexpr int kPart = kUnit / 4;
      if constexpr (kUnit % 4 == 0) {
        if constexpr (kPart == 0) load_weights<0>(weights);
        load_operand<kOperandTile>(operand, kPart, 0);
      } else if constexpr (kUnit % 4 == 1) {
        dot<kSumTile, kOperandTile, 0>();
        if constexpr (kPart == 0) load_weights<1>(weights);
        load_operand<kOperandTile + 1>(operand, kPart, rows_.first);
      } else if constexpr (kUnit % 4 == 2) {
        dot<kSumTile, kOperandTile, 1>();
      } else {
        dot<kSecondSumTile, kOperandTile + 1, 0>();
        dot<kSecondSumTile, kOperandTile + 1, 1>();
      }
    }
  }

  TokenRows rows_;
  std::int64_t tokens_;
};

/// Block after block of args' steps; after each, `after(block)`.
template <class Source, class Sums, class After>
MOEBENCH_INLINE inline void add_blocks(Sums& sums, const TileArgs& args, const After& after) {
  const std::int64_t steps = tile_steps(args.steps);
  const std::int64_t blocks = blocks_of(args.steps);
  Source source(args);
  const std::byte* operand = args.operand;
  for (std::int64_t block = 0; block < blocks; ++block) {
    if (block + 1 < blocks && source.next_is_whole()) {
      sums.add_block(source, operand);
    } else {
      sums.add_last_blocks(source, operand, steps - block * kBlockTileSteps);
    }
    operand += kBlockTileSteps * sums.operand_step_bytes();
    after(block, block + 1 == blocks);
  }
}

template <class Tiles, class Source, int kActTiles, int kParts>
void multiply_tiles_as(const TileArgs& args) {
  TileSums<Tiles, kActTiles, kParts> sums(args.tokens);
  if (!args.first_part) sums.restore(args.sums);
  add_blocks<Source>(sums, args, [](std::int64_t /*block*/, bool /*last*/) {});
  if (!args.last_part) {
    sums.save(args.sums);
    return;
  }
  sums.store(args.sums);
  const __m512 factor = _mm512_set1_ps(kSumFactor);
  for (std::int64_t i = 0; i < args.tokens * kSlabRows; i += kPanelRows) {
    _mm512_storeu_ps(args.sums + i, _mm512_mul_ps(_mm512_loadu_ps(args.sums + i), factor));
  }
}

/// 128-wide groups: their scales are not exact in BF16, so a group's sums leave the tiles.
template <class Tiles, class Source, int kActTiles>
void multiply_groups_as(const TileArgs& args) {
  constexpr std::int64_t kGroupBlocks = kFp8GroupSteps / (kBlockTileSteps * kTileSteps);
  TileSums<Tiles, kActTiles, 1> sums(args.tokens);
  const float* weight_scales = args.weight_scales;
  const float* operand_scales = args.operand_scales;
  if (args.first_part) {
    for (std::int64_t i = 0; i < args.tokens * kSlabRows; i += kPanelRows) {
      _mm512_storeu_ps(args.sums + i, _mm512_setzero_ps());
    }
  }
  add_blocks<Source>(sums, args, [&](std::int64_t block, bool last) {
    if ((block + 1) % kGroupBlocks != 0 && !last) return;
    alignas(64) float group[2 * kTileTokens * kSlabRows];
    sums.store(group);
    sums.clear();
    const __m512 factor = _mm512_set1_ps(kSumFactor);
    unroll<2>([&](auto panel) MOEBENCH_INLINE {
      const __m512 weight_scale =
          _mm512_mul_ps(_mm512_loadu_ps(weight_scales + panel.kValue * kPanelRows), factor);
      for (int token = 0; token < args.tokens; ++token) {
        const std::int64_t at = token * kSlabRows + panel.kValue * kPanelRows;
        const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(operand_scales[token]));
        _mm512_storeu_ps(args.sums + at, _mm512_fmadd_ps(_mm512_load_ps(group + at), scale,
                                                         _mm512_loadu_ps(args.sums + at)));
      }
    });
    weight_scales += kSlabRows;
    operand_scales += args.tokens;
  });
}

template <class Tiles, class Source, int kParts>
void multiply_tiles(const TileArgs& args) {
  args.tokens <= kTileTokens ? multiply_tiles_as<Tiles, Source, 1, kParts>(args)
                             : multiply_tiles_as<Tiles, Source, 2, kParts>(args);
}

template <class Tiles, class Source>
void multiply_groups(const TileArgs& args) {
  args.tokens <= kTileTokens ? multiply_groups_as<Tiles, Source, 1>(args)
                             : multiply_groups_as<Tiles, Source, 2>(args);
}

/// Writes 16 values of one token, k..k+15, as the parts of an activation tile row. A tile step
/// holds [part][token][32 k].
template <int kParts>
MOEBENCH_INLINE inline void store_activations(__m512 x, std::int64_t k, int tile_tokens, int token,
                                              std::byte* tile) {
  constexpr ActType kBf16 = ActType::kBf16;
  std::byte* out = tile + (k / kTileStepDepth * kParts * tile_tokens + token) * kTileRowBytes +
                   k % kTileStepDepth * 2;
  __m512 rest = _mm512_mul_ps(x, _mm512_set1_ps(kActivationFactor));
  unroll<kParts>([&](auto part) MOEBENCH_INLINE {
    const __m256i bits = Avx512Fp32::to_act<kBf16>(rest);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + part.kValue * tile_tokens * kTileRowBytes),
                        bits);
    rest = _mm512_sub_ps(rest, Avx512Fp32::from_act<kBf16>(bits));
  });
}

template <int kParts>
void store_tile_operand(const float* x, std::int64_t cols, std::int64_t padded_cols,
                        int tile_tokens, int token, std::byte* tile) {
  for (std::int64_t k = 0; k < padded_cols; k += kStepDepth) {
    const std::int64_t left = cols - k;
    const auto mask = static_cast<__mmask16>(left >= kStepDepth ? 0xFFFFU
                                             : left > 0         ? (1U << left) - 1U
                                                                : 0U);
    store_activations<kParts>(_mm512_maskz_loadu_ps(mask, x + (left > 0 ? k : 0)), k, tile_tokens,
                              token, tile);
  }
}

void store_nvfp4_tile_operand(const std::uint8_t* payload, const std::uint8_t* scales,
                              std::int64_t cols, std::int64_t padded_cols, int tile_tokens,
                              int token, std::byte* tile) {
  if (tile_tokens <= kIntegerTokens) {
    store_nvfp4_codes(payload, scales, cols, padded_cols, tile_tokens, token, tile);
    return;
  }
  for (std::int64_t k = 0; k < padded_cols; k += kStepDepth) {
    alignas(64) float values[kStepDepth] = {};
    if (k < cols) {
      Avx512Fp32::expand_nvfp4(payload + k / 2, scales + k / kStepDepth, kStepDepth, values);
    }
    store_activations<1>(_mm512_load_ps(values), k, tile_tokens, token, tile);
  }
}

using Fp32Entry = Avx512Fp32::Entry<0>;

void store_fp16_tile_operand(const float* x, std::int64_t cols, std::int64_t padded_cols,
                             int tile_tokens, int token, std::byte* tile) {
  const auto store = tile_tokens <= kFp32Tokens ? store_operand<Fp32Entry> : store_tile_operand<2>;
  store(x, cols, padded_cols, tile_tokens, token, tile);
}

// An expert of several tiles has more tokens in each: multiply_tile of the integers and of FP32
// neither expands nor knows of parts.
static_assert(kIntegerTokens < kTileTokens && kFp32Tokens < kTileTokens);

template <class Tiles>
CpuKernels make_amx_table(const char* isa) {
  using Nvfp4 = Nvfp4Weights<Tiles>;
  using Fp8 = Fp8Weights<Tiles>;
  CpuKernels table{};
  table.isa = isa;
  table.max_tile_tokens = 2 * kTileTokens;
  table.operand_steps = kTileSteps;
  table.expanded_step_bytes = kTileStepBytes / kTileSteps;
  table.cached_operand_bytes = kCachedOperandBytes;
  const auto fill = [&table](TileFormat format, int parts, auto multiply, auto multiply_expanded,
                             auto store) {
    const int index = index_of(format);
    table.operand_step_bytes[index] = parts * kTileRowBytes / kTileSteps;
    for (int tokens = 1; tokens <= 2 * kTileTokens; ++tokens) {
      table.multiply_tile[index][tokens - 1] = multiply;
    }
    table.multiply_expanded[index] = multiply_expanded;
    table.store_operand[index] = store;
  };
  fill(TileFormat::kNvfp4, 1, multiply_tiles<Tiles, ExpandingSource<Nvfp4>, 1>,
       multiply_tiles<Tiles, ExpandedSource, 1>, nullptr);
  fill(TileFormat::kNvfp4Bf16, 1, multiply_tiles<Tiles, ExpandingSource<Nvfp4>, 1>,
       multiply_tiles<Tiles, ExpandedSource, 1>, store_tile_operand<1>);
  fill(TileFormat::kNvfp4Fp16, 2, multiply_tiles<Tiles, ExpandingSource<Nvfp4>, 2>,
       multiply_tiles<Tiles, ExpandedSource, 2>, store_fp16_tile_operand);
  fill(TileFormat::kFp8, 1, multiply_tiles<Tiles, ExpandingSource<Fp8>, 1>,
       multiply_tiles<Tiles, ExpandedSource, 1>, store_tile_operand<1>);
  fill(TileFormat::kFp8Block, 1, multiply_groups<Tiles, ExpandingSource<Fp8>>,
       multiply_groups<Tiles, ExpandedSource>, store_tile_operand<1>);
  table.store_nvfp4_operand = store_nvfp4_tile_operand;
  unroll<kIntegerTokens>([&](auto t) {
    constexpr int kTokens = t.kValue + 1;
    table.multiply_tile[index_of(TileFormat::kNvfp4)][t.kValue] = multiply_nvfp4_codes<kTokens, 1>;
  });
  static_assert(kPairsPerStep * Fp32Entry::kBytes <= 2 * kTileRowBytes / kTileSteps);
  unroll<kFp32Tokens>([&](auto t) {
    table.multiply_tile[index_of(TileFormat::kNvfp4Fp16)][t.kValue] =
        multiply_nvfp4<Avx512Fp32, Fp32Entry, t.kValue + 1>;
  });
  fill_row_kernels<Avx512Fp32>(table);
  return table;
}

}  // namespace
}  // namespace moebench::cpu
