# The CUDA backend's sources, or the stand-in where it is not built. Sets MOEBENCH_CUDA_SOURCES. Plain .cpp files are host code
# that the C++ compiler takes with the CUDA headers; nvcc compiles the .cu files.
set(MOEBENCH_CUDA_SOURCES cuda/no_cuda.cpp)
if(MOEBENCH_WITH_CUDA)
  set(MOEBENCH_CUDA_SOURCES
    cuda/cuda_backend.cpp
    cuda/cuda_device.cpp
    cuda/absent/cuda_kernels.cpp
    cuda/device.cpp
    cuda/device_kernels.cu
    cuda/absent/mma_rates.cpp
    cuda/phase_marks.cpp)
endif()
