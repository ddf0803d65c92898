# The CUDA backend's sources, or the stand-in where it is not built. Sets MOEBENCH_CUDA_SOURCES. Plain .cpp files are host code
# that the C++ compiler takes with the CUDA headers; nvcc compiles the .cu files.
set(MOEBENCH_CUDA_SOURCES cuda/no_cuda.cpp)
if(MOEBENCH_WITH_CUDA)
  set(MOEBENCH_CUDA_SOURCES
    cuda/combine.cu
    cuda/cuda_backend.cpp
    cuda/cuda_device.cpp
    cuda/cuda_kernels.cpp
    cuda/device.cpp
    cuda/device_kernels.cu
    cuda/forward.cpp
    cuda/forward_weights.cpp
    cuda/gemm.cu
    cuda/gemm_fp8.cu
    cuda/gemm_fp8_block.cu
    cuda/gemm_nvfp4.cu
    cuda/generate.cu
    cuda/mma_rates.cu
    cuda/pack.cpp
    cuda/permute.cu
    cuda/phase_marks.cpp
    cuda/prepared.cpp
    cuda/route.cu
    cuda/sensors.cpp)
endif()
