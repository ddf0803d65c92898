// The exact mode: a layer whose every stage is exact in FP32, so that all kernels must give the
// same bits whatever the order of their sums. How it holds:
//  - Every weight is +-2^i with scales that are powers of two, every token value a small integer;
//  rows are sparse.
//  - Tokens: each scale group has its amax (6 or 7) at an anchor column, so that scales are powers
//  of two and values are
//    their own quantised form. GEMM1 sums at most 8 terms of magnitude <= 7 units: no rounding
//    anywhere.
//  - A gate row has a single weight, on a column that holds 1, 2 or 4: gate is 64, 128 or 256.
//  There exp(-gate) < 2^-53,
//    so silu(gate) == gate in FP32 and in double, and h = gate * up is a power of two times an
//    integer <= 56: exact.
//  - h: rows n % 16 == 0 attain hidden_amax for every token, no other row exceeds it, so the
//  dynamic scales are powers of
//    two as well. Quantising the others rounds, but each operand of that rounding is exact.
//  - GEMM2 sums at most 8 multiples of a common quantum, c2 is a 16-bit number of magnitude <= 224,
//  and the topk weights
//    are powers of two: sum_j c2_j * w_j has terms that are multiples of 2^-7 (c2 in FP16: of 2^-3)
//    and stays below 512 * 112 < 2^24 * 2^-7.
#include "moebench/moe/exact.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "moebench/core/checked.h"
#include "moebench/core/dtype.h"
#include "moebench/moe/expert_pool.h"
#include "moebench/moe/philox.h"
#include "moebench/moe/problem.h"
#include "moebench/moe/weights.h"

