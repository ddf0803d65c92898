// Packed weights unpacked again with nothing but the layout's own description.
#include "moebench/backend/cpu/pack.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "moebench/core/error.h"

namespace moebench::cpu {
namespace {

constexpr MoeShape kNvfp4Shape{.num_experts = 3, .topk = 1, .hidden = 80, .intermediate = 48};
constexpr MoeShape kFp8Shape{.num_experts = 2, .topk = 1, .hidden = 133, .intermediate = 37};

/// layout.h: nibble j + 4h of a lane holds k = 2j + h of its eight.
std::uint8_t packed_nvfp4(const std::uint8_t* slab, std::int64_t panel, std::int64_t row,
                          std::int64_t k) {
  std::uint32_t lane = 0;
  std::memcpy(&lane, slab + nvfp4_lane_offset(panel, row, k / 8 * 8), sizeof lane);
  const auto nibble = static_cast<unsigned>(k % 8 / 2 + 4 * (k % 2));
  return static_cast<std::uint8_t>(lane >> (4 * nibble) & 15U);
}

void expect_nvfp4(const PackedCpuWeights& packed, std::int64_t expert, Projection projection,
                  const Nvfp4View& canonical) {
  const SlabGeometry& geometry = packed.geometry().of(projection);
  std::int64_t rows_seen = 0;
  for (std::int64_t s = 0; s < geometry.slabs; ++s) {
    const std::uint8_t* slab = packed.slab(expert, projection, s);
    for (std::int64_t r = 0; r < kSlabRows; ++r) {
      const std::int64_t row = packed.geometry().canonical_row(projection, s, r);
      rows_seen += row >= 0;
      for (std::int64_t k = 0; k < canonical.cols; ++k) {
        const unsigned byte = row < 0 ? 0U : canonical.payload[row * (canonical.cols / 2) + k / 2];
        ASSERT_EQ(packed_nvfp4(slab, r / kPanelRows, r % kPanelRows, k), byte >> (k % 2 * 4) & 15U)
            << "slab " << s << " row " << r << " k " << k;
        const std::uint8_t scale =
            row < 0 ? std::uint8_t{0} : canonical.scales[row * (canonical.cols / 16) + k / 16];
        ASSERT_EQ(slab[nvfp4_scale_offset(r / kPanelRows, r % kPanelRows, k / 16)], scale);
      }
    }
  }
  EXPECT_EQ(rows_seen, canonical.rows);
  EXPECT_EQ(*packed.scales(expert, projection), canonical.global_scale);
}

void expect_fp8(const PackedCpuWeights& packed, std::int64_t expert, Projection projection,
                const Fp8View& canonical) {
  const SlabGeometry& geometry = packed.geometry().of(projection);
  for (std::int64_t s = 0; s < geometry.slabs; ++s) {
    const std::uint8_t* slab = packed.slab(expert, projection, s);
    for (std::int64_t r = 0; r < kSlabRows; ++r) {
      const std::int64_t row = packed.geometry().canonical_row(projection, s, r);
      for (std::int64_t k = 0; k < geometry.padded_depth(); ++k) {
        const std::uint8_t expected = row < 0 || k >= canonical.cols
                                          ? std::uint8_t{0}
                                          : canonical.payload[row * canonical.cols + k];
        ASSERT_EQ(slab[fp8_pair_offset(r / kPanelRows, r % kPanelRows, k / 2 * 2) + k % 2],
                  expected)
            << "slab " << s << " row " << r << " k " << k;
      }
    }
  }
  const std::int64_t count = fp8_scale_count(canonical.rows, canonical.cols, canonical.scaling);
  for (std::int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(packed.scales(expert, projection)[i], canonical.scales[i]);
  }
}

TEST(CpuPack, Nvfp4RoundTrips) {
  const WeightSource source = synthetic_weights(1, kNvfp4Shape, WeightFormat::kNvfp4);
  const auto packed = pack_layer(source, 2, {});
  for (std::int64_t e = 0; e < kNvfp4Shape.num_experts; ++e) {
    source.with_expert(e, [&](const ExpertWeightsView& weights) {
      expect_nvfp4(*packed, e, Projection::kGateUp, weights.nvfp4_w1);
      expect_nvfp4(*packed, e, Projection::kDown, weights.nvfp4_w2);
    });
  }
}

TEST(CpuPack, Fp8RoundTrips) {
  for (const WeightFormat format :
       {WeightFormat::kFp8PerTensor, WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block}) {
    SCOPED_TRACE(name_of(format));
    const WeightSource source = synthetic_weights(2, kFp8Shape, format);
    const auto packed = pack_layer(source, 2, {});
    for (std::int64_t e = 0; e < kFp8Shape.num_experts; ++e) {
      source.with_expert(e, [&](const ExpertWeightsView& weights) {
        expect_fp8(*packed, e, Projection::kGateUp, weights.fp8_w1);
        expect_fp8(*packed, e, Projection::kDown, weights.fp8_w2);
      });
    }
  }
}

TEST(CpuPack, EverySlabBeginsOnACacheLine) {
  const WeightSource source = synthetic_weights(3, kNvfp4Shape, WeightFormat::kNvfp4);
  const auto packed = pack_layer(source, 1, {});
  for (std::int64_t e = 0; e < kNvfp4Shape.num_experts; ++e) {
    for (const Projection projection : {Projection::kGateUp, Projection::kDown}) {
      for (std::int64_t s = 0; s < packed->geometry().of(projection).slabs; ++s) {
        const auto address = reinterpret_cast<std::uintptr_t>(packed->slab(e, projection, s));
        ASSERT_EQ(address % static_cast<std::uintptr_t>(kCacheLine), 0U);
      }
    }
  }
}

TEST(CpuPack, TakesNoMoreThanTheCanonicalBytesOnModelShapes) {
  const MoeShape shape{.num_experts = 256, .topk = 8, .hidden = 2048, .intermediate = 7168};
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kFp8PerTensor,
                                    WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block}) {
    const auto canonical = static_cast<double>(layer_weight_bytes(shape, format));
    const auto packed = static_cast<double>(PackedGeometry(shape, format).total_bytes());
    EXPECT_LE(packed, 1.001 * canonical) << name_of(format);
  }
}

TEST(CpuPack, ReportsEveryExpertOnce) {
  const WeightSource source = synthetic_weights(4, kNvfp4Shape, WeightFormat::kNvfp4);
  std::vector<std::int64_t> done;
  static_cast<void>(pack_layer(source, 2, [&](std::int64_t count, std::int64_t total) {
    EXPECT_EQ(total, kNvfp4Shape.num_experts);
    done.push_back(count);
  }));
  EXPECT_EQ(done, (std::vector<std::int64_t>{1, 2, 3}));
}

TEST(CpuPack, PassesASourcesErrorOn) {
  WeightSource source = synthetic_weights(5, kNvfp4Shape, WeightFormat::kNvfp4);
  source.with_expert = [](std::int64_t, const WithExpert&) {
    fail(ErrorCode::kIo, "weights: cannot read; try again");
  };
  EXPECT_THROW(static_cast<void>(pack_layer(source, 2, {})), Error);
}

}  // namespace
}  // namespace moebench::cpu
