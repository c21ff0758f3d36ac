/* Reading picture files: Pillow's bytes, what is refused and how. */
#include "image/picture_helpers.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Every file of a folder's list.tsv (file, width, height, CRC) reads as its .rgb file says. */
static size_t check_list(const char *folder)
{
    char path[4096], line[LINE_SIZE], *fields[4];
    snprintf(path, sizeof path, "%s/list.tsv", folder);
    FILE *table = table_open(path);
    size_t files = 0;
    while (table_next(table, line, fields, 4)) {
        uint8_t *bytes, *expected;
        size_t size, expected_size;
        onestep_image image;
        onestep_error error;
        snprintf(path, sizeof path, "%s/%s", folder, fields[0]);
        file_read_all(path, &bytes, &size);
        if (image_decode(&image, bytes, size, NULL, &error) != ONESTEP_OK) {
            fail_msg("%s: %s", fields[0], error.message);
        }
        assert_int_equal(image.width, atoi(fields[1]));
        assert_int_equal(image.height, atoi(fields[2]));
        assert_int_equal(image.type, ONESTEP_PIXEL_U8);
        if (picture_crc(&image) != strtoul(fields[3], NULL, 16)) {
            fail_msg("%s: other pixels than Pillow's", fields[0]);
        }
        snprintf(path, sizeof path, "%s/%s.rgb", folder, fields[0]);
        file_read_all(path, &expected, &expected_size);
        assert_int_equal(expected_size, (size_t)image.width * image.height * 3);
        assert_memory_equal(expected, image.pixels, expected_size);
        memory_free(expected);
        memory_free(bytes);
        image_destroy(&image);
        files++;
    }
    fclose(table);
    return files;
}

static void reads_as_pillow(void **state)
{
    (void)state;
    assert_true(check_list(GOLDEN_FOLDER "images") >= 71);
    assert_int_equal(check_list(TEST_DATA), 8);
}

static void load_names_the_file(void **state)
{
    (void)state;
    onestep_image image;
    onestep_error error;
    assert_int_equal(image_load(&image, GOLDEN_FOLDER "images/png_rgb_8.png", NULL, &error),
                     ONESTEP_OK);
    assert_int_equal(image.width, 21);
    image_destroy(&image);
    assert_int_equal(image_load(&image, GOLDEN_FOLDER "images/list.tsv", NULL, &error),
                     ONESTEP_ERROR_FORMAT);
    check_contains(error.message, "list.tsv");
    check_contains(error.message, "text");
    assert_null(image.pixels);
    assert_int_equal(image_load(&image, "/no/such/file.png", NULL, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "/no/such/file.png");
}

static void foreign_files_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        onestep_status status;
        const char *name;
    } foreign[] = {
        {"", 0, ONESTEP_ERROR_FORMAT, "no bytes"},
        {"GIF89a\1\0\1\0", 10, ONESTEP_ERROR_UNSUPPORTED, "GIF"},
        {"BM\x46\0\0\0\0\0\0\0", 10, ONESTEP_ERROR_UNSUPPORTED, "BMP"},
        {"II*\0\x08\0\0\0", 8, ONESTEP_ERROR_UNSUPPORTED, "TIFF"},
        {"MM\0*\0\0\0\x08", 8, ONESTEP_ERROR_UNSUPPORTED, "TIFF"},
        {"\0\0\0\x18"
         "ftypheic\0\0\0\0",
         16, ONESTEP_ERROR_UNSUPPORTED, "HEIC"},
        {"\0\0\0\x18"
         "ftypavif\0\0\0\0",
         16, ONESTEP_ERROR_UNSUPPORTED, "AVIF"},
        {"\0\0\0\x18"
         "ftypisom\0\0\0\0",
         16, ONESTEP_ERROR_UNSUPPORTED, "video"},
        {"%PDF-1.7\n", 9, ONESTEP_ERROR_UNSUPPORTED, "PDF"},
        {"PK\3\4\x14\0", 6, ONESTEP_ERROR_UNSUPPORTED, "zip"},
        {"P6\n2 2\n255\n", 11, ONESTEP_ERROR_UNSUPPORTED, "PNM"},
        {"RIFF\0\0\0\0WAVE", 12, ONESTEP_ERROR_UNSUPPORTED, "RIFF"},
        {"\x89PNG\n\x1a\n\0", 8, ONESTEP_ERROR_UNSUPPORTED, "damaged PNG"},
        {"hello, world\n", 13, ONESTEP_ERROR_FORMAT, "text"},
        {"  <svg xmlns=\"\">", 16, ONESTEP_ERROR_FORMAT, "SVG"},
        {"\x01\x02\x03\x04", 4, ONESTEP_ERROR_FORMAT, "not a picture"},
        {"\xff\xd8", 2, ONESTEP_ERROR_FORMAT, "not a picture"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        expect_refused(foreign[i].bytes, foreign[i].size, foreign[i].status, foreign[i].name);
    }
}

