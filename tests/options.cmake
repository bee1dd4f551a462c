# docs/options.md is what `polymath --help-options` prints. A count of threads or a variable of
# the environment must not matter.
execute_process(COMMAND ${PROGRAM} --help-options OUTPUT_VARIABLE printed
  COMMAND_ERROR_IS_FATAL ANY)
file(READ ${PAGE} page)
if(NOT printed STREQUAL page)
  message(FATAL_ERROR "docs/options.md differs from polymath --help-options")
endif()
