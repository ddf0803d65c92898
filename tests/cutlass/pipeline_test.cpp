// The whole layer as the pipeline computes it, with its own code for groups, quantisation and
// addresses on the host and a plain GEMM in CUTLASS's place, against the double-precision oracle.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "moebench/backend/cutlass/quantize_rows.h"
#include "moebench/core/error.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"
#include "tests/cutlass/reference_gemm.h"
#include "tests/cutlass/routed_groups.h"
#include "tests/support/moe_cases.h"

namespace moebench::cutlass_moe {
namespace {

using moebench::testing::LayerCase;
using testing::Operands;

/// One matrix of all experts as CutlassWeights holds it.
struct Weights {
  std::int64_t rows, depth;
  std::vector<std::uint8_t> payload, scales;
  std::vector<float> global_scales;
};

Weights pack(const LayerCase& layer, bool down) {
  const MoeShape& shape = layer.problem.shape;
  Weights out;
  out.rows = down ? shape.hidden : 2 * shape.intermediate;
  out.depth = down ? shape.intermediate : shape.hidden;
  const std::int64_t groups = out.depth / 16;
  for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
    layer.weights.with_expert(expert, [&](const ExpertWeightsView& view) {
      const Nvfp4View& from = down ? view.nvfp4_w2 : view.nvfp4_w1;
      out.payload.insert(out.payload.end(), from.payload, from.payload + out.rows * out.depth / 2);
      std::vector<std::uint8_t> swizzled(static_cast<std::size_t>(
          nvfp4_scale_bytes(out.rows, out.depth, ScaleLayout::kSwizzled128x4)));
      swizzle_scales({from.scales, static_cast<std::size_t>(out.rows * groups)}, out.rows, groups,
                     swizzled);
      out.scales.insert(out.scales.end(), swizzled.begin(), swizzled.end());
      out.global_scales.push_back(from.global_scale);
    });
  }
  return out;
}

template <ActType kType>
class Pipeline {
 public:
  explicit Pipeline(const LayerCase& layer) : layer_(layer), problem_(layer.problem) {
    const MoeShape& shape = problem_.shape;
    plan_ = cuda::testing::make_host_plan(problem_.routing.topk_ids, shape.num_experts,
                                          cuda::TileSet::kLarge);
    const auto pairs = std::ssize(problem_.routing.topk_ids);
    groups_ = testing::make_groups(plan_, max_groups(pairs, shape.num_experts));
    scale_rows_ = max_scale_rows(pairs, shape.num_experts);
  }

  std::vector<std::uint16_t> run() {
    const ActivationScales& scales = problem_.scales;
    const std::vector<std::uint16_t> gate_up =
        layer_half<RowSource::kTokens>(problem_.a, pack(layer_, false), scales.a1_global_scale);
    const std::vector<std::uint16_t> down =
        layer_half<RowSource::kGateUp>(gate_up, pack(layer_, true), scales.a2_global_scale);
    return unpermute(down);
  }

 private:
  /// Quantise and multiply.
  template <RowSource kSource>
  std::vector<std::uint16_t> layer_half(const std::vector<std::uint16_t>& rows,
                                        const Weights& weights,
                                        const std::vector<float>& global_scales) {
    const auto count = static_cast<std::size_t>(plan_.header.padded_rows);
    std::vector<std::uint8_t> payload(count * static_cast<std::size_t>(weights.depth / 2), 0xCD);
    std::vector<std::uint8_t> scales(
        static_cast<std::size_t>(scale_bytes(scale_rows_, weights.depth)), 0x7F);
    QuantizeArgs args{};
    args.rows = rows.data();
    args.depth = weights.depth;
    args.row_pair = plan_.row_pair.data();
    args.topk = static_cast<std::int32_t>(problem_.shape.topk);
    args.global_scale = global_scales.data();
    args.groups = groups_.data();
    args.group_count = static_cast<std::int32_t>(groups_.size());
    args.payload = payload.data();
    for (std::int32_t scale_row = 0; scale_row < scale_rows_; ++scale_row) {
      const ScaleRow at = find_scale_row(args.groups, args.group_count, scale_row);
      if (at.group < 0) continue;
      for (std::int64_t g = 0; g < scale_tiles_across(args.depth) * kScaleTileGroups; ++g) {
        scales[static_cast<std::size_t>(scale_offset(scale_row, g, args.depth))] =
            static_cast<std::uint8_t>(quantize_unit<kType, kSource>(args, at, g));
      }
    }
    std::vector<float> alpha;
    for (std::size_t e = 0; e < global_scales.size(); ++e) {
      alpha.push_back(1.0F / (global_scales[e] * weights.global_scales[e]));
    }
    const Operands operands{weights.rows,          weights.depth,  weights.payload.data(),
                            weights.scales.data(), payload.data(), scales.data(),
                            alpha.data()};
    std::vector<std::uint16_t> out(count * static_cast<std::size_t>(weights.rows), 0x7FFF);
    for (const Group& group : groups_) {
      const std::int64_t first = operand_offsets(group, weights.rows, weights.depth).out;
      for (std::int64_t row = 0; row < group.rows; ++row) {
        for (std::int64_t w = 0; w < weights.rows; ++w) {
          out[static_cast<std::size_t>(first + row * weights.rows + w)] =
              encode_act(kType, testing::gemm_element(operands, group, row, w));
        }
      }
    }
    return out;
  }

