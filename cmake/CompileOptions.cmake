# Language level, warnings and sanitizers for every target of the project.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(moebench_options INTERFACE)
target_compile_options(moebench_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow>"
  # Answers are compared bit for bit between ISAs and machines: a contraction that only one of them gets would differ.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False positives on std::string's operator+ at -O3 (GCC bug 105651, fixed in 13).
  target_compile_options(moebench_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(MOEBENCH_WERROR)
  target_compile_options(moebench_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(MOEBENCH_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Instrumented code confuses its flow analysis: false positives inside std::regex (GCC bug 105562). The release build warns.
  target_compile_options(moebench_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>)
endif()
if(MOEBENCH_SANITIZE)
  add_compile_options(-fsanitize=${MOEBENCH_SANITIZE} -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${MOEBENCH_SANITIZE})
  if(MOEBENCH_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=all)
  endif()
endif()
