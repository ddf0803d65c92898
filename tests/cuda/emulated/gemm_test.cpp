// One grouped GEMM on the emulated device, of a plan made by hand.
#include "moebench/backend/cuda/gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "moebench/backend/cuda/device.h"
#include "moebench/core/dtype.h"
#include "tests/cuda/emulated/emulator.h"

namespace moebench::cuda {
namespace {

template <typename T>
DeviceBuffer on_device(const std::vector<T>& values) {
  DeviceBuffer buffer(static_cast<std::int64_t>(values.size() * sizeof(T)), "test");
  std::memcpy(buffer.as<T>(), values.data(), values.size() * sizeof(T));
  return buffer;
}

/// GEMM2 of one expert, all of it pieces: `kTiles` tiles of 8 tokens, a row tile, so deep that each
/// is cut into a part for each of three thread blocks.
class Pieces {
 public:
  static constexpr int kGrid = 3;
  static constexpr int kTiles = 6;

  Pieces() {
    std::mt19937 random(13);
    std::vector<std::uint8_t> weights(static_cast<std::size_t>(kGeometry.expert_bytes()));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      // Scales of 1 / 16 in E5M3.
      const bool scale = i % kNvfp4ChunkBytes >= kNvfp4ValueBytes;
      weights[i] = scale ? 11 << 3 : static_cast<std::uint8_t>(random());
    }
    std::vector<std::uint16_t> operand(kRows * kGeometry.chunks * kChunkDepth);
    for (std::uint16_t& value : operand)
      value = encode_fp16(static_cast<float>(random() % 64) / 64.0F - 0.5F);
    weights_ = on_device(weights);
    operand_ = on_device(operand);
    std::vector<std::int32_t> row_pair(kRows);
    std::iota(row_pair.begin(), row_pair.end(), 0);
    row_pair_ = on_device(row_pair);
  }

  /// Throws emulated::Fault.
  std::vector<std::uint16_t> run(std::uint64_t seed, int delayed_block) const {
    emulated::settings() = {seed, kGrid, delayed_block};
    const ExpertTiles entry = {0, kRows, 8, kTiles, 0, unit_cost(8)};
    PlanHeader plan{1, kRows, 8, kTiles, std::int64_t{kTiles} * entry.unit_cost, {}};
    plan.shared[1] = {0, kTiles, 0};
    std::vector<std::int32_t> hand_over(hand_over_count(kGrid), 0);
    std::vector<float> partial(partial_bytes(kGrid) / sizeof(float));
    std::vector<std::uint16_t> out(kRows * kHidden);
    const std::vector<WorkPosition> shares(kGrid + 1, WorkPosition{1, 0, 0});
    const float scale = 1.0F;
    GemmArgs args{};
    args.plan = &plan;
    args.entries = &entry;
    args.gemm = 1;
    args.geometry = kGeometry;
    args.work = work_shape(kGeometry, kGrid, 1);
    args.pieces = pieces();
    args.shares = shares.data();
    args.hand_over = hand_over.data();
    args.hidden = kHidden;
    args.intermediate = kIntermediate;
    args.weights = weights_.as<std::uint8_t>();
    args.operand = operand_.as<std::uint8_t>();
    args.weight_scale = &scale;
    args.pair_out = out.data();
    args.row_pair = row_pair_.as<std::int32_t>();
    args.partial = partial.data();
    args.grid = kGrid;
    EXPECT_EQ(enqueue_gemm(WeightKind::kNvfp4, Projection::kDown, HalfType::kFp16, args, nullptr),
              cudaSuccess);
    emulated::synchronize();
    emulated::settings().delayed_block = -1;
    return out;
  }

  static PieceShape pieces() { return piece_shape(work_shape(kGeometry, kGrid, 1), kGrid); }

 private:
  static constexpr std::int64_t kHidden = 256;
  static constexpr std::int64_t kIntermediate = 7200;
  static constexpr int kRows = 8 * kTiles;
  static constexpr MatrixGeometry kGeometry =
      matrix_geometry(Projection::kDown, kHidden, kIntermediate, kNvfp4ChunkBytes);

  DeviceBuffer weights_, operand_, row_pair_;
};

TEST(EmulatedGemm, SumsWaitUntilTheirSlotIsFree) {
  ASSERT_EQ(Pieces::pieces().parts, 3);
  const Pieces pieces;
  const std::vector<std::uint16_t> expected = pieces.run(1, -1);
  EXPECT_GT(std::count_if(expected.begin(), expected.end(), [](auto y) { return y != 0; }), 0);
  // A block that took the last part of a tile is so slow that others come to its slots again.
  for (int block = 0; block < Pieces::kGrid; ++block) {
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      SCOPED_TRACE(fmt::format("block {} is slow, seed {}", block, seed));
      EXPECT_EQ(pieces.run(seed, block), expected);
    }
  }
}

}  // namespace
}  // namespace moebench::cuda
