// The grouped GEMM kernel: one persistent thread block per multiprocessor, a producer warp that streams weights and tokens
// into a ring of shared memory, and two warpgroups, each of which multiplies two 64-row blocks of the weights with the same
// tile of tokens: while the tensor cores work on one block, the other is expanded. Weights are expanded to 16 bits in registers, right before the multiplication that consumes them.
#pragma once

#include "moebench/backend/cuda/expand.cuh"
#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kConsumerGroups = 2;
inline constexpr int kGroupBlocks = kTileBlocks / kConsumerGroups;  ///< blocks of one warpgroup
inline constexpr int kConsumerThreads = kConsumerGroups * kWarpgroupThreads;
inline constexpr int kConsumerWarps = kConsumerThreads / 32;
inline constexpr int kTileWarps = kTileBlocks * 4;  ///< 16-row strips of a tile
inline constexpr int kGemmThreads = kConsumerThreads + kWarpgroupThreads;
inline constexpr int kMaxStages = 12;
/// Of 65536 registers: 2 * 128 * 240 for the consumers, 128 * 24 for the producer's warpgroup.
inline constexpr int kConsumerRegisters = 240;
inline constexpr int kProducerRegisters = 24;

/// Shared memory: the ring, aligned to the swizzle's 1024 bytes, then what consumers exchange, then barriers.
inline constexpr int kSharedBytes = 227 * 1024;
inline constexpr int kExchangeBytes = kTileWarps * kMaxTileTokens * 4;
inline constexpr int kBarrierBytes = 2 * kMaxStages * 8;
inline constexpr int kRingBytes = kSharedBytes - 1024 - kExchangeBytes - kBarrierBytes;

template <WeightKind kind>
inline constexpr int kWeightChunkBytes = kind == WeightKind::kNvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes;
template <WeightKind kind>
inline constexpr int kMaxRows = kind == WeightKind::kFp8Block ? kMaxBlockScaledTileTokens : kMaxTileTokens;

/// Bytes of a token's row in an operand per chunk of 128 columns.
inline constexpr int kOperandChunkBytes = kChunkDepth * 2;

/// One tile of work of a thread block: 256 weight rows x tile_rows tokens over chunks [first, last).
struct WorkTile {
  ExpertTiles entry;
  int row_tile;
  int tile;
  int first_chunk;
  int last_chunk;
};

/// Walks through a thread block's share.
class WorkList {
 public:
  __device__ WorkList(const GemmArgs& args, int block)
      : entries_(args.entries),
        chunks_(static_cast<int>(args.geometry.chunks)),
        units_(static_cast<int>(args.geometry.tile_rows_blocks()) * chunks_) {
    const PlanHeader header = *args.plan;
    at_ = work_begin(header, entries_, units_, block, args.grid);
    end_ = work_begin(header, entries_, units_, block + 1, args.grid);
    if (at_.entry < header.active) entry_ = entries_[at_.entry];
  }
  __device__ bool next(WorkTile& tile) {
    if (at_.entry > end_.entry || (at_.entry == end_.entry && at_.unit >= end_.unit)) return false;
    const int in_tile = at_.unit % chunks_;
    const int tile_index = at_.unit / chunks_;
    int count = chunks_ - in_tile;
    if (at_.entry == end_.entry) count = min(count, end_.unit - at_.unit);
    tile.entry = entry_;
    tile.tile = tile_index % entry_.tiles;
    tile.row_tile = tile_index / entry_.tiles;
    tile.first_chunk = in_tile;
    tile.last_chunk = in_tile + count;
    at_.unit += count;
    if (at_.unit == entry_.tiles * units_) {
      at_ = {at_.entry + 1, 0};
      // The last block's share ends past the last entry, which there is nothing to load for.
      if (at_.entry < end_.entry || (at_.entry == end_.entry && end_.unit > 0)) entry_ = entries_[at_.entry];
    }
    return true;
  }

 private:
  const ExpertTiles* entries_;
  int chunks_;
  int units_;
  WorkPosition at_;
  WorkPosition end_;
  ExpertTiles entry_{};
};

