# Run at build time (cmake -P): writes OUTPUT from TEMPLATE with the commit of SOURCE_DIR as it is now. configure_file
# leaves an unchanged file alone, so that nothing is compiled again until a commit or the first local change.
set(COMMIT "unknown")
# No prefix: SOURCE_DIR is the top of its repository, not an unpacked copy inside somebody else's.
set(git ${CMAKE_COMMAND} -E env GIT_OPTIONAL_LOCKS=0 "${GIT}" -C "${SOURCE_DIR}")
if(GIT)
  execute_process(COMMAND ${git} rev-parse --show-prefix OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE
                  RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed AND prefix STREQUAL "")
    execute_process(COMMAND ${git} describe --always --dirty --abbrev=12 --exclude=* OUTPUT_VARIABLE described
                    OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
    if(NOT failed AND described)
      set(COMMIT "${described}")
    endif()
  endif()
endif()
configure_file("${TEMPLATE}" "${OUTPUT}" @ONLY)
