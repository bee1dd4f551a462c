# Fails on an #include against the arrow kernels <- moe <- runtime <- bench, tests.
#
#   cmake -DSOURCE_DIR=. -P tests/layers.cmake
#
# A quoted include must resolve to a file of the tree, beside the including file or from the
# root, so that this check sees what the compiler sees. The public header polymath.h includes only
# the C library and may be included from everywhere. runtime/ sees the seams of kernels/, never
# a backend. cJSON has one door.
cmake_minimum_required(VERSION 3.25)

cmake_path(ABSOLUTE_PATH SOURCE_DIR NORMALIZE)
set(layers kernels moe runtime) # a folder may include itself and what stands left of it
set(public_header runtime/include/polymath.h)
set(problems "")

# Sets ${out} to the rank of a path's top folder: bench and tests stand right of all.
function(layer_of path out)
  string(REGEX REPLACE "/.*" "" top ${path})
  list(FIND layers ${top} rank)
  if(rank EQUAL -1)
    list(LENGTH layers rank)
  endif()
  set(${out} ${rank} PARENT_SCOPE)
endfunction()

# Sets ${out} to the included file's path from the root, or to nothing.
function(resolve file name out)
  cmake_path(GET file PARENT_PATH folder)
  set(${out} "" PARENT_SCOPE)
  foreach(path IN ITEMS ${folder}/${name} ${name} runtime/include/${name})
    if(EXISTS ${SOURCE_DIR}/${path})
      cmake_path(NORMAL_PATH path)
      set(${out} ${path} PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# Appends to problems what is wrong with `file` including `name` in quotes.
function(check_include file name)
  resolve(${file} ${name} path)
  set(problem "")
  if(path STREQUAL "")
    set(problem "is not in the tree")
  elseif(NOT path STREQUAL public_header)
    layer_of(${file} from)
    layer_of(${path} to)
    if(to GREATER from)
      set(problem "is against the arrow kernels <- moe <- runtime <- bench, tests")
    elseif(file MATCHES "^runtime/" AND path MATCHES "^kernels/(cpu|cuda)/")
      set(problem "is a backend, which runtime/ may not see")
    endif()
  endif()
  if(problem)
    list(APPEND problems "${file}: \"${name}\" ${problem}")
    set(problems "${problems}" PARENT_SCOPE)
  endif()
endfunction()

set(patterns "")
foreach(folder IN ITEMS kernels moe runtime bench tests)
  foreach(type IN ITEMS c h cu cuh)
    list(APPEND patterns ${SOURCE_DIR}/${folder}/*.${type})
  endforeach()
endforeach()
file(GLOB_RECURSE files RELATIVE ${SOURCE_DIR} ${patterns})
foreach(file IN LISTS files)
  file(STRINGS ${SOURCE_DIR}/${file} lines REGEX "^[ \t]*#[ \t]*include[ \t]*[\"<]")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^[^\"<]*[\"<]([^\">]*)[\">].*" "\\1" name "${line}")
    if(line MATCHES "include[ \t]*\"")
      check_include(${file} ${name})
    elseif(name MATCHES "^(cjson/|cJSON)" AND NOT file STREQUAL "moe/json.c")
      list(APPEND problems "${file}: <${name}> has one door, moe/json.c")
    endif()
  endforeach()
endforeach()

list(LENGTH files n_file)
if(n_file EQUAL 0)
  message(FATAL_ERROR "${SOURCE_DIR}: no sources found")
endif()
if(problems)
  list(JOIN problems "\n  " text)
  message(FATAL_ERROR "\n  ${text}")
endif()
message(STATUS "${n_file} files keep the arrow")