/// Where in the ring a role stands.
struct RingPosition {
  int stage = 0;
  std::uint32_t phase = 0;
  __device__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

struct Ring {
  std::uint32_t data;   ///< shared address
  std::uint32_t full;   ///< barriers
  std::uint32_t empty;
  int stages;
  int stage_bytes;
  __device__ std::uint32_t at(int stage) const { return data + stage * stage_bytes; }
  __device__ std::uint32_t full_at(int stage) const { return full + stage * 8; }
  __device__ std::uint32_t empty_at(int stage) const { return empty + stage * 8; }
};

__device__ inline int blocks_of(const GemmArgs& args, int row_tile) {
  return min(kTileBlocks, static_cast<int>(args.geometry.blocks) - row_tile * kTileBlocks);
}

// ---------------------------------------------------------------- producer

template <WeightKind kind>
class Producer {
 public:
  __device__ Producer(const GemmArgs& args, const Ring& ring)
      : args_(args), ring_(ring), once_(ptx::policy_evict_first()), again_(ptx::policy_evict_normal()) {}

  /// One thread does all of this.
  __device__ void run() {
    // Weights depend on no kernel before this one: the ring is filled with them while that one may still run.
    WorkList ahead(args_, blockIdx.x);
    WorkTile tile;
    RingPosition weights_at;
    int filled = 0;
    bool more = true;
    while (filled < ring_.stages && (more = ahead.next(tile))) {
      int chunk = tile.first_chunk;
      for (; chunk < tile.last_chunk && filled < ring_.stages; ++chunk, ++filled) {
        load_weights(tile, chunk, weights_at.stage);
        weights_at.advance(ring_.stages);
      }
      resume_ = chunk;
    }
    ptx::wait_for_previous_kernel();

    WorkList work(args_, blockIdx.x);
    RingPosition at;
    int seen = 0;
    while (work.next(tile)) {
      for (int chunk = tile.first_chunk; chunk < tile.last_chunk; ++chunk, ++seen) {
        if (seen >= filled) {
          ptx::barrier_wait(ring_.empty_at(at.stage), at.phase ^ 1);
          load_weights(tile, chunk, at.stage);
        }
        load_operand(tile, chunk, at.stage);
        at.advance(ring_.stages);
      }
    }
  }

 private:
  __device__ void load_weights(const WorkTile& tile, int chunk, int stage) const {
    const int blocks = blocks_of(args_, tile.row_tile);
    ptx::barrier_expect(ring_.full_at(stage), blocks * kWeightChunkBytes<kind> +
                                                  tile.entry.tile_rows * kOperandChunkBytes);
    const std::uint64_t policy = tile.entry.tiles == 1 ? once_ : again_;
    const std::uint8_t* from = args_.weights + tile.entry.expert * args_.geometry.expert_bytes() +
                               tile.row_tile * kTileBlocks * args_.geometry.block_bytes() +
                               chunk * kWeightChunkBytes<kind>;
    for (int block = 0; block < blocks; ++block) {
      ptx::copy_to_shared(ring_.at(stage) + block * kWeightChunkBytes<kind>,
                          from + block * args_.geometry.block_bytes(), kWeightChunkBytes<kind>,
                          ring_.full_at(stage), policy);
    }
  }
  __device__ void load_operand(const WorkTile& tile, int chunk, int stage) const {
    const std::int64_t rows = tile.entry.tile_rows;
    const std::uint8_t* from =
        args_.operand +
        (tile.entry.first_row + tile.tile * rows) * args_.geometry.chunks * kOperandChunkBytes +
        chunk * rows * kOperandChunkBytes;
    ptx::copy_to_shared(ring_.at(stage) + kTileBlocks * kWeightChunkBytes<kind>, from,
                        tile.entry.tile_rows * kOperandChunkBytes, ring_.full_at(stage), again_);
  }

  const GemmArgs& args_;
  const Ring& ring_;
  std::uint64_t once_;
  std::uint64_t again_;
  int resume_ = 0;
};

// ---------------------------------------------------------------- consumers

template <HalfType type>
__device__ inline std::uint16_t round_half(float x) {
  if constexpr (type == HalfType::kFp16) {
    return __half_as_ushort(__float2half_rn(x));
  } else {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
  }
}
template <HalfType type>
__device__ inline float widen_half(std::uint16_t bits) {
  if constexpr (type == HalfType::kFp16) {
    return __half2float(__ushort_as_half(bits));
  } else {
    return __bfloat162float(__ushort_as_bfloat16(bits));
  }
}

__device__ inline float e4m3_round(float x) {
  std::uint16_t code;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(code) : "f"(0.0F), "f"(x));
  std::uint32_t pair;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(code));
  return __half2float(__ushort_as_half(static_cast<std::uint16_t>(pair)));
}

