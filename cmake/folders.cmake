# One static library a folder of src/, so that the order of docs/ARCHITECTURE.md is what the linker
# sees, and a test links only what it tests.

set(ONESTEP_C_FLAGS -std=c11 -D_GNU_SOURCE -fvisibility=hidden -fPIC -ffp-contract=off
  -fno-math-errno -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes
  -Wpointer-arith -Wwrite-strings -Wno-missing-field-initializers)
if(ONESTEP_WERROR)
  list(APPEND ONESTEP_C_FLAGS -Werror)
endif()
if(ONESTEP_SANITIZE)
  add_compile_options(-fsanitize=${ONESTEP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${ONESTEP_SANITIZE})
endif()
if(ONESTEP_FUZZERS)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# A file has its instruction set in its name and gets just those flags; the choice between files is
# made at run time.
function(onestep_isa_flags)
  foreach(source ${ARGN})
    get_filename_component(stem ${source} NAME_WE)
    if(stem MATCHES "_avx2$")
      set(flags -mavx2 -mfma -mf16c)
    elseif(stem MATCHES "_avxvnni$")
      set(flags -mavx2 -mfma -mf16c -mavxvnni)
    elseif(stem MATCHES "_avx512$")
      set(flags -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl)
    elseif(stem MATCHES "_avx512vnni$")
      set(flags -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni)
    elseif(stem MATCHES "_avx512bf16$")
      set(flags -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
        -mavx512bf16)
    elseif(stem MATCHES "_neon$" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
      # GCC 12 loads all of a step's numbers before it multiplies, and has no registers left for sums.
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -fno-schedule-insns)
      continue()
    else()
      continue()
    endif()
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
    endif()
  endforeach()
endfunction()

# onestep_folder(NAME USES folders... LIBRARIES imported targets...): src/NAME as a static library.
function(onestep_folder name)
  cmake_parse_arguments(FOLDER "" "" "USES;LIBRARIES;PRIVATE_LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.c)
  if(NOT sources)
    add_library(onestep_${name} INTERFACE)
    set(scope INTERFACE)
  else()
    if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
      list(FILTER sources EXCLUDE REGEX "_avx[0-9a-z]*\\.c$")
    endif()
    if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
      list(FILTER sources EXCLUDE REGEX "_neon\\.c$")
    endif()
    onestep_isa_flags(${sources})
    add_library(onestep_${name} STATIC ${sources})
    target_compile_options(onestep_${name} PRIVATE ${ONESTEP_C_FLAGS})
    if(ONESTEP_FUZZERS AND name STREQUAL "backend")
      # No fuzzer's bytes reach a kernel; instrumenting them would take minutes.
      target_compile_options(onestep_backend PRIVATE -O1 -fno-sanitize=all
        -fno-sanitize=fuzzer-no-link)
    endif()
    set(scope PUBLIC)
    set_property(GLOBAL APPEND PROPERTY ONESTEP_FOLDERS onestep_${name})
  endif()
  target_include_directories(onestep_${name} ${scope}
    ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  foreach(used ${FOLDER_USES})
    target_link_libraries(onestep_${name} ${scope} onestep_${used})
  endforeach()
  target_link_libraries(onestep_${name} ${scope} ${FOLDER_LIBRARIES} ${FOLDER_PRIVATE_LIBRARIES})
endfunction()

# A file as the initialiser of an array of bytes, in embedded/NAME of the build folder.
function(onestep_embed file name)
  file(READ ${CMAKE_SOURCE_DIR}/${file} digits HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${digits}")
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/embedded/${name} CONTENT "${bytes}\n")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
endfunction()

# Files of the web page, as FILE (web/NAME becomes /NAME) or FILE=PATH: page_arrays.inc has
# the bytes, page_table.inc {path, bytes, size} of each.
function(onestep_page)
  set(arrays "")
  set(table "")
  foreach(entry ${ARGN})
    string(REGEX REPLACE "=.*" "" file ${entry})
    string(REGEX REPLACE ".*=|^web" "" path ${entry})
    string(MAKE_C_IDENTIFIER page_${file} name)
    onestep_embed(${file} ${name}.inc)
    string(APPEND arrays "static const uint8_t ${name}[] = {\n#include \"${name}.inc\"\n};\n")
    string(APPEND table "    {\"${path}\", ${name}, sizeof ${name}},\n")
  endforeach()
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/embedded/page_arrays.inc CONTENT "${arrays}")
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/embedded/page_table.inc CONTENT "${table}")
endfunction()

# The library from all folders: libonestep.so with only the public names, and libonestep.a as one
# object whose internal names are made local, so that they cannot meet a program's own.
function(onestep_library)
  get_property(folders GLOBAL PROPERTY ONESTEP_FOLDERS)
  set(empty ${CMAKE_BINARY_DIR}/onestep_library.c)
  file(GENERATE OUTPUT ${empty} CONTENT "/* The library's code comes from its folders. */\n")
  set(whole "")
  foreach(folder ${folders})
    list(APPEND whole $<TARGET_FILE:${folder}>)
  endforeach()

  add_library(onestep_shared SHARED ${empty})
  target_link_libraries(onestep_shared PRIVATE -Wl,--whole-archive ${folders} -Wl,--no-whole-archive)
  # Addresses of functions are found at the start and cannot be overwritten after it.
  target_link_options(onestep_shared PRIVATE -Wl,-z,relro,-z,now)
  set_target_properties(onestep_shared PROPERTIES OUTPUT_NAME onestep VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR})
  target_include_directories(onestep_shared INTERFACE
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

  set(archive ${CMAKE_BINARY_DIR}/libonestep.a)
  set(object ${CMAKE_BINARY_DIR}/onestep_whole.o)
  add_custom_command(OUTPUT ${archive}
    COMMAND ${CMAKE_LINKER} -r -o ${object} --whole-archive ${whole}
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${object}
    COMMAND ${CMAKE_COMMAND} -E rm -f ${archive}
    COMMAND ${CMAKE_AR} rcs ${archive} ${object}
    DEPENDS ${folders} COMMENT "libonestep.a" VERBATIM)
  add_custom_target(onestep_static ALL DEPENDS ${archive})

  # From the package files back to the prefix, however deep the library folder lies.
  file(RELATIVE_PATH ONESTEP_PREFIX_FROM_PKGCONFIG /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  file(RELATIVE_PATH ONESTEP_PREFIX_FROM_PACKAGE
    /${CMAKE_INSTALL_LIBDIR}/cmake/onestep /)
  configure_file(${CMAKE_SOURCE_DIR}/cmake/onestep.pc.in ${CMAKE_BINARY_DIR}/onestep.pc @ONLY)
  configure_file(${CMAKE_SOURCE_DIR}/cmake/onestepConfig.cmake.in
    ${CMAKE_BINARY_DIR}/onestepConfig.cmake @ONLY)
  include(CMakePackageConfigHelpers)
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/onestepConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
  install(TARGETS onestep_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${CMAKE_SOURCE_DIR}/include/onestep.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(FILES ${CMAKE_BINARY_DIR}/onestep.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  install(FILES ${CMAKE_BINARY_DIR}/onestepConfig.cmake
    ${CMAKE_BINARY_DIR}/onestepConfigVersion.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/onestep)
endfunction()

function(onestep_program)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cli/*.c)
  add_executable(onestep ${sources})
  target_compile_options(onestep PRIVATE ${ONESTEP_C_FLAGS})
  target_include_directories(onestep PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(onestep PRIVATE onestep_store onestep_api)
  target_link_options(onestep PRIVATE -Wl,-z,relro,-z,now)
  set_target_properties(onestep PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  install(TARGETS onestep RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # Manual pages and completion come from the program's own tables.
  if(NOT CMAKE_CROSSCOMPILING)
    set(written ${CMAKE_BINARY_DIR}/man/onestep.1)
    add_custom_command(OUTPUT ${written}
      COMMAND ${CMAKE_SOURCE_DIR}/tools/write_manuals $<TARGET_FILE:onestep> ${CMAKE_BINARY_DIR}
      DEPENDS onestep ${CMAKE_SOURCE_DIR}/tools/write_manuals COMMENT "manual pages" VERBATIM)
    add_custom_target(onestep_manuals ALL DEPENDS ${written})
    install(DIRECTORY ${CMAKE_BINARY_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    install(FILES ${CMAKE_BINARY_DIR}/completion/onestep
      DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    install(FILES ${CMAKE_BINARY_DIR}/completion/_onestep
      DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
    install(FILES ${CMAKE_BINARY_DIR}/completion/onestep.fish
      DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
  endif()
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/models/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/onestep)
endfunction()
