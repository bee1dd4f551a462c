# Tests of the CUDA backend. Where CUDA's headers are, the kernels are compiled a second time, by
# the host's C++ compiler for the emulator of tests/emu, and every test of an operation and of
# the families runs on the emulated GPU as NAME_emu. Where the backend itself is built, the same
# tests run on a GPU as NAME_gpu, and are skipped where there is none.
file(GLOB cuda_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
file(GLOB cuda_hosts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.c)
file(GLOB cuda_tests CONFIGURE_DEPENDS kernels/*_test.c moe/golden_test.c)
list(FILTER cuda_tests EXCLUDE REGEX "(base|codes|micro|plan|pool)_test") # of the host or the CPU
set(cuda_helpers ${helpers})

# The choice of kernels is plain C.
target_sources(plan_test PRIVATE ${PROJECT_SOURCE_DIR}/kernels/cuda/plan.c)

# Adds each test as NAME_<suffix>, linked with `libraries`, compiled with `definitions`.
function(pm_add_cuda_tests suffix definitions libraries)
  add_library(pm_test_helpers_${suffix} STATIC ${cuda_helpers})
  target_link_libraries(pm_test_helpers_${suffix} PUBLIC pm_test_flags)
  target_compile_definitions(pm_test_helpers_${suffix} PUBLIC TEST_CUDA ${definitions})
  target_include_directories(pm_test_helpers_${suffix} SYSTEM PUBLIC ${PM_CUDA_INCLUDE})
  foreach(file IN LISTS cuda_tests)
    get_filename_component(name ${file} NAME_WE)
    file(STRINGS ${file} is_cuda REGEX "tests/oracle/|TEST_CUDA|POLYMATH_TEST_DEVICE")
    if(NOT is_cuda)
      continue()
    endif()
    add_executable(${name}_${suffix} ${file})
    target_link_libraries(${name}_${suffix} PRIVATE pm_test_helpers_${suffix} ${libraries})
    set_target_properties(${name}_${suffix} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
    add_test(NAME ${name}_${suffix} COMMAND ${name}_${suffix})
    set_tests_properties(${name}_${suffix} PROPERTIES SKIP_RETURN_CODE 77 LABELS ${suffix}
      TIMEOUT 1800 ENVIRONMENT "POLYMATH_TEST_BACKEND=cuda;POLYMATH_TEST_DEVICE=cuda:0")
  endforeach()
endfunction()

if(PM_CUDA_INCLUDE)
  enable_language(CXX)
  set(CMAKE_CXX_STANDARD 17)
  # Without the sanitizers, which would charge the emulator's own work to the kernels: it tells
  # them what happens itself. No loop may become a call of memset or memcpy either.
  file(GLOB sources CONFIGURE_DEPENDS emu/*.cpp)
  list(FILTER sources EXCLUDE REGEX "(cudart|_test|selftest)[^/]*\\.cpp$")
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS
    "-O3;-fno-tree-loop-distribute-patterns")
  add_library(pm_emu_core OBJECT ${sources})
  file(GLOB sources CONFIGURE_DEPENDS emu/cudart*.cpp)
  add_library(pm_emu_runtime OBJECT ${sources})
  # A source file's language belongs to the folder that says so: kernels/ stays CUDA.
  set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++;-O2")
  add_library(pm_cuda_emu OBJECT ${cuda_kernels} ${cuda_hosts})
  foreach(target IN ITEMS pm_emu_core pm_emu_runtime pm_cuda_emu)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}
      ${PROJECT_SOURCE_DIR}/runtime/include ${CMAKE_CURRENT_SOURCE_DIR}/emu)
    target_include_directories(${target} SYSTEM PRIVATE ${PM_CUDA_INCLUDE})
    target_compile_options(${target} PRIVATE -Wall -Wextra -Werror -Wno-unknown-pragmas
      # gcc would merge functions over arrays of two sizes, and then warn of one's bounds.
      $<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-fno-ipa-icf>)
    if(PM_SANITIZE MATCHES "address")
      target_compile_definitions(${target} PRIVATE EMU_ASAN)
    elseif(PM_SANITIZE MATCHES "thread")
      target_compile_definitions(${target} PRIVATE EMU_TSAN)
      # gcc does not tell ThreadSanitizer of fences; the emulated atomics beside them order.
      target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
    endif()
  endforeach()
  if(PM_SANITIZE)
    target_compile_options(pm_emu_runtime PRIVATE -fsanitize=${PM_SANITIZE})
    target_compile_options(pm_cuda_emu PRIVATE -fsanitize=${PM_SANITIZE}
      -fno-omit-frame-pointer -fno-sanitize-recover=all)
  endif()
  add_library(pm_emu INTERFACE)
  target_sources(pm_emu INTERFACE $<TARGET_OBJECTS:pm_cuda_emu> $<TARGET_OBJECTS:pm_emu_core>
    $<TARGET_OBJECTS:pm_emu_runtime>)
  target_link_libraries(pm_emu INTERFACE stdc++ Threads::Threads m)
  pm_add_cuda_tests(emu TEST_CUDA_EMULATED pm_emu)
  # Which kernel computes attention follows from the device alone.
  add_test(NAME attention_test_emu_sm80 COMMAND attention_test_emu)
  set_tests_properties(attention_test_emu_sm80 PROPERTIES LABELS emu TIMEOUT 1800
    ENVIRONMENT "POLYMATH_TEST_BACKEND=cuda;POLYMATH_TEST_DEVICE=cuda:0;EMU_CC=80")
  add_subdirectory(emu)
else()
  message(STATUS "Tests of the CUDA kernels on the emulator: left out (no CUDA headers)")
endif()

if(PM_CUDA_BUILT)
  add_executable(cuda_code code/cuda_code.c)
  target_compile_options(cuda_code PRIVATE -Wall -Wextra -Werror)
  add_test(NAME cuda_code COMMAND cuda_code $<TARGET_OBJECTS:pm_cuda> COMMAND_EXPAND_LISTS)
  set_tests_properties(cuda_code PROPERTIES LABELS code)
  pm_add_cuda_tests(gpu TEST_CUDA_GPU "pm_cuda;CUDA::cudart_static")
  # Here and not in emu/, where the same sources are C++.
  add_executable(conformance_gpu emu/conformance.cu emu/conformance_data.cu
    emu/conformance_matrix.cu)
  target_link_libraries(conformance_gpu PRIVATE pm_test_flags pm_cuda CUDA::cudart_static)
  set_target_properties(conformance_gpu PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
endif()
