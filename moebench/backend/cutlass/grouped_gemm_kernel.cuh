// A grouped block-scaled NVFP4 GEMM out of CUTLASS's collectives. The weights are operand A (the M
// of the MMA), the tokens operand B: an expert with few tokens then wastes a few columns of a tile
// instead of most of its rows, and what an expert computes lies in memory as [rows][weight rows]
// because the output is column-major.
//
// Each translation unit that includes this makes one GroupedGemm: compiling one takes a minute or
// more and gigabytes.
#pragma once

#include <cuda_runtime.h>

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <type_traits>

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/dispatch_policy.hpp>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "moebench/backend/cutlass/grouped_gemm.h"

namespace moebench::cutlass_moe {

/// `Config`: Arch, Tile, Cluster, MainloopSchedule, EpilogueSchedule, Out, as in gemm_tiles.cuh.
template <typename Config>
class GroupedGemmOf {
  using Fp4 = cutlass::nv_float4_t<cutlass::float_e2m1_t>;
  using RowMajor = cutlass::layout::RowMajor;
  using ColumnMajor = cutlass::layout::ColumnMajor;
  static constexpr int kFp4Alignment = 32;  // elements in 16 bytes
  static constexpr int kOutAlignment = 128 / cutlass::sizeof_bits<typename Config::Out>::value;

  using Problem = cutlass::gemm::GroupProblemShape<cute::Shape<int, int, int>>;
  using Fusion =
      cutlass::epilogue::fusion::LinearCombination<typename Config::Out, float, void, float>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      typename Config::Arch, cutlass::arch::OpClassBlockScaledTensorOp, typename Config::Tile,
      typename Config::Cluster, cutlass::epilogue::collective::EpilogueTileAuto, float, float, void,
      ColumnMajor*, kOutAlignment, typename Config::Out, ColumnMajor*, kOutAlignment,
      typename Config::EpilogueSchedule, Fusion>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      typename Config::Arch, cutlass::arch::OpClassBlockScaledTensorOp, Fp4, RowMajor*,
      kFp4Alignment, Fp4, ColumnMajor*, kFp4Alignment, float, typename Config::Tile,
      typename Config::Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      typename Config::MainloopSchedule>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<Problem, Mainloop, Epilogue>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  using StrideA = typename Kernel::InternalStrideA;
  using StrideB = typename Kernel::InternalStrideB;
  using StrideD = typename Kernel::InternalStrideD;
  using LayoutSfa = typename Mainloop::InternalLayoutSFA;
  using LayoutSfb = typename Mainloop::InternalLayoutSFB;
  using ScaleConfig = typename Mainloop::Sm1xxBlkScaledConfig;
  using ElementA = typename Gemm::ElementA;
  using ElementB = typename Gemm::ElementB;
  using ElementSf = typename Mainloop::ElementSF;
  using ElementD = typename Gemm::ElementD;

  static cutlass::KernelHardwareInfo hardware(int multiprocessors) {
    cutlass::KernelHardwareInfo info{};
    info.sm_count = multiprocessors;
    return info;
  }

 public:
  /// Arrays over the groups, as CUTLASS takes them.
  struct Tables {
    typename Problem::UnderlyingProblemShape* problem;
    const ElementA** a;
    const ElementB** b;
    const ElementSf** sfa;
    const ElementSf** sfb;
    ElementD** d;
    const float** alpha;
    StrideA* stride_a;
    StrideB* stride_b;
    StrideD* stride_d;
    LayoutSfa* layout_sfa;
    LayoutSfb* layout_sfb;
  };

