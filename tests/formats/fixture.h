/* Files of tests/formats/data, and what tests of file formats share. */
#ifndef TESTS_FORMATS_FIXTURE_H
#define TESTS_FORMATS_FIXTURE_H

#include "formats/formats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* "TEST_DATA/name" in a buffer that the next call uses again. */
const char *fixture_path(const char *name);
/* The file's bytes in a block of exactly that size, so that ASan sees every byte read beyond. */
uint8_t *fixture_bytes(const char *name, size_t *size);
/* A block of exactly `size` bytes; free() releases it. */
uint8_t *exact_copy(const void *bytes, size_t size);

/* Checks type, shape and every element: element i is value(start + i) of
 * tools/fixtures/make_format_fixtures.py. */
void expect_tensor(const named_tensor *tensor, element_type type, unsigned rank,
                   const size_t *shape, size_t start);
#define EXPECT_TENSOR(tensor, type, start, ...)                                                    \
    expect_tensor(tensor, type, sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t),                  \
                  (size_t[]){__VA_ARGS__}, start)

/* Checks that the message has every one of the texts (NULL ends the list) and is one line. */
void expect_message(const onestep_error *error, ...) __attribute__((sentinel));

/* A new folder under /tmp; temporary_remove deletes it with the files in it. */
char *temporary_folder(void);
/* "folder/name" in a buffer that the next call uses again. */
const char *temporary_path(const char *folder, const char *name);
void temporary_remove(char *folder);

#endif