/// Nearest E2M1 value, ties to the even code, saturating at 6: the step is 0.5 below 2, 1 below 4, 2 above.
__device__ inline float e2m1_round(float x) {
  const float t = fminf(fabsf(x), 6.0F);
  const float step = t < 2.0F ? 0.5F : t < 4.0F ? 1.0F : 2.0F;
  const float inverse = t < 2.0F ? 2.0F : t < 4.0F ? 1.0F : 0.5F;
  return copysignf(rintf(t * inverse) * step, x);
}

__device__ inline float silu(float x) { return x / (1.0F + expf(-x)); }

/// Values of two tokens in one column each -> two neighbouring columns of one token: lanes whose row pairs are neighbours
/// swap, the even one keeps the first token.
template <typename Half>
__device__ inline std::uint32_t pair_columns(Half first, Half second, bool odd) {
  const std::uint32_t give = odd ? first : second;
  const std::uint32_t got = __shfl_xor_sync(0xFFFFFFFF, give, 4);
  const std::uint32_t keep = odd ? second : first;
  return odd ? (got | keep << 16) : (keep | got << 16);
}

template <WeightKind kind, HalfType type, Projection projection>
class Consumer {
 public:
  static constexpr Wide kWide = kind == WeightKind::kNvfp4 && type == HalfType::kBf16 ? Wide::kBf16 : Wide::kFp16;

  __device__ __forceinline__ Consumer(const GemmArgs& args, const Ring& ring, float* exchange)
      : args_(args),
        ring_(ring),
        exchange_(exchange),
        thread_(threadIdx.x % kWarpgroupThreads),
        group_(threadIdx.x / kWarpgroupThreads) {}

  __device__ __forceinline__ void run() {
    WorkList work(args_, blockIdx.x);
    WorkTile tile;
    ptx::wait_for_previous_kernel();
    while (work.next(tile)) {
      switch (tile.entry.tile_rows) {
        case 8:
          multiply_tile<8>(tile);
          break;
        case 16:
          multiply_tile<16>(tile);
          break;
        case 32:
          multiply_tile<32>(tile);
          break;
        case 48:
          multiply_tile<48>(tile);
          break;
        case 64:
          if constexpr (kMaxRows<kind> >= 64) multiply_tile<64>(tile);
          break;
        case 96:
          if constexpr (kMaxRows<kind> >= 96) multiply_tile<96>(tile);
          break;
        default:
          __trap();
      }
    }
  }

 private:
  /// The sums of the thread's blocks; of block b: [i * 4 + {0, 1}] the lower row, tokens i * 8 + first_token() + {0, 1},
  /// [i * 4 + {2, 3}] the upper row.
  template <int N>
  using Sums = float[kGroupBlocks][N / 2];

  template <int N>
  __device__ __forceinline__ void multiply_tile(const WorkTile& tile) {
    Sums<N> sums{};
    if constexpr (kind == WeightKind::kFp8Block) {
      accumulate_scaled<N>(tile, sums);
    } else {
      accumulate<N>(tile, sums);
    }
    if (tile.first_chunk > 0) {
      give_partial<N>(sums);
      return;
    }
    if (tile.last_chunk < args_.geometry.chunks) add_partials<N>(tile, sums);
    if constexpr (projection == Projection::kGateUp) {
      finish_gate_up<N>(tile, sums);
    } else {
      finish_down<N>(tile, sums);
    }
  }

  /// 16-column groups that are expanded at a time: the registers for four are there up to 64 tokens.
  template <int N>
  static constexpr int kBatch = N <= 64 && kind != WeightKind::kFp8Block ? 4 : 2;