/* A file cut anywhere is either refused by a clear message or, when only what lies behind the
 * pixels is missing, read as the whole one. */
static void truncated_files_are_refused(void **state)
{
    (void)state;
    char path[4096], line[LINE_SIZE], *fields[1];
    FILE *table = table_open(GOLDEN_FOLDER "images/list.tsv");
    size_t refused = 0, read = 0;
    while (table_next(table, line, fields, 1)) {
        uint8_t *bytes;
        size_t size;
        onestep_image whole, image;
        onestep_error error;
        snprintf(path, sizeof path, GOLDEN_FOLDER "images/%s", fields[0]);
        file_read_all(path, &bytes, &size);
        assert_int_equal(image_decode(&whole, bytes, size, NULL, &error), ONESTEP_OK);
        for (size_t cut = 0; cut < size; cut++) {
            /* A block of its own, so that AddressSanitizer sees every byte read beyond it. */
            uint8_t *part = malloc(cut + (cut == 0));
            assert_non_null(part);
            memcpy(part, bytes, cut);
            onestep_status status = image_decode(&image, part, cut, NULL, &error);
            if (status == ONESTEP_OK) {
                if (cut + 24 < size || !picture_equal(&image, &whole)) {
                    fail_msg("%s: cut at byte %zu of %zu, but read", fields[0], cut, size);
                }
                image_destroy(&image);
                read++;
            } else {
                if (strstr(error.message, "truncated") == NULL &&
                    strstr(error.message, "damaged") == NULL && cut >= 12) {
                    fail_msg("%s: cut at byte %zu: %s", fields[0], cut, error.message);
                }
                assert_null(image.pixels);
                refused++;
            }
            free(part);
        }
        image_destroy(&whole);
        memory_free(bytes);
    }
    fclose(table);
    assert_true(refused > 20 * read);
}

