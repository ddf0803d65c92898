// Launching with programmatic stream serialisation: the next kernel of a stream begins while the
// one before drains. Every kernel launched so waits (griddepcontrol.wait) before it reads what a
// kernel before it wrote and before it writes anything, so that waiting for the last one means that
// all have ended.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace moebench::cuda {

struct LaunchShape {
  std::int64_t blocks;
  int threads;
  int shared_bytes = 0;
  int cluster = 1;  ///< blocks of a cluster
};

template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapped(void (*kernel)(Parameters...), LaunchShape shape, cudaStream_t stream,
                              Arguments&&... arguments) {
  if (shape.blocks == 0) return cudaSuccess;
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

/// One that overlaps with no kernel before it.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_alone(void (*kernel)(Parameters...), dim3 blocks, int threads,
                         cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace moebench::cuda
