# Run by ctest (see CMakeLists.txt here): BUILD is the built tree, SOURCE the repository.
set(work ${BUILD}/package_test)
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work})

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} failed (${status}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run("install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})

# A sanitizer is a property of the whole program, so the program that links a sanitized library needs it too.
set(flags "${CXX_FLAGS}")
if(SANITIZE)
  string(APPEND flags " -fsanitize=${SANITIZE}")
endif()

# Each header must compile alone: nothing that it needs may have stayed behind.
file(GLOB_RECURSE headers RELATIVE ${prefix}/include ${prefix}/include/*.h)
list(LENGTH headers count)
if(count EQUAL 0)
  message(FATAL_ERROR "no header was installed")
endif()
foreach(header IN LISTS headers)
  file(WRITE ${work}/alone.cpp "#include <${header}>\n")
  run("compiling ${header} alone" ${CXX} -std=c++20 -Wall -Wextra -Wconversion -Wshadow -Werror -I${prefix}/include
      -fsyntax-only ${work}/alone.cpp)
endforeach()

run("configuring the example" ${CMAKE_COMMAND} -S ${SOURCE}/examples -B ${work}/build -G Ninja
    -D CMAKE_PREFIX_PATH=${prefix} -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_BUILD_TYPE=${CONFIG}
    "-DCMAKE_CXX_FLAGS=${flags} -Wall -Wextra -Wconversion -Wshadow -Werror")
run("building the example" ${CMAKE_COMMAND} --build ${work}/build)
run("running the example" ${work}/build/moe_forward)
message(STATUS "${output}")
# The library must come from the prefix, not from the build tree that happens to be there.
file(READ ${work}/build/CMakeCache.txt cache)
if(NOT cache MATCHES "moebench_DIR:PATH=${prefix}")
  message(FATAL_ERROR "the example found another moebench than ${prefix}")
endif()
# Where there is a toolkit the example for a GPU was built, too; without a device it says so and ends with 4.
if(EXISTS ${work}/build/moe_device)
  execute_process(COMMAND ${work}/build/moe_device RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0 AND NOT (status EQUAL 4 AND output MATCHES "no device|device: there is none"))
    message(FATAL_ERROR "running the example for a GPU failed (${status}):\n${output}")
  endif()
  message(STATUS "${output}")
endif()
run("the installed command" ${prefix}/bin/moebench --version)
