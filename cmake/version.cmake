# The commit goes into --version and into every benchmark row.
execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} describe --always --dirty --abbrev=10
  OUTPUT_VARIABLE PM_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT PM_COMMIT)
  set(PM_COMMIT unknown)
endif()
