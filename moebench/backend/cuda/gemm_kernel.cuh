// The grouped GEMM kernel: one persistent thread block per multiprocessor, alone or in teams of two
// that share their tokens. In each two producer threads stream weights and tokens into a ring of
// shared memory, and two warpgroups, the consumers, each multiply two 64-row blocks of the weights
// with the same tile of tokens: while the tensor cores work on one block, the other is expanded to
// 16 bits in registers, right before the multiplication that consumes it. In NVFP4's GEMM1 two more
// warps, the finishers, make GEMM2's operand of the sums.
#pragma once

#include <type_traits>

#include "moebench/backend/cuda/expand.cuh"
#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/gemm_finisher.cuh"
#include "moebench/backend/cuda/gemm_producer.cuh"

namespace moebench::cuda {

template <WeightKind kind, HalfType type, Projection projection, TileSet set, int kTeamBlocks>
class Consumer {
 public:
  static constexpr Wide kWide =
      kind == WeightKind::kNvfp4 && type == HalfType::kBf16 ? Wide::kBf16 : Wide::kFp16;

  __device__ __forceinline__ Consumer(const GemmArgs& args, const Ring& ring, float* exchange)
      : args_(args),
        ring_(ring),
        exchange_(exchange),
        thread_(threadIdx.x % kWarpgroupThreads),
        group_(__shfl_sync(kAllLanes, threadIdx.x / kWarpgroupThreads, 0)) {}

  __device__ __forceinline__ void run() {
    ptx::wait_for_previous_kernel();
    for (int number = 0;; ++number) {
      ptx::barrier_wait(ring_.full_at(at_.stage), at_.phase);
      const TileSlot& tile = ring_.tiles[number % kTileSlots];
      if (tile.chunks == 0) break;
      if constexpr (set == TileSet::kSmall) {
        multiply_one_of<8, 16, 24, 32, 40, 48>(tile);
      } else {
        multiply_one_of<16, 48, 64, 72, 80>(tile);
      }
    }
    if constexpr (has_finishers(kind, projection)) {
      ptx::named_barrier(kC1Free, kC1Threads);
      c1_is_of(-1);
    }
  }

 private:
  using Place = cuda::Place<kTeamBlocks>;

  /// Sums of one block: [i * 4 + {0, 1}] the thread's lower row, tokens i * 8 + first_token() + {0,
  /// 1}; [i * 4 + {2, 3}] its upper row.
  template <int N>
  using BlockSums = float[N / 2];
  template <int N>
  using Sums = float[kGroupBlocks][N / 2];

  /// One if after the other, and converged before: with a switch, or an else, ptxas sees registers
  /// for all sizes at once. The number of rows is read again for each, not held in a register
  /// through all of a tile.
  template <int... N>
  __device__ __forceinline__ void multiply_one_of(const TileSlot& tile) {
    const volatile std::int32_t& rows = tile.tile_rows;
    __syncwarp();
    const auto multiply_if = [&](auto size) {
      if (rows == size.value) multiply_tile<size.value>(tile);
    };
    (multiply_if(std::integral_constant<int, N>{}), ...);
  }

  template <int N>
  __device__ __forceinline__ void multiply_tile(const TileSlot& tile) {
    // Set to zero here: sums that are only ever added to would be live from tile to tile, for every
    // N of the switch.
    Sums<N> sums{};
    if constexpr (kind == WeightKind::kFp8Block) {
      accumulate_scaled<N>(tile, sums);
    } else {
      accumulate<N>(tile, sums);
    }
    if (tile.gives != TileSlot::kFinishes) {
      if (tile.gives == TileSlot::kGives) give_sums<N>(tile, sums);
      return;
    }
    add_sums<N>(tile, sums);
    if constexpr (has_finishers(kind, projection)) {
      leave_c1<N>(tile, sums);
    } else if constexpr (projection == Projection::kGateUp) {
      finish_gate_up<N>(tile, sums);
    } else {
      finish_down<N>(tile, sums);
    }
  }

  using Reader = ChunkReader<kind, kWide>;
  /// 16-column groups that are expanded at a time: the registers for four are there up to 64
  /// tokens.
  template <int N>
  static constexpr int kBatch = N <= 64 ? 4 : 2;