static void sizes_are_limited(void **state)
{
    (void)state;
    test_file file;
    uint8_t rows[64] = {0};
    static const struct {
        uint32_t width, height;
        onestep_status status;
        const char *text;
    } sizes[] = {
        {0, 5, ONESTEP_ERROR_FORMAT, "no pixels"},
        {5, 0, ONESTEP_ERROR_FORMAT, "no pixels"},
        {100000, 8, ONESTEP_ERROR_UNSUPPORTED, "100000 x 8"},
        {8, 100000, ONESTEP_ERROR_UNSUPPORTED, "65500"},
        {20000, 20000, ONESTEP_ERROR_UNSUPPORTED, "178956970"},
        {0xffffffff, 0xffffffff, ONESTEP_ERROR_UNSUPPORTED, "65500"},
        {13000, 13000, ONESTEP_ERROR_FORMAT, "Not enough image data"},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        test_png_begin(&file, sizes[i].width, sizes[i].height, 8, 2, 0);
        test_png_end(&file, rows, sizeof rows);
        expect_refused(file.bytes, file.size, sizes[i].status, sizes[i].text);
        test_file_free(&file);
    }
    uint8_t *bytes;
    size_t size;
    image_limits limits;
    onestep_image image;
    onestep_error error;
    static const char *const names[] = {"png_rgb_8.png", "jpeg_420.jpg", "webp_lossy.webp"};
    for (size_t i = 0; i < 3; i++) {
        char path[4096];
        snprintf(path, sizeof path, GOLDEN_FOLDER "images/%s", names[i]);
        file_read_all(path, &bytes, &size);
        image_limits_init(&limits);
        limits.max_side = 20;
        assert_int_equal(image_decode(&image, bytes, size, &limits, &error),
                         ONESTEP_ERROR_UNSUPPORTED);
        check_contains(error.message, "at most 20");
        limits = (image_limits){.max_side = 100, .max_pixels = 21 * 14 - 1};
        assert_int_equal(image_decode(&image, bytes, size, &limits, &error),
                         ONESTEP_ERROR_UNSUPPORTED);
        check_contains(error.message, "the limit of 293");
        limits.max_pixels = 37 * 27;
        assert_int_equal(image_decode(&image, bytes, size, &limits, &error), ONESTEP_OK);
        image_destroy(&image);
        memory_free(bytes);
    }
}

static size_t find_chunk(const test_file *file, const char *type)
{
    size_t offset = 8;
    while (memcmp(file->bytes + offset + 4, type, 4) != 0) {
        offset += 12 + ((size_t)file->bytes[offset + 2] << 8) + file->bytes[offset + 3];
        assert_true(offset + 8 < file->size);
    }
    return offset;
}

/* As for Pillow: checksums count up to the image data, not in it and not behind it. */
static void png_checksums(void **state)
{
    (void)state;
    static const struct {
        const char *chunk;
        bool accepted;
    } cases[] = {{"IHDR", false}, {"tEXt", false}, {"PLTE", false}, {"IDAT", true}, {"eXIf", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_file file;
        static const uint8_t rows[4] = {0, 1, 0, 1};
        test_png_begin(&file, 1, 2, 8, 3, 0);
        test_png_chunk(&file, "tEXt", "key\0value", 9);
        test_png_chunk(&file, "PLTE", "\1\2\3\4\5\6", 6);
        test_png_end(&file, rows, sizeof rows);
        file.size -= 12; /* IEND */
        test_png_chunk(&file, "eXIf", "II*\0\x08\0\0\0\0\0\0\0", 12);
        test_png_chunk(&file, "IEND", NULL, 0);
        size_t offset = find_chunk(&file, cases[i].chunk);
        file.bytes[offset + 8 + file.bytes[offset + 3]] ^= 1;
        if (cases[i].accepted) {
            onestep_image image;
            onestep_error error;
            if (image_decode(&image, file.bytes, file.size, NULL, &error) != ONESTEP_OK) {
                fail_msg("%s: %s", cases[i].chunk, error.message);
            }
            assert_memory_equal(image.pixels, "\4\5\6\4\5\6", 6);
            image_destroy(&image);
        } else {
            expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "checksum");
            expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, cases[i].chunk);
        }
        test_file_free(&file);
    }
}