  template <int N, int kFirstGroup>
  __device__ __forceinline__ static void multiply_batch(float (&sums)[N / 2], ChunkReader<kind, kWide>& reader, std::uint32_t operand) {
    constexpr int kCount = kBatch<N>;
    std::uint32_t a[kCount][4];
    reader.template expand<kFirstGroup, kCount>(a);
    // All of it before the first multiplication: a register that is written between two of them makes them wait.
#pragma unroll
    for (auto& fragment : a) ptx::keep_before(fragment);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int group = kFirstGroup + i;
      const std::uint64_t b = ptx::operand_descriptor(operand + group / 4 * (N * kSwizzleBytes) + group % 4 * 32);
      ptx::Wgmma<kWide == Wide::kBf16, N>::multiply(sums, a[i], b);
    }
    ptx::wgmma_commit();
  }

  /// The rest of a chunk after the first batch of block 0; the batches of the two blocks take turns.
  template <int N, int kFirstGroup>
  __device__ __forceinline__ static void multiply_rest(Sums<N>& sums, ChunkReader<kind, kWide>& first, ChunkReader<kind, kWide>& second,
                                       std::uint32_t operand) {
    multiply_batch<N, kFirstGroup>(sums[1], second, operand);
    ptx::wgmma_wait<1>();
    if constexpr (kFirstGroup + kBatch<N> < kChunkGroups) {
      multiply_batch<N, kFirstGroup + kBatch<N>>(sums[0], first, operand);
      ptx::wgmma_wait<1>();
      multiply_rest<N, kFirstGroup + kBatch<N>>(sums, first, second, operand);
    }
  }

  __device__ __forceinline__ std::uint32_t weights_at(int stage, int block) const {
    return ring_.at(stage) + (group_ * kGroupBlocks + block) * kWeightChunkBytes<kind>;
  }
  __device__ __forceinline__ std::uint32_t operand_at(int stage) const {
    return ring_.at(stage) + kTileBlocks * kWeightChunkBytes<kind>;
  }
  /// Gives a stage back, if `stage` >= 0. Without a branch: one inside the pipeline makes ptxas serialise the wgmmas.
  __device__ __forceinline__ void release(int stage) const {
    ptx::barrier_arrive_if(ring_.empty_at(stage), thread_ % 32 == 0 && stage >= 0);
  }

  /// A block that the matrix lacks is multiplied like the others, with whatever the ring holds; its sums go nowhere.
  template <int N>
  __device__ __forceinline__ void accumulate(const WorkTile& tile, Sums<N>& sums) {
    int previous = -1;
    for (int chunk = tile.first_chunk; chunk < tile.last_chunk; ++chunk) {
      ptx::barrier_wait(ring_.full_at(at_.stage), at_.phase);
      const std::uint32_t operand = operand_at(at_.stage);
      ChunkReader<kind, kWide> first(weights_at(at_.stage, 0), thread_);
      multiply_batch<N, 0>(sums[0], first, operand);
      ptx::wgmma_wait<1>();  // all but what was just begun: the stage before is done with
      release(previous);
      ChunkReader<kind, kWide> second(weights_at(at_.stage, 1), thread_);
      multiply_rest<N, 0>(sums, first, second, operand);
      previous = at_.stage;
      at_.advance(ring_.stages);
    }
    ptx::wgmma_wait<0>();
    release(previous);
  }

  /// fp8-block: the products of a chunk are summed by themselves, and the sum scaled by the chunk's weight and token scales.
  template <int N>
  __device__ __forceinline__ void accumulate_scaled(const WorkTile& tile, Sums<N>& sums) {
    const std::int64_t chunks = args_.geometry.chunks;
    const std::int64_t rows = projection == Projection::kGateUp ? 2 * args_.intermediate : args_.hidden;
    const float* weight_scales = args_.weight_scale + tile.entry.expert * divide_up(rows, kChunkDepth) * chunks;
    const std::int64_t first_row = tile.entry.first_row + tile.tile * N;
    const float* token_scales = args_.token_scale + (first_row + first_token()) * chunks;
    const float* row_scales[kGroupBlocks][2];
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      for (int upper = 0; upper < 2; ++upper) {
        row_scales[block][upper] = weight_scales + weight_row(tile, block, upper) / kChunkDepth * chunks;
      }
    }
    for (int chunk = tile.first_chunk; chunk < tile.last_chunk; ++chunk) {
      ptx::barrier_wait(ring_.full_at(at_.stage), at_.phase);
      const std::uint32_t operand = operand_at(at_.stage);
      Sums<N> parts{};
      ChunkReader<kind, kWide> first(weights_at(at_.stage, 0), thread_);
      multiply_batch<N, 0>(parts[0], first, operand);
      ChunkReader<kind, kWide> second(weights_at(at_.stage, 1), thread_);
      multiply_rest<N, 0>(parts, first, second, operand);
      float scales[kGroupBlocks][2];
      for (int block = 0; block < kGroupBlocks; ++block) {
        for (int upper = 0; upper < 2; ++upper) scales[block][upper] = row_scales[block][upper][chunk];
      }
      ptx::wgmma_wait<0>();
      release(at_.stage);
      at_.advance(ring_.stages);
#pragma unroll
      for (int i = 0; i < N / 8; ++i) {
        const float token0 = token_scales[i * 8 * chunks + chunk];
        const float token1 = token_scales[(i * 8 + 1) * chunks + chunk];
#pragma unroll
        for (int block = 0; block < kGroupBlocks; ++block) {
          float* sum = sums[block] + i * 4;
          const float* part = parts[block] + i * 4;
          sum[0] += part[0] * (scales[block][0] * token0);
          sum[1] += part[1] * (scales[block][0] * token1);
          sum[2] += part[2] * (scales[block][1] * token0);
          sum[3] += part[3] * (scales[block][1] * token1);
        }
      }
    }
  }

  // ------------------------------------------------------------ split tiles

  __device__ __forceinline__ float* partial_of(int block) const {
    return args_.partial + std::int64_t{block} * kTileBlocks * kBlockRows * kMaxTileTokens + threadIdx.x;
  }

  /// This block holds a later part of a tile, which the block with its first chunk finishes.
  template <int N>
  __device__ __forceinline__ void give_partial(const Sums<N>& sums) const {
    float* out = partial_of(blockIdx.x);
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < N / 2; ++i) __stcg(out + (block * (N / 2) + i) * kConsumerThreads, sums[block][i]);
    }
    __threadfence();
    ptx::named_barrier(kAllConsumers, kConsumerThreads);
    if (threadIdx.x == 0) ptx::store_release(args_.arrived + blockIdx.x, 1);
  }

  /// In the order of the blocks, so that the sum has the same bits every time.
  template <int N>
  __device__ __forceinline__ void add_partials(const WorkTile& tile, Sums<N>& sums) const {
    const PlanHeader header = *args_.plan;
    const int chunks = static_cast<int>(args_.geometry.chunks);
    const int units = static_cast<int>(args_.geometry.tile_rows_blocks()) * chunks;
    const int tile_index = tile.row_tile * tile.entry.tiles + tile.tile;
    int covered = tile.last_chunk;
    for (int block = blockIdx.x + 1; covered < chunks; ++block) {
      const WorkPosition end = work_begin(header, args_.entries, units, block + 1, args_.grid);
      // The entry of this tile is known by its first row.
      const bool in_entry = end.entry < header.active && args_.entries[end.entry].first_row == tile.entry.first_row;
      const bool in_tile = in_entry && end.unit / chunks == tile_index;
      const int until = in_tile ? end.unit % chunks : chunks;
      if (until == covered) continue;  // an empty share
      covered = until;
      if (thread_ % 32 == 0) {
        while (ptx::load_acquire(args_.arrived + block) == 0) {
        }
      }
      __syncwarp();
      const float* in = partial_of(block);
#pragma unroll
      for (int b = 0; b < kGroupBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
          if (i % 8 == 0) ptx::keep_order();
          sums[b][i] += __ldcg(in + (b * (N / 2) + i) * kConsumerThreads);
        }
      }
      ptx::named_barrier(kAllConsumers, kConsumerThreads);
      if (threadIdx.x == 0) args_.arrived[block] = 0;
    }
  }

  // ------------------------------------------------------------ epilogues

  /// `block`: 0 or 1, of the thread's own.
  __device__ __forceinline__ int block_of(const WorkTile& tile, int block) const {
    return tile.row_tile * kTileBlocks + group_ * kGroupBlocks + block;
  }
  __device__ __forceinline__ int warp() const { return thread_ / 32; }
  __device__ __forceinline__ int row_pair() const { return thread_ % 32 / 4; }
  __device__ __forceinline__ int first_token() const { return thread_ % 4 * 2; }

  /// Canonical row of the thread's row `upper` (0, 1) of a block, or one that exists.
  __device__ __forceinline__ std::int64_t weight_row(const WorkTile& tile, int block, int upper) const {
    const std::int64_t row = canonical_row(projection, block_of(tile, block), warp() * 16 + upper * 8 + row_pair(),
                                           args_.hidden, args_.intermediate);
    return row < 0 ? 0 : row;
  }
  __device__ __forceinline__ float weight_scale(const WorkTile& tile, int block, int upper) const {
    if constexpr (kind == WeightKind::kFp8Block) return 1.0F;
    if (!args_.per_channel) return args_.weight_scale[tile.entry.expert];
    const std::int64_t rows = projection == Projection::kGateUp ? 2 * args_.intermediate : args_.hidden;
    return args_.weight_scale[tile.entry.expert * rows + weight_row(tile, block, upper)];
  }
  __device__ __forceinline__ float token_scale(std::int64_t row) const {
    if constexpr (kind != WeightKind::kFp8) return 1.0F;
    return args_.token_scale[args_.per_token ? row : 0];
  }

  /// Rows of the tile that are tokens.
  template <int N>
  __device__ __forceinline__ static int valid_rows(const WorkTile& tile) {
    return min(N, tile.entry.rows - tile.tile * N);
  }
  template <int N>
  __device__ __forceinline__ static std::int64_t first_row(const WorkTile& tile) {
    return tile.entry.first_row + tile.tile * N;
  }

  /// h of one block takes the place of its sums: [i * 2 + {0, 1}] for the tokens i * 8 + first_token() + {0, 1}.
  template <int N>
  __device__ __forceinline__ void activate(const WorkTile& tile, int block, float (&sums)[N / 2]) const {
    const bool padding = block_of(tile, block) >= args_.geometry.blocks;
    const int last = valid_rows<N>(tile) - 1;
    const float gate_scale = weight_scale(tile, block, 0);
    const float up_scale = weight_scale(tile, block, 1);
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
        ptx::keep_order();
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const float scale = token_scale(first_row<N>(tile) + min(i * 8 + first_token() + t, last));
        const float gate = widen_half<type>(round_half<type>(sums[i * 4 + t] * (gate_scale * scale)));
        const float up = widen_half<type>(round_half<type>(sums[i * 4 + 2 + t] * (up_scale * scale)));
        const float h = widen_half<type>(round_half<type>(silu(gate) * up));
        sums[i * 2 + t] = padding ? 0.0F : h;
      }
    }
  }

  template <int N>
  __device__ __forceinline__ void finish_gate_up(const WorkTile& tile, Sums<N>& sums) {
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) activate<N>(tile, block, sums[block]);
    if constexpr (kind == WeightKind::kNvfp4) {
      if (args_.hidden_output == HiddenOutput::kNvfp4) quantize_nvfp4<N>(tile, sums);
    } else if constexpr (kind == WeightKind::kFp8Block) {
      quantize_fp8_block<N>(tile, sums);
    }
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      if constexpr (kind == WeightKind::kFp8) {
        store_hidden_rows<N>(tile, block, sums[block]);
      } else {
        store_hidden_operand<N>(tile, block, sums[block]);
      }
    }
  }

  /// Largest |h| over the 8 columns of each 16-row strip, per token, to where all warps can read it.
  template <int N>
  __device__ __forceinline__ void share_amax(const Sums<N>& h, int barrier, int threads) {
    // What the tile before left may still be being read.
    ptx::named_barrier(barrier, threads);
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      float* out = exchange_ + strip(block) * kMaxTileTokens + first_token();
#pragma unroll
      for (int i = 0; i < N / 4; ++i) {
        float amax = fabsf(h[block][i]);
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) {
          amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFF, amax, lanes));
        }
        if (row_pair() == 0) out[i / 2 * 8 + i % 2] = amax;
      }
    }
    ptx::named_barrier(barrier, threads);
  }
  __device__ __forceinline__ int strip(int block) const { return (group_ * kGroupBlocks + block) * 4 + warp(); }

  /// Blocks of 16 columns are the columns of two neighbouring strips. Leaves e2m1 * scale, exact in 16 bits.
  template <int N>
  __device__ __forceinline__ void quantize_nvfp4(const WorkTile& tile, Sums<N>& h) {
    share_amax<N>(h, kOneWarpgroup + group_, kWarpgroupThreads);
    const float global_scale = args_.hidden_global_scale[tile.entry.expert];
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      const float* strips = exchange_ + strip(block) / 2 * 2 * kMaxTileTokens + first_token();
#pragma unroll
      for (int i = 0; i < N / 4; ++i) {
        const int token = i / 2 * 8 + i % 2;
        const float amax = fmaxf(strips[token], strips[kMaxTileTokens + token]);
        const float scale = e4m3_round(global_scale * __fdiv_rn(amax, 6.0F));
        const float factor = scale == 0.0F ? 0.0F : __fdiv_rn(global_scale, scale);
        h[block][i] = e2m1_round(h[block][i] * factor) * scale;
      }
    }
  }

  /// Groups of 128 columns are all columns of the tile. Leaves the e4m3 values.
  template <int N>
  __device__ __forceinline__ void quantize_fp8_block(const WorkTile& tile, Sums<N>& h) {
    share_amax<N>(h, kAllConsumers, kConsumerThreads);
    const std::int64_t groups = divide_up(args_.intermediate, kChunkDepth);
    float* scales = args_.hidden_block_scale + first_row<N>(tile) * groups + tile.row_tile;
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
      const int token = i / 2 * 8 + i % 2 + first_token();
      float amax = 0.0F;
#pragma unroll
      for (int other = 0; other < kTileWarps; ++other) amax = fmaxf(amax, exchange_[other * kMaxTileTokens + token]);
      const float scale = fp8_scale(amax);
      if (threadIdx.x < 4 && token < valid_rows<N>(tile)) scales[token * groups] = scale;
#pragma unroll
      for (int block = 0; block < kGroupBlocks; ++block) h[block][i] = e4m3_round(__fdiv_rn(h[block][i], scale));
    }
  }

  /// As in quant/fp8.h: amax / 448, never rounded to 0; 1 for amax 0.
  __device__ __forceinline__ static float fp8_scale(float amax) {
    if (amax == 0.0F) return 1.0F;
    return fmaxf(__fdiv_rn(amax, 448.0F), 1.401298464e-45F);
  }

  /// Type of GEMM2's operand: FP8 schemes multiply in FP16 whatever the activation type.
  static constexpr HalfType kOperandType = kWide == Wide::kBf16 ? HalfType::kBf16 : HalfType::kFp16;

  /// First of the two neighbouring intermediate columns that this thread and its partner hold.
  __device__ __forceinline__ int hidden_column(const WorkTile& tile, int block) const {
    return block_of(tile, block) * (kBlockRows / 2) + warp() * 8 + (row_pair() & ~1);
  }

  template <int N>
  __device__ __forceinline__ void store_hidden_operand(const WorkTile& tile, int block, const float (&h)[N / 2]) const {
    const std::int64_t chunks = divide_up(args_.intermediate, kChunkDepth);
    std::uint8_t* out = args_.hidden_out + first_row<N>(tile) * chunks * kOperandChunkBytes;
    const bool odd = row_pair() % 2 != 0;
    const int column = hidden_column(tile, block);
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const std::uint32_t two = pair_columns(round_half<kOperandType>(h[i * 2]),
                                             round_half<kOperandType>(h[i * 2 + 1]), odd);
      const int token = i * 8 + first_token() + odd;
      if (token < valid_rows<N>(tile) && column < chunks * kChunkDepth) {
        *reinterpret_cast<std::uint32_t*>(out + operand_offset(N, token, column * 2)) = two;
      }
    }
  }

  template <int N>
  __device__ __forceinline__ void store_hidden_rows(const WorkTile& tile, int block, const float (&h)[N / 2]) const {
    auto* out = reinterpret_cast<std::uint16_t*>(args_.hidden_out) + first_row<N>(tile) * args_.intermediate;
    const bool odd = row_pair() % 2 != 0;
    const int column = hidden_column(tile, block);
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const std::uint32_t two =
          pair_columns(round_half<type>(h[i * 2]), round_half<type>(h[i * 2 + 1]), odd);
      const int token = i * 8 + first_token() + odd;
      if (token < valid_rows<N>(tile)) {
        store_pair(out + token * args_.intermediate, two, column, args_.intermediate);
      }
    }
  }

  template <int N>
  __device__ __forceinline__ void finish_down(const WorkTile& tile, const Sums<N>& sums) const {
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      const float scale0 = weight_scale(tile, block, 0);
      const float scale1 = weight_scale(tile, block, 1);
      const int column = block_of(tile, block) * kBlockRows + warp() * 16 + row_pair() * 2;
#pragma unroll
      for (int i = 0; i < N / 8; ++i) {
        ptx::keep_order();
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const int token = i * 8 + first_token() + t;
          if (token >= valid_rows<N>(tile)) continue;
          const std::int64_t row = first_row<N>(tile) + token;
          const float scale = token_scale(row);
          const std::uint32_t two =
              round_half<type>(sums[block][i * 4 + t] * (scale0 * scale)) |
              std::uint32_t{round_half<type>(sums[block][i * 4 + 2 + t] * (scale1 * scale))} << 16;
          const std::int64_t pair = args_.row_pair[row];
          store_pair(args_.pair_out + pair * args_.hidden, two, column, args_.hidden);
        }
      }
    }
  }

  /// Columns `column` (even) and the next of a row; rows of odd length are not aligned for one store.
  __device__ __forceinline__ static void store_pair(std::uint16_t* row, std::uint32_t two, std::int64_t column,
                                    std::int64_t columns) {
    if (columns % 2 == 0) {
      if (column < columns) *reinterpret_cast<std::uint32_t*>(row + column) = two;
      return;
    }
    if (column < columns) row[column] = static_cast<std::uint16_t>(two);
    if (column + 1 < columns) row[column + 1] = static_cast<std::uint16_t>(two >> 16);
  }

  static constexpr int kAllConsumers = 1;
  static constexpr int kOneWarpgroup = 2;

  const GemmArgs& args_;
  const Ring& ring_;
  float* exchange_;
  int thread_;
  int group_;
  RingPosition at_;
};

