// The row-wise parts of kernels.h over the vector class `Isa` (see isa_kernels.h): SiLU, roundings
// to 16 bits, the sum over a token's experts. The rounding points are those of docs/NUMERICS.md, in
// FP32.
#pragma once

#include "moebench/backend/cpu/isa_kernels.h"

namespace moebench::cpu {
namespace {

/// e^x for x <= 0 to about 2 ulp: x = n ln2 + r, |r| <= ln2/2, e^r by a Taylor polynomial of degree
/// 7 (next term below 2^-28), n ln2 subtracted in two parts (the first has 9 zero low bits, so n
/// times it is exact).
template <typename Isa>
MOEBENCH_INLINE inline typename Isa::Vec exp_nonpositive(typename Isa::Vec x) {
  using Vec = typename Isa::Vec;
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693145752F;
  constexpr float kLn2Low = 1.42860677e-6F;
  constexpr float kUnderflow = -104.0F;  // e^-104 is below half the smallest denormal
  constexpr float kTaylor[] = {1.0F / 5040, 1.0F / 720, 1.0F / 120, 1.0F / 24,
                               1.0F / 6,    0.5F,       1.0F,       1.0F};
  x = Isa::maximum(x, Isa::broadcast(kUnderflow));
  const Vec n = Isa::round(Isa::multiply(x, Isa::broadcast(kLog2E)));
  Vec r = Isa::multiply_add(n, Isa::broadcast(-kLn2High), x);
  r = Isa::multiply_add(n, Isa::broadcast(-kLn2Low), r);
  Vec p = Isa::broadcast(kTaylor[0]);
  unroll<7>([&](auto i) MOEBENCH_INLINE {
    p = Isa::multiply_add(p, r, Isa::broadcast(kTaylor[i.kValue + 1]));
  });
  return Isa::scale_by_power_of_two(p, n);
}

/// x / (1 + e^-x), through z = e^-|x| <= 1 so that nothing overflows and small results keep their
/// precision.
template <typename Isa>
MOEBENCH_INLINE inline typename Isa::Vec silu(typename Isa::Vec x) {
  using Vec = typename Isa::Vec;
  const Vec z = exp_nonpositive<Isa>(Isa::negative_magnitude(x));
  const Vec numerator = Isa::select_negative(x, Isa::multiply(x, z), x);
  return Isa::divide(numerator, Isa::add(Isa::broadcast(1.0F), z));
}

template <typename Isa, ActType kType>
MOEBENCH_INLINE inline typename Isa::Vec round_to_act(typename Isa::Vec x) {
  return Isa::template from_act<kType>(Isa::template to_act<kType>(x));
}

template <typename Isa, ActType kType>
MOEBENCH_INLINE inline typename Isa::Vec load_act(const std::uint16_t* x) {
  return Isa::template from_act<kType>(Isa::load_16(x));
}

/// Stores the first `count` lanes (all of them where count >= kLanes).
template <typename Isa, ActType kType>
MOEBENCH_INLINE inline void store_act(std::uint16_t* out, typename Isa::Vec x, std::int64_t count) {
  if (count >= Isa::kLanes) {
    Isa::store_16(out, Isa::template to_act<kType>(x));
    return;
  }
  std::uint16_t lanes[Isa::kLanes];
  Isa::store_16(lanes, Isa::template to_act<kType>(x));
  for (std::int64_t i = 0; i < count; ++i) out[i] = lanes[i];
}

template <typename Isa, ActType kType>
void activate_as(const EpilogueArgs& args) {
  using Vec = typename Isa::Vec;
  for (int t = 0; t < args.tokens; ++t) {
    const float* sums = args.sums + t * kSlabRows;
    std::uint16_t* out = args.out + args.out_rows[t] * args.out_stride;
    const Vec token_scale = Isa::broadcast(args.token_scales[t]);
    for (std::int64_t r = 0; r < args.valid_rows; r += Isa::kLanes) {
      const Vec gate_scale = Isa::multiply(token_scale, Isa::load(args.row_scales + r));
      const Vec up_scale = Isa::multiply(token_scale, Isa::load(args.row_scales + kPanelRows + r));
      const Vec gate = round_to_act<Isa, kType>(Isa::multiply(Isa::load(sums + r), gate_scale));
      const Vec up =
          round_to_act<Isa, kType>(Isa::multiply(Isa::load(sums + kPanelRows + r), up_scale));
      store_act<Isa, kType>(out + r, Isa::multiply(silu<Isa>(gate), up), args.valid_rows - r);
    }
  }
}

template <typename Isa, ActType kType>
void round_sums_as(const EpilogueArgs& args) {
  using Vec = typename Isa::Vec;
  for (int t = 0; t < args.tokens; ++t) {
    const float* sums = args.sums + t * kSlabRows;
    std::uint16_t* out = args.out + args.out_rows[t] * args.out_stride;
    const Vec token_scale = Isa::broadcast(args.token_scales[t]);
    for (std::int64_t r = 0; r < args.valid_rows; r += Isa::kLanes) {
      const Vec scale = Isa::multiply(token_scale, Isa::load(args.row_scales + r));
      store_act<Isa, kType>(out + r, Isa::multiply(Isa::load(sums + r), scale),
                            args.valid_rows - r);
    }
  }
}

template <typename Isa, ActType kType>
void decode_row_as(const std::uint16_t* x, std::int64_t n, float* out) {
  std::int64_t i = 0;
  for (; i + Isa::kLanes <= n; i += Isa::kLanes) Isa::store(out + i, load_act<Isa, kType>(x + i));
  if (i == n) return;
  std::uint16_t tail[Isa::kLanes] = {};
  float values[Isa::kLanes];
  for (std::int64_t j = i; j < n; ++j) tail[j - i] = x[j];
  Isa::store(values, load_act<Isa, kType>(tail));
  for (std::int64_t j = i; j < n; ++j) out[j] = values[j - i];
}

template <typename Isa, ActType kType>
void combine_as(const std::uint16_t* c, std::int64_t stride, const float* weights,
                std::int64_t topk, std::int64_t cols, std::uint16_t* y) {
  using Vec = typename Isa::Vec;
  for (std::int64_t col = 0; col < cols; col += Isa::kLanes) {
    const std::int64_t count = cols - col;
    Vec sum = Isa::zero();
    for (std::int64_t j = 0; j < topk; ++j) {
      const std::uint16_t* row = c + j * stride + col;
      Vec value;
      if (count >= Isa::kLanes) {
        value = load_act<Isa, kType>(row);
      } else {
        std::uint16_t tail[Isa::kLanes] = {};
        for (std::int64_t i = 0; i < count; ++i) tail[i] = row[i];
        value = load_act<Isa, kType>(tail);
      }
      sum = Isa::add(sum, Isa::multiply(value, Isa::broadcast(weights[j])));
    }
    store_act<Isa, kType>(y + col, sum, count);
  }
}

/// NaN has the largest magnitude when its bits are compared as integers, so it survives the
/// maximum.
template <typename Isa>
float amax(const float* x, std::int64_t n) {
  typename Isa::Vec largest = Isa::zero();
  std::int64_t i = 0;
  for (; i + Isa::kLanes <= n; i += Isa::kLanes) {
    largest = Isa::larger_magnitude(largest, Isa::load(x + i));
  }
  if (i < n) {
    float tail[Isa::kLanes] = {};
    for (std::int64_t j = i; j < n; ++j) tail[j - i] = x[j];
    largest = Isa::larger_magnitude(largest, Isa::load(tail));
  }
  float lanes[Isa::kLanes];
  Isa::store(lanes, largest);
  float result = lanes[0];
  for (int j = 1; j < Isa::kLanes; ++j) {
    if (!(lanes[j] <= result) && result == result) result = lanes[j];
  }
  return result;
}

template <typename Isa>
void activate(const EpilogueArgs& args) {
  args.type == ActType::kFp16 ? activate_as<Isa, ActType::kFp16>(args)
                              : activate_as<Isa, ActType::kBf16>(args);
}

template <typename Isa>
void round_sums(const EpilogueArgs& args) {
  args.type == ActType::kFp16 ? round_sums_as<Isa, ActType::kFp16>(args)
                              : round_sums_as<Isa, ActType::kBf16>(args);
}

template <typename Isa>
void decode_row(ActType type, const std::uint16_t* x, std::int64_t n, float* out) {
  type == ActType::kFp16 ? decode_row_as<Isa, ActType::kFp16>(x, n, out)
                         : decode_row_as<Isa, ActType::kBf16>(x, n, out);
}

template <typename Isa>
void combine(ActType type, const std::uint16_t* c, std::int64_t stride, const float* weights,
             std::int64_t topk, std::int64_t cols, std::uint16_t* y) {
  type == ActType::kFp16 ? combine_as<Isa, ActType::kFp16>(c, stride, weights, topk, cols, y)
                         : combine_as<Isa, ActType::kBf16>(c, stride, weights, topk, cols, y);
}

template <typename Isa>
void fill_row_kernels(CpuKernels& table) {
  table.activate = activate<Isa>;
  table.round_sums = round_sums<Isa>;
  table.decode_row = decode_row<Isa>;
  table.amax = amax<Isa>;
  table.combine = combine<Isa>;
  table.expand_fp8 = Isa::expand_fp8;
}

}  // namespace
}  // namespace moebench::cpu