namespace moebench {
namespace {

/// Number of columns c < cols with c % stride == offset.
constexpr std::int64_t columns_at(std::int64_t cols, std::int64_t offset, std::int64_t stride) {
  return ceil_div(cols - offset, stride);
}

struct SparseRow {
  struct Entry {
    std::int64_t col;
    float value;
  };
  std::array<Entry, exact::kDrawsPerRow>
      entries;  ///< a later entry replaces an earlier one of the same column
  std::size_t count = 0;
  void add(std::int64_t col, float value) { entries[count++] = {col, value}; }
};

/// One random word per entry, a pure function of the weight row.
std::array<std::uint32_t, exact::kDrawsPerRow> row_words(std::uint64_t seed, Stream stream,
                                                         std::int64_t expert, std::int64_t row) {
  std::array<std::uint32_t, exact::kDrawsPerRow> words{};
  for (std::uint32_t i = 0; i < words.size(); i += 4) {
    const PhiloxBlock block =
        philox4x32(seed, {i / 4, static_cast<std::uint32_t>(row),
                          static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(expert)});
    std::copy(block.begin(), block.end(), words.begin() + i);
  }
  return words;
}

SparseRow random_signs(std::span<const std::uint32_t> words, std::int64_t cols, float magnitude) {
  SparseRow row;
  for (const std::uint32_t word : words) {
    row.add(static_cast<std::int64_t>(word >> 1) % cols, (word & 1) != 0 ? -magnitude : magnitude);
  }
  return row;
}

SparseRow exact_row(std::uint64_t seed, const MoeShape& shape, std::int64_t expert, bool down,
                    std::int64_t row) {
  const auto words = row_words(seed, down ? Stream::kDown : Stream::kGateUp, expert, row);
  if (down) {
    return random_signs(words, shape.intermediate, exact::kDownWeight);
  }
  const auto choice = static_cast<std::int64_t>(words[0]);
  const bool gate = row < shape.intermediate;
  const bool anchor = (gate ? row : row - shape.intermediate) % exact::kAnchorStride == 0;
  constexpr std::int64_t kStride = exact::kAnchorStride;
  SparseRow result;
  if (gate && anchor) {
    result.add(choice % columns_at(shape.hidden, 1, kStride) * kStride + 1, exact::kGateWeight);
  } else if (gate) {
    result.add(choice % columns_at(shape.hidden, 1, 2) * 2 + 1, exact::kGateWeight);
  } else if (anchor) {
    result.add(choice % columns_at(shape.hidden, 0, kStride) * kStride,
               static_cast<float>(exact::kDrawsPerRow) * exact::kUpWeight);
  } else {
    result = random_signs(words, shape.hidden, exact::kUpWeight);
  }
  return result;
}

/// 2^(lowest + something in 0..3 that differs between neighbouring positions): a scale read from
/// the wrong place shows.
float varied_power(int lowest, std::int64_t position) {
  constexpr std::int64_t kVariants = 4;
  return static_cast<float>(1 << (position % kVariants)) * std::ldexp(1.0F, lowest);
}

/// Global scales 2^-2..2^1 for w1 and 1..8 for w2 with payloads 0.5..4 keep block scales within
/// 2^-8..2^8.
void fill_nvfp4(std::uint64_t seed, const MoeShape& shape, std::int64_t expert, bool down,
                Nvfp4Matrix& out) {
  constexpr int kLowestPayload = -1;
  out.global_scale = varied_power(down ? 0 : -2, expert);
  const std::span<std::uint8_t> payload = out.payload.as<std::uint8_t>();
  const std::span<std::uint8_t> scales = out.scales.as<std::uint8_t>();
  std::fill(payload.begin(), payload.end(), std::uint8_t{0});
  std::fill(scales.begin(), scales.end(), std::uint8_t{0});
  for (std::int64_t row = 0; row < out.rows; ++row) {
    const SparseRow sparse = exact_row(seed, shape, expert, down, row);
    for (std::size_t i = 0; i < sparse.count; ++i) {
      const auto [col, value] = sparse.entries[i];
      const std::int64_t group = col / kNvfp4BlockSize;
      const float magnitude = varied_power(kLowestPayload, row + group + expert);
      const float scale = std::abs(value) * out.global_scale / magnitude;
      scales[static_cast<std::size_t>(row * (out.cols / kNvfp4BlockSize) + group)] =
          encode_e4m3(scale);
      std::uint8_t& byte = payload[static_cast<std::size_t>((row * out.cols + col) / 2)];
      const int shift = col % 2 == 0 ? 0 : 4;
      const int code = encode_e2m1(value < 0 ? -magnitude : magnitude);
      byte = static_cast<std::uint8_t>((byte & ~(0xF << shift)) | (code << shift));
    }
  }
}

/// Scales 2^-2..2^1 keep the codes of all magnitudes (2^-5..2^6) within E4M3's powers of two,
/// 2^-9..2^8.
void fill_fp8(std::uint64_t seed, const MoeShape& shape, std::int64_t expert, bool down,
              Fp8Matrix& out) {
  const std::span<float> scales = out.scales.as<float>();
  for (std::size_t i = 0; i < scales.size(); ++i) {
    scales[i] = varied_power(-2, static_cast<std::int64_t>(i) + expert);
  }
  const std::span<std::uint8_t> payload = out.payload.as<std::uint8_t>();
  std::fill(payload.begin(), payload.end(), std::uint8_t{0});
  for (std::int64_t row = 0; row < out.rows; ++row) {
    const SparseRow sparse = exact_row(seed, shape, expert, down, row);
    for (std::size_t i = 0; i < sparse.count; ++i) {
      const auto [col, value] = sparse.entries[i];
      const auto at = static_cast<std::size_t>(fp8_scale_index(row, col, out.cols, out.scaling));
      payload[static_cast<std::size_t>(row * out.cols + col)] = encode_e4m3(value / scales[at]);
    }
  }
}

void require_exact_hidden(const MoeShape& shape) {
  if (shape.hidden < 2) {
    fail(ErrorCode::kBadInput, "exact mode: hidden is {}; it needs at least 2 columns",
         shape.hidden);
  }
}

}  // namespace

WeightSource exact_weights(std::uint64_t seed, const MoeShape& shape, WeightFormat format) {
  validate(shape, format);
  require_exact_hidden(shape);
  const auto fill_expert = [seed, shape](std::int64_t expert, ExpertWeights& out) {
    for (const bool down : {false, true}) {
      if (out.format == WeightFormat::kNvfp4) {
        fill_nvfp4(seed, shape, expert, down, down ? out.nvfp4_w2 : out.nvfp4_w1);
      } else {
        fill_fp8(seed, shape, expert, down, down ? out.fp8_w2 : out.fp8_w1);
      }
    }
  };
  WeightSource source = generated_source(shape, format, fill_expert);
  source.unquantized_row = [seed, shape](std::int64_t expert, bool down, std::int64_t row,
                                         float* out) {
    const SparseRow sparse = exact_row(seed, shape, expert, down, row);
    std::fill_n(out, down ? shape.intermediate : shape.hidden, 0.0F);
    for (std::size_t i = 0; i < sparse.count; ++i) {
      out[sparse.entries[i].col] = sparse.entries[i].value;
    }
  };
  return source;
}

std::vector<std::uint16_t> exact_tokens(std::uint64_t seed, const MoeShape& shape,
                                        WeightFormat format, std::int64_t tokens) {
  require_exact_hidden(shape);
  // Every value is on the E2M1 grid, and so in every format.
  constexpr std::array kSigned = {-6.0F, -4.0F, -3.0F, -2.0F, -1.0F, 0.0F,
                                  1.0F,  2.0F,  3.0F,  4.0F,  6.0F};
  constexpr std::array kGates = {1.0F, 2.0F, 4.0F};
  std::vector<std::uint16_t> a(
      static_cast<std::size_t>(checked_product("tokens", {tokens, shape.hidden})));
  PhiloxBlock block{};
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t k = 0; k < shape.hidden; ++k) {
      if (k % 4 == 0) {
        block =
            philox4x32(seed, {static_cast<std::uint32_t>(k / 4), static_cast<std::uint32_t>(token),
                              static_cast<std::uint32_t>(Stream::kTokens), 0});
      }
      const std::size_t word = block[static_cast<std::size_t>(k % 4)];
      float value = k % 2 == 1 ? kGates[word % kGates.size()] : kSigned[word % kSigned.size()];
      if (k % exact::kAnchorStride == 0) {
        value = exact::token_amax(format);
      } else if (k % exact::kAnchorStride == 1) {
        value = exact::kGateAnchor;
      }
      a[static_cast<std::size_t>(token * shape.hidden + k)] = encode_act(shape.act, value);
    }
  }
  return a;
}