template <WeightKind kind, HalfType type, Projection projection>
__global__ void __launch_bounds__(kGemmThreads, 1) grouped_gemm(const __grid_constant__ GemmArgs args) {
  extern __shared__ std::uint8_t shared[];
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t aligned = (base + 1023) / 1024 * 1024;
  const std::uint32_t after_ring = aligned + kRingBytes / 16 * 16;
  auto* exchange = reinterpret_cast<float*>(shared + (after_ring - base));
  const std::uint32_t barriers = after_ring + kExchangeBytes;
  ptx::allow_next_kernel();

  // The ring is as deep as the largest tile of this call leaves room for.
  Ring ring{};
  ring.data = aligned;
  ring.full = barriers;
  ring.empty = barriers + kMaxStages * 8;
  ring.stage_bytes = kTileBlocks * kWeightChunkBytes<kind> + args.plan->max_tile_rows * kOperandChunkBytes;
  ring.stages = min(kMaxStages, kRingBytes / ring.stage_bytes);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < ring.stages; ++stage) {
      ptx::barrier_init(ring.full_at(stage), 1);
      ptx::barrier_init(ring.empty_at(stage), kConsumerWarps);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();

  if (threadIdx.x >= kConsumerThreads) {
    ptx::fewer_registers<kProducerRegisters>();
    if (threadIdx.x == kConsumerThreads) Producer<kind>(args, ring).run();
  } else {
    ptx::more_registers<kConsumerRegisters>();
    Consumer<kind, type, projection>(args, ring, exchange).run();
  }
}

template <WeightKind kind, HalfType type, Projection projection>
cudaError_t launch_grouped_gemm(const GemmArgs& args, cudaStream_t stream) {
  static const cudaError_t prepared = cudaFuncSetAttribute(
      grouped_gemm<kind, type, projection>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  cudaLaunchAttribute serialization{};
  serialization.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  serialization.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(args.grid));
  config.blockDim = dim3(kGemmThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &serialization;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, grouped_gemm<kind, type, projection>, args);
}

template <WeightKind kind>
cudaError_t launch_grouped_gemm(Projection projection, HalfType type, const GemmArgs& args, cudaStream_t stream) {
  const bool gate_up = projection == Projection::kGateUp;
  if (type == HalfType::kFp16) {
    return gate_up ? launch_grouped_gemm<kind, HalfType::kFp16, Projection::kGateUp>(args, stream)
                   : launch_grouped_gemm<kind, HalfType::kFp16, Projection::kDown>(args, stream);
  }
  return gate_up ? launch_grouped_gemm<kind, HalfType::kBf16, Projection::kGateUp>(args, stream)
                 : launch_grouped_gemm<kind, HalfType::kBf16, Projection::kDown>(args, stream);
}

}  // namespace moebench::cuda
