// The layer as the Triton backend computes it - align, quantise, GEMM1, SiLU * up, quantise, GEMM2,
// weighted sum - on the emulated device, judged by the oracle row by row.
#include "moebench/backend/triton/forward.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "moebench/backend/triton/align.h"
#include "moebench/backend/triton/kernels.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"
#include "tests/cuda/emulated/emulator.h"
#include "tests/support/moe_cases.h"

namespace moebench::triton {
namespace {

using testing::LayerCase;
using testing::SchemeCase;

EmbeddedKernel kernel_of(ActType act, int block_m, bool wide_rows) {
  EmbeddedKernel kernel;
  kernel.name = "emulated";
  kernel.act = act;
  kernel.tile = {block_m, 64, 64, 4, 3, wide_rows, true};
  kernel.wide_rows = wide_rows;
  return kernel;
}

/// Which GEMMs read FP16 rows.
struct Wide {
  bool tokens = false, hidden = false;
};
constexpr std::array<Wide, 4> kWides{{{false, false}, {true, true}, {true, false}, {false, true}}};

void check_layer(const LayerCase& made, const SchemeCase& scheme, int block_m, Wide wide,
                 bool exact, std::uint64_t seed) {
  const MoeProblem& problem = made.problem;
  wide.tokens &= problem.shape.hidden % kWideSplit == 0;
  wide.hidden &= problem.shape.intermediate % kWideSplit == 0;
  SCOPED_TRACE(fmt::format("{}, block_m {}{}{}{}", testing::describe(seed, problem), block_m,
                           wide.tokens ? ", wide tokens" : "", wide.hidden ? ", wide h" : "",
                           exact ? ", exact" : ""));
  emulated::settings().seed = seed;
  const EmbeddedKernel gate_up = kernel_of(scheme.act, block_m, wide.tokens);
  const EmbeddedKernel down = kernel_of(scheme.act, block_m, wide.hidden);
  const EmbeddedSet set;
  KernelCache kernels(set);
  TritonForward forward(problem, pack_triton(made.weights, {}), {&gate_up, &down, 1, 1, ""},
                        kernels);
  forward.upload(nullptr);
  const std::int64_t count = problem.tokens * problem.shape.hidden;
  std::uint16_t* const y = forward.output();
  std::fill(y - kGuardElements, y, kGuard);
  std::fill(y + count, y + count + kGuardElements, kGuard);
  std::vector<std::uint16_t> first;
  for (int run = 0; run < 2; ++run) {
    std::fill(y, y + count, kPoison);
    // Twice without a wait, on what the first call left behind.
    for (int call = 0; call <= run; ++call) forward.enqueue(nullptr, nullptr);
    cuda::wait(cudaStream_t{}, "the layer");
    const std::vector<std::uint16_t> answer(y, y + count);
    if (run == 0) first = answer;
    EXPECT_EQ(answer, first);
  }
  const auto intact = [](const std::uint16_t* guards) {
    return std::all_of(guards, guards + kGuardElements,
                       [](std::uint16_t x) { return x == kGuard; });
  };
  EXPECT_TRUE(intact(y - kGuardElements) && intact(y + count));
  const auto claim = forward.dynamic_scale(nullptr);
  const ReferenceRows reference =
      reference_forward(problem, made.weights, testing::all_rows(problem), claim, 0);
  const Verdict verdict = judge(problem, reference, first, "");
  EXPECT_TRUE(verdict.passed()) << verdict.reason << "; share of the bound "
                                << verdict.worst_bound_share;
  if (exact) {
    EXPECT_EQ(verdict.worst_row_error, 0.0);
  }
}

class EmulatedTriton : public ::testing::TestWithParam<SchemeCase> {};

TEST_P(EmulatedTriton, LayersOfManyShapesPass) {
  std::uint64_t seed = 1;
  for (const int block_m : {16, 64}) {
    for (const auto& [experts, topk, hidden, intermediate, tokens] :
         {std::array<std::int64_t, 5>{4, 2, 128, 32, 9},
          {1, 1, 16, 16, 1},
          {40, 8, 48, 80, 5},
          {6, 6, 144, 48, 5},
          {3, 2, 32, 272, 20},
          {5, 3, 64, 192, 7},
          {3, 1, 320, 64, 6},
          {8, 2, 32, 32, 0}}) {
      const MoeShape shape{experts, topk, hidden, intermediate, GetParam().act};
      check_layer(testing::synthetic_case(seed, shape, GetParam().scheme, tokens), GetParam(),
                  block_m, kWides[(seed + static_cast<std::uint64_t>(block_m / 64)) % 4], false,
                  seed);
      ++seed;
    }
  }
}

TEST_P(EmulatedTriton, ExactLayersAreExact) {
  const MoeShape shape{5, 2, 128, 64, GetParam().act};
  for (const Wide wide : kWides) {
    check_layer(testing::exact_case(9, shape, GetParam().scheme, 11), GetParam(), 32, wide, true,
                9);
  }
}

std::vector<SchemeCase> fp8_cases() {
  std::vector<SchemeCase> out;
  for (const SchemeCase& scheme_case : testing::all_scheme_cases()) {
    if (scheme_case.scheme.scheme == Scheme::kFp8) out.push_back(scheme_case);
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(Fp8, EmulatedTriton, ::testing::ValuesIn(fp8_cases()),
                         testing::param_name<::testing::TestParamInfo<SchemeCase>>);

/// The device's align kernel against the host's, with more experts than threads, too.
TEST(EmulatedAlign, WritesWhatTheHostDoes) {
  std::uint64_t seed = 1;
  for (const auto& [experts, topk, tokens] : {std::array<std::int64_t, 3>{1, 1, 1},
                                              {4, 2, 100},
                                              {256, 8, 64},
                                              {1500, 4, 90},
                                              {8, 8, 300},
                                              {31, 3, 11}}) {
    for (const auto kind :
         {RoutingSpec::Kind::kUniform, RoutingSpec::Kind::kSingle, RoutingSpec::Kind::kZipf}) {
      RoutingSpec spec;
      spec.kind = kind;
      const Routing routing = make_routing(spec, seed, tokens, experts, topk, false);
      emulated::settings().seed = seed++;
      const int block_m = std::array{16, 32, 64, 128}[seed % 4];
      const std::int64_t pairs = tokens * topk;
      const std::int64_t rows = max_aligned_rows(pairs, experts, block_m);
      const cuda::DeviceBuffer ids(pairs * 4, "ids"), sorted(rows * 4, "rows"),
          tiles(rows / block_m * 4, "tiles");
      const cuda::DeviceBuffer padded(4, "rows"), key(8, "amax");
      std::copy(routing.topk_ids.begin(), routing.topk_ids.end(), ids.as<std::int32_t>());
      AlignArgs args{ids.as<std::int32_t>(),
                     pairs,
                     experts,
                     block_m,
                     sorted.as<std::int32_t>(),
                     tiles.as<std::int32_t>(),
                     padded.as<std::int32_t>(),
                     key.as<std::uint64_t>()};
      ASSERT_EQ(enqueue_align(args, nullptr), cudaSuccess);
      cuda::wait(cudaStream_t{}, "align");
      const Alignment expected = align_pairs(routing.topk_ids, experts, block_m);
      const std::int64_t used = *padded.as<std::int32_t>();
      ASSERT_EQ(used, std::ssize(expected.sorted_pairs));
      EXPECT_EQ(std::vector<std::int32_t>(args.sorted_pairs, args.sorted_pairs + used),
                expected.sorted_pairs);
      EXPECT_EQ(std::vector<std::int32_t>(args.tile_experts, args.tile_experts + used / block_m),
                expected.tile_experts);
      EXPECT_EQ(*key.as<std::uint64_t>(), 0U);
    }
  }
}

/// FP16 rows are the codes' numbers under the same scales, in the order that the kernel reads.
TEST(EmulatedQuantize, WideRowsAreThoseOfTheCodes) {
  constexpr std::int64_t kRows = 3;
  std::uint64_t seed = 1;
  for (const ActType act : {ActType::kFp16, ActType::kBf16}) {
    for (const std::int64_t columns : {64, 320, 8256}) {
      for (const bool per_row : {false, true}) {
        const std::int64_t count = kRows * columns;
        const cuda::DeviceBuffer rows(count * 2, "rows"), codes(count, "codes"),
            wide(count * 2, "rows"), given(4, "scale"), scales(kRows * 4, "scales"),
            wide_scales(kRows * 4, "scales");
        std::mt19937_64 random(seed);
        std::normal_distribution<float> normal(0.0F, 3.0F);
        std::generate_n(rows.as<std::uint16_t>(), count,
                        [&] { return encode_act(act, normal(random)); });
        *given.as<float>() = 0.01F;
        emulated::settings().seed = seed++;
        QuantizeArgs args{};
        args.rows = rows.as<std::uint16_t>();
        args.count = kRows;
        args.columns = columns;
        args.codes = codes.as<std::uint8_t>();
        if (!per_row) args.given_scale = given.as<float>();
        args.row_scale = scales.as<float>();
        ASSERT_EQ(enqueue_quantize(act, args, nullptr), cudaSuccess);
        args.codes = nullptr;
        args.row_scale = wide_scales.as<float>();
        args.wide = wide.as<std::uint16_t>();
        ASSERT_EQ(enqueue_quantize(act, args, nullptr), cudaSuccess);
        cuda::wait(cudaStream_t{}, "quantize");
        for (std::int64_t i = 0; i < count; ++i) {
          // Of 64 columns the even ones first.
          const std::int64_t from = i / 64 * 64 + i % 32 * 2 + i % 64 / 32;
          ASSERT_EQ(args.wide[i], encode_fp16(decode_e4m3(codes.as<std::uint8_t>()[from]))) << i;
        }
        if (per_row) {
          EXPECT_TRUE(
              std::equal(scales.as<float>(), scales.as<float>() + kRows, wide_scales.as<float>()));
        }
        args.columns = 48;
        EXPECT_EQ(enqueue_quantize(act, args, nullptr), cudaErrorInvalidValue);
      }
    }
  }
}

/// Weights made on the device are the source's, bit for bit.
TEST(EmulatedWeights, AreTheSources) {
  for (const WeightFormat format : {WeightFormat::kFp8PerTensor, WeightFormat::kFp8PerChannel}) {
    const MoeShape shape{3, 1, 80, 48, ActType::kFp16};
    const WeightSource source = synthetic_weights(4, shape, format);
    const auto made = pack_triton(source, {});
    WeightSource copied_from = source;
    copied_from.synthetic_seed.reset();
    const auto copied = pack_triton(copied_from, {});
    for (const bool down : {false, true}) {
      const std::int64_t rows = down ? shape.hidden : 2 * shape.intermediate;
      const std::int64_t codes =
          shape.num_experts * rows * (down ? shape.intermediate : shape.hidden);
      const std::int64_t scales =
          shape.num_experts * (format == WeightFormat::kFp8PerChannel ? rows : 1);
      EXPECT_TRUE(std::equal(made->codes(down), made->codes(down) + codes, copied->codes(down)));
      EXPECT_TRUE(
          std::equal(made->scales(down), made->scales(down) + scales, copied->scales(down)));
    }
  }
}

}  // namespace
}  // namespace moebench::triton
