# The CUTLASS backend's sources, or the stand-in where it is not built. Sets MOEBENCH_CUTLASS_SOURCES.
set(MOEBENCH_CUTLASS_TYPES "fp16" CACHE STRING "Output types of the CUTLASS GEMMs: fp16, bf16 or both; four GEMMs each")

set(MOEBENCH_CUTLASS_SOURCES cutlass/no_cutlass.cpp)
set_source_files_properties(cutlass/no_cutlass.cpp PROPERTIES
  COMPILE_DEFINITIONS "MOEBENCH_CUTLASS_REASON=\"${MOEBENCH_CUTLASS_REASON}\"")
if(MOEBENCH_WITH_CUTLASS)
  set(MOEBENCH_CUTLASS_SOURCES cutlass/choose.cpp cutlass/cutlass_backend.cpp cutlass/forward.cpp cutlass/rows.cu cutlass/weights.cpp)
  set_source_files_properties(cutlass/cutlass_backend.cpp PROPERTIES
    COMPILE_DEFINITIONS "MOEBENCH_CUTLASS_VERSION=\"${MOEBENCH_CUTLASS_VERSION}\"")
  # What the pipeline needs on Blackwell besides its GEMMs; as they are they run on Hopper, too.
  set_source_files_properties(cutlass/rows.cu cuda/route.cu cuda/device_kernels.cu PROPERTIES
    COMPILE_OPTIONS "-gencode=arch=compute_100,code=sm_100;-gencode=arch=compute_120,code=sm_120")

  # The GEMMs: each takes a minute or two and up to 6 GB, one at a time. Warnings in them are CUTLASS's. "f": the whole
  # family, 10.0 and 10.3, 12.0 and 12.1.
  set(made ${CMAKE_CURRENT_BINARY_DIR}/cutlass)
  set_property(GLOBAL APPEND PROPERTY JOB_POOLS moebench_heavy=1)
  set(gemm_names "")
  foreach(architecture 100 120)
    set(sources "")
    foreach(type IN LISTS MOEBENCH_CUTLASS_TYPES)
      if(NOT type MATCHES "^(fp16|bf16)$")
        message(FATAL_ERROR "MOEBENCH_CUTLASS_TYPES: '${type}'; use fp16, bf16 or \"fp16;bf16\"")
      endif()
      string(REPLACE "fp16" "Fp16" gemm_type ${type})
      string(REPLACE "bf16" "Bf16" gemm_type ${gemm_type})
      foreach(size Small Large)
        set(gemm_tile Sm${architecture}${size})
        configure_file(cutlass/gemm.cu.in ${made}/${gemm_tile}${gemm_type}.cu @ONLY)
        list(APPEND sources ${made}/${gemm_tile}${gemm_type}.cu)
        list(APPEND gemm_names k${gemm_tile}${gemm_type})
      endforeach()
    endforeach()
    set(target moebench_cutlass_sm${architecture})
    add_library(${target} OBJECT ${sources})
    set_target_properties(${target} PROPERTIES JOB_POOL_COMPILE moebench_heavy POSITION_INDEPENDENT_CODE ON)
    target_compile_options(${target} PRIVATE -gencode=arch=compute_${architecture}f,code=sm_${architecture}f
      --expt-relaxed-constexpr -Xcudafe=--diag_suppress=20012)
    target_include_directories(${target} SYSTEM PRIVATE ${MOEBENCH_CUTLASS_INCLUDE})
    foreach(folder core quant moe backend)
      target_include_directories(${target} PRIVATE ${PROJECT_BINARY_DIR}/include/${folder})
    endforeach()
    list(APPEND MOEBENCH_CUTLASS_SOURCES $<TARGET_OBJECTS:${target}>)
    list(APPEND object_targets ${target})
  endforeach()
  set(MOEBENCH_BACKEND_OBJECT_TARGETS ${object_targets} PARENT_SCOPE)
  list(TRANSFORM gemm_names PREPEND "&" OUTPUT_VARIABLE gemm_addresses)
  list(JOIN gemm_names ", " gemm_names)
  list(JOIN gemm_addresses ", " gemm_addresses)
  configure_file(cutlass/instances.cpp.in ${made}/instances.cpp @ONLY)
  list(APPEND MOEBENCH_CUTLASS_SOURCES ${made}/instances.cpp)
endif()
