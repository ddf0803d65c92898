// The tile shapes that are compiled, for any output type. Not measured: nobody has run them yet.
#pragma once

#include "moebench/backend/cutlass/grouped_gemm_kernel.cuh"

namespace moebench::cutlass_moe {

/// What one thread block may have.
inline constexpr int kSm100SharedBytes = 227 << 10;
inline constexpr int kSm120SharedBytes = 99 << 10;

/// Blackwell of data centres, few tokens per expert: the reading of the weights is all that counts.
template <typename OutType>
struct Sm100Small {
  using Arch = cutlass::arch::Sm100;
  using Tile = cute::Shape<cute::_128, cute::_64, cute::_256>;
  using Cluster = cute::Shape<cute::_1, cute::_1, cute::_1>;
  using MainloopSchedule = cutlass::gemm::KernelPtrArrayTmaWarpSpecialized1SmNvf4Sm100;
  using EpilogueSchedule = cutlass::epilogue::PtrArrayTmaWarpSpecialized1Sm;
  using Out = OutType;
  static constexpr const char* kName = "128x64x256";
  static constexpr int kMajor = 10;
  static constexpr int kSharedLimit = kSm100SharedBytes;
};

/// Many tokens per expert: two multiprocessors share a tile of 256 weight rows.
template <typename OutType>
struct Sm100Large {
  using Arch = cutlass::arch::Sm100;
  using Tile = cute::Shape<cute::_256, cute::_128, cute::_256>;
  using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
  using MainloopSchedule = cutlass::gemm::KernelPtrArrayTmaWarpSpecialized2SmNvf4Sm100;
  using EpilogueSchedule = cutlass::epilogue::PtrArrayTmaWarpSpecialized2Sm;
  using Out = OutType;
  static constexpr const char* kName = "256x128x256, 2 SMs";
  static constexpr int kMajor = 10;
  static constexpr int kSharedLimit = kSm100SharedBytes;
};

/// Blackwell of workstations, few tokens per expert.
template <typename OutType>
struct Sm120Small {
  using Arch = cutlass::arch::Sm120;
  using Tile = cute::Shape<cute::_128, cute::_32, cute::_128>;
  using Cluster = cute::Shape<cute::_1, cute::_1, cute::_1>;
  using MainloopSchedule = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperative;
  using EpilogueSchedule = cutlass::epilogue::collective::EpilogueScheduleAuto;
  using Out = OutType;
  static constexpr const char* kName = "128x32x128";
  static constexpr int kMajor = 12;
  static constexpr int kSharedLimit = kSm120SharedBytes;
};

/// Many tokens per expert.
template <typename OutType>
struct Sm120Large {
  using Arch = cutlass::arch::Sm120;
  using Tile = cute::Shape<cute::_128, cute::_128, cute::_128>;
  using Cluster = cute::Shape<cute::_1, cute::_1, cute::_1>;
  using MainloopSchedule = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperative;
  using EpilogueSchedule = cutlass::epilogue::collective::EpilogueScheduleAuto;
  using Out = OutType;
  static constexpr const char* kName = "128x128x128";
  static constexpr int kMajor = 12;
  static constexpr int kSharedLimit = kSm120SharedBytes;
};

}  // namespace moebench::cutlass_moe
