// Whether a piece of embedded machine code is what it is said to be, before the driver sees it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "moebench/backend/triton/embedded.h"

namespace moebench::triton {

[[nodiscard]] std::array<std::uint8_t, 32> sha256(std::span<const std::byte> bytes);
[[nodiscard]] std::string hex(std::span<const std::uint8_t> bytes);

/// What an ELF header says of CUDA machine code.
struct CubinHeader {
  std::string defect;  ///< why it is none, or not whole; else empty
  int arch = 0;
};
[[nodiscard]] CubinHeader read_cubin_header(std::span<const std::byte> image);
/// Whether the image's symbol table holds `symbol`. The image has no defect.
[[nodiscard]] bool has_symbol(std::span<const std::byte> image, std::string_view symbol);

/// Empty, or in one line why `kernel` cannot be loaded: missing, cut off, changed, for another
/// architecture than said, without its symbol.
[[nodiscard]] std::string cubin_defect(const EmbeddedKernel& kernel,
                                       std::span<const std::byte> cubins);

}  // namespace moebench::triton
