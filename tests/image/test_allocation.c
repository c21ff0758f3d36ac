/* Every allocation that src/image makes may fail: an error, nothing leaked, and the next run works.
 */
#include "image/picture_helpers.h"
#include "support/allocation_failure.h"

#include <stdlib.h>
#include <string.h>

/* What is run: true on success. Its results are released again. */
typedef onestep_status (*operation)(const void *input, onestep_error *error);

/* Runs it with the first, second, ... allocation failing, until none of them was reached. Where a
 * failure may be harmless (`may_succeed`), success is accepted, too. */
static void fail_each(operation run, const void *input, bool may_succeed)
{
    size_t n;
    for (n = 1;; n++) {
        onestep_error error = {0};
        allocation_failure_start(n);
        onestep_status status = run(input, &error);
        bool failed = allocation_failure_stop();
        if (!failed) {
            assert_int_equal(status, ONESTEP_OK);
            break;
        }
        if (status == ONESTEP_OK && may_succeed) {
            continue;
        }
        if (status != ONESTEP_ERROR_MEMORY) {
            fail_msg("allocation %zu: status %d, \"%s\"", n, status, error.message);
        }
        assert_true(error.message[0] != '\0');
    }
    assert_true(n > 1);
}

typedef struct input_file {
    uint8_t *bytes;
    size_t size;
} input_file;

static onestep_status run_decode(const void *input, onestep_error *error)
{
    const input_file *file = input;
    onestep_image image;
    onestep_status status = image_decode(&image, file->bytes, file->size, NULL, error);
    if (status != ONESTEP_OK) {
        assert_null(image.pixels);
    }
    image_destroy(&image);
    return status;
}

static onestep_status run_metadata(const void *input, onestep_error *error)
{
    const input_file *file = input;
    image_metadata metadata = {0};
    onestep_status status = image_metadata_read(&metadata, file->bytes, file->size, error);
    image_metadata_free(&metadata);
    return status;
}

static void reading(void **state)
{
    (void)state;
    static const char *const names[] = {
        GOLDEN_FOLDER "images/png_palette_4_interlaced.png",
        GOLDEN_FOLDER "images/png_rgb_16.png",
        GOLDEN_FOLDER "images/png_orientation_6.png",
        GOLDEN_FOLDER "images/jpeg_grey.jpg",
        GOLDEN_FOLDER "images/jpeg_orientation_6.jpg",
        GOLDEN_FOLDER "images/jpeg_cmyk.jpg",
        GOLDEN_FOLDER "images/webp_orientation_8.webp",
        TEST_DATA "/webp_animated.webp",
        TEST_DATA "/png_texts.png",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        input_file file;
        file_read_all(names[i], &file.bytes, &file.size);
        fail_each(run_decode, &file, false);
        if (i == sizeof names / sizeof *names - 1) {
            fail_each(run_metadata, &file, false);
        }
        memory_free(file.bytes);
    }
}

static onestep_status run_load(const void *input, onestep_error *error)
{
    onestep_image image;
    onestep_status status = image_load(&image, input, NULL, error);
    image_destroy(&image);
    return status;
}

static void loading(void **state)
{
    (void)state;
    fail_each(run_load, GOLDEN_FOLDER "images/png_rgb_8.png", true);
}

typedef struct encode_input {
    onestep_image image;
    image_metadata metadata;
    image_format format;
} encode_input;

static onestep_status run_encode(const void *input, onestep_error *error)
{
    const encode_input *what = input;
    uint8_t *bytes;
    size_t size;
    onestep_status status =
        image_encode(&bytes, &size, &what->image, what->format, 90, &what->metadata, error);
    if (status != ONESTEP_OK) {
        assert_null(bytes);
        return status;
    }
    image_metadata read = {0};
    status = image_metadata_read(&read, bytes, size, error);
    assert_true(status != ONESTEP_OK || read.count == what->metadata.count);
    image_metadata_free(&read);
    memory_free(bytes);
    return status;
}

static void writing(void **state)
{
    (void)state;
    encode_input input = {.metadata = {0}};
    onestep_error error;
    picture_generate(&input.image, 0, 1, 90, 70);
    for (int i = 0; i < 12; i++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        assert_int_equal(image_metadata_add(&input.metadata, key, "v\xc3\xa4lue\n", &error),
                         ONESTEP_OK);
    }
    for (input.format = IMAGE_FORMAT_PNG; input.format <= IMAGE_FORMAT_WEBP; input.format++) {
        fail_each(run_encode, &input, false);
    }
    image_metadata_free(&input.metadata);
    image_destroy(&input.image);
}

static onestep_status run_texts(const void *input, onestep_error *error)
{
    (void)input;
    image_metadata metadata = {0};
    onestep_status status = ONESTEP_OK;
    for (int i = 0; i < 20 && status == ONESTEP_OK; i++) {
        status = image_metadata_add(&metadata, "key", "value", error);
        assert_int_equal(metadata.count, status == ONESTEP_OK ? i + 1 : i);
    }
    image_metadata_free(&metadata);
    return status;
}

static void texts(void **state)
{
    (void)state;
    fail_each(run_texts, NULL, false);
}

/* Every function that makes a picture of a picture. */
static onestep_status run_pictures(const void *input, onestep_error *error)
{
    const onestep_image *image = input;
    onestep_image results[12] = {{0}};
    size_t made = 0;
    random_state random;
    random_seed(&random, RANDOM_CPU, 1);
    float *values = malloc((size_t)image->width * image->height * 3 * sizeof *values);
    if (values == NULL) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "the test's own");
    }
    image_to_floats(values, image, IMAGE_RANGE_SIGNED);
    const onestep_image *const cells[] = {image, image};
    onestep_status status = image_resize(&results[made++], image, 20, 90, NULL, error);
    if (status == ONESTEP_OK) {
        status = image_canny(&results[made++], image, 20, 40, NULL, error);
    }
    if (status == ONESTEP_OK) {
        status =
            image_prepare(&results[made++], image, IMAGE_PREP_RESIZED_CROP_512, NULL, NULL, error);
    }
    if (status == ONESTEP_OK) {
        status = image_prepare(&results[made++], image, IMAGE_PREP_RANDOM_CROP_256, &random, NULL,
                               error);
    }
    if (status == ONESTEP_OK) {
        status = image_prepare_paired(&results[made++], image, NULL, error);
    }
    if (status == ONESTEP_OK) {
        status = image_pad_reflect(&results[made++], image, error);
    }
    if (status == ONESTEP_OK) {
        status = image_limit_side(&results[made++], image, 30, NULL, error);
    }
    if (status == ONESTEP_OK) {
        status = image_sketch(&results[made++], image, error);
    }
    if (status == ONESTEP_OK) {
        status = image_invert(&results[made++], image, error);
    }
    if (status == ONESTEP_OK) {
        status = image_grid(&results[made++], cells, 2, 0, 3, error);
    }
    if (status == ONESTEP_OK) {
        status = image_from_floats(&results[made++], values, image->width, image->height, error);
    }
    if (status == ONESTEP_OK) {
        status = image_orient(&results[0], 6, error);
    }
    for (size_t i = 0; i < made; i++) {
        image_destroy(&results[i]);
    }
    free(values);
    return status;
}

static void pictures(void **state)
{
    (void)state;
    onestep_image image;
    picture_generate(&image, 4, 2, 61, 53);
    fail_each(run_pictures, &image, false);
    image_destroy(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading), cmocka_unit_test(loading),  cmocka_unit_test(writing),
        cmocka_unit_test(texts),   cmocka_unit_test(pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
