// Weights from their packed bits to the A fragments of a 16-bit wgmma: exact.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "moebench/backend/cuda/gemm.h"
#include "moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {

/// 16-column groups of a chunk.
inline constexpr int kChunkGroups = kChunkDepth / kScaleGroup;

__device__ __forceinline__ std::uint32_t multiply_pair(Wide wide, std::uint32_t a, std::uint32_t b) {
  std::uint32_t product;
  if (wide == Wide::kFp16) {
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  } else {
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  }
  return product;
}

/// E5M3 scale in byte `kByte` of `word`, in both halves: times 2^7 in FP16, times 2^118 in BF16.
template <Wide wide, int kByte>
__device__ __forceinline__ std::uint32_t widen_scale(std::uint32_t word) {
  const std::uint32_t both = __byte_perm(word, 0, 0x4040 | kByte | (kByte << 8));
  if constexpr (wide == Wide::kFp16) return both << 7;
  return both * 16 + 0x6F806F80;
}

/// The 8 values of a word times the scales of the thread's two rows.
template <Wide wide>
__device__ __forceinline__ void expand_nvfp4(std::uint32_t word, std::uint32_t scale0, std::uint32_t scale1,
                                    std::uint32_t (&a)[4]) {
  constexpr std::uint32_t kSigns = 0x80008000;
  if constexpr (wide == Wide::kFp16) {
    constexpr std::uint32_t kMagnitudes = 0x0E000E00;
    a[0] = word & (kSigns | kMagnitudes);
    a[1] = (word << 3) & (kSigns | kMagnitudes);
    a[2] = ((word << 6) & kMagnitudes) | ((word << 1) & kSigns);
    a[3] = ((word << 9) & kMagnitudes) | ((word << 2) & kSigns);
  } else {
    constexpr std::uint32_t kMagnitudes = 0x01C001C0;
    a[0] = word & (kSigns | kMagnitudes);
    a[1] = (word << 3) & (kSigns | kMagnitudes);
    a[2] = (word << 6) & (kSigns | kMagnitudes);
    a[3] = ((word << 1) & kSigns) | ((word >> 3) & 0x01800180) | ((word >> 7) & 0x00400040);
  }
  a[0] = multiply_pair(wide, a[0], scale0);
  a[1] = multiply_pair(wide, a[1], scale1);
  a[2] = multiply_pair(wide, a[2], scale0);
  a[3] = multiply_pair(wide, a[3], scale1);
}

__device__ __forceinline__ std::uint32_t expand_fp8_pair(std::uint32_t two_codes) {
  std::uint32_t pair;
  const auto codes = static_cast<std::uint16_t>(two_codes);
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(codes));
  return pair;
}
__device__ __forceinline__ void expand_fp8(std::uint32_t low, std::uint32_t high, std::uint32_t (&a)[4]) {
  a[0] = expand_fp8_pair(low);
  a[1] = expand_fp8_pair(low >> 16);
  a[2] = expand_fp8_pair(high);
  a[3] = expand_fp8_pair(high >> 16);
}

/// One thread's part of a chunk of weights in shared memory.
template <WeightKind kind, Wide wide>
class ChunkReader;

template <Wide wide>
class ChunkReader<WeightKind::kNvfp4, wide> {
 public:
  __device__ __forceinline__ ChunkReader(std::uint32_t chunk, int thread)
      : values_(chunk + thread * 16),
        scales_(ptx::load_shared_16(chunk + kNvfp4ValueBytes + thread / 32 * 128 + thread % 32 / 4 * 16)) {}
  /// Fragments of the groups kFirst .. kFirst + kCount - 1; kCount 2 or 4.
  template <int kFirst, int kCount>
  __device__ __forceinline__ void expand(std::uint32_t (&a)[kCount][4]) {
    if constexpr (kFirst % 4 == 0) words_ = ptx::load_shared_16(values_ + kFirst / 4 * (kNvfp4ValueBytes / 2));
    expand_one<kFirst>(a[0]);
    expand_one<kFirst + 1>(a[1]);
    if constexpr (kCount == 4) {
      expand_one<kFirst + 2>(a[2]);
      expand_one<kFirst + 3>(a[3]);
    }
  }

 private:
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
    expand_nvfp4<wide>(word, widen_scale<wide, kGroup % 2 * 2>(scale_word),
                       widen_scale<wide, kGroup % 2 * 2 + 1>(scale_word), a);
  }
  std::uint32_t values_;
  uint4 scales_;
  uint4 words_;
};

template <>
class ChunkReader<WeightKind::kFp8, Wide::kFp16> {
 public:
  __device__ __forceinline__ ChunkReader(std::uint32_t chunk, int thread) : codes_(chunk + thread * 16) {}
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
class ChunkReader<WeightKind::kFp8Block, Wide::kFp16> : public ChunkReader<WeightKind::kFp8, Wide::kFp16> {
 public:
  using ChunkReader<WeightKind::kFp8, Wide::kFp16>::ChunkReader;
};

}  // namespace moebench::cuda
