# The libraries of the product: threads, libm, cJSON, PCRE2, utf8proc and, for the server,
# libmicrohttpd, all Debian packages.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

# An imported target pm::<name> for a pkg-config module; with PM_STATIC its archive.
function(pm_library name module archive)
  pkg_check_modules(${name} REQUIRED ${module})
  add_library(pm::${name} INTERFACE IMPORTED)
  target_include_directories(pm::${name} INTERFACE ${${name}_INCLUDE_DIRS})
  set(file ${${name}_LINK_LIBRARIES})
  if(PM_STATIC)
    find_library(${name}_ARCHIVE ${archive} HINTS ${${name}_LIBRARY_DIRS})
    if(NOT ${name}_ARCHIVE)
      execute_process(COMMAND ${PROJECT_SOURCE_DIR}/cmake/${name}_archive.sh
        ${CMAKE_BINARY_DIR}/${name} ${CMAKE_C_COMPILER} COMMAND_ERROR_IS_FATAL ANY)
      set(${name}_ARCHIVE ${CMAKE_BINARY_DIR}/${name}/lib${name}.a CACHE FILEPATH "" FORCE)
    endif()
    set(file ${${name}_ARCHIVE})
  endif()
  target_link_libraries(pm::${name} INTERFACE ${file})
endfunction()

pm_library(cjson libcjson libcjson.a)
pm_library(pcre2 libpcre2-8 libpcre2-8.a)
pm_library(utf8proc libutf8proc libutf8proc.a)
# Debian's archive speaks TLS and wants all of GnuTLS: ours is made from its source without.
pm_library(microhttpd libmicrohttpd libmicrohttpd-without-tls.a)
if(PM_STATIC)
  target_compile_definitions(pm::pcre2 INTERFACE PCRE2_STATIC)
  target_compile_definitions(pm::utf8proc INTERFACE UTF8PROC_STATIC)
endif()
