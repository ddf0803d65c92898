// The code that generates weights on the device, run on the host, against the host's generator:
// every value and scale of the packed form, read back one by one with the formulas of the layout.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "moebench/backend/cuda/generate_pieces.h"
#include "moebench/backend/cuda/pack.h"
#include "moebench/core/dtype.h"
#include "moebench/moe/weights.h"

namespace moebench::cuda {
namespace {

constexpr std::uint64_t kSeed = 0x123456789ABCDEF0;
constexpr std::int64_t kExpert = 5;

struct GenerateCase {
  WeightFormat format;
  Projection projection;
  std::int64_t hidden;
  std::int64_t intermediate;
};
std::string name_of(const GenerateCase& c) {
  std::string name =
      fmt::format("{}_{}_{}x{}", moebench::name_of(c.format),
                  c.projection == Projection::kGateUp ? "w1" : "w2", c.hidden, c.intermediate);
  for (char& letter : name) {
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
  }
  return name;
}

class CudaGenerate : public ::testing::TestWithParam<GenerateCase> {
 protected:
  CudaGenerate()
      : matrix_{kSeed, static_cast<std::uint32_t>(kExpert), GetParam().projection,
                GetParam().hidden, GetParam().intermediate},
        geometry_(matrix_geometry(
            GetParam().projection, GetParam().hidden, GetParam().intermediate,
            GetParam().format == WeightFormat::kNvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes)) {
    const MoeShape shape{kExpert + 1, 1, GetParam().hidden, GetParam().intermediate,
                         ActType::kFp16};
    expected_ = make_expert_weights(shape, GetParam().format);
    quantize_synthetic_expert(kSeed, shape, kExpert, expected_);
  }

  [[nodiscard]] bool gate_up() const { return matrix_.projection == Projection::kGateUp; }

  /// As the device finds them: the largest integer of whatever shares a scale, then the scale.
  [[nodiscard]] std::vector<float> scales() const {
    const WeightFormat format = GetParam().format;
    std::vector<std::uint32_t> largest(
        static_cast<std::size_t>(weight_scale_count(format, matrix_.rows(), matrix_.columns())));
    for (std::int64_t row = 0; row < matrix_.rows(); ++row) {
      for (std::int64_t column = 0; column < matrix_.columns(); column += kPhiloxColumns) {
        std::uint32_t& slot = largest[static_cast<std::size_t>(
            fp8_scale_place(format, row, column / kChunkDepth, geometry_.chunks))];
        slot = std::max(slot, largest_integer(matrix_, row, column));
      }
    }
    std::vector<float> scales;
    for (const std::uint32_t integer : largest) {
      const float amax = static_cast<float>(integer) * kGeneratedStep;
      scales.push_back(format == WeightFormat::kNvfp4 ? nvfp4_global_scale_of(amax)
                                                      : fp8_scale_of(amax));
    }
    return scales;
  }

  /// Every chunk of the matrix. Bytes that no piece writes keep a pattern.
  [[nodiscard]] std::vector<std::uint8_t> generate(Wide wide) const {
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(geometry_.expert_bytes()), 0xCD);
    const std::vector<float> all = scales();
    const bool nvfp4 = GetParam().format == WeightFormat::kNvfp4;
    for (std::int64_t block = 0; block < geometry_.blocks; ++block) {
      for (std::int64_t chunk = 0; chunk < geometry_.chunks; ++chunk) {
        std::uint8_t* out =
            packed.data() + block * geometry_.block_bytes() + chunk * geometry_.chunk_bytes;
        for (int piece = 0; piece < (nvfp4 ? kNvfp4ChunkPieces : kFp8ChunkPieces); ++piece) {
          if (nvfp4) {
            generate_nvfp4_piece(matrix_, wide, all[0], block, chunk, piece, out);
          } else {
            generate_fp8_piece(matrix_, GetParam().format, all.data(), block, chunk, piece, out);
          }
        }
      }
    }
    return packed;
  }

  /// Calls check(chunk bytes, thread, group, register, canonical row or -1, column) for every pair
  /// of columns.
  template <typename Check>
  void for_each_pair(const std::vector<std::uint8_t>& packed, Check check) const {
    for (std::int64_t block = 0; block < geometry_.blocks; ++block) {
      for (std::int64_t chunk = 0; chunk < geometry_.chunks; ++chunk) {
        const std::uint8_t* bytes =
            packed.data() + block * geometry_.block_bytes() + chunk * geometry_.chunk_bytes;
        for (int thread = 0; thread < 128; ++thread) {
          for (int group = 0; group < kChunkDepth / kScaleGroup; ++group) {
            for (int reg = 0; reg < 4; ++reg) {
              const std::int64_t row =
                  canonical_row(matrix_.projection, block, fragment_row(thread, reg),
                                matrix_.hidden, matrix_.intermediate);
              const std::int64_t column =
                  chunk * kChunkDepth + group * kScaleGroup + fragment_column(thread, reg);
              check(bytes, thread, group, reg, row, column);
            }
          }
        }
      }
    }
  }