static void damaged_png_headers(void **state)
{
    (void)state;
    static const struct {
        unsigned depth, color, interlace;
    } wrong[] = {{3, 0, 0}, {16, 3, 0}, {8, 1, 0}, {8, 7, 0}, {4, 2, 0}, {8, 2, 5}};
    uint8_t rows[64] = {0};
    test_file file;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        test_png_begin(&file, 2, 2, wrong[i].depth, wrong[i].color, wrong[i].interlace);
        test_png_chunk(&file, "PLTE", "\1\2\3", 3);
        test_png_end(&file, rows, sizeof rows);
        expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "damaged PNG: libpng");
        test_file_free(&file);
    }
    /* A palette picture without a palette; no header; no image data; garbage as image data. */
    test_png_begin(&file, 2, 2, 8, 3, 0);
    test_png_end(&file, rows, 6);
    expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "libpng");
    test_file_free(&file);
    test_file_append(&file, "\x89PNG\r\n\x1a\n", 8);
    test_png_end(&file, rows, 6);
    expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "no header");
    test_file_free(&file);
    test_png_begin(&file, 2, 2, 8, 2, 0);
    test_png_chunk(&file, "IEND", NULL, 0);
    expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "no image data");
    test_file_free(&file);
    test_png_begin(&file, 2, 2, 8, 2, 0);
    test_png_chunk(&file, "IDAT", "garbage", 7);
    test_png_chunk(&file, "IEND", NULL, 0);
    expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "libpng");
    test_file_free(&file);
}

/* Palette indices beyond the palette are black, as for Pillow. */
static void short_palette(void **state)
{
    (void)state;
    static const uint8_t rows[5] = {0, 0, 1, 2, 255};
    static const uint8_t expected[12] = {9, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    test_file file;
    onestep_image image;
    onestep_error error;
    test_png_begin(&file, 4, 1, 8, 3, 0);
    test_png_chunk(&file, "PLTE", "\x09\x08\x07", 3);
    test_png_end(&file, rows, sizeof rows);
    assert_int_equal(image_decode(&image, file.bytes, file.size, NULL, &error), ONESTEP_OK);
    assert_memory_equal(image.pixels, expected, sizeof expected);
    image_destroy(&image);
    test_file_free(&file);
}

/* Image data may be cut into chunks, empty ones too, but nothing may stand between them. */
static void png_image_data_chunks(void **state)
{
    (void)state;
    static const uint8_t rows[4] = {0, 17, 0, 18};
    uint8_t packed[64];
    uLongf size = sizeof packed;
    assert_int_equal(compress(packed, &size, rows, sizeof rows), Z_OK);
    for (int between = 0; between < 2; between++) {
        test_file file;
        test_png_begin(&file, 1, 2, 8, 0, 0);
        test_png_chunk(&file, "IDAT", packed, 1);
        test_png_chunk(&file, "IDAT", NULL, 0);
        if (between == 1) {
            test_png_chunk(&file, "tEXt", "key\0value", 9);
        }
        test_png_chunk(&file, "IDAT", packed + 1, size - 1);
        test_png_chunk(&file, "IEND", NULL, 0);
        if (between == 0) {
            onestep_image image;
            onestep_error error;
            assert_int_equal(image_decode(&image, file.bytes, file.size, NULL, &error), ONESTEP_OK);
            assert_memory_equal(image.pixels, "\x11\x11\x11\x12\x12\x12", 6);
            image_destroy(&image);
        } else {
            expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "truncated");
        }
        test_file_free(&file);
    }
}

static void damaged_jpegs(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size, frame = 0;
    file_read_all(GOLDEN_FOLDER "images/jpeg_420.jpg", &bytes, &size);
    while (bytes[frame] != 0xff || bytes[frame + 1] != 0xc0) {
        frame++;
        assert_true(frame + 20 < size);
    }
    uint8_t *header = bytes + frame; /* marker, length, precision, height, width, components */
    uint8_t kept[20];
    memcpy(kept, header, sizeof kept);
    header[5] = header[6] = 0;
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "libjpeg");
    memcpy(header, kept, sizeof kept);
    header[4] = 12;
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "libjpeg");
    memcpy(header, kept, sizeof kept);
    header[1] = 0xc3; /* lossless */
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "libjpeg");
    memcpy(header, kept, sizeof kept);
    header[7] = 0xff; /* 65,317 wide and 65,307 high */
    header[5] = 0xff;
    expect_refused(bytes, size, ONESTEP_ERROR_UNSUPPORTED, "pixels");
    memcpy(header, kept, sizeof kept);
    bytes[size - 1] = 0xd8; /* a second start where the end should be */
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "libjpeg");
    memory_free(bytes);
    expect_refused("\xff\xd8\xff\xd9", 4, ONESTEP_ERROR_FORMAT, "");
}

