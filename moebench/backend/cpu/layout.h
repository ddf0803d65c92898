// Where a weight lies in the CPU kernels' packed form ("slabs"). One layout for every ISA, so that
// run-time dispatch can change the kernel without repacking. Includes nothing of the project: the
// ISA translation units read it too.
#pragma once

#include <cstdint>

namespace moebench::cpu {

/// A panel is 16 output rows: one 512-bit register of FP32 sums. A slab is two panels over the
/// whole depth, in one contiguous piece, so that one stream of memory feeds two independent chains
/// of sums.
///   w1: panel 0 = 16 gate rows, panel 1 = the same 16 up rows (SiLU(gate)*up needs nothing from
///   another slab); w2: panel 0 and 1 = 32 consecutive rows.
/// The depth goes in steps of 16, NVFP4's scale block; rows and depth are padded with zero weights.
inline constexpr std::int64_t kPanelRows = 16;
inline constexpr std::int64_t kSlabRows = 2 * kPanelRows;
inline constexpr std::int64_t kStepDepth = 16;
inline constexpr std::int64_t kCacheLine = 64;

/// NVFP4, per step and panel: two 64-byte vectors of values; vector v holds k = 8v..8v+7, its
/// 32-bit lane n row n, and nibble j + 4h of the lane k = 8v + 2j + h: shifting 16-bit lanes right
/// by 4j leaves the pair (2j, 2j+1) of every row in place, in the order that a dot product of BF16
/// pairs and an AMX tile want. The scales of four steps, 16 bytes per step and panel, and then
/// their values make a chunk of whole cache lines: one stream of memory that is read in its order
/// (scales in a stream of their own cost a third of the bandwidth, scales behind their values a
/// seventh of it at one token; one Zen 4 core, 2026-11-23).
inline constexpr std::int64_t kNvfp4PanelStepBytes = kPanelRows * kStepDepth / 2;
inline constexpr std::int64_t kNvfp4StepBytes = 2 * kNvfp4PanelStepBytes;
inline constexpr std::int64_t kScaleStepBytes = kSlabRows;
inline constexpr std::int64_t kChunkSteps = 4;
inline constexpr std::int64_t kChunkScaleBytes = kChunkSteps * kScaleStepBytes;
inline constexpr std::int64_t kChunkBytes = kChunkScaleBytes + kChunkSteps * kNvfp4StepBytes;

/// FP8, per step and panel: four 64-byte vectors; vector q holds k = 4q..4q+3. Inside it, 16-byte
/// group g holds rows 4g..4g+3: byte 8h + 2r + i is row 4g+r, k = 4q + 2h + i, so that unpacking
/// the low (high) half of each group with a second byte gives the pairs h = 0 (1) of all 16 rows in
/// order.
inline constexpr std::int64_t kFp8PanelStepBytes = kPanelRows * kStepDepth;
inline constexpr std::int64_t kFp8StepBytes = 2 * kFp8PanelStepBytes;

/// Steps under one scale of the 128-wide FP8 block schemes.
inline constexpr std::int64_t kFp8GroupSteps = 128 / kStepDepth;

/// The slabs of one matrix.
struct SlabGeometry {
  std::int64_t slabs = 0;
  std::int64_t steps = 0;       ///< depth / 16, rounded up; NVFP4: to whole chunks
  std::int64_t slab_bytes = 0;  ///< multiple of a cache line

  [[nodiscard]] std::int64_t bytes() const { return slabs * slab_bytes; }
  [[nodiscard]] std::int64_t padded_depth() const { return steps * kStepDepth; }
};

/// Offset in a slab of the 32-bit lane of (panel, row, k), k a multiple of 8 (NVFP4).
constexpr std::int64_t nvfp4_lane_offset(std::int64_t panel, std::int64_t row, std::int64_t k) {
  const std::int64_t step = k / kStepDepth;
  return step / kChunkSteps * kChunkBytes + kChunkScaleBytes +
         step % kChunkSteps * kNvfp4StepBytes + panel * kNvfp4PanelStepBytes +
         k % kStepDepth / 8 * kCacheLine + row * 4;
}
constexpr std::int64_t nvfp4_scale_offset(std::int64_t panel, std::int64_t row, std::int64_t step) {
  return step / kChunkSteps * kChunkBytes + step % kChunkSteps * kScaleStepBytes +
         panel * kPanelRows + row;
}
/// Offset in a slab of the byte pair of (panel, row, k), k even (FP8).
constexpr std::int64_t fp8_pair_offset(std::int64_t panel, std::int64_t row, std::int64_t k) {
  return k / kStepDepth * kFp8StepBytes + panel * kFp8PanelStepBytes +
         k % kStepDepth / 4 * kCacheLine + row / 4 * 16 + k % 4 / 2 * 8 + row % 4 * 2;
}

}  // namespace moebench::cpu
