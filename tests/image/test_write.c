/* Writing picture files and the texts in them. */
#include "image/picture_helpers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static const image_format formats[] = {IMAGE_FORMAT_PNG, IMAGE_FORMAT_JPEG, IMAGE_FORMAT_WEBP};

static void encode(const onestep_image *image, image_format format, int quality,
                   const image_metadata *metadata, uint8_t **bytes, size_t *size)
{
    onestep_error error;
    if (image_encode(bytes, size, image, format, quality, metadata, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(image_format_of_bytes(*bytes, *size), format);
}

static double mean_difference(const onestep_image *a, const onestep_image *b)
{
    double sum = 0.0;
    size_t count = (size_t)a->width * a->height * 3;
    for (size_t i = 0; i < count; i++) {
        sum += abs(((const uint8_t *)a->pixels)[i] - ((const uint8_t *)b->pixels)[i]);
    }
    return sum / (double)count;
}

static void decode(onestep_image *image, const uint8_t *bytes, size_t size)
{
    onestep_error error;
    if (image_decode(image, bytes, size, NULL, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
}

static void pictures_come_back(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {1, 50}, {50, 1}, {7, 9}, {64, 64}, {333, 77}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t f = 0; f < 3; f++) {
            onestep_image image, read;
            uint8_t *bytes;
            size_t size;
            picture_generate(&image, 2, 7, sizes[i][0], sizes[i][1]);
            encode(&image, formats[f], 0, NULL, &bytes, &size);
            decode(&read, bytes, size);
            assert_int_equal(read.width, image.width);
            assert_int_equal(read.height, image.height);
            if (formats[f] == IMAGE_FORMAT_PNG) {
                assert_true(picture_equal(&image, &read));
            } else {
                assert_true(mean_difference(&image, &read) < 12.0);
            }
            memory_free(bytes);
            image_destroy(&read);
            image_destroy(&image);
        }
    }
}

/* The file that Pillow 12.3 (libjpeg-turbo 3.1.4) writes with save(quality=95), byte for byte. */
static void jpeg_is_pillows(void **state)
{
    (void)state;
    static const struct {
        unsigned pattern;
        uint32_t width, height;
        int quality;
        uint32_t crc;
    } files[] = {
#include "image/data/jpeg_crcs.inc"
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        onestep_image image;
        uint8_t *bytes;
        size_t size;
        picture_generate(&image, files[i].pattern, 11, files[i].width, files[i].height);
        encode(&image, IMAGE_FORMAT_JPEG, files[i].quality, NULL, &bytes, &size);
        assert_int_equal(crc32(0, bytes, (uInt)size), files[i].crc);
        memory_free(bytes);
        image_destroy(&image);
    }
}

static void quality_counts(void **state)
{
    (void)state;
    onestep_image image;
    onestep_error error;
    uint8_t *bytes;
    size_t size;
    picture_generate(&image, 4, 1, 120, 90);
    for (size_t f = 1; f < 3; f++) {
        size_t last = 0;
        static const int qualities[] = {1, 40, 80, 0, 100};
        for (size_t q = 0; q < 5; q++) {
            encode(&image, formats[f], qualities[q], NULL, &bytes, &size);
            assert_true(size > last);
            last = size;
            memory_free(bytes);
        }
    }
    static const int wrong[] = {-1, 101, 1000};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(
            image_encode(&bytes, &size, &image, IMAGE_FORMAT_JPEG, wrong[i], NULL, &error),
            ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "quality");
        assert_null(bytes);
    }
    image_destroy(&image);
}

static void rows_may_be_apart(void **state)
{
    (void)state;
    onestep_image image, part, copy;
    onestep_error error;
    picture_generate(&image, 0, 3, 40, 30);
    part = image;
    part.width = 13;
    part.height = 17;
    part.pixels = (uint8_t *)image.pixels + 3 * 5 + 6 * image.stride;
    assert_int_equal(image_crop(&copy, &image, 5, 6, 13, 17, &error), ONESTEP_OK);
    for (size_t f = 0; f < 3; f++) {
        uint8_t *from_part, *from_copy;
        size_t part_size, copy_size;
        encode(&part, formats[f], 90, NULL, &from_part, &part_size);
        encode(&copy, formats[f], 90, NULL, &from_copy, &copy_size);
        assert_int_equal(part_size, copy_size);
        assert_memory_equal(from_part, from_copy, copy_size);
        memory_free(from_part);
        memory_free(from_copy);
    }
    image_destroy(&copy);
    image_destroy(&image);
}

static void too_large_for_the_format(void **state)
{
    (void)state;
    onestep_error error;
    uint8_t *bytes;
    size_t size;
    onestep_image tall = {.width = 1, .height = 65501, .stride = 3};
    tall.pixels = calloc(tall.height, 3);
    assert_non_null(tall.pixels);
    assert_int_equal(image_encode(&bytes, &size, &tall, IMAGE_FORMAT_JPEG, 0, NULL, &error),
                     ONESTEP_ERROR_UNSUPPORTED);
    check_contains(error.message, "65500");
    tall.height = 16384;
    assert_int_equal(image_encode(&bytes, &size, &tall, IMAGE_FORMAT_WEBP, 0, NULL, &error),
                     ONESTEP_ERROR_UNSUPPORTED);
    check_contains(error.message, "16383");
    assert_int_equal(image_encode(&bytes, &size, &tall, IMAGE_FORMAT_UNKNOWN, 0, NULL, &error),
                     ONESTEP_ERROR_ARGUMENT);
    free(tall.pixels);
    float value[3] = {0};
    onestep_image floats = {
        .width = 1, .height = 1, .stride = 12, .type = ONESTEP_PIXEL_F32, .pixels = value};
    onestep_image empty = {0};
    assert_int_equal(image_encode(&bytes, &size, &floats, IMAGE_FORMAT_PNG, 0, NULL, &error),
                     ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(image_encode(&bytes, &size, &empty, IMAGE_FORMAT_PNG, 0, NULL, &error),
                     ONESTEP_ERROR_ARGUMENT);
}

static void suffixes(void **state)
{
    (void)state;
    assert_int_equal(image_format_of_name("a/b.c/photo.JPeG"), IMAGE_FORMAT_JPEG);
    assert_int_equal(image_format_of_name("photo.jpg"), IMAGE_FORMAT_JPEG);
    assert_int_equal(image_format_of_name("x.y.webp"), IMAGE_FORMAT_WEBP);
    assert_int_equal(image_format_of_name("png"), IMAGE_FORMAT_PNG);
    assert_int_equal(image_format_of_name("folder.png/file"), IMAGE_FORMAT_UNKNOWN);
    assert_int_equal(image_format_of_name("a.gif"), IMAGE_FORMAT_UNKNOWN);
    assert_int_equal(image_format_of_name(""), IMAGE_FORMAT_UNKNOWN);
    for (size_t f = 0; f < 3; f++) {
        assert_int_equal(image_format_of_name(image_format_suffix(formats[f])), formats[f]);
        assert_int_equal(image_format_of_name(image_format_name(formats[f])), formats[f]);
    }
}

static void saving(void **state)
{
    (void)state;
    char folder[] = "/tmp/onestep-image-XXXXXX", path[128];
    assert_non_null(mkdtemp(folder));
    onestep_image image, read;
    onestep_error error;
    picture_generate(&image, 3, 5, 30, 20);
    snprintf(path, sizeof path, "%s/a.png", folder);
    assert_int_equal(image_save(&image, path, 0, NULL, &error), ONESTEP_OK);
    assert_int_equal(image_load(&read, path, NULL, &error), ONESTEP_OK);
    assert_true(picture_equal(&image, &read));
    image_destroy(&read);
    unlink(path);
    snprintf(path, sizeof path, "%s/a.bmp", folder);
    assert_int_equal(image_save(&image, path, 0, NULL, &error), ONESTEP_ERROR_ARGUMENT);
    check_contains(error.message, "a.bmp");
    snprintf(path, sizeof path, "%s/none/a.png", folder);
    assert_int_equal(image_save(&image, path, 0, NULL, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "none/a.png");
    assert_int_equal(rmdir(folder), 0);
    image_destroy(&image);
}

/* ---- texts ---- */

static const char *const texts[][2] = {
    {"prompt", "a blue bird, 50% \"off\" \\ back\\slash"},
    {"Software", "onestep 0.1.0"},
    {"two lines", "first\nsecond\r\nthird\n"},
    {"empty", ""},
    {"weather", "\xe9\x9b\xa8\xe2\x86\x92\xe6\x99\xb4 \xc3\xa9 \xf0\x9f\x90\xa6"},
    {"colon", "key: value: more"},
    {"prompt", "the same key again"},
};

enum { TEXTS = sizeof texts / sizeof *texts };

static void add_texts(image_metadata *metadata)
{
    onestep_error error;
    for (size_t i = 0; i < TEXTS; i++) {
        if (image_metadata_add(metadata, texts[i][0], texts[i][1], &error) != ONESTEP_OK) {
            fail_msg("%s", error.message);
        }
    }
}

static void texts_come_back(void **state)
{
    (void)state;
    onestep_image image, plain, with_texts;
    onestep_error error;
    image_metadata metadata = {0}, read;
    picture_generate(&image, 1, 2, 33, 21);
    add_texts(&metadata);
    char *long_text = malloc(200001);
    assert_non_null(long_text);
    memset(long_text, 'x', 200000);
    long_text[200000] = '\0';
    assert_int_equal(image_metadata_add(&metadata, "long", long_text, &error), ONESTEP_OK);
    for (size_t f = 0; f < 3; f++) {
        uint8_t *bytes;
        size_t size;
        encode(&image, formats[f], 0, NULL, &bytes, &size);
        decode(&plain, bytes, size);
        read = (image_metadata){0};
        assert_int_equal(image_metadata_read(&read, bytes, size, &error), ONESTEP_OK);
        assert_int_equal(read.count, 0);
        image_metadata_free(&read);
        memory_free(bytes);
        encode(&image, formats[f], 0, &metadata, &bytes, &size);
        decode(&with_texts, bytes, size);
        assert_true(picture_equal(&plain, &with_texts));
        assert_int_equal(image_metadata_read(&read, bytes, size, &error), ONESTEP_OK);
        assert_int_equal(read.count, metadata.count);
        for (size_t i = 0; i < read.count; i++) {
            assert_string_equal(read.entries[i].key, metadata.entries[i].key);
            assert_string_equal(read.entries[i].value, metadata.entries[i].value);
        }
        assert_string_equal(image_metadata_find(&read, "prompt"), texts[0][1]);
        assert_null(image_metadata_find(&read, "absent"));
        image_metadata_free(&read);
        image_destroy(&plain);
        image_destroy(&with_texts);
        memory_free(bytes);
    }
    free(long_text);
    image_metadata_free(&metadata);
    image_destroy(&image);
}

/* ASCII stays readable by tools that know tEXt only; everything else is iTXt. */
static void png_text_kinds(void **state)
{
    (void)state;
    onestep_image image;
    image_metadata metadata = {0};
    uint8_t *bytes;
    size_t size;
    picture_generate(&image, 1, 2, 5, 5);
    add_texts(&metadata);
    encode(&image, IMAGE_FORMAT_PNG, 0, &metadata, &bytes, &size);
    assert_non_null(memmem(bytes, size, "tEXtprompt\0a blue", 17));
    assert_non_null(memmem(bytes, size, "iTXtweather\0\0\0", 14));
    memory_free(bytes);
    image_metadata_free(&metadata);
    image_destroy(&image);
}

static void keys_and_values_are_checked(void **state)
{
    (void)state;
    char long_key[81];
    memset(long_key, 'k', 80);
    long_key[80] = '\0';
    const char *const wrong_keys[] = {"", " a", "a ", "a  b", "a:b", "a\nb", "\xc3\xa9", long_key};
    image_metadata metadata = {0};
    onestep_error error;
    for (size_t i = 0; i < sizeof wrong_keys / sizeof *wrong_keys; i++) {
        assert_int_equal(image_metadata_add(&metadata, wrong_keys[i], "x", &error),
                         ONESTEP_ERROR_ARGUMENT);
    }
    static const char *const wrong_values[] = {
        "\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82x"};
    for (size_t i = 0; i < sizeof wrong_values / sizeof *wrong_values; i++) {
        assert_int_equal(image_metadata_add(&metadata, "key", wrong_values[i], &error),
                         ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "UTF-8");
    }
    assert_int_equal(metadata.count, 0);
    long_key[79] = '\0';
    assert_int_equal(image_metadata_add(&metadata, long_key, "x", &error), ONESTEP_OK);
    assert_string_equal(image_metadata_find(&metadata, long_key), "x");
    image_metadata_free(&metadata);
    assert_int_equal(metadata.count, 0);
}

static void others_texts_are_read(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size;
    onestep_error error;
    image_metadata read = {0};
    file_read_all(TEST_DATA "/png_texts.png", &bytes, &size);
    assert_int_equal(image_metadata_read(&read, bytes, size, &error), ONESTEP_OK);
    assert_int_equal(read.count, 4);
    assert_string_equal(image_metadata_find(&read, "Author"), "Jos\xc3\xa9");
    assert_string_equal(image_metadata_find(&read, "Title"),
                        "\xe9\x9b\xa8\xe2\x86\x92\xe6\x99\xb4");
    assert_int_equal(strlen(image_metadata_find(&read, "Long")), 550);
    assert_int_equal(strlen(image_metadata_find(&read, "Packed")), 36);
    image_metadata_free(&read);
    memory_free(bytes);
    /* A comment in Latin-1 of another program. */
    file_read_all(GOLDEN_FOLDER "images/jpeg_420.jpg", &bytes, &size);
    test_file file = {0};
    test_file_append(&file, bytes, 2);
    test_file_append(&file, "\xff\xfe\0\x06gr\xfc", 7);
    test_file_append(&file, "\xdf", 1);
    file.bytes[5] = 6;
    test_file_append(&file, bytes + 2, size - 2);
    assert_int_equal(image_metadata_read(&read, file.bytes, file.size, &error), ONESTEP_OK);
    assert_int_equal(read.count, 1);
    assert_string_equal(image_metadata_find(&read, "Comment"), "gr\xc3\xbc\xc3\x9f");
    image_metadata_free(&read);
    test_file_free(&file);
    memory_free(bytes);
    assert_int_equal(image_metadata_read(&read, "GIF89a", 6, &error), ONESTEP_ERROR_FORMAT);
}

/* Damaged texts are skipped; a small file cannot ask for much memory. */
static void hostile_texts(void **state)
{
    (void)state;
    static const uint8_t rows[2] = {0, 0};
    size_t bomb_size = (size_t)64 << 20;
    uint8_t *zeros = malloc(bomb_size);
    assert_non_null(zeros);
    memset(zeros, 'z', bomb_size);
    uLongf packed_size = compressBound(bomb_size);
    uint8_t *packed = malloc(packed_size + 6);
    assert_non_null(packed);
    memcpy(packed, "bomb\0\0", 6);
    assert_int_equal(compress(packed + 6, &packed_size, zeros, bomb_size), Z_OK);
    test_file file;
    test_png_begin(&file, 1, 1, 8, 0, 0);
    test_png_chunk(&file, "zTXt", packed, packed_size + 6);
    test_png_chunk(&file, "tEXt", "no separator", 12);
    test_png_chunk(&file, "tEXt", "\0no key", 7);
    test_png_chunk(&file, "zTXt", "key", 3);
    test_png_chunk(&file, "zTXt", "key\0", 4);
    test_png_chunk(&file, "zTXt", "key\0\1x", 6);
    test_png_chunk(&file, "zTXt", "key\0\0garbage", 12);
    test_png_chunk(&file, "iTXt", "key\0\0", 5);
    test_png_chunk(&file, "iTXt", "key\0\0\0language", 14);
    test_png_chunk(&file, "iTXt", "key\0\0\0\0translated", 17);
    test_png_chunk(&file, "iTXt", "key\0\1\0\0\0garbage", 15);
    test_png_chunk(&file, "tEXt", "wrong\0checksum", 14);
    file.bytes[file.size - 1] ^= 1;
    test_png_chunk(&file, "tEXt", "good\0one", 8);
    test_png_chunk(&file, "iTXt", "broken\0\0\0\0\0\xff\xfe", 13);
    test_png_end(&file, rows, sizeof rows);
    image_metadata read = {0};
    onestep_error error;
    assert_int_equal(image_metadata_read(&read, file.bytes, file.size, &error), ONESTEP_OK);
    assert_int_equal(read.count, 2);
    assert_string_equal(image_metadata_find(&read, "good"), "one");
    assert_string_equal(image_metadata_find(&read, "broken"), "\xc3\xbf\xc3\xbe");
    image_metadata_free(&read);
    test_file_free(&file);
    free(packed);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_come_back),
        cmocka_unit_test(jpeg_is_pillows),
        cmocka_unit_test(quality_counts),
        cmocka_unit_test(rows_may_be_apart),
        cmocka_unit_test(too_large_for_the_format),
        cmocka_unit_test(suffixes),
        cmocka_unit_test(saving),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(png_text_kinds),
        cmocka_unit_test(keys_and_values_are_checked),
        cmocka_unit_test(others_texts_are_read),
        cmocka_unit_test(hostile_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