  template <int N, int kFirstGroup>
  __device__ __forceinline__ static void multiply_batch(BlockSums<N>& sums, Reader& reader,
                                                        std::uint64_t operand) {
    constexpr int kCount = kBatch<N>;
    // Sums of one chunk begin here. Set to zero before, they took a move each in the largest size.
    constexpr bool kAssign = kind == WeightKind::kFp8Block && kFirstGroup == 0;
    std::uint32_t a[kCount][4];
    reader.template expand<kFirstGroup, kCount>(a);
    // All of it before the first multiplication: a register that is written between two of them
    // makes them wait.
#pragma unroll
    for (auto& fragment : a) ptx::keep_before(fragment);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int group = kFirstGroup + i;
      constexpr int kGroupsPerSwizzle = kSwizzleBytes / 2 / kScaleGroup;
      const int offset = group / kGroupsPerSwizzle * (N * kSwizzleBytes) +
                         group % kGroupsPerSwizzle * kScaleGroup * 2;
      const std::uint64_t columns = operand + (offset >> 4);
      if (kAssign && i == 0) {
        ptx::Wgmma<kWide == Wide::kBf16, N, false>::multiply(sums, a[i], columns);
      } else {
        ptx::Wgmma<kWide == Wide::kBf16, N>::multiply(sums, a[i], columns);
      }
    }
    ptx::wgmma_commit();
  }

  /// The rest of a chunk after the first batch of block 0; the batches of the two blocks take
  /// turns.
  template <int N, int kFirstGroup>
  __device__ __forceinline__ static void multiply_rest(Sums<N>& sums, Reader& first, Reader& second,
                                                       std::uint64_t operand) {
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
  __device__ __forceinline__ std::uint64_t operand_at(int stage) const {
    return operand_descriptor(
        ptx::same_in_warp(ring_.at(stage) + kTileBlocks * kWeightChunkBytes<kind>));
  }
  /// Gives a stage back, if `stage` >= 0. Every lane does, because every lane has read from it: one
  /// arrival a warp costs no less and leaves the others' reads unordered. Without a branch: one
  /// inside the pipeline makes ptxas serialise the wgmmas.
  __device__ __forceinline__ void release(int stage) const {
    ptx::barrier_arrive_if(ring_.empty_at(stage), stage >= 0);
  }

  /// A block that the matrix lacks is multiplied like the others, with whatever the ring holds; its
  /// sums go nowhere.
  template <int N>
  __device__ __forceinline__ void accumulate(const TileSlot& tile, Sums<N>& sums) {
    int previous = -1;
    const int chunks = tile.chunks;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      ptx::barrier_wait(ring_.full_at(at_.stage), at_.phase);
      const std::uint64_t operand = operand_at(at_.stage);
      Reader first(weights_at(at_.stage, 0), thread_);
      Reader second(weights_at(at_.stage, 1), thread_);
      multiply_batch<N, 0>(sums[0], first, operand);
      ptx::wgmma_wait<1>();  // all but what was just begun: the stage before is done with
      release(previous);
      multiply_rest<N, 0>(sums, first, second, operand);
      previous = at_.stage;
      at_.advance(ring_.stages);
    }
    ptx::wgmma_wait<0>();
    release(previous);
  }

