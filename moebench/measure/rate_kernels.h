// The loops that memory_floor.cpp times: reads of a slice of memory, chains of multiply-adds. One
// source file per architecture offers those that the CPU it runs on can execute.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebench {

/// Bytes that every read kernel takes at a time from each of its streams, times the most streams:
/// slices are multiples.
inline constexpr std::int64_t kReadSliceMultiple = 8 * 256;

/// Reads all of `words` (64-byte aligned, `bytes` a multiple of kReadSliceMultiple) and returns
/// their sum modulo 2^64, the same for every kernel: a read that was skipped would show.
struct ReadKernel {
  std::string isa;
  int streams = 0;  ///< places that are read in turn
  std::uint64_t (*sum)(const std::uint64_t* words, std::int64_t bytes) = nullptr;
};
[[nodiscard]] std::vector<ReadKernel> read_kernels();

/// `run(n)` does n * flops_per_step operations in registers; its value depends on all of them.
struct FlopKernel {
  std::string isa;
  bool bf16 = false;
  std::int64_t flops_per_step = 0;
  float (*run)(std::int64_t steps) = nullptr;
};
[[nodiscard]] std::vector<FlopKernel> flop_kernels();

}  // namespace moebench