  /// Lays the arrays one behind the other; returns the bytes of all.
  static std::int64_t lay_out(void* memory, std::int64_t groups, Tables& tables) {
    std::int64_t used = 0;
    const auto take = [&]<typename T>(T*& array) {
      constexpr std::int64_t kAlignment = 128;
      array = memory == nullptr ? nullptr
                                : reinterpret_cast<T*>(static_cast<std::uint8_t*>(memory) + used);
      used += (groups * static_cast<std::int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment *
              kAlignment;
    };
    take(tables.problem);
    take(tables.a);
    take(tables.b);
    take(tables.sfa);
    take(tables.sfb);
    take(tables.d);
    take(tables.alpha);
    take(tables.stride_a);
    take(tables.stride_b);
    take(tables.stride_d);
    take(tables.layout_sfa);
    take(tables.layout_sfb);
    return used;
  }

  static typename Gemm::Arguments arguments_of(const GroupedGemmArgs& args) {
    Tables tables{};
    lay_out(args.tables, args.groups, tables);
    typename Gemm::Arguments arguments{
        cutlass::gemm::GemmUniversalMode::kGrouped,
        {args.groups, tables.problem, nullptr},
        {tables.a, tables.stride_a, tables.b, tables.stride_b, tables.sfa, tables.layout_sfa,
         tables.sfb, tables.layout_sfb},
        {{}, nullptr, nullptr, tables.d, tables.stride_d},
        hardware(args.multiprocessors),
        {}};
    auto& fusion = arguments.epilogue.thread;
    fusion.alpha = 0.0F;  // alpha comes from the array
    fusion.alpha_ptr_array = tables.alpha;
    fusion.dAlpha = {cute::_0{}, cute::_0{}, 1};
    fusion.beta = 0.0F;
    return arguments;
  }

  /// One thread per group.
  static __device__ void fill_group(const GroupedGemmArgs& args, const Tables& tables, int g) {
    const Group group = args.group[g];
    const ProblemSize size = problem_size(group, args.weight_rows, args.depth);
    const OperandOffsets at = operand_offsets(group, args.weight_rows, args.depth);
    tables.problem[g] = cute::make_shape(size.m, size.n, size.k);
    tables.a[g] = reinterpret_cast<const ElementA*>(args.weights + at.weights);
    tables.b[g] = reinterpret_cast<const ElementB*>(args.tokens + at.tokens);
    tables.sfa[g] = reinterpret_cast<const ElementSf*>(args.weight_scales + at.weight_scales);
    tables.sfb[g] = reinterpret_cast<const ElementSf*>(args.token_scales + at.token_scales);
    tables.d[g] = reinterpret_cast<ElementD*>(args.out + at.out);
    tables.alpha[g] = args.alpha + group.expert;
    StrideA stride_a{};
    cute::get<0>(stride_a) = args.depth;
    tables.stride_a[g] = stride_a;
    StrideB stride_b{};
    cute::get<0>(stride_b) = args.depth;
    tables.stride_b[g] = stride_b;
    StrideD stride_d{};
    cute::get<1>(stride_d) = args.weight_rows;
    tables.stride_d[g] = stride_d;
    const auto shape = cute::make_shape(size.m, size.n, size.k, 1);
    tables.layout_sfa[g] = ScaleConfig::tile_atom_to_shape_SFA(shape);
    tables.layout_sfb[g] = ScaleConfig::tile_atom_to_shape_SFB(shape);
  }

  static_assert(Gemm::GemmKernel::SharedStorageSize <= Config::kSharedLimit,
                "a smaller tile, or fewer stages");

  static std::int64_t table_bytes(std::int64_t groups) {
    Tables tables{};
    return lay_out(nullptr, groups, tables);
  }
  static std::int64_t workspace_bytes(std::int64_t groups, int multiprocessors) {
    GroupedGemmArgs args{};
    args.groups = static_cast<std::int32_t>(groups);
    args.multiprocessors = multiprocessors;
    return static_cast<std::int64_t>(Gemm::get_workspace_size(arguments_of(args)));
  }
  static cudaError_t fill_tables(const GroupedGemmArgs& args, cudaStream_t stream);
  static cudaError_t enqueue(const GroupedGemmArgs& args, cudaStream_t stream) {
    Gemm gemm;
    if (gemm.initialize(arguments_of(args), args.workspace, stream) != cutlass::Status::kSuccess ||
        gemm.run(stream) != cutlass::Status::kSuccess) {
      const cudaError_t error = cudaGetLastError();
      return error == cudaSuccess ? cudaErrorInvalidConfiguration : error;
    }
    return cudaSuccess;
  }
};

template <typename Config>
__global__ void fill_tables_kernel(GroupedGemmArgs args,
                                   typename GroupedGemmOf<Config>::Tables tables) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g < args.groups) GroupedGemmOf<Config>::fill_group(args, tables, g);
}

template <typename Config>
cudaError_t GroupedGemmOf<Config>::fill_tables(const GroupedGemmArgs& args, cudaStream_t stream) {
  constexpr int kThreads = 128;
  Tables tables{};
  lay_out(args.tables, args.groups, tables);
  fill_tables_kernel<Config>
      <<<(args.groups + kThreads - 1) / kThreads, kThreads, 0, stream>>>(args, tables);
  return cudaGetLastError();
}

/// The GEMM of a tile (gemm_tiles.cuh) and an output type; constexpr data, so that it is there
/// before any other translation unit's.
template <template <typename> typename Tile, ActType kOut>
constexpr GroupedGemm grouped_gemm_of() {
  using Out = std::conditional_t<kOut == ActType::kFp16, cutlass::half_t, cutlass::bfloat16_t>;
  using Config = Tile<Out>;
  using Of = GroupedGemmOf<Config>;
  return {Config::kName,
          Config::kMajor,
          kOut,
          static_cast<int>(cute::size<1>(typename Config::Tile{})),
          Of::table_bytes,
          Of::workspace_bytes,
          Of::fill_tables,
          Of::enqueue};
}

}  // namespace moebench::cutlass_moe