  /// fp8-block: the products of a chunk are summed by themselves, and the sum scaled by the chunk's
  /// weight and token scales.
  template <int N>
  __device__ __forceinline__ void accumulate_scaled(const TileSlot& tile, Sums<N>& sums) {
    const std::int64_t chunks = args_.geometry.chunks;
    const std::int64_t rows =
        projection == Projection::kGateUp ? 2 * args_.intermediate : args_.hidden;
    const float* weight_scales =
        args_.weight_scale + tile.expert * divide_up(rows, kChunkDepth) * chunks;
    // The same for both blocks: they are 16 columns of h for each warp, or 128 neighbours.
    const float* row_scales[2];
    for (int upper = 0; upper < 2; ++upper)
      row_scales[upper] = weight_scales + weight_row(tile, 0, upper) / kChunkDepth * chunks;
    const int last_chunk = tile.first_chunk + tile.chunks;
    for (int chunk = tile.first_chunk; chunk < last_chunk; ++chunk) {
      ptx::barrier_wait(ring_.full_at(at_.stage), at_.phase);
      const float2 scale = {row_scales[0][chunk],
                            row_scales[projection == Projection::kGateUp ? 1 : 0][chunk]};
      Sums<N> parts;
      const std::uint64_t operand = operand_at(at_.stage);
      Reader first(weights_at(at_.stage, 0), thread_);
      Reader second(weights_at(at_.stage, 1), thread_);
      multiply_batch<N, 0>(parts[0], first, operand);
      multiply_rest<N, 0>(parts, first, second, operand);
      const std::uint32_t scales = ring_.scales_at(at_.stage) + first_token() * 4;
      float2 token_scales[N / 8];
#pragma unroll
      for (int i = 0; i < N / 8; ++i) token_scales[i] = ptx::load_shared_8(scales + i * 32);
      // What is still under way is block 1's last batch.
      add_scaled<N>(sums[0], parts[0], scale, token_scales);
      ptx::wgmma_wait<0>();
      add_scaled<N>(sums[1], parts[1], scale, token_scales);
      // Weights were multiplied, so they had arrived. That these scales have is not said by the
      // arrival on a barrier.
      ptx::shared_loads_done();
      release(at_.stage);
      at_.advance(ring_.stages);
    }
  }