MoeProblem exact_problem(std::uint64_t seed, const MoeShape& shape, const SchemeConfig& scheme,
                         std::int64_t tokens, Routing routing) {
  const WeightFormat format = weight_format(scheme);
  validate(shape, format);
  if (shape.topk > exact::kMaxTopk) {
    fail(ErrorCode::kBadInput, "exact mode: topk is {}; it allows at most {}", shape.topk,
         exact::kMaxTopk);
  }
  MoeProblem problem{
      shape, scheme, tokens, exact_tokens(seed, shape, format, tokens), std::move(routing), {}};
  for (std::size_t pair = 0; pair < problem.routing.topk_weights.size(); ++pair) {
    const PhiloxBlock block = philox4x32(seed, {static_cast<std::uint32_t>(pair), 0,
                                                static_cast<std::uint32_t>(Stream::kLogits), 0});
    problem.routing.topk_weights[pair] = varied_power(-4, static_cast<std::int64_t>(block[0] % 4));
  }
  for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
    problem.scales.a1_global_scale.push_back(varied_power(0, expert));
    problem.scales.a2_global_scale.push_back(varied_power(-3, expert));
  }
  problem.scales.a1_scale = exact::token_amax(format) / kE4m3Max;
  validate(problem);
  return problem;
}

}  // namespace moebench
