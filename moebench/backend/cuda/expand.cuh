// Weights from their packed bits to the A fragments of a 16-bit wgmma: exact.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {

/// 16-column groups of a chunk.
inline constexpr int kChunkGroups = kChunkDepth / kScaleGroup;

/// Bytes 0 and 2 (kOdd: 1 and 3) of a word of E5M3 scales as 16-bit numbers: times 2^7 in FP16,
/// times 2^119 in BF16.
template <Wide wide, bool kOdd>
__device__ __forceinline__ std::uint32_t widen_scales(std::uint32_t word) {
  if constexpr (wide == Wide::kFp16) return (kOdd ? word >> 1 : word << 7) & 0x7F807F80;
  return ((kOdd ? word >> 4 : word << 4) & 0x0FF00FF0) | 0x70007000;
}
/// One half of a pair twice: the multiplication takes it as an operand modifier.
template <Wide wide>
__device__ __forceinline__ std::uint32_t multiply_by_half(std::uint32_t a, std::uint32_t b,
                                                          bool high) {
  if constexpr (wide == Wide::kFp16) {
    const auto& x = *reinterpret_cast<const __half2*>(&a);
    const auto& y = *reinterpret_cast<const __half2*>(&b);
    const __half2 product = __hmul2(x, high ? __high2half2(y) : __low2half2(y));
    return *reinterpret_cast<const std::uint32_t*>(&product);
  } else {
    const auto& x = *reinterpret_cast<const __nv_bfloat162*>(&a);
    const auto& y = *reinterpret_cast<const __nv_bfloat162*>(&b);
    const __nv_bfloat162 product = __hmul2(x, high ? __high2bfloat162(y) : __low2bfloat162(y));
    return *reinterpret_cast<const std::uint32_t*>(&product);
  }
}

/// The 8 values of a word times the scales of the thread's two rows, the high or low half of each
/// pair of scales.
template <Wide wide>
__device__ __forceinline__ void expand_nvfp4(std::uint32_t word, std::uint32_t scales0,
                                             std::uint32_t scales1, bool high,
                                             std::uint32_t (&a)[4]) {
  constexpr std::uint32_t kSigns = 0x80008000;
  if constexpr (wide == Wide::kFp16) {
    constexpr std::uint32_t kMagnitudes = 0x0E000E00;
    a[0] = word & (kSigns | kMagnitudes);
    a[1] = (word << 3) & (kSigns | kMagnitudes);
    // Sign and magnitude move by different distances: one multiplication by the sum of two powers
    // of two. What else it leaves, and the one carry that two of its bits can make, is not in the
    // mask.
    a[2] = ((word & 0x40384038) * ((1 << 1) + (1 << 6))) & (kSigns | kMagnitudes);
    a[3] = ((word & 0x20072007) * ((1 << 2) + (1 << 9))) & (kSigns | kMagnitudes);
  } else {
    constexpr std::uint32_t kMagnitudes = 0x01C001C0;
    a[0] = word & (kSigns | kMagnitudes);
    a[1] = (word << 3) & (kSigns | kMagnitudes);
    a[2] = (word << 6) & (kSigns | kMagnitudes);
    a[3] = ((word << 1) & kSigns) | ((word >> 3) & 0x01800180) | ((word >> 7) & 0x00400040);
  }
  a[0] = multiply_by_half<wide>(a[0], scales0, high);
  a[1] = multiply_by_half<wide>(a[1], scales1, high);
  a[2] = multiply_by_half<wide>(a[2], scales0, high);
  a[3] = multiply_by_half<wide>(a[3], scales1, high);
}

__device__ __forceinline__ void expand_fp8(std::uint32_t low, std::uint32_t high,
                                           std::uint32_t (&a)[4]) {
  a[0] = ptx::e4m3_to_fp16(static_cast<std::uint16_t>(low));
  a[1] = ptx::e4m3_to_fp16(static_cast<std::uint16_t>(low >> 16));
  a[2] = ptx::e4m3_to_fp16(static_cast<std::uint16_t>(high));
  a[3] = ptx::e4m3_to_fp16(static_cast<std::uint16_t>(high >> 16));
}

/// One thread's part of a chunk of weights in shared memory.
template <WeightKind kind, Wide wide>
class ChunkReader;

template <Wide wide>
class ChunkReader<WeightKind::kNvfp4, wide> {
 public:
  __device__ __forceinline__ ChunkReader(std::uint32_t chunk, int thread)
      : values_(chunk + thread * 16),
        scales_(ptx::load_shared_16(chunk + kNvfp4ValueBytes + thread / 32 * 128 +
                                    thread % 32 / 4 * 16)),
        words_(ptx::load_shared_16(values_)) {}
  /// Fragments of the groups kFirst .. kFirst + kCount - 1.
  template <int kFirst, int kCount>
  __device__ __forceinline__ void expand(std::uint32_t (&a)[kCount][4]) {
    expand_from<kFirst, kCount, 0>(a);
  }

 private:
  template <int kFirst, int kCount, int i>
  __device__ __forceinline__ void expand_from(std::uint32_t (&a)[kCount][4]) {
    expand_one<kFirst + i>(a[i]);
    // The second half is asked for as soon as the registers of the first are free.
    if constexpr (kFirst + i + 1 == kChunkGroups / 2)
      words_ = ptx::load_shared_16(values_ + kNvfp4ValueBytes / 2);
    if constexpr (i + 1 < kCount) expand_from<kFirst, kCount, i + 1>(a);
  }
  template <int kGroup>
  __device__ __forceinline__ void expand_one(std::uint32_t (&a)[4]) const {
    const std::uint32_t scale_word = kGroup / 2 == 0   ? scales_.x
                                     : kGroup / 2 == 1 ? scales_.y
                                     : kGroup / 2 == 2 ? scales_.z
                                                       : scales_.w;
    const std::uint32_t word = kGroup % 4 == 0   ? words_.x
                               : kGroup % 4 == 1 ? words_.y
                               : kGroup % 4 == 2 ? words_.z
                                                 : words_.w;
    expand_nvfp4<wide>(word, widen_scales<wide, false>(scale_word),
                       widen_scales<wide, true>(scale_word), kGroup % 2 != 0, a);
  }
  std::uint32_t values_;
  uint4 scales_;
  uint4 words_;
};

template <>
class ChunkReader<WeightKind::kFp8, Wide::kFp16> {
 public:
  __device__ __forceinline__ ChunkReader(std::uint32_t chunk, int thread)
      : codes_(chunk + thread * 16) {}
  template <int kFirst, int kCount>
  __device__ __forceinline__ void expand(std::uint32_t (&a)[kCount][4]) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      const uint4 codes = ptx::load_shared_16(codes_ + (kFirst + i) / 2 * 2048);
      expand_fp8(codes.x, codes.y, a[i]);
      expand_fp8(codes.z, codes.w, a[i + 1]);
    }
  }

 private:
  std::uint32_t codes_;
};
template <>
class ChunkReader<WeightKind::kFp8Block, Wide::kFp16>
    : public ChunkReader<WeightKind::kFp8, Wide::kFp16> {
 public:
  using ChunkReader<WeightKind::kFp8, Wide::kFp16>::ChunkReader;
};

}  // namespace moebench::cuda
