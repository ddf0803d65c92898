// Every thread takes 8 columns of a row: 16 bytes in, 16 bytes out for each copy. A warp writes
// whole lines of 128 bytes.
#include <algorithm>

#include "moebench/backend/cuda/forward_launch.h"
#include "moebench/backend/cuda/permute.h"
#include "moebench/backend/cuda/quantize.cuh"

namespace moebench::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kMaxUnitThreads = 256;  ///< of a block that takes part of a row
constexpr int kMaxRowThreads = 1024;  ///< of a block that takes a row
constexpr int kChunkUnits = kChunkDepth / kUnitColumns;
constexpr int kBatch = 8;  ///< copies whose places are loaded at once

enum class Source : std::uint8_t { kTokens, kHidden };

__device__ uint4 load_unit(const std::uint16_t* row, std::int64_t unit, std::int64_t columns) {
  if (unit * kUnitColumns >= columns) return {0, 0, 0, 0};
  return *reinterpret_cast<const uint4*>(row + unit * kUnitColumns);
}

__device__ void store_unit(const PermuteArgs& args, const PairPlace& place, std::int64_t unit,
                           const uint4& value) {
  std::uint8_t* tile = args.operand + place.tile_begin * operand_row_bytes(args.columns);
  *reinterpret_cast<uint4*>(tile + operand_offset(place.tile_rows, place.row, unit * kUnitBytes)) =
      value;
}

__device__ std::int64_t padded_row(const PairPlace& place) {
  return std::int64_t{place.tile_begin} + place.row;
}

/// The row that an item is read from.
template <Source kSource>
__device__ const std::uint16_t* source_row(const PermuteArgs& args, std::int64_t item) {
  const std::int64_t row = kSource == Source::kTokens ? item : padded_row(args.places[item]);
  return args.rows + row * args.columns;
}

/// h is what the kernel before wrote; tokens are older than the kernel before, which has waited for
/// whatever made them.
template <Source kSource>
__device__ void wait_for(Source needed_by) {
  if (kSource != needed_by) return;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
}

/// The places of copies first .. first + kBatch - 1 of an item.
__device__ void load_places(const PermuteArgs& args, std::int64_t item, int first,
                            PairPlace (&places)[kBatch]) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (first + i < args.copies) places[i] = args.places[item * args.copies + first + i];
  }
}

__device__ void load_global_scales(const PermuteArgs& args, std::int64_t item, int first,
                                   float (&scales)[kBatch]) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (first + i < args.copies) {
      scales[i] = args.global_scale[args.topk_ids[item * args.copies + first + i]];
    }
  }
}

/// The scale of h, which a pair that attains it records.
template <ActType kType>
__device__ float hidden_tensor_scale(HiddenScale& found, const uint4& raw, std::int64_t pair) {
  const std::uint32_t amax = found.amax;
  const float scale = fp8_scale_of(widen<kType>(amax));
  // Where all of h is zero, all attain it: only those before the first so far add to the queue.
  if (largest_magnitude(raw) == amax && pair < ptx::load_acquire(&found.pair)) {
    atomicMin(&found.pair, static_cast<std::int32_t>(pair));
    found.scale = scale;
  }
  return scale;
}

