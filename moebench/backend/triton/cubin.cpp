#include "moebench/backend/triton/cubin.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <optional>
#include <vector>

namespace moebench::triton {
namespace {

// FIPS 180-4.
constexpr std::array<std::uint32_t, 64> kRoundConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
constexpr std::size_t kShaBlock = 64;

void sha_block(const std::uint8_t* block, std::array<std::uint32_t, 8>& state) {
  std::array<std::uint32_t, 64> w{};
  for (std::size_t i = 0; i < 16; ++i) {
    w[i] = std::uint32_t{block[4 * i]} << 24 | std::uint32_t{block[4 * i + 1]} << 16 |
           std::uint32_t{block[4 * i + 2]} << 8 | std::uint32_t{block[4 * i + 3]};
  }
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRoundConstants[i] + w[i];
    const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<std::uint32_t, 8> sums = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state.size(); ++i) state[i] += sums[i];
}

// ELF64, little-endian.
constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kSectionBytes = 64;
constexpr std::size_t kProgramBytes = 56;
constexpr std::size_t kSymbolBytes = 24;
constexpr std::uint16_t kMachineCuda = 190;
constexpr std::uint32_t kSymbolTable = 2;
/// From this ABI version on the flags hold the architecture in bits 8 to 15, before in 0 to 7.
constexpr std::uint8_t kShiftedArchAbi = 8;

template <typename T>
T read(std::span<const std::byte> image, std::size_t offset) {
  T value;
  std::memcpy(&value, image.data() + offset, sizeof value);
  return value;
}

bool inside(std::span<const std::byte> image, std::uint64_t offset, std::uint64_t bytes) {
  return offset <= image.size() && bytes <= image.size() - offset;
}

struct Section {
  std::uint32_t type = 0, link = 0;
  std::uint64_t offset = 0, bytes = 0;
};

/// The section table, every section inside the image; none if it is not so.
std::optional<std::vector<Section>> read_sections(std::span<const std::byte> image) {
  constexpr std::uint32_t kNoBits = 8;
  const auto table = read<std::uint64_t>(image, 40);
  const auto entry_bytes = read<std::uint16_t>(image, 58);
  const auto count = read<std::uint16_t>(image, 60);
  if (count == 0 || entry_bytes != kSectionBytes ||
      !inside(image, table, std::uint64_t{count} * kSectionBytes)) {
    return std::nullopt;
  }
  std::vector<Section> sections;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = table + i * kSectionBytes;
    const Section section{read<std::uint32_t>(image, at + 4), read<std::uint32_t>(image, at + 40),
                          read<std::uint64_t>(image, at + 24), read<std::uint64_t>(image, at + 32)};
    if (section.type != kNoBits && !inside(image, section.offset, section.bytes))
      return std::nullopt;
    sections.push_back(section);
  }
  return sections;
}

bool programs_inside(std::span<const std::byte> image) {
  const auto table = read<std::uint64_t>(image, 32);
  const auto count = read<std::uint16_t>(image, 56);
  return count == 0 || inside(image, table, std::uint64_t{count} * kProgramBytes);
}

}  // namespace

std::array<std::uint8_t, 32> sha256(std::span<const std::byte> bytes) {
  std::array<std::uint32_t, 8> state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  const std::size_t whole = bytes.size() / kShaBlock * kShaBlock;
  for (std::size_t i = 0; i < whole; i += kShaBlock) sha_block(data + i, state);
  std::array<std::uint8_t, 2 * kShaBlock> tail{};
  const std::size_t rest = bytes.size() - whole;
  if (rest > 0) std::memcpy(tail.data(), data + whole, rest);
  tail[rest] = 0x80;
  const std::size_t tail_bytes = rest + 9 <= kShaBlock ? kShaBlock : 2 * kShaBlock;
  const std::uint64_t bits = std::uint64_t{bytes.size()} * 8;
  for (std::size_t i = 0; i < 8; ++i) {
    tail[tail_bytes - 1 - i] = static_cast<std::uint8_t>(bits >> (8 * i));
  }
  for (std::size_t i = 0; i < tail_bytes; i += kShaBlock) sha_block(tail.data() + i, state);
  std::array<std::uint8_t, 32> out{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<std::uint8_t>(state[i / 4] >> (24 - i % 4 * 8));
  }
  return out;
}

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string out;
  for (const std::uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
  return out;
}

CubinHeader read_cubin_header(std::span<const std::byte> image) {
  constexpr std::string_view kMagic =
      "\x7f"
      "ELF";
  constexpr std::uint8_t kClass64 = 2;
  constexpr std::uint8_t kLittleEndian = 1;
  if (image.size() < kHeaderBytes) return {.defect = "cut off", .arch = 0};
  if (std::memcmp(image.data(), kMagic.data(), kMagic.size()) != 0 ||
      read<std::uint8_t>(image, 4) != kClass64 || read<std::uint8_t>(image, 5) != kLittleEndian) {
    return {.defect = "not an ELF image", .arch = 0};
  }
  const auto machine = read<std::uint16_t>(image, 18);
  if (machine != kMachineCuda) {
    return {.defect = fmt::format("for machine {}, not CUDA's {}", machine, kMachineCuda),
            .arch = 0};
  }
  if (!read_sections(image) || !programs_inside(image)) return {.defect = "cut off", .arch = 0};
  const auto flags = read<std::uint32_t>(image, 48);
  const bool shifted = read<std::uint8_t>(image, 8) >= kShiftedArchAbi;
  return {.defect = {}, .arch = static_cast<int>((shifted ? flags >> 8 : flags) & 0xFF)};
}

bool has_symbol(std::span<const std::byte> image, std::string_view symbol) {
  const auto sections = read_sections(image);
  if (!sections) return false;
  for (const Section& section : *sections) {
    if (section.type != kSymbolTable || section.link >= sections->size()) continue;
    const Section& names = (*sections)[section.link];
    for (std::uint64_t i = 0; i + kSymbolBytes <= section.bytes; i += kSymbolBytes) {
      const auto name = read<std::uint32_t>(image, section.offset + i);
      if (name >= names.bytes || names.bytes - name <= symbol.size()) continue;
      const auto* text = reinterpret_cast<const char*>(image.data()) + names.offset + name;
      if (std::string_view(text, symbol.size()) == symbol && text[symbol.size()] == '\0')
        return true;
    }
  }
  return false;
}

std::string cubin_defect(const EmbeddedKernel& kernel, std::span<const std::byte> cubins) {
  if (kernel.size == 0) return fmt::format("{}: no machine code", kernel.name);
  if (kernel.offset > cubins.size() || kernel.size > cubins.size() - kernel.offset) {
    return fmt::format("{}: cut off: bytes {} to {} of {}", kernel.name, kernel.offset,
                       kernel.offset + kernel.size, cubins.size());
  }
  const auto image = cubins.subspan(kernel.offset, kernel.size);
  const CubinHeader header = read_cubin_header(image);
  if (!header.defect.empty()) return fmt::format("{}: {}", kernel.name, header.defect);
  if (header.arch != kernel.arch) {
    return fmt::format("{}: made for sm_{}, listed for sm_{}", kernel.name, header.arch,
                       kernel.arch);
  }
  if (!has_symbol(image, kernel.symbol)) {
    return fmt::format("{}: no symbol {}", kernel.name, kernel.symbol);
  }
  if (const std::string digest = hex(sha256(image)); digest != kernel.sha256) {
    return fmt::format("{}: sha256 {}, listed {}; build again", kernel.name, digest.substr(0, 12),
                       kernel.sha256.substr(0, 12));
  }
  return {};
}

}  // namespace moebench::triton
