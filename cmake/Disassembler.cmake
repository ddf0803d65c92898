# The CUDA toolkit's disassembler, from its pinned packages, for tests of machine code. Sets MOEBENCH_DISASSEMBLER_PATH (a
# PATH with cuobjdump and nvdisasm, empty where they cannot be had) and MOEBENCH_DISASSEMBLER_REASON.
include(${CMAKE_CURRENT_LIST_DIR}/FetchPackage.cmake)

set(MOEBENCH_DISASSEMBLER_PATH "")
set(MOEBENCH_DISASSEMBLER_REASON "the pinned disassembler is for x86_64")
if(CMAKE_HOST_SYSTEM_PROCESSOR STREQUAL "x86_64")
  moebench_fetch_package(nvidia-cuda-cuobjdump==13.5.37 38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58
                         nvidia/cu13/bin cuobjdump_root MOEBENCH_DISASSEMBLER_REASON)
  moebench_fetch_package(nvidia-cuda-nvdisasm==13.5.37 d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca
                         nvidia/cu13/bin nvdisasm_root MOEBENCH_DISASSEMBLER_REASON)
  if(cuobjdump_root AND nvdisasm_root)
    set(MOEBENCH_DISASSEMBLER_PATH "${cuobjdump_root}/nvidia/cu13/bin:${nvdisasm_root}/nvidia/cu13/bin:$ENV{PATH}")
  endif()
endif()

# moebench_add_machine_code_test(NAME COMMAND...): skipped, with the reason, where there is no disassembler.
function(moebench_add_machine_code_test name)
  if(MOEBENCH_DISASSEMBLER_PATH)
    add_test(NAME ${name} COMMAND ${ARGN} COMMAND_EXPAND_LISTS)
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "PATH=${MOEBENCH_DISASSEMBLER_PATH}")
  else()
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "not run: ${MOEBENCH_DISASSEMBLER_REASON}")
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "not run:")
  endif()
endfunction()
