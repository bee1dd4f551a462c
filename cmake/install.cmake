# What `cmake --install` lays down: the program, one shared library, the header, CMake and
# pkg-config files, and the model of the repository.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(polymath_library SHARED
  $<TARGET_OBJECTS:pm_kernels> $<TARGET_OBJECTS:pm_moe> $<TARGET_OBJECTS:pm_runtime>)
set_target_properties(polymath_library PROPERTIES OUTPUT_NAME polymath EXPORT_NAME polymath
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
target_link_libraries(polymath_library PRIVATE pm::cjson pm::pcre2 pm::utf8proc
  Threads::Threads m)
pm_link_cuda(polymath_library)
target_include_directories(polymath_library INTERFACE $<INSTALL_INTERFACE:include>)

install(TARGETS polymath)
install(TARGETS polymath_library EXPORT PolymathTargets)
install(FILES runtime/include/polymath.h TYPE INCLUDE)
install(EXPORT PolymathTargets NAMESPACE Polymath::
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Polymath)
file(WRITE ${CMAKE_BINARY_DIR}/PolymathConfig.cmake
  "include(\${CMAKE_CURRENT_LIST_DIR}/PolymathTargets.cmake)\n")
write_basic_package_version_file(${CMAKE_BINARY_DIR}/PolymathConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/PolymathConfig.cmake
  ${CMAKE_BINARY_DIR}/PolymathConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Polymath)
configure_file(cmake/polymath.pc.in ${CMAKE_BINARY_DIR}/polymath.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/polymath.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(DIRECTORY models/polymath-16m DESTINATION ${CMAKE_INSTALL_DATADIR}/polymath/models)
