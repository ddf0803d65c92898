# MOEBENCH_CUDA: whether the CUDA backend is built. Sets MOEBENCH_WITH_CUDA and enables the language. The kernels are for one
# architecture, sm_90a: its wgmma instructions exist on no other, and what cannot run anywhere else needs no PTX.
set(MOEBENCH_CUDA auto CACHE STRING "CUDA kernels: auto (where nvcc is found, but not under sanitizers), on, off")
set_property(CACHE MOEBENCH_CUDA PROPERTY STRINGS auto on off)
string(TOLOWER "${MOEBENCH_CUDA}" cuda_wish)
if(NOT cuda_wish MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "MOEBENCH_CUDA: '${MOEBENCH_CUDA}'; use auto, on or off")
endif()
if(cuda_wish STREQUAL "auto" AND MOEBENCH_SANITIZE)
  set(cuda_wish off)
endif()

set(MOEBENCH_WITH_CUDA OFF)
set(MOEBENCH_CUDA_DESCRIPTION none)  # for the fingerprint
if(NOT cuda_wish STREQUAL "off")
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # given as an option below: this CMake does not know 90a
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know that nvcc has it
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    set(MOEBENCH_WITH_CUDA ON)
    set(MOEBENCH_CUDA_DESCRIPTION "nvcc ${CMAKE_CUDA_COMPILER_VERSION}, sm_90a")
    target_compile_options(moebench_options INTERFACE
      $<$<COMPILE_LANGUAGE:CUDA>:-gencode=arch=compute_90a,code=sm_90a>
      # Line numbers for profilers and sanitizers; the code is the same.
      $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo>
      # The device counterpart of -ffp-contract=off: a fused multiply-add is written as one.
      $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false>
      # -Wconversion finds faults in the stubs that nvcc generates.
      "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-ffp-contract=off>")
    if(MOEBENCH_WERROR)
      target_compile_options(moebench_options INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
    endif()
  elseif(cuda_wish STREQUAL "on")
    message(FATAL_ERROR "MOEBENCH_CUDA=on: no nvcc found; put it on PATH or set CMAKE_CUDA_COMPILER")
  endif()
endif()
message(STATUS "CUDA: ${MOEBENCH_CUDA_DESCRIPTION}")
