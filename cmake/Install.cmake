# What `cmake --install` lays down beside the command: the C++ library as one archive, the headers of its interface, and
# the package files that make find_package(moebench) give moebench::moebench.
include(CMakePackageConfigHelpers)

# The folders that the library is made of, one archive instead of five with an order to know.
add_library(moebench_library STATIC)
add_library(moebench::moebench ALIAS moebench_library)
foreach(folder core quant moe backend api)
  target_sources(moebench_library PRIVATE $<TARGET_OBJECTS:moebench_${folder}>)
  target_include_directories(moebench_library PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include/${folder}>)
endforeach()
# A target's objects are those that it compiles: the backend's from targets of their own are named apart.
foreach(target IN LISTS MOEBENCH_BACKEND_OBJECT_TARGETS)
  target_sources(moebench_library PRIVATE $<TARGET_OBJECTS:${target}>)
endforeach()
target_include_directories(moebench_library PUBLIC $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(moebench_library PUBLIC cxx_std_20)
# fmt is in the interface (core/error.h formats messages); OpenMP is needed by the linker alone.
target_link_libraries(moebench_library PUBLIC ${MOEBENCH_FMT} PRIVATE OpenMP::OpenMP_CXX)
if(MOEBENCH_WITH_CUDA)
  # The static CUDA runtime comes along, so that a program can be linked where there is no CUDA toolkit.
  file(REAL_PATH "${CUDA_cudart_static_LIBRARY}" cudart)
  set(cudart_folder ${CMAKE_INSTALL_LIBDIR}/moebench)
  install(FILES ${cudart} DESTINATION ${cudart_folder} RENAME libcudart_static.a)
  target_link_libraries(moebench_library PRIVATE $<BUILD_INTERFACE:CUDA::cudart_static>
    "$<INSTALL_INTERFACE:$<INSTALL_PREFIX>/${cudart_folder}/libcudart_static.a;${CMAKE_DL_LIBS};rt;pthread>")
endif()
set_target_properties(moebench_library PROPERTIES OUTPUT_NAME moebench EXPORT_NAME moebench LINKER_LANGUAGE CXX)

install(TARGETS moebench_library EXPORT moebench_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# tools/check_edges holds the same list and sees to it that none of them includes a header that stays behind.
foreach(header api/moebench.h core/dtype.h core/error.h quant/scale_layout.h)
  cmake_path(GET header PARENT_PATH folder)
  install(FILES ${PROJECT_SOURCE_DIR}/moebench/${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/moebench/${folder})
endforeach()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/moebench)
configure_package_config_file(cmake/moebench-config.cmake.in ${PROJECT_BINARY_DIR}/moebench-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/moebench-config-version.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT moebench_targets NAMESPACE moebench:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/moebench-config.cmake ${PROJECT_BINARY_DIR}/moebench-config-version.cmake
        DESTINATION ${package_dir})
