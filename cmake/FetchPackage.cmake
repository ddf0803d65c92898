# moebench_fetch_package(requirement sha256 path result reason): takes the files under `path` out of a package of the Python
# package index into the build directory, once. `requirement`: name==version. Sets `result` to the folder that holds `path`, or
# `reason` to why there is none. Nothing is installed, none of the package's code runs.
function(moebench_fetch_package requirement sha256 path result reason)
  set(${result} "" PARENT_SCOPE)
  string(REGEX REPLACE "==.*" "" name ${requirement})
  set(root ${PROJECT_BINARY_DIR}/packages/${name})
  if(EXISTS ${root}/${sha256})  # written last
    set(${result} ${root} PARENT_SCOPE)
    return()
  endif()
  find_program(MOEBENCH_PYTHON3 python3)
  if(NOT MOEBENCH_PYTHON3)
    set(${reason} "${name} could not be fetched: no python3" PARENT_SCOPE)
    return()
  endif()
  file(REMOVE_RECURSE ${root})
  file(MAKE_DIRECTORY ${root})
  file(WRITE ${root}/requirements.txt "${requirement} --hash=sha256:${sha256}\n")
  message(STATUS "Fetching ${requirement}")
  execute_process(
    COMMAND ${MOEBENCH_PYTHON3} -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all:
            --require-hashes --timeout 20 --retries 1 --requirement requirements.txt --dest .
    WORKING_DIRECTORY ${root} RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE error TIMEOUT 300)
  file(GLOB wheel ${root}/*.whl)
  if(NOT status EQUAL 0 OR NOT wheel)
    string(STRIP "${error}" error)
    string(REGEX REPLACE ".*\n" "" error "${error}")
    string(REGEX REPLACE "[\"\\\\;]" "" error "${error}")  # it becomes part of a string in C++
    set(${reason} "${name} could not be fetched: ${error}" PARENT_SCOPE)
    return()
  endif()
  file(ARCHIVE_EXTRACT INPUT ${wheel} DESTINATION ${root} PATTERNS "${path}/*")
  file(REMOVE ${wheel})
  file(TOUCH ${root}/${sha256})
  set(${result} ${root} PARENT_SCOPE)
endfunction()
