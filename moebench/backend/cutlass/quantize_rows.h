// NVFP4 rows for the grouped GEMMs: tokens brought to their experts, or SiLU(gate) * up of GEMM1's
// output, quantised, with the block scales in the swizzled order and zero in its padding. What one
// thread does is shared with tests on the host, which compare it with quant/.
#pragma once

#include <cmath>
#include <cstdint>

#include "moebench/backend/cuda/quantize.h"
#include "moebench/backend/cutlass/groups.h"
#include "moebench/core/dtype.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace moebench::cutlass_moe {

struct QuantizeArgs {
  const std::uint16_t* rows;     ///< tokens [tokens][depth], or gate and up [rows][2 * depth]
  std::int64_t depth;            ///< multiple of 32
  const std::int32_t* row_pair;  ///< tokens: the (token, slot) pair of every row
  std::int32_t topk;             ///< tokens
  const float* global_scale;     ///< [E]
  const Group* groups;
  std::int32_t group_count;
  std::uint8_t* payload;  ///< [rows][depth / 2]
  std::uint8_t* scales;
};

enum class RowSource : std::uint8_t { kTokens, kGateUp };

/// A 16-bit number of the layer's type as FP32.
template <ActType kType>
MOEBENCH_HOST_DEVICE inline float widened(std::uint16_t bits) {
#if defined(__CUDA_ARCH__)
  if constexpr (kType == ActType::kBf16) return __uint_as_float(std::uint32_t{bits} << 16);
  return __half2float(__ushort_as_half(bits));
#else
  return decode_act(kType, bits);
#endif
}
template <ActType kType>
MOEBENCH_HOST_DEVICE inline std::uint16_t narrowed(float x) {
#if defined(__CUDA_ARCH__)
  std::uint32_t pair;
  if constexpr (kType == ActType::kBf16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0F), "f"(x));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0F), "f"(x));
  }
  return static_cast<std::uint16_t>(pair);
#else
  return encode_act(kType, x);
#endif
}

/// x / (1 + e^-x) to a few units in the last place.
MOEBENCH_HOST_DEVICE inline float silu(float x) {
#if defined(__CUDA_ARCH__)
  return cuda::divide(x, cuda::add(1.0F, __expf(-x)));
#else
  return x / (1.0F + std::exp(-x));
#endif
}

/// The 16 values of one scale group, 16 bits each.
struct GroupValues {
  std::uint16_t bits[cuda::kScaleGroup];
};

/// 16 bytes at a time on the device.
MOEBENCH_HOST_DEVICE inline GroupValues load_group(const std::uint16_t* from) {
  GroupValues values;
#if defined(__CUDA_ARCH__)
  const auto* raw = reinterpret_cast<const uint4*>(from);
  uint4 words[2] = {raw[0], raw[1]};
  __builtin_memcpy(values.bits, words, sizeof words);
#else
  std::memcpy(values.bits, from, sizeof values.bits);
#endif
  return values;
}

template <ActType kType>
MOEBENCH_HOST_DEVICE inline GroupValues silu_times_up(const GroupValues& gate,
                                                      const GroupValues& up) {
  GroupValues hidden;
  for (int i = 0; i < cuda::kScaleGroup; ++i) {
    hidden.bits[i] = narrowed<kType>(
        cuda::multiply(silu(widened<kType>(gate.bits[i])), widened<kType>(up.bits[i])));
  }
  return hidden;
}

/// Its codes, the first value in the lowest four bits, and its E4M3 scale.
struct QuantizedGroup {
  std::uint64_t codes;
  std::uint32_t scale;
};
template <ActType kType>
MOEBENCH_HOST_DEVICE inline QuantizedGroup quantize_group(const GroupValues& values,
                                                          float global_scale) {
  // The bits of 16-bit magnitudes are in the order of their values.
  std::uint32_t largest = 0;
  for (int i = 0; i < cuda::kScaleGroup; ++i) {
    const std::uint32_t magnitude = values.bits[i] & 0x7FFFU;
    largest = magnitude > largest ? magnitude : largest;
  }
  const cuda::Nvfp4Scale scale =
      cuda::nvfp4_scale(widened<kType>(static_cast<std::uint16_t>(largest)), global_scale);
  std::uint64_t codes = 0;
  for (int i = 0; i < cuda::kScaleGroup; ++i) {
    const float scaled = cuda::multiply(widened<kType>(values.bits[i]), scale.factor);
    codes |= std::uint64_t{cuda::e2m1_code(scaled)} << (4 * i);
  }
  return {codes, scale.code};
}

/// The scale group `column_group` of scale row `scale_row`: writes its payload; returns the scale,
/// 0 for padding.
template <ActType kType, RowSource kSource>
MOEBENCH_HOST_DEVICE inline std::uint32_t quantize_unit(const QuantizeArgs& args,
                                                        const ScaleRow& at,
                                                        std::int64_t column_group) {
  const Group group = args.groups[at.group];
  const std::int64_t column = column_group * cuda::kScaleGroup;
  if (at.row >= group.rows || column >= args.depth) return 0;
  const std::int64_t row = std::int64_t{group.first_row} + at.row;
  GroupValues values;
  if constexpr (kSource == RowSource::kTokens) {
    const std::int64_t token = args.row_pair[row] / args.topk;
    values = load_group(args.rows + token * args.depth + column);
  } else {
    const std::uint16_t* gate = args.rows + row * 2 * args.depth + column;
    values = silu_times_up<kType>(load_group(gate), load_group(gate + args.depth));
  }
  const QuantizedGroup quantized = quantize_group<kType>(values, args.global_scale[group.expert]);
  std::uint8_t* to = args.payload + row * (args.depth / 2) + column / 2;
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<std::uint64_t*>(to) = quantized.codes;
#else
  std::memcpy(to, &quantized.codes, sizeof quantized.codes);
#endif
  return quantized.scale;
}

}  // namespace moebench::cutlass_moe