  std::vector<std::uint16_t> unpermute(const std::vector<std::uint16_t>& rows) {
    const std::int64_t hidden = problem_.shape.hidden;
    const std::int64_t topk = problem_.shape.topk;
    std::vector<std::uint16_t> y(static_cast<std::size_t>(problem_.tokens * hidden));
    for (std::int64_t token = 0; token < problem_.tokens; ++token) {
      for (std::int64_t column = 0; column < hidden; ++column) {
        float sum = 0.0F;
        for (std::int64_t j = 0; j < topk; ++j) {
          const auto pair = static_cast<std::size_t>(token * topk + j);
          const std::int64_t row = plan_.row_of_pair[pair];
          sum += decode_act(kType, rows[static_cast<std::size_t>(row * hidden + column)]) *
                 problem_.routing.topk_weights[pair];
        }
        y[static_cast<std::size_t>(token * hidden + column)] = encode_act(kType, sum);
      }
    }
    return y;
  }

  const LayerCase& layer_;
  const MoeProblem& problem_;
  cuda::testing::HostPlan plan_;
  std::vector<Group> groups_;
  std::int64_t scale_rows_ = 0;
};

std::vector<std::uint16_t> run(const LayerCase& layer) {
  return layer.problem.shape.act == ActType::kFp16 ? Pipeline<ActType::kFp16>(layer).run()
                                                   : Pipeline<ActType::kBf16>(layer).run();
}

Verdict verdict_of(const LayerCase& layer, const std::vector<std::uint16_t>& y) {
  constexpr int kThreads = 2;
  const ReferenceRows reference =
      reference_forward(layer.problem, layer.weights, moebench::testing::all_rows(layer.problem),
                        std::nullopt, kThreads);
  return judge(layer.problem, reference, y, "");
}

const SchemeConfig kScheme{.scheme = Scheme::kNvfp4};

MoeShape random_shape(std::mt19937_64& random) {
  const auto pick = [&](std::uint64_t low, std::uint64_t high) {
    return static_cast<std::int64_t>(low + random() % (high - low + 1));
  };
  MoeShape shape;
  shape.num_experts = pick(1, 12);
  shape.topk = pick(1, static_cast<std::uint64_t>(shape.num_experts));
  shape.hidden = 32 * pick(1, 9);
  shape.intermediate = 32 * pick(1, 6);
  shape.act = random() % 2 == 0 ? ActType::kFp16 : ActType::kBf16;
  return shape;
}

TEST(CutlassPipeline, PassesTheOracleOnRandomShapes) {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    std::mt19937_64 random(seed);
    const MoeShape shape = random_shape(random);
    const auto tokens = static_cast<std::int64_t>(1 + random() % 40);
    const LayerCase layer = moebench::testing::synthetic_case(seed, shape, kScheme, tokens);
    const std::vector<std::uint16_t> y = run(layer);
    const Verdict verdict = verdict_of(layer, y);
    EXPECT_TRUE(verdict.passed()) << moebench::testing::describe(seed, layer.problem) << ": "
                                  << verdict.reason;
  }
}

/// A block of scales beyond 128 rows: every scale tile but the first.
TEST(CutlassPipeline, PassesTheOracleWithManyTokensOnOneExpert) {
  const MoeShape shape{
      .num_experts = 2, .topk = 1, .hidden = 96, .intermediate = 64, .act = ActType::kFp16};
  const LayerCase layer = moebench::testing::synthetic_case(3, shape, kScheme, 700);
  const std::vector<std::uint16_t> y = run(layer);
  const Verdict verdict = verdict_of(layer, y);
  EXPECT_TRUE(verdict.passed()) << verdict.reason;
}

}  // namespace
}  // namespace moebench::cutlass_moe