static void endless_scans_are_refused(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size, scan = 0;
    file_read_all(GOLDEN_FOLDER "images/jpeg_420_progressive.jpg", &bytes, &size);
    while (bytes[scan] != 0xff || bytes[scan + 1] != 0xda) {
        scan++;
        assert_true(scan < size);
    }
    size_t end = scan + 2;
    while (bytes[end] != 0xff || bytes[end + 1] == 0) {
        end++;
        assert_true(end < size);
    }
    test_file file = {0};
    test_file_append(&file, bytes, scan);
    for (int i = 0; i < 600; i++) {
        test_file_append(&file, bytes + scan, end - scan);
    }
    test_file_append(&file, "\xff\xd9", 2);
    expect_refused(file.bytes, file.size, ONESTEP_ERROR_FORMAT, "scans");
    test_file_free(&file);
    memory_free(bytes);
}

static void damaged_webps(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size;
    file_read_all(GOLDEN_FOLDER "images/webp_lossy.webp", &bytes, &size);
    bytes[16] ^= 0x20; /* the chunk's length */
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "damaged WebP");
    bytes[16] ^= 0x20;
    bytes[23] ^= 0x55; /* the bitstream's start code */
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "WebP");
    memory_free(bytes);
    file_read_all(TEST_DATA "/webp_animated.webp", &bytes, &size);
    uint8_t *frame = memmem(bytes, size, "ANMF", 4);
    assert_non_null(frame);
    frame[8] = 0xff; /* its place on the canvas */
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "canvas");
    memcpy(frame, "XXXX", 4);
    frame = memmem(bytes, size, "ANMF", 4);
    assert_non_null(frame);
    memcpy(frame, "XXXX", 4);
    expect_refused(bytes, size, ONESTEP_ERROR_FORMAT, "without frames");
    memory_free(bytes);
    expect_refused("RIFF\x04\0\0\0WEBP", 12, ONESTEP_ERROR_FORMAT, "WebP");
}

/* Whatever single byte is damaged: a clear error or a picture, and nothing of it leaks. */
static void flipped_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {
        "png_palette_4_interlaced.png", "png_rgb_8_text.png", "jpeg_orientation_6.jpg",
        "jpeg_420_progressive.jpg",     "webp_lossy.webp",    "webp_lossy_alpha.webp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        uint8_t *bytes;
        size_t size;
        snprintf(path, sizeof path, GOLDEN_FOLDER "images/%s", names[i]);
        file_read_all(path, &bytes, &size);
        for (size_t byte = 0; byte < size; byte++) {
            for (unsigned flip = 1; flip < 256; flip = flip * 16 + 15) {
                onestep_image image;
                onestep_error error = {0};
                bytes[byte] ^= (uint8_t)flip;
                onestep_status status = image_decode(&image, bytes, size, NULL, &error);
                bytes[byte] ^= (uint8_t)flip;
                assert_true(status == ONESTEP_OK ? image.pixels != NULL : image.pixels == NULL);
                assert_true(status == ONESTEP_OK || error.message[0] != '\0');
                image_destroy(&image);
            }
        }
        memory_free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_as_pillow),
        cmocka_unit_test(load_names_the_file),
        cmocka_unit_test(foreign_files_are_named),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(sizes_are_limited),
        cmocka_unit_test(png_checksums),
        cmocka_unit_test(damaged_png_headers),
        cmocka_unit_test(short_palette),
        cmocka_unit_test(png_image_data_chunks),
        cmocka_unit_test(damaged_jpegs),
        cmocka_unit_test(endless_scans_are_refused),
        cmocka_unit_test(damaged_webps),
        cmocka_unit_test(flipped_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