  /// `scale`: of the thread's lower and upper row; `token_scales`: of the tokens i * 8 +
  /// first_token() + {0, 1}.
  template <int N>
  __device__ __forceinline__ static void add_scaled(BlockSums<N>& sums, const BlockSums<N>& part,
                                                    const float2& scale,
                                                    const float2 (&token_scales)[N / 8]) {
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const float2 token = token_scales[i];
      sums[i * 4] = __fmaf_rn(part[i * 4], scale.x * token.x, sums[i * 4]);
      sums[i * 4 + 1] = __fmaf_rn(part[i * 4 + 1], scale.x * token.y, sums[i * 4 + 1]);
      sums[i * 4 + 2] = __fmaf_rn(part[i * 4 + 2], scale.y * token.x, sums[i * 4 + 2]);
      sums[i * 4 + 3] = __fmaf_rn(part[i * 4 + 3], scale.y * token.y, sums[i * 4 + 3]);
    }
  }

  // ------------------------------------------------------------ split tiles

  /// `slot`: the team's.
  __device__ __forceinline__ float* sums_at(int slot) const {
    return args_.partial +
           std::int64_t{Place::own(slot)} * kTileBlocks * kBlockRows * kMaxTileTokens +
           ptx::known_here(group_ * kWarpgroupThreads + thread_);
  }
  __device__ __forceinline__ std::int32_t* flag_of(int slot) const {
    return args_.hand_over + 1 + Place::own(slot);
  }
  /// For the team that finishes the tile.
  template <int N>
  __device__ __forceinline__ void give_sums(const TileSlot& tile, const Sums<N>& sums) const {
    float* out = sums_at(tile.sums_slot);
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < N / 2; ++i)
        __stcg(out + (block * (N / 2) + i) * kConsumerThreads, sums[block][i]);
    }
    // One thread's release is enough: the barrier orders what the others have stored before it.
    ptx::named_barrier(kAllConsumers, kConsumerThreads);
    if (threadIdx.x == 0) ptx::store_release(flag_of(tile.sums_slot), tile.slot_full);
  }

  /// In the same order every time, so that the sum has the same bits.
  template <int N>
  __device__ __forceinline__ void add_sums(const TileSlot& tile, Sums<N>& sums) const {
    // Loads that are on their way together.
    constexpr int kTogether = 32;
    const int adds = tile.adds;
    int slot = tile.sums_slot;
    int full = tile.slot_full;
    for (int i = 0; i < adds; ++i) {
      if (thread_ % 32 == 0) wait_for_value(flag_of(slot), full);
      __syncwarp();
      const float* in = sums_at(slot);
#pragma unroll
      for (int b = 0; b < kGroupBlocks; ++b) {
#pragma unroll
        for (int j = 0; j < N / 2; ++j) {
          if ((b * (N / 2) + j) % kTogether == 0) ptx::keep_order();
          sums[b][j] += __ldcg(in + (b * (N / 2) + j) * kConsumerThreads);
        }
      }
      ptx::named_barrier(kAllConsumers, kConsumerThreads);
      if (threadIdx.x == 0) ptx::store_release(flag_of(slot), full + 1);
      if (++slot == 2 * args_.grid) {
        slot = args_.grid;
        full += 2;
      }
    }
  }

  // ------------------------------------------------------------ epilogues

  /// `block`: 0 or 1, of the thread's own.
  __device__ __forceinline__ int block_of(const TileSlot& tile, int block) const {
    return tile.row_tile * kTileBlocks + ptx::known_here(group_) * kGroupBlocks + block;
  }
  // Computed where they are used: all of them at once, and what follows from them for each N, would
  // not fit into the registers beside the main loop.
  __device__ __forceinline__ int warp() const { return ptx::known_here(thread_) / 32; }
  __device__ __forceinline__ int row_pair() const { return ptx::known_here(thread_) % 32 / 4; }
  __device__ __forceinline__ int first_token() const { return ptx::known_here(thread_) % 4 * 2; }

  /// Canonical row of the thread's row `upper` (0, 1), or one that exists.
  __device__ __forceinline__ std::int64_t weight_row(const TileSlot& tile, int block,
                                                     int upper) const {
    const std::int64_t row =
        canonical_row(projection, block_of(tile, block), warp() * 16 + upper * 8 + row_pair(),
                      args_.hidden, args_.intermediate);
    return row < 0 ? 0 : row;
  }
  /// Of the thread's lower and upper row of each block.
  struct WeightScales {
    __device__ __forceinline__ WeightScales(const Consumer& consumer, const TileSlot& tile) {
      if constexpr (kind == WeightKind::kFp8) {
        if (consumer.args_.per_channel) {
          const std::int64_t rows = projection == Projection::kGateUp
                                        ? 2 * consumer.args_.intermediate
                                        : consumer.args_.hidden;
          const float* const of_expert = consumer.args_.weight_scale + tile.expert * rows;
          for (int block = 0; block < kGroupBlocks; ++block) {
            of[block] = {of_expert[consumer.weight_row(tile, block, 0)],
                         of_expert[consumer.weight_row(tile, block, 1)]};
          }
          return;
        }
      }
      const float of_tile = kind == WeightKind::kFp8Block ? 1.0F : tile.weight_scale;
      for (auto& of_block : of) of_block = {of_tile, of_tile};
    }
    float2 of[kGroupBlocks];
  };
  /// What belongs to the tokens of a tile is read at once, by one lane each, instead of token after
  /// token: lane l has that of the tokens l, l + 32, ...
  template <int N>
  static constexpr int kLaneTokens = (N + 31) / 32;
  __device__ __forceinline__ static int row_of_lane(const TileSlot& tile, int round) {
    const int token = round * 32 + ptx::known_here(static_cast<int>(threadIdx.x)) % 32;
    return tile.first_row + min(token, tile.valid_rows - 1);
  }
  template <int N>
  class TokenScales {
   public:
    __device__ __forceinline__ TokenScales(const GemmArgs& args, const TileSlot& tile) {
      if constexpr (kind == WeightKind::kFp8) {
#pragma unroll
        for (int round = 0; round < kLaneTokens<N>; ++round) {
          of_lane_[round] =
              args.per_token ? args.token_scale[row_of_lane(tile, round)] : tile.token_scale;
        }
      }
    }
    /// `i`: token / 8, known to the compiler.
    __device__ __forceinline__ float of(int i, int token) const {
      if constexpr (kind == WeightKind::kFp8) {
        return __shfl_sync(kAllLanes, of_lane_[i / 4], token % 32);
      } else {
        return 1.0F;
      }
    }

   private:
    float of_lane_[kLaneTokens<N>];
  };

  /// h of the thread's column of each block: one pair of 16-bit numbers for the tokens i * 8 +
  /// first_token() + {0, 1}.
  template <int N>
  using BlockHidden = std::uint32_t[N / 8];
  template <int N>
  using Hidden = std::uint32_t[kGroupBlocks][N / 8];

  template <int N>
  __device__ __forceinline__ void activate(const TileSlot& tile, int block,
                                           const float2& weight_scale,
                                           const TokenScales<N>& token_scales,
                                           const BlockSums<N>& sums, BlockHidden<N>& h) const {
    // Not a condition that the compiler knows: it would branch around each token's numbers, and
    // none would be begun before the one before has ended.
    const auto existing = static_cast<std::uint32_t>(
        ptx::known_here(block_of(tile, block) < args_.geometry.blocks ? -1 : 0));
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const int token = i * 8 + first_token();
      const float2 scale = {token_scales.of(i, token), token_scales.of(i, token + 1)};
      const float2 gate = widen_pair<type>(round_pair<type>(
          sums[i * 4] * (weight_scale.x * scale.x), sums[i * 4 + 1] * (weight_scale.x * scale.y)));
      const float2 up =
          widen_pair<type>(round_pair<type>(sums[i * 4 + 2] * (weight_scale.y * scale.x),
                                            sums[i * 4 + 3] * (weight_scale.y * scale.y)));
      h[i] = existing & round_pair<type>(silu(gate.x) * up.x, silu(gate.y) * up.y);
    }
  }

  /// Waits while the finishers are still reading that of the tile before.
  template <int N>
  __device__ __forceinline__ void leave_c1(const TileSlot& tile, const Sums<N>& sums) {
    ptx::named_barrier(kC1Free, kC1Threads);
    const float scale = tile.weight_scale;
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const std::uint32_t out =
          ring_.c1 + row_pair() % 2 * 8 +
          C1Place::unit(strip(), N, C1Place::position(0, first_token() / 2, odd), row_pair() / 2);
#pragma unroll
      for (int i = 0; i < N / 8; ++i) {
        ptx::store_shared_8(
            out + i * 8 * C1Place::kTokenBytes,
            round_pair<type>(sums[0][i * 4 + odd] * scale, sums[0][i * 4 + 2 + odd] * scale),
            round_pair<type>(sums[1][i * 4 + odd] * scale, sums[1][i * 4 + 2 + odd] * scale));
      }
    }
    c1_is_of(static_cast<int>(&tile - ring_.tiles));
  }
  /// `slot`: of the tile.
  __device__ __forceinline__ void c1_is_of(int slot) const {
    if (threadIdx.x == 0) *ring_.c1_slot = slot;
    ptx::barrier_arrive(ring_.c1_full);
  }

  template <int N>
  __device__ __forceinline__ void finish_gate_up(const TileSlot& tile, const Sums<N>& sums) {
    Hidden<N> h;
    const WeightScales weight_scales(*this, tile);
    const TokenScales<N> token_scales(args_, tile);
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block)
      activate<N>(tile, block, weight_scales.of[block], token_scales, sums[block], h[block]);
    if constexpr (kind == WeightKind::kFp8Block) quantize_fp8_block<N>(tile, h);
    std::uint32_t largest = 0;
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block)
      largest = __vmaxu2(largest, store_hidden<N>(tile, block, h[block]));
    if constexpr (kind == WeightKind::kFp8) find_amax(largest);
  }

  /// `largest`: magnitudes of this thread's part of h, as bits, whose order is that of the values
  /// with NaN above them all.
  __device__ __forceinline__ void find_amax(std::uint32_t largest) const {
    if (args_.hidden_amax == nullptr) return;
    largest = __reduce_max_sync(kAllLanes, max(largest & 0xFFFF, largest >> 16));
    if (ptx::known_here(thread_) % 32 == 0) atomicMax(args_.hidden_amax, largest);
  }

  /// Of each half of a pair, over the 8 lanes that hold the same tokens.
  __device__ __forceinline__ static std::uint32_t largest_of_lanes(std::uint32_t pair) {
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) {
      pair = larger_magnitude<type>(pair, __shfl_xor_sync(kAllLanes, pair, lanes));
    }
    return pair;
  }

  __device__ __forceinline__ int strip() const { return group_ * 4 + warp(); }

  /// Groups of 128 columns are all columns of the tile. Leaves the e4m3 values in FP16.
  template <int N>
  __device__ __forceinline__ void quantize_fp8_block(const TileSlot& tile, Hidden<N>& h) {
    // What the tile before left may still be being read.
    ptx::named_barrier(kAllConsumers, kConsumerThreads);
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const std::uint32_t amax = largest_of_lanes(largest_pair<type>(h[0][i], h[1][i]));
      if (row_pair() == 0) {
        float* out = exchange_ + strip() * kMaxTileTokens + first_token();
        *reinterpret_cast<float2*>(out + i * 8) = widen_pair<type>(amax);
      }
    }
    ptx::named_barrier(kAllConsumers, kConsumerThreads);
    const std::int64_t groups = divide_up(args_.intermediate, kChunkDepth);
    float* scales =
        args_.hidden_block_scale + operand_scale_index(tile.first_row, N, 0, tile.row_tile, groups);
    if (threadIdx.x < N) {
      float amax = 0.0F;
#pragma unroll
      for (int other = 0; other < kConsumerWarps; ++other) {
        amax = fmaxf(amax, exchange_[other * kMaxTileTokens + threadIdx.x]);
      }
      const float scale = fp8_scale_of(amax);
      exchange_[threadIdx.x] = scale;
      exchange_[kMaxTileTokens + threadIdx.x] = ScaleDivider::reciprocal_of(scale);
      if (static_cast<int>(threadIdx.x) < tile.valid_rows) scales[threadIdx.x] = scale;
    }
    ptx::named_barrier(kAllConsumers, kConsumerThreads);
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const float* const of_token = exchange_ + i * 8 + first_token();
      const float2 scale = *reinterpret_cast<const float2*>(of_token);
      const float2 reciprocal = *reinterpret_cast<const float2*>(of_token + kMaxTileTokens);
      // In FP16 no scale is so large or small, but that of infinity, which makes a NaN anyway.
      const bool proper = type == HalfType::kBf16 && (reciprocal.x == 0.0F || reciprocal.y == 0.0F);