/// All formats but kFp8Token. Block b takes part b % parts of item b / parts.
template <ActType kType, OperandFormat kFormat, Source kSource>
__global__ void __launch_bounds__(kMaxUnitThreads) permute_units(PermuteArgs args, int parts) {
  const std::int64_t item = blockIdx.x / static_cast<unsigned>(parts);
  const std::int64_t unit =
      std::int64_t{blockIdx.x % static_cast<unsigned>(parts)} * blockDim.x + threadIdx.x;
  const std::int64_t chunks = divide_up(args.columns, kChunkDepth);
  wait_for<kSource>(Source::kHidden);

  uint4 raw = load_unit(source_row<kSource>(args, item), unit, args.columns);
  float current = 0.0F;  // scale that `raw` is quantised with; kNvfp4: for the experts before
  float scales[kBatch];
  std::uint32_t magnitude = 0;
  Unit values;
  if constexpr (kFormat != OperandFormat::kWide) values = widen<kType>(raw);
  if constexpr (kFormat == OperandFormat::kNvfp4) {
    magnitude = largest_over_lanes<kScaleGroup / kUnitColumns>(largest_magnitude(raw));
    load_global_scales(args, item, 0, scales);
    current = scales[0];
    raw = through_nvfp4<kType>(values, nvfp4_scale(widen<kType>(magnitude), current));
  } else if constexpr (kFormat == OperandFormat::kFp8Tensor) {
    current = kSource == Source::kTokens
                  ? *args.tensor_scale
                  : hidden_tensor_scale<kType>(*args.hidden_scale, raw, item);
    raw = through_fp8(values, ScaleDivider(current));
  } else if constexpr (kFormat == OperandFormat::kFp8Block) {
    magnitude = largest_over_lanes<kChunkUnits>(largest_magnitude(raw));
    current = fp8_scale_of(widen<kType>(magnitude));
    raw = through_fp8(values, ScaleDivider(current));
  }
  wait_for<kSource>(Source::kTokens);
  if constexpr (kFormat == OperandFormat::kFp8Tensor && kSource == Source::kTokens) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *args.hidden_scale = {0, 0.0F, HiddenScale::kNoPair};
  }
  if (unit >= chunks * kChunkUnits) return;

  for (int first = 0; first < args.copies; first += kBatch) {
    PairPlace places[kBatch];
    load_places(args, item, first, places);
    if (kFormat == OperandFormat::kNvfp4 && first > 0) {
      load_global_scales(args, item, first, scales);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (first + i >= args.copies) break;
      if constexpr (kFormat == OperandFormat::kNvfp4) {
        if (scales[i] != current) {
          current = scales[i];
          raw = through_nvfp4<kType>(values, nvfp4_scale(widen<kType>(magnitude), current));
        }
      }
      store_unit(args, places[i], unit, raw);
      if constexpr (kFormat == OperandFormat::kFp8Block) {
        if (unit % kChunkUnits == 0) {
          const PairPlace& place = places[i];
          args.row_scale[operand_scale_index(place.tile_begin, place.tile_rows, place.row,
                                             unit / kChunkUnits, chunks)] = current;
        }
      }
    }
  }
}

/// Largest magnitude of a block's threads, to all of them.
__device__ std::uint32_t largest_of_block(std::uint32_t magnitude) {
  __shared__ std::uint32_t of_warp[kMaxRowThreads / kWarpThreads];
  magnitude = __reduce_max_sync(kAllLanes, magnitude);
  if (threadIdx.x % kWarpThreads == 0) of_warp[threadIdx.x / kWarpThreads] = magnitude;
  __syncthreads();
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  return __reduce_max_sync(kAllLanes, lane < blockDim.x / kWarpThreads ? of_warp[lane] : 0);
}

/// kFp8Token: block b takes item b.
template <ActType kType, Source kSource>
__global__ void __launch_bounds__(kMaxRowThreads) permute_rows(PermuteArgs args) {
  const std::int64_t item = blockIdx.x;
  const std::int64_t units = divide_up(args.columns, kChunkDepth) * kChunkUnits;
  wait_for<kSource>(Source::kHidden);
  const std::uint16_t* row = source_row<kSource>(args, item);

  const uint4 raw = load_unit(row, threadIdx.x, args.columns);
  std::uint32_t magnitude = largest_magnitude(raw);
  for (std::int64_t unit = threadIdx.x + blockDim.x; unit < units; unit += blockDim.x) {
    magnitude = max(magnitude, largest_magnitude(load_unit(row, unit, args.columns)));
  }
  const float scale = fp8_scale_of(widen<kType>(largest_of_block(magnitude)));
  const ScaleDivider divide_by_scale(scale);
  wait_for<kSource>(Source::kTokens);

  for (std::int64_t unit = threadIdx.x; unit < units; unit += blockDim.x) {
    const uint4 mine = unit == threadIdx.x ? raw : load_unit(row, unit, args.columns);
    const uint4 quantized = through_fp8(widen<kType>(mine), divide_by_scale);
    for (int first = 0; first < args.copies; first += kBatch) {
      PairPlace places[kBatch];
      load_places(args, item, first, places);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i >= args.copies) break;
        store_unit(args, places[i], unit, quantized);
        if (unit == 0) args.row_scale[padded_row(places[i])] = scale;
      }
    }
  }
}

