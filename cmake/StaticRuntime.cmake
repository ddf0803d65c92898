# MOEBENCH_STATIC_RUNTIME: a command that can be carried to a machine that has no compiler and other libraries. glibc stays
# shared (the CUDA runtime and NVML are opened with dlopen), so that machine's must not be older than this one's.
set(MOEBENCH_FMT fmt::fmt)
if(MOEBENCH_STATIC_RUNTIME)
  set(MOEBENCH_FMT fmt::fmt-header-only)
  add_link_options(-static-libstdc++ -static-libgcc)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libgomp.a OUTPUT_VARIABLE gomp OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR NOT EXISTS "${gomp}")
    message(FATAL_ERROR "MOEBENCH_STATIC_RUNTIME: needs GCC with its libgomp.a, which ${CMAKE_CXX_COMPILER} has not")
  endif()
  # Before find_package(OpenMP), which would find the shared one.
  set(OpenMP_CXX_FLAGS -fopenmp CACHE STRING "")
  set(OpenMP_CXX_LIB_NAMES gomp CACHE STRING "")
  set(OpenMP_gomp_LIBRARY "${gomp}" CACHE FILEPATH "")
endif()
