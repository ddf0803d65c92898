// What a thread of the quantising kernels does, run on the host for every thread of a launch,
// against quant/: payload and swizzled scales bit for bit, padding zero.
#include "moebench/backend/cutlass/quantize_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "moebench/quant/nvfp4.h"
#include "tests/cutlass/routed_groups.h"

namespace moebench::cutlass_moe {
namespace {

using testing::random_routed;
using testing::Routed;

constexpr std::uint8_t kUnwritten = 0x7F;  // as a scale: NaN

struct Quantized {
  std::vector<std::uint8_t> payload, scales;
};

/// Every scale row and group that a launch covers.
template <ActType kType, RowSource kSource>
Quantized quantize_all(QuantizeArgs args, const Routed& routed) {
  const std::int64_t bound = max_scale_rows(std::ssize(routed.ids), routed.experts);
  Quantized out;
  out.payload.assign(static_cast<std::size_t>(routed.plan.header.padded_rows * (args.depth / 2)),
                     kUnwritten);
  out.scales.assign(static_cast<std::size_t>(scale_bytes(bound, args.depth)), kUnwritten);
  args.groups = routed.groups.data();
  args.group_count = static_cast<std::int32_t>(routed.groups.size());
  args.row_pair = routed.plan.row_pair.data();
  args.topk = static_cast<std::int32_t>(routed.topk);
  args.payload = out.payload.data();
  for (std::int32_t scale_row = 0; scale_row < bound; ++scale_row) {
    const ScaleRow at = find_scale_row(args.groups, args.group_count, scale_row);
    if (at.group < 0) continue;
    for (std::int64_t group = 0; group < scale_tiles_across(args.depth) * kScaleTileGroups;
         ++group) {
      out.scales[static_cast<std::size_t>(scale_offset(scale_row, group, args.depth))] =
          static_cast<std::uint8_t>(quantize_unit<kType, kSource>(args, at, group));
    }
  }
  return out;
}

std::vector<std::uint16_t> random_values(std::mt19937_64& random, ActType type,
                                         std::int64_t count) {
  std::vector<std::uint16_t> out(static_cast<std::size_t>(count));
  std::normal_distribution<float> normal(0.0F, 1.0F);
  for (auto& bits : out) {
    // Blocks of small, large and zero values.
    const float scale = random() % 8 == 0 ? 0x1p-12F : random() % 16 == 0 ? 100.0F : 1.0F;
    bits = encode_act(type, random() % 32 == 0 ? 0.0F : normal(random) * scale);
  }
  return out;
}

/// `row_of(group, i)`: the 16-bit row behind row i of a group.
template <typename RowOf>
void expect_quant_bits(const Quantized& quantized, const Routed& routed, std::int64_t depth,
                       ActType type, std::span<const float> global_scales, RowOf row_of) {
  const std::int64_t column_groups = depth / 16;
  for (const Group& group : routed.groups) {
    if (group.rows == 0) continue;
    std::vector<std::uint8_t> linear(static_cast<std::size_t>(group.rows * column_groups));
    std::vector<std::uint8_t> payload(static_cast<std::size_t>(depth / 2));
    std::vector<float> row(static_cast<std::size_t>(depth));
    for (std::int32_t i = 0; i < group.rows; ++i) {
      const std::vector<std::uint16_t> bits = row_of(group, i);
      for (std::size_t c = 0; c < row.size(); ++c) row[c] = decode_act(type, bits[c]);
      quantize_nvfp4_row_scalar(row.data(), depth,
                                global_scales[static_cast<std::size_t>(group.expert)],
                                payload.data(), linear.data() + i * column_groups);
      ASSERT_TRUE(std::equal(payload.begin(), payload.end(),
                             quantized.payload.begin() + (group.first_row + i) * (depth / 2)))
          << "expert " << group.expert << ", row " << i;
    }
    std::vector<std::uint8_t> swizzled(static_cast<std::size_t>(
        nvfp4_scale_bytes(group.rows, depth, ScaleLayout::kSwizzled128x4)));
    swizzle_scales(linear, group.rows, column_groups, swizzled);
    ASSERT_TRUE(std::equal(swizzled.begin(), swizzled.end(),
                           quantized.scales.begin() + scale_bytes(group.first_scale_row, depth)))
        << "scales of expert " << group.expert;
  }
}

std::vector<float> random_global_scales(std::mt19937_64& random, std::int64_t experts) {
  std::vector<float> out(static_cast<std::size_t>(experts));
  for (float& scale : out) scale = 0.5F + static_cast<float>(random() % 4000) / 3.0F;
  return out;
}

template <ActType kType>
void check_tokens(std::uint64_t seed) {
  const Routed routed = random_routed(seed);
  std::mt19937_64 random(seed);
  const auto depth = static_cast<std::int64_t>(1 + random() % 10) * 32;
  SCOPED_TRACE(fmt::format("{}, depth {}", routed.name, depth));
  const std::vector<float> scales = random_global_scales(random, routed.experts);
  const std::vector<std::uint16_t> tokens = random_values(random, kType, routed.tokens * depth);
  QuantizeArgs args{};
  args.rows = tokens.data();
  args.depth = depth;
  args.global_scale = scales.data();
  const Quantized quantized = quantize_all<kType, RowSource::kTokens>(args, routed);
  expect_quant_bits(quantized, routed, depth, kType, scales, [&](const Group& group, int i) {
    const auto pair = routed.plan.row_pair[static_cast<std::size_t>(group.first_row + i)];
    const auto* from = tokens.data() + pair / routed.topk * depth;
    return std::vector<std::uint16_t>(from, from + depth);
  });
}

TEST(CutlassQuantize, GivesTokensTheBitsOfQuant) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    ASSERT_NO_FATAL_FAILURE(check_tokens<ActType::kFp16>(seed));
    ASSERT_NO_FATAL_FAILURE(check_tokens<ActType::kBf16>(1000 + seed));
  }
}

template <ActType kType>
void check_hidden(std::uint64_t seed) {
  const Routed routed = random_routed(seed);
  std::mt19937_64 random(seed);
  const auto depth = static_cast<std::int64_t>(1 + random() % 6) * 32;
  SCOPED_TRACE(fmt::format("{}, depth {}", routed.name, depth));
  const std::vector<float> scales = random_global_scales(random, routed.experts);
  const std::vector<std::uint16_t> gate_up =
      random_values(random, kType, routed.plan.header.padded_rows * 2 * depth);
  QuantizeArgs args{};
  args.rows = gate_up.data();
  args.depth = depth;
  args.global_scale = scales.data();
  const Quantized quantized = quantize_all<kType, RowSource::kGateUp>(args, routed);
  expect_quant_bits(quantized, routed, depth, kType, scales, [&](const Group& group, int i) {
    const auto* from = gate_up.data() + (group.first_row + i) * 2 * depth;
    std::vector<std::uint16_t> hidden(static_cast<std::size_t>(depth));
    for (std::int64_t c = 0; c < depth; ++c) {
      const float gate = decode_act(kType, from[c]);
      const float up = decode_act(kType, from[depth + c]);
      hidden[static_cast<std::size_t>(c)] = encode_act(kType, silu(gate) * up);
    }
    return hidden;
  });
}

TEST(CutlassQuantize, GivesTheHiddenRowsTheBitsOfQuant) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    ASSERT_NO_FATAL_FAILURE(check_hidden<ActType::kFp16>(seed));
    ASSERT_NO_FATAL_FAILURE(check_hidden<ActType::kBf16>(1000 + seed));
  }
}

}  // namespace
}  // namespace moebench::cutlass_moe
