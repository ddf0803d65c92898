// The kernels of kernels.h, written once over a vector class `Isa` that each ISA's translation unit
// defines in its unnamed namespace: every instantiation is local to that unit, so code compiled for
// one ISA never runs on another. For the same reason nothing of the standard library is called
// here.
//
// Isa provides: Vec (kLanes floats) with its arithmetic; Pair, the weights (2i, 2i+1) of kLanes
// rows, decoded by Nvfp4Lanes and Fp8Lanes; Entry, one token's values of such a pair; dot2(sum,
// pair, entry).
#pragma once

#include <cstddef>
#include <cstdint>

#include "moebench/backend/cpu/kernels.h"
#include "moebench/backend/cpu/layout.h"

namespace moebench::cpu {
namespace {

template <int V>
struct Index {
  static constexpr int kValue = V;
};

#define MOEBENCH_INLINE __attribute__((always_inline))

/// body(Index<0>{}), body(Index<1>{}), ...: unrolled by the language, so that arrays of vectors
/// stay in registers.
template <int Count, int First = 0, typename Body>
MOEBENCH_INLINE inline void unroll(const Body& body) {
  if constexpr (First < Count) {
    body(Index<First>{});
    unroll<Count, First + 1>(body);
  }
}

/// Largest tile whose sums of two strips fit the registers; above it one strip at a time.
template <typename Isa, int Tokens>
inline constexpr int kStripsAtOnce = Tokens <= Isa::kTwoStripTokens ? 2 : 1;

/// Distance of the software prefetch, in bytes ahead of the weights in use. Tuned on a 2-core Zen
/// 4, 2026-11-23.
inline constexpr std::int64_t kPrefetchBytes = 4096;

template <std::int64_t kStepBytes>
MOEBENCH_INLINE inline void prefetch_ahead(const std::uint8_t* weights) {
  unroll<static_cast<int>(kStepBytes / kCacheLine)>([&](auto line) MOEBENCH_INLINE {
    __builtin_prefetch(weights + kPrefetchBytes + line.kValue * kCacheLine);
  });
}

template <typename Isa, int Tokens, int Strips>
struct Sums {
  typename Isa::Vec v[Tokens][Strips];