struct Cut {
  int parts;
  int threads;
};
/// A row's units over blocks of whole warps, as even as possible.
Cut cut_row(std::int64_t columns) {
  const std::int64_t units = divide_up(columns, kChunkDepth) * kChunkUnits;
  const std::int64_t parts = divide_up(units, kMaxUnitThreads);
  return {static_cast<int>(parts),
          static_cast<int>(divide_up(divide_up(units, parts), kWarpThreads) * kWarpThreads)};
}

template <ActType kType, OperandFormat kFormat, Source kSource>
cudaError_t launch_units(const PermuteArgs& args, cudaStream_t stream) {
  const Cut cut = cut_row(args.columns);
  return launch_overlapped(permute_units<kType, kFormat, kSource>,
                           {args.items * cut.parts, cut.threads}, stream, args, cut.parts);
}

template <ActType kType, Source kSource>
cudaError_t launch_rows(const PermuteArgs& args, cudaStream_t stream) {
  const std::int64_t units = divide_up(args.columns, kChunkDepth) * kChunkUnits;
  const std::int64_t threads =
      std::min<std::int64_t>(kMaxRowThreads, divide_up(units, kWarpThreads) * kWarpThreads);
  return launch_overlapped(permute_rows<kType, kSource>, {args.items, static_cast<int>(threads)},
                           stream, args);
}

template <ActType kType>
cudaError_t permute_as(OperandFormat format, const PermuteArgs& args, cudaStream_t stream) {
  switch (format) {
    case OperandFormat::kWide:
      return launch_units<kType, OperandFormat::kWide, Source::kTokens>(args, stream);
    case OperandFormat::kNvfp4:
      return launch_units<kType, OperandFormat::kNvfp4, Source::kTokens>(args, stream);
    case OperandFormat::kFp8Tensor:
      return launch_units<kType, OperandFormat::kFp8Tensor, Source::kTokens>(args, stream);
    case OperandFormat::kFp8Token:
      return launch_rows<kType, Source::kTokens>(args, stream);
    case OperandFormat::kFp8Block:
      return launch_units<kType, OperandFormat::kFp8Block, Source::kTokens>(args, stream);
  }
  return cudaErrorInvalidValue;
}

template <ActType kType>
cudaError_t quantize_hidden_as(OperandFormat format, const PermuteArgs& args, cudaStream_t stream) {
  if (format == OperandFormat::kFp8Token) return launch_rows<kType, Source::kHidden>(args, stream);
  if (format != OperandFormat::kFp8Tensor) return cudaErrorInvalidValue;
  return launch_units<kType, OperandFormat::kFp8Tensor, Source::kHidden>(args, stream);
}

}  // namespace

cudaError_t enqueue_permute(OperandFormat format, ActType type, const PermuteArgs& args,
                            cudaStream_t stream) {
  return type == ActType::kFp16 ? permute_as<ActType::kFp16>(format, args, stream)
                                : permute_as<ActType::kBf16>(format, args, stream);
}

cudaError_t enqueue_quantize_hidden(OperandFormat format, ActType type, const PermuteArgs& args,
                                    cudaStream_t stream) {
  return type == ActType::kFp16 ? quantize_hidden_as<ActType::kFp16>(format, args, stream)
                                : quantize_hidden_as<ActType::kBf16>(format, args, stream);
}

}  // namespace moebench::cuda