#pragma unroll
      for (int block = 0; block < kGroupBlocks; ++block) {
        const float2 value = widen_pair<type>(h[block][i]);
        const float2 quotient =
            proper ? float2{__fdiv_rn(value.x, scale.x), __fdiv_rn(value.y, scale.y)}
                   : float2{ScaleDivider::refined_twice(value.x, scale.x, reciprocal.x),
                            ScaleDivider::refined_twice(value.y, scale.y, reciprocal.y)};
        h[block][i] = ptx::e4m3_to_fp16(ptx::e4m3_pair(quotient.x, quotient.y));
      }
    }
  }

  /// As GEMM2's operand, or as rows (fp8). Lanes whose columns are neighbours swap, so that each
  /// holds two columns of one token, the even lane of the first. Returns (fp8) the largest
  /// magnitudes of what is stored: padding rows do not count.
  template <int N>
  __device__ __forceinline__ std::uint32_t store_hidden(const TileSlot& tile, int block,
                                                        const BlockHidden<N>& h) const {
    constexpr bool kRows = kind == WeightKind::kFp8;
    const std::int64_t row_bytes =
        kRows ? args_.intermediate * 2
              : divide_up(args_.intermediate, kChunkDepth) * kOperandChunkBytes;
    const bool odd = row_pair() % 2 != 0;
    const auto column =
        static_cast<int>(gate_up_column(block_of(tile, block), warp(), row_pair() & ~1));
    const int token = first_token() + odd;
    const int valid = tile.valid_rows;
    // Tokens 8 apart have the same place in the swizzle.
    const std::int64_t step = kRows ? 8 * row_bytes : 8 * kSwizzleBytes;
    std::uint8_t* out =
        args_.hidden_out + tile.first_row * row_bytes +
        (kRows ? token * row_bytes + column * 2 : operand_offset(N, token, column * 2));
    std::uint32_t largest = 0;
    if (column * 2 >= row_bytes) return largest;
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      // Low halves are the first token's.
      const std::uint32_t got = __shfl_xor_sync(kAllLanes, h[i], 4);
      const std::uint32_t two =
          odd ? __byte_perm(got, h[i], 0x7632) : __byte_perm(h[i], got, 0x5410);
      const bool exists = i * 8 + token < valid;
      ptx::store_if(out + i * step, two, exists);
      if constexpr (kRows) largest = __vmaxu2(largest, exists ? two & 0x7FFF7FFF : 0);
    }
    return largest;
  }

  template <int N>
  __device__ __forceinline__ void finish_down(const TileSlot& tile, const Sums<N>& sums) const {
    const int valid = tile.valid_rows;
    const WeightScales scale(*this, tile);  // of the rows, which are neighbouring columns
    const TokenScales<N> token_scales(args_, tile);
    const std::uint32_t rows =
        ring_.rows_at(static_cast<int>(&tile - ring_.tiles)) + first_token() * 4;
    // Columns and bytes of a row are few enough for 32 bits: one multiplication and addition in 64
    // makes an address.
    const auto row_bytes = static_cast<std::uint32_t>(args_.hidden * 2);
    std::uint8_t* out[kGroupBlocks];
    bool exists[kGroupBlocks];
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      const int column = block_of(tile, block) * kBlockRows + warp() * 16 + row_pair() * 2;
      exists[block] = column < args_.hidden;
      out[block] = reinterpret_cast<std::uint8_t*>(args_.pair_out + column);
    }
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      ptx::keep_order();
      const uint2 pairs = ptx::load_shared_pair(rows + i * 32);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const int token = i * 8 + first_token() + t;
        const std::uint64_t row = std::uint64_t{t == 0 ? pairs.x : pairs.y} * row_bytes;
        const float of_token = token_scales.of(i, token);
