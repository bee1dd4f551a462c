# The CUDA backend: pm_cuda, an object library that programs are linked with where it is built.
# Nothing links the driver or cuBLAS: the program starts on machines that have neither.
set(PM_CUDA AUTO CACHE STRING "Build the CUDA backend: ON, OFF, AUTO (where nvcc and a GPU are)")
set(PM_CUDA_ARCHITECTURES "" CACHE STRING
  "What the kernels are compiled for (empty: 80, 90a and, where nvcc knows it, 100)")

find_program(PM_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
# Headers alone are enough for the emulated tests; `./x test` fetches them where there is no toolkit.
file(GLOB pm_cuda_wheels ${PROJECT_SOURCE_DIR}/build-cuda/nvidia/cu*)
find_path(PM_CUDA_INCLUDE cuda_runtime_api.h HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda
  ${pm_cuda_wheels} PATH_SUFFIXES include targets/x86_64-linux/include)
mark_as_advanced(PM_NVCC PM_CUDA_INCLUDE)

set(PM_CUDA_BUILT OFF)
if(PM_CUDA STREQUAL "AUTO")
  if(PM_NVCC AND EXISTS /dev/nvidiactl)
    set(PM_CUDA_BUILT ON)
  endif()
elseif(PM_CUDA)
  if(NOT PM_NVCC)
    message(FATAL_ERROR "PM_CUDA=ON needs nvcc: put it on PATH or set CUDA_HOME")
  endif()
  set(PM_CUDA_BUILT ON)
endif()

if(PM_CUDA_BUILT)
  set(CMAKE_CUDA_COMPILER ${PM_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES 80)
  enable_language(CUDA)
  if(PM_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${PM_CUDA_ARCHITECTURES})
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      list(APPEND CMAKE_CUDA_ARCHITECTURES 100-real)
    endif()
  endif()
  set(CMAKE_CUDA_STANDARD 17)
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "CUDA backend: built for ${CMAKE_CUDA_ARCHITECTURES} with ${PM_NVCC}")
elseif(PM_NVCC)
  message(STATUS "CUDA backend: not built (no GPU here; -DPM_CUDA=ON builds it)")
else()
  message(STATUS "CUDA backend: not built (no nvcc)")
endif()

# Links the CUDA backend into a program or shared library, where it is built.
function(pm_link_cuda target)
  if(PM_CUDA_BUILT)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:pm_cuda>)
    target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  endif()
endfunction()
