# CPU kernel translation units, one per ISA, each with its own flags; an ISA that MOEBENCH_CPU_ISAS or the target leaves
# out is replaced by its stub under absent/. Sets MOEBENCH_CPU_KERNEL_SOURCES.
set(MOEBENCH_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(MOEBENCH_ISA_FLAGS_avx512 ${MOEBENCH_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
set(MOEBENCH_ISA_FLAGS_avx512_bf16 ${MOEBENCH_ISA_FLAGS_avx512} -mavx512vbmi -mavx512vnni -mavx512bf16)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12's AVX-512 headers leave don't-care operands unset and warn about it (GCC bug 105593).
  list(APPEND MOEBENCH_ISA_FLAGS_avx512 -Wno-maybe-uninitialized -Wno-uninitialized)
  list(APPEND MOEBENCH_ISA_FLAGS_avx512_bf16 -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

set(MOEBENCH_CPU_KERNEL_SOURCES cpu/portable.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND MOEBENCH_CPU_KERNEL_SOURCES cpu/cpuid_x86.cpp)
  set(MOEBENCH_BUILDABLE_ISAS avx2 avx512 avx512_bf16)
else()
  list(APPEND MOEBENCH_CPU_KERNEL_SOURCES cpu/absent/cpuid.cpp)
  set(MOEBENCH_BUILDABLE_ISAS)
endif()
foreach(isa avx2 avx512 avx512_bf16)
  if(isa IN_LIST MOEBENCH_CPU_ISAS AND isa IN_LIST MOEBENCH_BUILDABLE_ISAS)
    set_source_files_properties(cpu/${isa}.cpp PROPERTIES COMPILE_OPTIONS "${MOEBENCH_ISA_FLAGS_${isa}}")
    list(APPEND MOEBENCH_CPU_KERNEL_SOURCES cpu/${isa}.cpp)
  else()
    list(APPEND MOEBENCH_CPU_KERNEL_SOURCES cpu/absent/${isa}.cpp)
  endif()
endforeach()
foreach(isa IN LISTS MOEBENCH_CPU_ISAS)
  if(NOT isa MATCHES "^(portable|avx2|avx512|avx512_bf16)$")
    message(FATAL_ERROR "MOEBENCH_CPU_ISAS: no ISA '${isa}'; portable, avx2, avx512 and avx512_bf16 exist")
  endif()
endforeach()
if(MOEBENCH_SANITIZE)
  # Fully unrolled register code: with every load and operation instrumented at -O2, one file takes minutes to compile.
  # Bounds (ASan) and races (TSan) are still seen; undefined behaviour is looked for in everything around the kernels.
  set_property(SOURCE cpu/portable.cpp cpu/avx2.cpp cpu/avx512.cpp cpu/avx512_bf16.cpp APPEND PROPERTY
               COMPILE_OPTIONS -O1 -fno-sanitize=undefined)
endif()