#pragma unroll
        for (int block = 0; block < kGroupBlocks; ++block) {
          ptx::store_if(
              out[block] + row,
              round_pair<type>(sums[block][i * 4 + t] * (scale.of[block].x * of_token),
                               sums[block][i * 4 + 2 + t] * (scale.of[block].y * of_token)),
              token < valid && exists[block]);
        }
      }
    }
  }

  static constexpr unsigned kAllLanes = 0xFFFFFFFF;

  const GemmArgs& args_;
  const Ring& ring_;
  float* exchange_;
  int thread_;
  int group_;
  RingPosition at_;
};

template <WeightKind kind, HalfType type, Projection projection, GemmTiles tiles>
__global__ void __launch_bounds__(kGemmThreads, 1)
    grouped_gemm(const __grid_constant__ GemmArgs args) {
  constexpr int kTeamBlocks = team_blocks(tiles);
  constexpr bool kWithFinishers = has_finishers(kind, projection);
  std::uint8_t* const shared = ptx::dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t aligned = (base + 1023) / 1024 * 1024;
  const std::uint32_t after_ring = aligned + kRingBytes;
  auto* exchange = reinterpret_cast<float*>(shared + (after_ring - base));
  const std::uint32_t scales = after_ring + kExchangeBytes;
  const std::uint32_t barriers = scales + kScaleStages * kScaleStageBytes;
  ptx::allow_next_kernel();

  // The ring is as deep as the largest tile of this call leaves room for.
  Ring ring{};
  ring.data = aligned;
  ring.scales = scales;
  ring.full = barriers;
  ring.empty = barriers + kMaxStages * 8;
  ring.writable = barriers + 2 * kMaxStages * 8;
  ring.mailed = barriers + 3 * kMaxStages * 8;
  ring.c1_full = ring.mailed + kMailSlots * 8;
  ring.tiles = reinterpret_cast<TileSlot*>(shared + (barriers + kBarrierBytes - base));
  ring.mail = reinterpret_cast<std::int32_t*>(ring.tiles + kTileSlots);
  ring.rows = after_ring;
  ring.row_slots = row_slots(args.plan->max_tile_rows);
  ring.stage_bytes =
      kTileBlocks * kWeightChunkBytes<kind> + args.plan->max_tile_rows * kOperandChunkBytes;
  const int after_stages = kWithFinishers ? c1_bytes(args.plan->max_tile_rows) : 0;
  ring.c1 = after_ring - after_stages;
  ring.c1_slot = ring.mail + kMailSlots;
  ring.stages = min(kMaxStages, (kRingBytes - after_stages) / ring.stage_bytes);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < ring.stages; ++stage) {
      ptx::barrier_init(ring.full_at(stage), 2);
      ptx::barrier_init(ring.empty_at(stage), kConsumerThreads);
      ptx::barrier_init(ring.writable_at(stage), kTeamBlocks);
    }
    for (int slot = 0; slot < kMailSlots; ++slot) ptx::barrier_init(ring.mailed_at(slot), 1);
    ptx::barrier_init(ring.c1_full, kConsumerThreads);
    ptx::barrier_init_fence();
  }
  if constexpr (kTeamBlocks == 1) {
    __syncthreads();
  } else {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }

  if (threadIdx.x >= kConsumerThreads) {
    ptx::fewer_registers<kProducerRegisters<kWithFinishers>>();
    if (threadIdx.x == kConsumerThreads) {
      WeightProducer<kind, kTeamBlocks>(args, ring).run();
    } else if (threadIdx.x == kConsumerThreads + 32) {
      TokenProducer<kind, projection, kTeamBlocks>(args, ring).run();
    } else if constexpr (kWithFinishers) {
      if (threadIdx.x >= kGemmThreads - kFinisherThreads) Finisher<type>(args, ring).run();
    }
  } else {
    ptx::more_registers<kConsumerRegisters<kWithFinishers>>();
    // The small set has the sizes up to 48 of the large one.
    if (tiles == GemmTiles::kSmall || args.plan->max_tile_rows <= max_tile_rows(TileSet::kSmall)) {
      Consumer<kind, type, projection, TileSet::kSmall, kTeamBlocks>(args, ring, exchange).run();
    } else if constexpr (tiles == GemmTiles::kBoth) {
      Consumer<kind, type, projection, TileSet::kLarge, kTeamBlocks>(args, ring, exchange).run();
    }
  }
  // What the other block still copies lies in both.
  if constexpr (kTeamBlocks > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

template <WeightKind kind, HalfType type, Projection projection, GemmTiles tiles>
cudaError_t prepare_grouped_gemm() {
  static const cudaError_t prepared =
      cudaFuncSetAttribute(grouped_gemm<kind, type, projection, tiles>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  return prepared;
}

template <GemmTiles tiles>
LaunchShape grouped_gemm_shape(int teams) {
  constexpr int kTeamBlocks = team_blocks(tiles);
  return {std::int64_t{teams} * kTeamBlocks, kGemmThreads, kSharedBytes, kTeamBlocks};
}

template <WeightKind kind, HalfType type, Projection projection, GemmTiles tiles>
cudaError_t launch_grouped_gemm(const GemmArgs& args, cudaStream_t stream) {
  const cudaError_t prepared = prepare_grouped_gemm<kind, type, projection, tiles>();
  if (prepared != cudaSuccess) return prepared;
  return launch_overlapped(grouped_gemm<kind, type, projection, tiles>,
                           grouped_gemm_shape<tiles>(args.grid), stream, args);
}

/// On the current device.
template <WeightKind kind, HalfType type, Projection projection, GemmTiles tiles>
cudaError_t max_active_teams(int* teams) {
  const cudaError_t prepared = prepare_grouped_gemm<kind, type, projection, tiles>();
  if (prepared != cudaSuccess) return prepared;
  return max_active_clusters(grouped_gemm<kind, type, projection, tiles>,
                             grouped_gemm_shape<tiles>(1), teams);
}

template <WeightKind kind, HalfType type, Projection projection>
cudaError_t launch_grouped_gemm(const GemmArgs& args, cudaStream_t stream) {
  return args.tiles == GemmTiles::kSmall
             ? launch_grouped_gemm<kind, type, projection, GemmTiles::kSmall>(args, stream)
             : launch_grouped_gemm<kind, type, projection, GemmTiles::kBoth>(args, stream);
}

template <WeightKind kind>
cudaError_t launch_grouped_gemm(Projection projection, HalfType type, const GemmArgs& args,
                                cudaStream_t stream) {
  const bool gate_up = projection == Projection::kGateUp;
  if (type == HalfType::kFp16) {
    return gate_up ? launch_grouped_gemm<kind, HalfType::kFp16, Projection::kGateUp>(args, stream)
                   : launch_grouped_gemm<kind, HalfType::kFp16, Projection::kDown>(args, stream);
  }
  return gate_up ? launch_grouped_gemm<kind, HalfType::kBf16, Projection::kGateUp>(args, stream)
                 : launch_grouped_gemm<kind, HalfType::kBf16, Projection::kDown>(args, stream);
}

}  // namespace moebench::cuda
