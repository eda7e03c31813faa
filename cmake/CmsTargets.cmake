# How targets are made here. One library per role, headers beside their sources, included from the
# top of the tree ("base/result.h"); tools/check_layers watches who may include whom.

option(CMS_WERROR "Treat warnings as errors (the presets turn it on)" OFF)
option(CMS_FUZZ "Link the targets of test/fuzz with libFuzzer (the preset asan; needs clang)" OFF)
option(CMS_UNIT_TESTS "Build the tests that are labelled unit" ON)
option(CMS_INTEGRATION_TESTS "Build the tests that are labelled integration, nas or netns" ON)
set(CMS_SANITIZE "" CACHE STRING "Value for -fsanitize=, for example address,undefined")
set(CMS_TEST_SANITIZE "" CACHE STRING "The same for the tests' own code, if that is to have less")
option(CMS_TEST_PCH "Precompile what all tests include, once for all of them" OFF)

# Flags for all our targets; nothing is global, so nothing of ours reaches other people's code.
add_library(cms_flags INTERFACE)
target_compile_options(cms_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual
  -Wold-style-cast -fno-omit-frame-pointer
  # g++ 12 sees uninitialized members in every moved std::variant; clang and the sanitizers watch that.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<BOOL:${CMS_WERROR}>:-Werror>)
if(CMS_SANITIZE)
  # A fuzzer is guided by what it reaches of the product; to count that in tests takes a third of their compile time.
  string(REPLACE "," "$<COMMA>" product "${CMS_SANITIZE}")
  string(REPLACE "fuzzer-no-link$<COMMA>" "" tests "${product}")
  if(CMS_TEST_SANITIZE)
    string(REPLACE "," "$<COMMA>" tests "${CMS_TEST_SANITIZE}")
  endif()
  target_compile_options(cms_flags INTERFACE
    -fsanitize=$<IF:$<BOOL:$<TARGET_PROPERTY:CMS_IS_TEST>>,${tests},${product}> -fno-sanitize-recover=all)
  target_link_options(cms_flags INTERFACE -fsanitize=${CMS_SANITIZE})
endif()
target_include_directories(cms_flags INTERFACE ${PROJECT_SOURCE_DIR})
add_library(cms_flags_cxx17 INTERFACE)   # base, schemas, broker/core, rtcr-client: also for Genode
target_link_libraries(cms_flags_cxx17 INTERFACE cms_flags)
target_compile_features(cms_flags_cxx17 INTERFACE cxx_std_17)
target_compile_options(cms_flags_cxx17 INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Weffc++>)
add_library(cms_flags_cxx20 INTERFACE)
target_link_libraries(cms_flags_cxx20 INTERFACE cms_flags)
target_compile_features(cms_flags_cxx20 INTERFACE cxx_std_20)
# g++ 12 sees overlaps in the C++20 std::string that are not there (gcc.gnu.org/PR105651).
target_compile_options(cms_flags_cxx20 INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)

# Where several files are compiled as one (CMAKE_UNITY_BUILD), not those of these targets: what their files have of
# their own goes by the same names.
function(cms_no_unity)
  set_target_properties(${ARGN} PROPERTIES UNITY_BUILD OFF)
endfunction()

# cms_library(NAME CXX 17|20 SOURCES … HEADERS … [PUBLIC dep …] [PRIVATE dep …])
function(cms_library name)
  cmake_parse_arguments(arg "" "CXX" "SOURCES;HEADERS;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
  set_target_properties(${name} PROPERTIES
    CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    VERIFY_INTERFACE_HEADER_SETS ON)
  # The language's flags stay private: -Weffc++ is for the C++17 parts, not for who uses them.
  target_link_libraries(${name} PUBLIC cms_flags ${arg_PUBLIC} PRIVATE cms_flags_cxx${arg_CXX} ${arg_PRIVATE})
endfunction()

# cms_program(NAME SOURCES … LINK …): a C++20 program named NAME.
function(cms_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PRIVATE cms_flags_cxx20 ${arg_LINK})
endfunction()

# What takes most of a test file's compile time: other people's headers, the same in all of them.
function(cms_precompile name)
  if(NOT TARGET cms_test_headers)
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/cms_test_headers.cc CONTENT "// Only its headers matter.\n")
    add_library(cms_test_headers OBJECT ${PROJECT_BINARY_DIR}/cms_test_headers.cc)
    target_link_libraries(cms_test_headers PRIVATE cms_flags_cxx20 GTest::gtest GTest::gmock)
    target_compile_options(cms_test_headers PRIVATE ${CMS_TEST_OPTIMISATION})
    set_target_properties(cms_test_headers PROPERTIES CXX_EXTENSIONS OFF CMS_IS_TEST ON UNITY_BUILD OFF)
    target_precompile_headers(cms_test_headers PRIVATE <gmock/gmock.h> <gtest/gtest.h> <algorithm> <array> <chrono>
      <filesystem> <fstream> <functional> <map> <memory> <optional> <set> <string> <tuple> <utility> <variant> <vector>)
  endif()
  target_precompile_headers(${name} REUSE_FROM cms_test_headers)
endfunction()

# cms_test(NAME SOURCES … LINK … [TIMEOUT seconds] [LABELS …]): a GoogleTest program; each of its
# tests is a CTest. Nothing at all without BUILD_TESTING.
function(cms_test name)
  if(NOT BUILD_TESTING)
    return()
  endif()
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(CMS_SANITIZE)
    math(EXPR arg_TIMEOUT "3 * ${arg_TIMEOUT}")
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  foreach(source ${arg_SOURCES})
    get_filename_component(path ${source} ABSOLUTE)
    set_property(GLOBAL APPEND PROPERTY CMS_TEST_SOURCES ${path})
  endforeach()
  if(arg_LABELS STREQUAL unit AND NOT CMS_UNIT_TESTS)
    return()
  endif()
  if(arg_LABELS MATCHES "^(integration|nas|netns)$" AND NOT CMS_INTEGRATION_TESTS)
    return()
  endif()
  cms_program(${name} SOURCES ${arg_SOURCES} LINK ${arg_LINK} GTest::gtest GTest::gmock GTest::gtest_main)
  cms_no_unity(${name})
  set_target_properties(${name} PROPERTIES CMS_IS_TEST ON)
  # After the build type's own: what is tested stays optimised, only the tests' own code does not.
  target_compile_options(${name} PRIVATE ${CMS_TEST_OPTIMISATION})
  if(CMS_TEST_PCH)
    cms_precompile(${name})
  endif()
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS ${arg_LABELS})
endfunction()

# A test file that is not in the build is an error: it would be green for ever.
function(cms_check_tests_are_built)
  file(GLOB_RECURSE files CONFIGURE_DEPENDS LIST_DIRECTORIES false ${PROJECT_SOURCE_DIR}/*_test.cc)
  get_property(built GLOBAL PROPERTY CMS_TEST_SOURCES)
  foreach(file ${files})
    if(NOT file MATCHES "^${PROJECT_SOURCE_DIR}/(build|out)" AND NOT file IN_LIST built)
      message(FATAL_ERROR "${file} is in no cms_test(): a test that is not built cannot fail")
    endif()
  endforeach()
endfunction()
