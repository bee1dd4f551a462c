# Checks, or with -DFIX=ON mends, the format of all C sources with clang-format.
file(GLOB_RECURSE files kernels/*.[ch] moe/*.[ch] runtime/*.[ch] bench/*.[ch] tests/*.[ch] docs/*.[ch])
if(FIX)
  execute_process(COMMAND clang-format -i ${files} COMMAND_ERROR_IS_FATAL ANY)
else()
  execute_process(COMMAND clang-format --dry-run --Werror ${files} RESULT_VARIABLE result
    ERROR_VARIABLE text)
  if(NOT result EQUAL 0)
    string(SUBSTRING "${text}" 0 2000 text)
    message(FATAL_ERROR "${text}\nThe format differs: ./x format mends it.")
  endif()
endif()