  [[nodiscard]] std::vector<std::uint8_t> pack(Wide wide) const {
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(geometry_.expert_bytes()));
    const MoeShape shape{kExpert + 1, 1, GetParam().hidden, GetParam().intermediate,
                         ActType::kFp16};
    pack_expert(view(expected_), shape, wide, matrix_.projection,
                reinterpret_cast<std::byte*>(packed.data()));
    return packed;
  }

  GeneratedMatrix matrix_;
  MatrixGeometry geometry_;
  ExpertWeights expected_;
};

TEST_P(CudaGenerate, WritesTheBytesOfThePacker) {
  for (const Wide wide : {Wide::kFp16, Wide::kBf16}) EXPECT_EQ(generate(wide), pack(wide));
}

class CudaGenerateNvfp4 : public CudaGenerate {};

TEST_P(CudaGenerateNvfp4, WritesTheHostsCodesAndScales) {
  const Nvfp4View expected = view(gate_up() ? expected_.nvfp4_w1 : expected_.nvfp4_w2);
  ASSERT_EQ(scales(), std::vector<float>{expected.global_scale});
  for (const Wide wide : {Wide::kFp16, Wide::kBf16}) {
    for_each_pair(generate(wide), [&](const std::uint8_t* chunk, int thread, int group, int reg,
                                      std::int64_t row, std::int64_t column) {
      std::uint32_t word = 0;
      std::memcpy(&word, chunk + nvfp4_word_offset(thread, group), sizeof word);
      const bool inside = row >= 0 && column < expected.cols;
      const std::uint8_t payload =
          inside ? expected.payload[(row * expected.cols + column) / 2] : std::uint8_t{0};
      for (int i = 0; i < 2; ++i) {
        const NibbleBits bits = nibble_bits(wide, reg);
        const auto bit = [&](int position) { return word >> (16 * i + position) & 1; };
        const std::uint32_t code =
            bit(bits.sign) << 3 | bit(bits.bit2) << 2 | bit(bits.bit1) << 1 | bit(bits.bit0);
        ASSERT_EQ(code, payload >> (4 * i) & 0xFU) << "row " << row << " column " << column + i;
      }
      const std::uint8_t scale = chunk[nvfp4_scale_offset(fragment_row(thread, reg), group)];
      const std::uint8_t e4m3 =
          inside ? expected.scales[(row * expected.cols + column) / kScaleGroup] : std::uint8_t{0};
      // E5M3, biased by 22.
      const float value = scale == 0 ? 0.0F
                                     : std::ldexp(1.0F + static_cast<float>(scale % 8) / 8.0F,
                                                  scale / 8 - kScaleExponentBias);
      ASSERT_EQ(value, decode_e4m3(e4m3)) << "row " << row << " column " << column;
    });
  }
}

class CudaGenerateFp8 : public CudaGenerate {};

TEST_P(CudaGenerateFp8, WritesTheHostsCodesAndScales) {
  const Fp8View expected = view(gate_up() ? expected_.fp8_w1 : expected_.fp8_w2);
  const std::int64_t count = fp8_scale_count(expected.rows, expected.cols, expected.scaling);
  ASSERT_EQ(scales(), std::vector<float>(expected.scales, expected.scales + count));
  for_each_pair(generate(Wide::kFp16), [&](const std::uint8_t* chunk, int thread, int group,
                                           int reg, std::int64_t row, std::int64_t column) {
    for (int i = 0; i < 2; ++i) {
      const bool inside = row >= 0 && column + i < expected.cols;
      const std::uint8_t code =
          inside ? expected.payload[row * expected.cols + column + i] : std::uint8_t{0};
      ASSERT_EQ(chunk[fp8_pair_offset(thread, group, reg) + i], code)
          << "row " << row << " column " << column + i;
    }
  });
}

std::vector<GenerateCase> cases(std::vector<WeightFormat> formats) {
  std::vector<GenerateCase> all;
  for (const WeightFormat format : formats) {
    for (const Projection projection : {Projection::kGateUp, Projection::kDown}) {
      for (const auto& [hidden, intermediate] :
           {std::pair{256, 128}, {208, 80}, {16, 16}, {384, 48}, {144, 208}}) {
        all.push_back({format, projection, hidden, intermediate});
      }
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaGenerate,
    ::testing::ValuesIn(cases({WeightFormat::kNvfp4, WeightFormat::kFp8PerTensor,
                               WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block})),
    [](const auto& param) { return name_of(param.param); });
INSTANTIATE_TEST_SUITE_P(Shapes, CudaGenerateNvfp4,
                         ::testing::ValuesIn(cases({WeightFormat::kNvfp4})),
                         [](const auto& param) { return name_of(param.param); });
INSTANTIATE_TEST_SUITE_P(Shapes, CudaGenerateFp8,
                         ::testing::ValuesIn(cases({WeightFormat::kFp8PerTensor,
                                                    WeightFormat::kFp8PerChannel,
                                                    WeightFormat::kFp8Block})),
                         [](const auto& param) { return name_of(param.param); });

}  // namespace
}  // namespace moebench::cuda
