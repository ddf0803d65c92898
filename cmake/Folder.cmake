# moebench_add_folder(name SOURCES ... DEPENDS ... [LIBS ...]): one static library for moebench/<name>.
#
# A folder's headers are reachable only through its target: each target exports an include root of its own that holds
# nothing but moebench/<name> (a link to the source folder). An include against the direction of the dependencies
# therefore fails to compile instead of passing by accident.
function(moebench_add_folder name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "SOURCES;DEPENDS;LIBS;PRIVATE_LIBS")
  set(root ${PROJECT_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${root}/moebench)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/moebench/${name} ${root}/moebench/${name} SYMBOLIC)

  add_library(moebench_${name} STATIC ${ARG_SOURCES})
  add_library(moebench::${name} ALIAS moebench_${name})
  target_include_directories(moebench_${name} PUBLIC $<BUILD_INTERFACE:${root}>)
  list(TRANSFORM ARG_DEPENDS PREPEND moebench_)
  target_link_libraries(moebench_${name} PUBLIC ${ARG_DEPENDS} ${ARG_LIBS} PRIVATE ${ARG_PRIVATE_LIBS} $<BUILD_INTERFACE:moebench_options>)
  set_target_properties(moebench_${name} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  set_property(GLOBAL APPEND PROPERTY MOEBENCH_FOLDER_TARGETS moebench_${name})
endfunction()
