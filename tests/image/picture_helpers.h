/* Pictures and files for the tests of src/image. Failures end the test (cmocka). */
#ifndef TESTS_PICTURE_HELPERS_H
#define TESTS_PICTURE_HELPERS_H

#include "image/image.h"
#include "support/check.h"

#include <stdio.h>

#define GOLDEN_FOLDER PROJECT_FOLDER "/tests/golden/"

/* The generated pictures of tests/golden/README.md. */
void picture_generate(onestep_image *image, unsigned pattern, uint32_t seed, uint32_t width,
                      uint32_t height);

/* zlib's CRC-32 of the rows; that of every third byte (one channel of a grey picture). */
uint32_t picture_crc(const onestep_image *image);
uint32_t picture_channel_crc(const onestep_image *image);

/* Same sides, same bytes. */
bool picture_equal(const onestep_image *a, const onestep_image *b);

/* A whole file; released with memory_free. */
void file_read_all(const char *path, uint8_t **bytes, size_t *size);

/* The next line's fields (tabs between them), pointing into `line`; false at the end. */
enum { LINE_SIZE = 4096 };
bool table_next(FILE *table, char line[LINE_SIZE], char **fields, size_t count);
FILE *table_open(const char *path);

/* Files made up in memory. */
typedef struct test_file {
    uint8_t *bytes;
    size_t size;
} test_file;

void test_file_append(test_file *file, const void *bytes, size_t size);
void test_file_free(test_file *file);
/* Signature and header of a PNG. */
void test_png_begin(test_file *file, uint32_t width, uint32_t height, unsigned depth,
                    unsigned color, unsigned interlace);
/* A chunk with the right checksum. */
void test_png_chunk(test_file *file, const char *type, const void *data, size_t size);
/* An IDAT chunk with `size` bytes deflated, then IEND. */
void test_png_end(test_file *file, const void *rows, size_t size);

/* Sets `image` to an error and checks status, emptiness and that the message holds `text`. */
void expect_refused(const void *bytes, size_t size, onestep_status status, const char *text);

#endif
