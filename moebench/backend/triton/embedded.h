// The machine code that Triton made when this program was built, and what is known of each piece.
// compile.py writes embedded.cpp; absent/embedded.cpp.in stands in where Triton was not there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "moebench/core/dtype.h"

namespace moebench::triton {

/// What a program computes and how: fused_moe.py's block sizes.
struct TileConfig {
  int block_m = 0;  ///< rows: pairs of one expert
  int block_n = 0;  ///< columns: weight rows
  int block_k = 0;
  int warps = 0;
  int stages = 0;
  bool transposed = false;
  bool any_depth = false;  ///< else only depths that are multiples of block_k

  friend bool operator==(const TileConfig&, const TileConfig&) = default;
};

/// FP16 rows have of every so many columns the even ones first, then the odd ones: WIDE_SPLIT of
/// fused_moe.py. Depths are multiples of it.
inline constexpr std::int64_t kWideSplit = 64;

struct EmbeddedKernel {
  std::string_view name;  ///< of this piece: "fused_moe_gemm_m16n128k128w4s4_fp16_sm90"
  std::string_view symbol;
  int arch = 0;  ///< 90: compute capability 9.0
  ActType act = ActType::kFp16;
  TileConfig tile;
  bool wide_rows = false;  ///< reads operand rows as FP16, split; else as e4m3 codes
  int shared_bytes = 0;
  std::string_view sha256;  ///< of the piece, in hexadecimal
  std::size_t offset = 0;   ///< in EmbeddedSet::cubins
  std::size_t size = 0;
};

/// One row of the tuning table: what to run for a layer of this size on this architecture.
struct TuningEntry {
  int arch = 0;
  std::int64_t experts = 0, topk = 0, hidden = 0, intermediate = 0, tokens = 0;
  TileConfig gate_up, down;
  int gate_up_group = 1, down_group = 1;
  std::string_view measured;  ///< where and when; empty: reasoned, not measured
};

struct EmbeddedSet {
  std::string_view absent;  ///< why there are no kernels; empty where there are
  std::string_view triton_version;
  std::string_view assembler;  ///< version of ptxas
  std::string_view accumulation;
  std::span<const EmbeddedKernel> kernels;
  std::span<const TuningEntry> tuning;
  std::span<const std::byte> cubins;
};
[[nodiscard]] const EmbeddedSet& embedded_set();

}  // namespace moebench::triton
