#include "image/picture_helpers.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static unsigned sample(unsigned pattern, uint32_t r, uint32_t x, uint32_t y, uint32_t c,
                       uint32_t width, uint32_t height)
{
    int64_t dx = (int64_t)x - width / 2, dy = (int64_t)y - height / 2;
    int64_t radius = (width < height ? width : height) / 3;
    switch (pattern) {
    case 0:
        return r;
    case 1:
        return 100 + (r >> 4);
    case 2:
        return 5 * x + 3 * y + 17 * c + (r >> 4);
    case 3:
        return ((x / 5 + y / 7) & 1) != 0 ? 200 - (r >> 3) : 20 + (r >> 2);
    default:
        return (dx * dx + dy * dy < radius * radius ? 120 + 45 * c : 60) + (r >> 4);
    }
}

void picture_generate(onestep_image *image, unsigned pattern, uint32_t seed, uint32_t width,
                      uint32_t height)
{
    onestep_error error;
    assert_int_equal(image_create(image, width, height, ONESTEP_PIXEL_U8, &error), ONESTEP_OK);
    uint32_t state = seed;
    uint8_t *byte = image->pixels;
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                state = state * 1664525u + 1013904223u;
                *byte++ = (uint8_t)sample(pattern, state >> 24, x, y, c, width, height);
            }
        }
    }
}

uint32_t picture_crc(const onestep_image *image)
{
    uLong crc = crc32(0, NULL, 0);
    for (uint32_t y = 0; y < image->height; y++) {
        crc = crc32(crc, (const uint8_t *)image->pixels + y * image->stride, 3 * image->width);
    }
    return (uint32_t)crc;
}

uint32_t picture_channel_crc(const onestep_image *image)
{
    uLong crc = crc32(0, NULL, 0);
    for (uint32_t y = 0; y < image->height; y++) {
        const uint8_t *row = (const uint8_t *)image->pixels + y * image->stride;
        for (uint32_t x = 0; x < image->width; x++) {
            crc = crc32(crc, row + 3 * (size_t)x, 1);
        }
    }
    return (uint32_t)crc;
}

bool picture_equal(const onestep_image *a, const onestep_image *b)
{
    if (a->width != b->width || a->height != b->height) {
        return false;
    }
    for (uint32_t y = 0; y < a->height; y++) {
        if (memcmp((const uint8_t *)a->pixels + y * a->stride,
                   (const uint8_t *)b->pixels + y * b->stride, 3 * (size_t)a->width) != 0) {
            return false;
        }
    }
    return true;
}

void file_read_all(const char *path, uint8_t **bytes, size_t *size)
{
    onestep_error error;
    if (file_read(path, (size_t)1 << 30, bytes, size, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
}

FILE *table_open(const char *path)
{
    FILE *table = fopen(path, "r");
    if (table == NULL) {
        fail_msg("cannot open %s", path);
    }
    return table;
}

bool table_next(FILE *table, char line[LINE_SIZE], char **fields, size_t count)
{
    if (fgets(line, LINE_SIZE, table) == NULL) {
        return false;
    }
    line[strcspn(line, "\n")] = '\0';
    char *rest = line;
    for (size_t i = 0; i < count; i++) {
        fields[i] = strsep(&rest, "\t");
        if (fields[i] == NULL) {
            fail_msg("a line of the table has fewer than %zu fields", count);
        }
    }
    return true;
}

void test_file_append(test_file *file, const void *bytes, size_t size)
{
    file->bytes = realloc(file->bytes, file->size + size + 1);
    assert_non_null(file->bytes);
    if (size > 0) {
        memcpy(file->bytes + file->size, bytes, size);
    }
    file->size += size;
}

void test_file_free(test_file *file)
{
    free(file->bytes);
    *file = (test_file){0};
}

static void append_be32(test_file *file, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                        (uint8_t)value};
    test_file_append(file, bytes, 4);
}

void test_png_chunk(test_file *file, const char *type, const void *data, size_t size)
{
    append_be32(file, (uint32_t)size);
    test_file_append(file, type, 4);
    test_file_append(file, data, size);
    append_be32(file, (uint32_t)crc32(0, file->bytes + file->size - size - 4, (uInt)size + 4));
}

void test_png_begin(test_file *file, uint32_t width, uint32_t height, unsigned depth,
                    unsigned color, unsigned interlace)
{
    *file = (test_file){0};
    test_file_append(file, "\x89PNG\r\n\x1a\n", 8);
    uint8_t header[13] = {(uint8_t)(width >> 24),
                          (uint8_t)(width >> 16),
                          (uint8_t)(width >> 8),
                          (uint8_t)width,
                          (uint8_t)(height >> 24),
                          (uint8_t)(height >> 16),
                          (uint8_t)(height >> 8),
                          (uint8_t)height,
                          (uint8_t)depth,
                          (uint8_t)color,
                          0,
                          0,
                          (uint8_t)interlace};
    test_png_chunk(file, "IHDR", header, sizeof header);
}

void test_png_end(test_file *file, const void *rows, size_t size)
{
    uLongf capacity = compressBound(size);
    uint8_t *packed = malloc(capacity);
    assert_non_null(packed);
    assert_int_equal(compress(packed, &capacity, rows, size), Z_OK);
    test_png_chunk(file, "IDAT", packed, capacity);
    test_png_chunk(file, "IEND", NULL, 0);
    free(packed);
}

void expect_refused(const void *bytes, size_t size, onestep_status status, const char *text)
{
    onestep_image image;
    memset(&image, 0xa5, sizeof image);
    onestep_error error = {0};
    onestep_status found = image_decode(&image, bytes, size, NULL, &error);
    if (found != status) {
        fail_msg("status %d (%s) instead of %d", found, error.message, status);
    }
    assert_int_equal(error.code, status);
    assert_null(image.pixels);
    assert_int_equal(image.width, 0);
    check_contains(error.message, text);
    assert_null(strchr(error.message, '\n'));
}