  MOEBENCH_INLINE void clear() {
    unroll<Tokens>([&](auto t) MOEBENCH_INLINE {
      unroll<Strips>([&](auto s) MOEBENCH_INLINE { v[t.kValue][s.kValue] = Isa::zero(); });
    });
  }
  template <typename Entry>
  MOEBENCH_INLINE void add_pair(const typename Isa::Pair (&pair)[Strips],
                                const std::byte* entries) {
    unroll<Tokens>([&](auto t) MOEBENCH_INLINE {
      const Entry entry = Entry::load(entries + t.kValue * Entry::kBytes);
      unroll<Strips>([&](auto s) MOEBENCH_INLINE {
        v[t.kValue][s.kValue] = Isa::dot2(v[t.kValue][s.kValue], pair[s.kValue], entry);
      });
    });
  }
  MOEBENCH_INLINE void store(float* sums, int first_strip) const {
    unroll<Tokens>([&](auto t) MOEBENCH_INLINE {
      unroll<Strips>([&](auto s) MOEBENCH_INLINE {
        Isa::store(sums + t.kValue * kSlabRows + (first_strip + s.kValue) * Isa::kLanes,
                   v[t.kValue][s.kValue]);
      });
    });
  }
};

/// Offset of a strip's 32-bit lanes inside the vectors of one step.
template <typename Isa>
constexpr std::int64_t strip_offset(int strip, std::int64_t panel_step_bytes) {
  const std::int64_t row = strip * Isa::kLanes;
  return row / kPanelRows * panel_step_bytes + row % kPanelRows * 4;
}

/// Adds one NVFP4 step (16 k) to `sums`, without the block scales.
template <typename Isa, typename Entry, int Tokens, int Strips>
MOEBENCH_INLINE inline void add_nvfp4_step(const std::uint8_t* step, int first_strip,
                                           const std::byte* entries,
                                           Sums<Isa, Tokens, Strips>& sums) {
  constexpr int kPairsPerLane = 4;
  unroll<2>([&](auto vector) MOEBENCH_INLINE {
    typename Isa::Nvfp4Lanes lanes[Strips];
    unroll<Strips>([&](auto s) MOEBENCH_INLINE {
      lanes[s.kValue] = Isa::Nvfp4Lanes::load(
          step + strip_offset<Isa>(first_strip + s.kValue, kNvfp4PanelStepBytes) +
          vector.kValue * kCacheLine);
    });
    unroll<kPairsPerLane>([&](auto j) MOEBENCH_INLINE {
      typename Isa::Pair pair[Strips];
      unroll<Strips>([&](auto s) MOEBENCH_INLINE {
        pair[s.kValue] = lanes[s.kValue].template pair<j.kValue>();
      });
      sums.template add_pair<Entry>(
          pair, entries + (vector.kValue * kPairsPerLane + j.kValue) * Tokens * Entry::kBytes);
    });
  });
}

template <typename Isa, typename Entry, int Tokens, int Strips>
MOEBENCH_INLINE inline void add_fp8_step(const std::uint8_t* step, int first_strip,
                                         const std::byte* entries,
                                         Sums<Isa, Tokens, Strips>& sums) {
  unroll<4>([&](auto q) MOEBENCH_INLINE {
    typename Isa::Fp8Lanes lanes[Strips];
    unroll<Strips>([&](auto s) MOEBENCH_INLINE {
      lanes[s.kValue] =
          Isa::Fp8Lanes::load(step + strip_offset<Isa>(first_strip + s.kValue, kFp8PanelStepBytes) +
                              q.kValue * kCacheLine);
    });
    unroll<2>([&](auto h) MOEBENCH_INLINE {
      typename Isa::Pair pair[Strips];
      unroll<Strips>([&](auto s) MOEBENCH_INLINE {
        pair[s.kValue] = lanes[s.kValue].template pair<h.kValue>();
      });
      sums.template add_pair<Entry>(pair,
                                    entries + (q.kValue * 2 + h.kValue) * Tokens * Entry::kBytes);
    });
  });
}

inline constexpr std::int64_t kPairsPerStep = kStepDepth / 2;

template <typename Isa, typename Entry, int Tokens>
void multiply_nvfp4(const TileArgs& args) {
  constexpr int kStrips = kStripsAtOnce<Isa, Tokens>;
  for (int strip = 0; strip < Isa::kStrips; strip += kStrips) {
    Sums<Isa, Tokens, kStrips> total;
    total.clear();
    const std::uint8_t* values = args.slab + kChunkScaleBytes;
    const std::byte* entries = args.operand;
    for (std::int64_t chunk = 0; chunk < args.steps; chunk += kChunkSteps) {
      const std::uint8_t* scales = values - kChunkScaleBytes + strip * Isa::kLanes;
      prefetch_ahead<kChunkScaleBytes>(values - kChunkScaleBytes);
#pragma GCC unroll 1
      for (int step = 0; step < kChunkSteps; ++step) {
        prefetch_ahead<kNvfp4StepBytes>(values);
        Sums<Isa, Tokens, kStrips> block;
        block.clear();
        add_nvfp4_step<Isa, Entry, Tokens, kStrips>(values, strip, entries, block);
        unroll<kStrips>([&](auto s) MOEBENCH_INLINE {
          const typename Isa::Vec scale = Isa::load_scales(scales + s.kValue * Isa::kLanes);
          unroll<Tokens>([&](auto t) MOEBENCH_INLINE {
            total.v[t.kValue][s.kValue] =
                Isa::multiply_add(block.v[t.kValue][s.kValue], scale, total.v[t.kValue][s.kValue]);
          });
        });
        values += kNvfp4StepBytes;
        scales += kScaleStepBytes;
        entries += kPairsPerStep * Tokens * Entry::kBytes;
      }
      values += kChunkScaleBytes;
    }
    total.store(args.sums, strip);
  }
}

template <typename Isa, typename Entry, int Tokens>
void multiply_fp8(const TileArgs& args) {
  constexpr int kStrips = kStripsAtOnce<Isa, Tokens>;
  for (int strip = 0; strip < Isa::kStrips; strip += kStrips) {
    Sums<Isa, Tokens, kStrips> total;
    total.clear();
    const std::uint8_t* values = args.slab;
    const std::byte* entries = args.operand;
    for (std::int64_t step = 0; step < args.steps; ++step) {
      prefetch_ahead<kFp8StepBytes>(values);
      add_fp8_step<Isa, Entry, Tokens, kStrips>(values, strip, entries, total);
      values += kFp8StepBytes;
      entries += kPairsPerStep * Tokens * Entry::kBytes;
    }
    total.store(args.sums, strip);
  }
}

template <typename Isa, typename Entry, int Tokens>
void multiply_fp8_block(const TileArgs& args) {
  constexpr int kStrips = kStripsAtOnce<Isa, Tokens>;
  for (int strip = 0; strip < Isa::kStrips; strip += kStrips) {
    Sums<Isa, Tokens, kStrips> total;
    total.clear();
    const std::uint8_t* values = args.slab;
    const std::byte* entries = args.operand;
    const float* weight_scales = args.weight_scales + strip * Isa::kLanes;
    const float* operand_scales = args.operand_scales;
    for (std::int64_t first = 0; first < args.steps; first += kFp8GroupSteps) {
      const std::int64_t left = args.steps - first;
      const std::int64_t count = left < kFp8GroupSteps ? left : kFp8GroupSteps;
      Sums<Isa, Tokens, kStrips> group;
      group.clear();
      for (std::int64_t step = 0; step < count; ++step) {
        prefetch_ahead<kFp8StepBytes>(values);
        add_fp8_step<Isa, Entry, Tokens, kStrips>(values, strip, entries, group);
        values += kFp8StepBytes;
        entries += kPairsPerStep * Tokens * Entry::kBytes;
      }
      unroll<kStrips>([&](auto s) MOEBENCH_INLINE {
        const typename Isa::Vec weight_scale = Isa::load(weight_scales + s.kValue * Isa::kLanes);
        unroll<Tokens>([&](auto t) MOEBENCH_INLINE {
          const typename Isa::Vec scale =
              Isa::multiply(weight_scale, Isa::broadcast(operand_scales[t.kValue]));
          total.v[t.kValue][s.kValue] =
              Isa::multiply_add(group.v[t.kValue][s.kValue], scale, total.v[t.kValue][s.kValue]);
        });
      });
      weight_scales += kSlabRows;
      operand_scales += Tokens;
    }
    total.store(args.sums, strip);
  }
}

/// x is scaled by a power of two that the ISA's weight decoding takes back (Entry::kFactor).
template <typename Entry>
void store_operand(const float* x, std::int64_t cols, std::int64_t padded_cols, int tile_tokens,
                   int token, std::byte* tile) {
  std::byte* entry = tile + token * Entry::kBytes;
  const std::int64_t entry_stride = tile_tokens * Entry::kBytes;
  std::int64_t k = 0;
  for (; k + 1 < cols; k += 2, entry += entry_stride) {
    Entry::store(x[k] * Entry::kFactor, x[k + 1] * Entry::kFactor, entry);
  }
  for (; k < padded_cols; k += 2, entry += entry_stride) {
    Entry::store(k < cols ? x[k] * Entry::kFactor : 0.0F, 0.0F, entry);
  }
}

/// A quantised row as values, E2M1 times its E4M3 scale: exact in FP32 and BF16.
template <typename Isa, typename Entry>
void store_nvfp4_values(const std::uint8_t* payload, const std::uint8_t* scales, std::int64_t cols,
                        std::int64_t padded_cols, int tile_tokens, int token, std::byte* tile) {
  for (std::int64_t k = 0; k < padded_cols; k += kStepDepth) {
    float values[kStepDepth] = {};
    if (k < cols) Isa::expand_nvfp4(payload + k / 2, scales + k / kStepDepth, kStepDepth, values);
    store_operand<Entry>(values, kStepDepth, kStepDepth, tile_tokens, token,
                         tile + k / 2 * tile_tokens * Entry::kBytes);
  }
}

constexpr int index_of(TileFormat format) { return static_cast<int>(format); }

/// Exact: values that BF16 holds. Fp16: FP16 tokens. Fp8: E4M3 tokens.
template <typename Isa, typename ExactEntry, typename Fp16Entry, typename Fp8Entry>
void fill_tile_kernels(CpuKernels& table) {
  constexpr int kNvfp4 = index_of(TileFormat::kNvfp4);
  constexpr int kNvfp4Bf16 = index_of(TileFormat::kNvfp4Bf16);
  constexpr int kNvfp4Fp16 = index_of(TileFormat::kNvfp4Fp16);
  constexpr int kFp8 = index_of(TileFormat::kFp8);
  constexpr int kFp8Block = index_of(TileFormat::kFp8Block);
  table.max_tile_tokens = Isa::kTileTokens;
  table.operand_steps = 1;
  table.operand_step_bytes[kNvfp4] = kPairsPerStep * ExactEntry::kBytes;
  table.operand_step_bytes[kNvfp4Bf16] = kPairsPerStep * ExactEntry::kBytes;
  table.operand_step_bytes[kNvfp4Fp16] = kPairsPerStep * Fp16Entry::kBytes;
  table.operand_step_bytes[kFp8] = kPairsPerStep * Fp8Entry::kBytes;
  table.operand_step_bytes[kFp8Block] = kPairsPerStep * Fp8Entry::kBytes;
  table.store_nvfp4_operand = store_nvfp4_values<Isa, ExactEntry>;
  table.store_operand[kNvfp4Bf16] = store_operand<ExactEntry>;
  table.store_operand[kNvfp4Fp16] = store_operand<Fp16Entry>;
  table.store_operand[kFp8] = store_operand<Fp8Entry>;
  table.store_operand[kFp8Block] = store_operand<Fp8Entry>;
  unroll<Isa::kTileTokens>([&](auto t) {
    constexpr int kTokens = t.kValue + 1;
    table.multiply_tile[kNvfp4][t.kValue] = multiply_nvfp4<Isa, ExactEntry, kTokens>;
    table.multiply_tile[kNvfp4Bf16][t.kValue] = multiply_nvfp4<Isa, ExactEntry, kTokens>;
    table.multiply_tile[kNvfp4Fp16][t.kValue] = multiply_nvfp4<Isa, Fp16Entry, kTokens>;
    table.multiply_tile[kFp8][t.kValue] = multiply_fp8<Isa, Fp8Entry, kTokens>;
    table.multiply_tile[kFp8Block][t.kValue] = multiply_fp8_block<Isa, Fp8Entry, kTokens>;
  });
}

}  // namespace
}  // namespace moebench::cpu
