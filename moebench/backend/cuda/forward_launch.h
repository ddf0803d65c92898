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

/// How the runtime wants to know of it.
class OverlappedLaunch {
 public:
  OverlappedLaunch(const LaunchShape& shape, cudaStream_t stream) {
    attributes_[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes_[0].val.programmaticStreamSerializationAllowed = 1;
    attributes_[1].id = cudaLaunchAttributeClusterDimension;
    attributes_[1].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attributes_[1].val.clusterDim.y = attributes_[1].val.clusterDim.z = 1;
    config_.gridDim = dim3(static_cast<unsigned>(shape.blocks));
    config_.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config_.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
    config_.stream = stream;
    config_.attrs = attributes_;
    config_.numAttrs = shape.cluster > 1 ? 2 : 1;
  }
  OverlappedLaunch(const OverlappedLaunch&) = delete;
  OverlappedLaunch& operator=(const OverlappedLaunch&) = delete;
  ~OverlappedLaunch() = default;
  [[nodiscard]] const cudaLaunchConfig_t* config() const { return &config_; }

 private:
  cudaLaunchAttribute attributes_[2]{};
  cudaLaunchConfig_t config_{};
};

template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapped(void (*kernel)(Parameters...), const LaunchShape& shape,
                              cudaStream_t stream, Arguments&&... arguments) {
  if (shape.blocks == 0) return cudaSuccess;
  const OverlappedLaunch launch(shape, stream);
  return cudaLaunchKernelEx(launch.config(), kernel, std::forward<Arguments>(arguments)...);
}

/// Clusters of `shape` that run at the same time on the current device.
template <typename... Parameters>
cudaError_t max_active_clusters(void (*kernel)(Parameters...), const LaunchShape& shape,
                                int* clusters) {
  const OverlappedLaunch launch(shape, nullptr);
  return cudaOccupancyMaxActiveClusters(clusters, kernel, launch.config());
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
