// Refusing machine code that is not what it is said to be, and what this build really holds.
#include "moebench/backend/triton/cubin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace moebench::triton {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Sha256, MatchesPublishedVectors) {
  EXPECT_EQ(hex(sha256(bytes_of(""))),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256(bytes_of("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(sha256(bytes_of(std::string(1000000, 'a')))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/// The least ELF image that passes: header, a symbol table with one name, its string table.
std::vector<std::byte> tiny_cubin(int arch, bool shifted, std::string_view symbol) {
  std::string names("\0", 1);
  names += symbol;
  names += '\0';
  constexpr std::size_t kHeader = 64, kSymbols = 48, kSections = 3 * 64;
  const std::size_t names_at = kHeader + kSymbols;
  const std::size_t table_at = (names_at + names.size() + 7) / 8 * 8;
  std::vector<std::byte> image(table_at + kSections);
  const auto put = [&](std::size_t at, auto value) {
    std::memcpy(&image[at], &value, sizeof value);
  };
  std::memcpy(image.data(),
              "\x7f"
              "ELF\x02\x01\x01",
              7);
  put(8, static_cast<std::uint8_t>(shifted ? 8 : 7));
  put(18, std::uint16_t{190});
  put(40, std::uint64_t{table_at});
  put(48, static_cast<std::uint32_t>(shifted ? arch << 8 | 4 : arch));
  put(58, std::uint16_t{64});
  put(60, std::uint16_t{3});
  put(kHeader + 24, std::uint32_t{1});  // the second symbol's name
  std::memcpy(&image[names_at], names.data(), names.size());
  const auto section = [&](std::size_t i, std::uint32_t type, std::uint32_t link, std::uint64_t at,
                           std::uint64_t size) {
    put(table_at + i * 64 + 4, type);
    put(table_at + i * 64 + 24, at);
    put(table_at + i * 64 + 32, size);
    put(table_at + i * 64 + 40, link);
  };
  section(1, 2, 2, kHeader, kSymbols);
  section(2, 3, 0, names_at, names.size());
  return image;
}

struct Piece {
  std::vector<std::byte> image;
  std::string digest;
  EmbeddedKernel kernel;
  explicit Piece(std::vector<std::byte> made) : image(std::move(made)), digest(hex(sha256(image))) {
    kernel.name = "piece";
    kernel.symbol = "fused_moe_gemm";
    kernel.arch = 90;
    kernel.sha256 = digest;
    kernel.size = image.size();
  }
  [[nodiscard]] std::string defect() const { return cubin_defect(kernel, image); }
};

TEST(Cubin, AcceptsWhatItIsSaidToBe) {
  for (const bool shifted : {false, true}) {
    EXPECT_EQ(Piece(tiny_cubin(90, shifted, "fused_moe_gemm")).defect(), "");
  }
}

TEST(Cubin, NamesMissingAndCutOffCode) {
  Piece missing(tiny_cubin(90, true, "fused_moe_gemm"));
  missing.kernel.size = 0;
  EXPECT_THAT(missing.defect(), HasSubstr("no machine code"));
  Piece outside(tiny_cubin(90, true, "fused_moe_gemm"));
  outside.kernel.offset = 8;
  EXPECT_THAT(outside.defect(), HasSubstr("cut off"));
}

TEST(Cubin, EveryTruncationIsRefused) {
  const std::vector<std::byte> whole = tiny_cubin(90, true, "fused_moe_gemm");
  for (std::size_t size = 1; size < whole.size(); ++size) {
    const Piece piece(
        std::vector<std::byte>(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
    ASSERT_THAT(piece.defect(), HasSubstr("cut off")) << size;
  }
}

TEST(Cubin, EveryBitFlipIsRefused) {
  const Piece good(tiny_cubin(90, true, "fused_moe_gemm"));
  for (std::size_t bit = 0; bit < good.image.size() * 8; ++bit) {
    std::vector<std::byte> image = good.image;
    image[bit / 8] ^= std::byte{1} << (bit % 8);
    ASSERT_NE(cubin_defect(good.kernel, image), "") << bit;
  }
}

TEST(Cubin, NamesForeignCode) {
  EXPECT_THAT(Piece(tiny_cubin(100, true, "fused_moe_gemm")).defect(),
              HasSubstr("made for sm_100, listed for sm_90"));
  EXPECT_THAT(Piece(tiny_cubin(90, true, "another")).defect(),
              HasSubstr("no symbol fused_moe_gemm"));
  std::vector<std::byte> host = tiny_cubin(90, true, "fused_moe_gemm");
  host[18] = std::byte{62};
  EXPECT_THAT(Piece(host).defect(), HasSubstr("for machine 62"));
  EXPECT_THAT(Piece(std::vector<std::byte>(4096)).defect(), HasSubstr("not an ELF image"));
  Piece changed(tiny_cubin(90, true, "fused_moe_gemm"));
  changed.digest[0] = changed.digest[0] == '0' ? '1' : '0';
  changed.kernel.sha256 = changed.digest;
  EXPECT_THAT(changed.defect(), HasSubstr("sha256"));
}

class Embedded : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!set_.absent.empty()) GTEST_SKIP() << set_.absent;
  }
  const EmbeddedSet& set_ = embedded_set();
};

TEST_F(Embedded, EveryPieceIsWhole) {
  EXPECT_GE(set_.kernels.size(), 10U);
  std::set<std::string_view> names;
  std::size_t end = 0;
  for (const EmbeddedKernel& kernel : set_.kernels) {
    EXPECT_EQ(cubin_defect(kernel, set_.cubins), "");
    EXPECT_TRUE(names.insert(kernel.name).second) << kernel.name;
    EXPECT_EQ(kernel.offset, end) << kernel.name;
    end += kernel.size;
  }
  EXPECT_EQ(end, set_.cubins.size());
}

TEST_F(Embedded, SharedMemoryFitsTheArchitecture) {
  for (const EmbeddedKernel& kernel : set_.kernels) {
    const int limit = kernel.arch >= 120 ? 99 << 10 : 227 << 10;
    EXPECT_GT(kernel.shared_bytes, 0) << kernel.name;
    EXPECT_LE(kernel.shared_bytes, limit) << kernel.name;
    EXPECT_LE(kernel.tile.warps * 32, 1024) << kernel.name;
  }
}

/// What a kernel was compiled to read decides what is written for it.
TEST_F(Embedded, WideRowsAreThoseOfTransposedWidenedTiles) {
  for (const EmbeddedKernel& kernel : set_.kernels) {
    const bool wgmma = kernel.arch == 90 && kernel.tile.transposed && !kernel.tile.any_depth;
    EXPECT_EQ(kernel.wide_rows, wgmma && set_.accumulation == "widened") << kernel.name;
  }
}

TEST_F(Embedded, TheTableAsksForWhatWasCompiled) {
  EXPECT_FALSE(set_.tuning.empty());
  for (const TuningEntry& entry : set_.tuning) {
    EXPECT_EQ(entry.gate_up.block_m, entry.down.block_m);
    for (const ActType act : {ActType::kFp16, ActType::kBf16}) {
      for (const TileConfig& tile : {entry.gate_up, entry.down}) {
        EXPECT_TRUE(std::any_of(set_.kernels.begin(), set_.kernels.end(),
                                [&](const EmbeddedKernel& kernel) {
                                  return kernel.arch == entry.arch && kernel.act == act &&
                                         kernel.tile == tile;
                                }))
            << entry.arch << " " << entry.tokens;
      }
    }
  }
}

}  // namespace
}  // namespace moebench::triton
