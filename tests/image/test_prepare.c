/* The official preparations, and pictures in memory. */
#include "image/picture_helpers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t *pixel(const onestep_image *image, size_t x, size_t y)
{
    return (const uint8_t *)image->pixels + y * image->stride + 3 * x;
}

static void resized(onestep_image *result, const onestep_image *image, uint32_t width,
                    uint32_t height)
{
    onestep_error error;
    assert_int_equal(image_resize(result, image, width, height, NULL, &error), ONESTEP_OK);
}

static void prepared(onestep_image *result, const onestep_image *image, image_prep prep)
{
    onestep_error error;
    assert_int_equal(image_prepare(result, image, prep, NULL, NULL, &error), ONESTEP_OK);
}

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        image_prep prep;
    } official[] = {
        {"resize_512x512", IMAGE_PREP_RESIZE_512X512},
        {"resize_512", IMAGE_PREP_RESIZE_512X512},
        {"resize_256x256", IMAGE_PREP_RESIZE_256X256},
        {"resize_256", IMAGE_PREP_RESIZE_256X256},
        {"resized_crop_512", IMAGE_PREP_RESIZED_CROP_512},
        {"no_resize", IMAGE_PREP_NO_RESIZE},
        {"resize_286_randomcrop_256x256_hflip", IMAGE_PREP_RANDOM_CROP_256},
    };
    size_t count = sizeof official / sizeof *official;
    image_prep prep;
    for (size_t i = 0; i < count; i++) {
        assert_true(image_prep_parse(official[i].name, &prep));
        assert_int_equal(prep, official[i].prep);
        assert_true(image_prep_parse(image_prep_name(i), &prep));
    }
    assert_null(image_prep_name(count));
    assert_null(image_prep_name(SIZE_MAX));
    assert_false(image_prep_parse("resize_1024", &prep));
    assert_false(image_prep_parse("", &prep));
}

static void fixed_sizes(void **state)
{
    (void)state;
    onestep_image image, result, expected;
    picture_generate(&image, 3, 1, 300, 200);
    prepared(&result, &image, IMAGE_PREP_RESIZE_512X512);
    resized(&expected, &image, 512, 512);
    assert_true(picture_equal(&result, &expected));
    image_destroy(&result);
    image_destroy(&expected);
    prepared(&result, &image, IMAGE_PREP_RESIZE_256X256);
    resized(&expected, &image, 256, 256);
    assert_true(picture_equal(&result, &expected));
    image_destroy(&result);
    image_destroy(&expected);
    prepared(&result, &image, IMAGE_PREP_NO_RESIZE);
    assert_true(picture_equal(&result, &image));
    image_destroy(&result);
    image_destroy(&image);
}

/* Longer side floor(512 long / short); offset (n - 512) / 2, a half rounded to even. */
static void resized_crop(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height, resized_width, resized_height, left, top;
    } cases[] = {
        {512, 512, 512, 512, 0, 0},     {1024, 512, 1024, 512, 256, 0},
        {512, 513, 512, 513, 0, 0}, /* 0.5 to 0 */
        {515, 512, 515, 512, 2, 0}, /* 1.5 to 2 */
        {512, 517, 512, 517, 0, 2}, /* 2.5 to 2 */
        {519, 512, 519, 512, 4, 0}, /* 3.5 to 4 */
        {100, 140, 512, 716, 0, 102},   {333, 100, 1704, 512, 596, 0},
        {77, 1000, 512, 6649, 0, 3068}, /* 6649.35; 3068.5 to 3068 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        onestep_image image, result, whole, expected;
        onestep_error error;
        picture_generate(&image, 2, (uint32_t)i, cases[i].width, cases[i].height);
        prepared(&result, &image, IMAGE_PREP_RESIZED_CROP_512);
        resized(&whole, &image, cases[i].resized_width, cases[i].resized_height);
        assert_int_equal(
            image_crop(&expected, &whole, cases[i].left, cases[i].top, 512, 512, &error),
            ONESTEP_OK);
        if (!picture_equal(&result, &expected)) {
            fail_msg("case %zu", i);
        }
        image_destroy(&image);
        image_destroy(&result);
        image_destroy(&whole);
        image_destroy(&expected);
    }
    onestep_image image, result;
    onestep_error error;
    assert_int_equal(image_create(&image, 4000000, 1, ONESTEP_PIXEL_U8, &error), ONESTEP_OK);
    assert_int_equal(
        image_prepare(&result, &image, IMAGE_PREP_RESIZED_CROP_512, NULL, NULL, &error),
        ONESTEP_ERROR_UNSUPPORTED);
    check_contains(error.message, "too narrow");
    image_destroy(&image);
}

/* Seeds with the top, left and mirror that PyTorch 2.15 draws as torchvision asks it:
 * randint(0, 31), randint(0, 31), rand(1) < 0.5. */
static void random_crop(void **state)
{
    (void)state;
    static const struct {
        int64_t seed;
        uint32_t top, left;
        bool mirrored;
    } draws[] = {{0, 18, 30, true},   {1, 10, 25, true},          {2, 18, 19, false},
                 {3, 6, 15, true},    {42, 19, 12, true},         {-1, 4, 23, false},
                 {100, 16, 30, true}, {123456789, 25, 15, false}, {1099511627783, 5, 10, false}};
    onestep_image image, whole;
    onestep_error error;
    picture_generate(&image, 3, 8, 200, 150);
    resized(&whole, &image, 286, 286);
    for (size_t i = 0; i < sizeof draws / sizeof *draws; i++) {
        onestep_image result, expected;
        random_state random;
        random_seed(&random, RANDOM_CPU, draws[i].seed);
        assert_int_equal(
            image_prepare(&result, &image, IMAGE_PREP_RANDOM_CROP_256, &random, NULL, &error),
            ONESTEP_OK);
        assert_int_equal(
            image_crop(&expected, &whole, draws[i].left, draws[i].top, 256, 256, &error),
            ONESTEP_OK);
        if (draws[i].mirrored) {
            assert_int_equal(image_orient(&expected, 2, &error), ONESTEP_OK);
        }
        assert_true(picture_equal(&result, &expected));
        image_destroy(&result);
        image_destroy(&expected);
    }
    onestep_image result;
    assert_int_equal(image_prepare(&result, &image, IMAGE_PREP_RANDOM_CROP_256, NULL, NULL, &error),
                     ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(image_prepare(&result, &image, (image_prep)99, NULL, NULL, &error),
                     ONESTEP_ERROR_ARGUMENT);
    image_destroy(&whole);
    image_destroy(&image);
}

static void paired(void **state)
{
    (void)state;
    static const uint32_t sizes[][4] = {
        {8, 8, 8, 8}, {15, 9, 8, 8}, {64, 71, 64, 64}, {100, 77, 96, 72}};
    onestep_image image, result, expected;
    onestep_error error;
    for (size_t i = 0; i < 4; i++) {
        picture_generate(&image, 2, 3, sizes[i][0], sizes[i][1]);
        assert_int_equal(image_prepare_paired(&result, &image, NULL, &error), ONESTEP_OK);
        resized(&expected, &image, sizes[i][2], sizes[i][3]);
        assert_true(picture_equal(&result, &expected));
        image_destroy(&result);
        image_destroy(&expected);
        image_destroy(&image);
    }
    static const uint32_t small[][2] = {{7, 100}, {100, 7}, {1, 1}};
    for (size_t i = 0; i < 3; i++) {
        picture_generate(&image, 2, 3, small[i][0], small[i][1]);
        assert_int_equal(image_prepare_paired(&result, &image, NULL, &error),
                         ONESTEP_ERROR_UNSUPPORTED);
        check_contains(error.message, "at least 8");
        image_destroy(&image);
    }
}

/* numpy.pad(mode="reflect"): the edge is not repeated. */
static void reflection(void **state)
{
    (void)state;
    static const struct {
        uint32_t size;
        uint8_t columns[16]; /* which column stands where */
    } cases[] = {
        {1, {0, 0, 0, 0, 0, 0, 0, 0}}, {2, {0, 1, 0, 1, 0, 1, 0, 1}},
        {3, {0, 1, 2, 1, 0, 1, 2, 1}}, {5, {0, 1, 2, 3, 4, 3, 2, 1}},
        {8, {0, 1, 2, 3, 4, 5, 6, 7}}, {9, {0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1}},
    };
    for (size_t a = 0; a < 6; a++) {
        for (size_t b = 0; b < 6; b++) {
            onestep_image image, result;
            onestep_error error;
            picture_generate(&image, 0, 5, cases[a].size, cases[b].size);
            assert_int_equal(image_pad_reflect(&result, &image, &error), ONESTEP_OK);
            assert_int_equal(result.width, cases[a].size > 8 ? 16 : 8);
            assert_int_equal(result.height, cases[b].size > 8 ? 16 : 8);
            for (size_t y = 0; y < result.height; y++) {
                for (size_t x = 0; x < result.width; x++) {
                    assert_memory_equal(pixel(&result, x, y),
                                        pixel(&image, cases[a].columns[x], cases[b].columns[y]), 3);
                }
            }
            image_destroy(&result);
            image_destroy(&image);
        }
    }
}

static void max_side(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height, limit, new_width, new_height;
    } cases[] = {
        {300, 200, 0, 300, 200},  {300, 200, 300, 300, 200}, {300, 200, 301, 300, 200},
        {300, 200, 100, 100, 67}, {200, 300, 100, 67, 100},  {300, 200, 299, 299, 199},
        {1000, 2, 100, 100, 1},   {5, 3, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        onestep_image image, result, expected;
        onestep_error error;
        picture_generate(&image, 2, 6, cases[i].width, cases[i].height);
        assert_int_equal(image_limit_side(&result, &image, cases[i].limit, NULL, &error),
                         ONESTEP_OK);
        assert_int_equal(result.width, cases[i].new_width);
        assert_int_equal(result.height, cases[i].new_height);
        resized(&expected, &image, cases[i].new_width, cases[i].new_height);
        assert_true(picture_equal(&result, &expected));
        image_destroy(&result);
        image_destroy(&expected);
        image_destroy(&image);
    }
}

static void sketch_and_invert(void **state)
{
    (void)state;
    onestep_image image, result;
    onestep_error error;
    assert_int_equal(image_create(&image, 256, 1, ONESTEP_PIXEL_U8, &error), ONESTEP_OK);
    uint8_t *bytes = image.pixels;
    for (size_t i = 0; i < 768; i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    assert_int_equal(image_sketch(&result, &image, &error), ONESTEP_OK);
    for (size_t i = 0; i < 768; i++) {
        assert_int_equal(((uint8_t *)result.pixels)[i], bytes[i] < 128 ? 255 : 0);
    }
    image_destroy(&result);
    assert_int_equal(image_invert(&result, &image, &error), ONESTEP_OK);
    for (size_t i = 0; i < 768; i++) {
        assert_int_equal(((uint8_t *)result.pixels)[i] + bytes[i], 255);
    }
    image_destroy(&result);
    image_destroy(&image);
}

static void to_floats(void **state)
{
    (void)state;
    onestep_image image;
    onestep_error error;
    float unit[768], centred[768];
    assert_int_equal(image_create(&image, 16, 16, ONESTEP_PIXEL_U8, &error), ONESTEP_OK);
    for (size_t i = 0; i < 768; i++) {
        ((uint8_t *)image.pixels)[i] = (uint8_t)(i / 3);
    }
    image_to_floats(unit, &image, IMAGE_RANGE_UNIT);
    image_to_floats(centred, &image, IMAGE_RANGE_SIGNED);
    for (size_t i = 0; i < 768; i++) {
        float expected = (float)((double)(i / 3) / 255.0);
        assert_true(unit[i] == expected);
        assert_true(centred[i] == (expected - 0.5f) / 0.5f);
    }
    assert_true(centred[0] == -1.0f && centred[767] == 1.0f);
    /* A part of a picture: rows are apart. */
    onestep_image part = image;
    part.width = 3;
    part.height = 2;
    image_to_floats(unit, &part, IMAGE_RANGE_UNIT);
    assert_true(unit[9] == (float)(16.0 / 255.0));
    image_destroy(&image);
    float values[6] = {0.0f, 0.25f, 0.5f, 0.75f, 1.0f, 0.3f};
    onestep_image floats = {
        .width = 2, .height = 1, .stride = 24, .type = ONESTEP_PIXEL_F32, .pixels = values};
    image_to_floats(unit, &floats, IMAGE_RANGE_UNIT);
    assert_memory_equal(unit, values, sizeof values);
    image_to_floats(unit, &floats, IMAGE_RANGE_SIGNED);
    assert_true(unit[1] == -0.5f && unit[4] == 1.0f);
}

/* Truncated, not rounded; values outside and NaN are safe. */
static void from_floats(void **state)
{
    (void)state;
    static const float values[] = {-1.0f, 1.0f,  0.0f,   -2.0f,      3.0f,
                                   NAN,   1e30f, -1e30f, INFINITY,   -INFINITY,
                                   0.5f,  0.99f, 0.999f, 0.9999999f, -0.9922f};
    static const uint8_t expected[] = {0,   255, 127, 0,   255, 0,   255, 0,
                                       255, 0,   191, 253, 254, 254, 0};
    onestep_image image;
    onestep_error error;
    assert_int_equal(image_from_floats(&image, values, 5, 1, &error), ONESTEP_OK);
    for (size_t i = 0; i < 15; i++) {
        if (((uint8_t *)image.pixels)[i] != expected[i]) {
            fail_msg("value %g: %d instead of %d", (double)values[i], ((uint8_t *)image.pixels)[i],
                     expected[i]);
        }
    }
    image_destroy(&image);
    /* Every byte comes back when its float is raised by less than a level. */
    float bytes[768];
    for (size_t i = 0; i < 768; i++) {
        bytes[i] = ((float)(i / 3) + 0.25f) / 255.0f * 2.0f - 1.0f;
    }
    assert_int_equal(image_from_floats(&image, bytes, 16, 16, &error), ONESTEP_OK);
    for (size_t i = 0; i < 768; i++) {
        assert_int_equal(((uint8_t *)image.pixels)[i], i / 3);
    }
    image_destroy(&image);
    assert_int_equal(image_from_floats(&image, values, 0, 1, &error), ONESTEP_ERROR_ARGUMENT);
}

static void float_pictures_to_bytes(void **state)
{
    (void)state;
    float values[12] = {0.0f, 1.0f, 0.5f, -1.0f, 2.0f, NAN, 99, 99, 0.1f, 0.0019f, 0.002f, 1.0f};
    static const uint8_t expected[] = {0, 255, 128, 0, 255, 0};
    onestep_image floats = {
        .width = 2, .height = 1, .stride = 24, .type = ONESTEP_PIXEL_F32, .pixels = values};
    onestep_image result;
    onestep_error error;
    assert_int_equal(image_to_bytes(&result, &floats, &error), ONESTEP_OK);
    assert_memory_equal(result.pixels, expected, 6);
    onestep_image again;
    assert_int_equal(image_to_bytes(&again, &result, &error), ONESTEP_OK);
    assert_true(picture_equal(&again, &result));
    image_destroy(&again);
    image_destroy(&result);
    floats.stride = 25;
    assert_int_equal(image_to_bytes(&result, &floats, &error), ONESTEP_ERROR_ARGUMENT);
    check_contains(error.message, "aligned");
}

/* Where pixel (x, y) of a 3 x 2 picture goes, by Pillow's exif_transpose. */
static void orientation(void **state)
{
    (void)state;
    static const char *const expected[9] = {"012345", "012345", "210543", "543210", "345012",
                                            "031425", "304152", "524130", "251403"};
    for (unsigned orientation_value = 0; orientation_value <= 8; orientation_value++) {
        onestep_image image;
        onestep_error error;
        assert_int_equal(image_create(&image, 3, 2, ONESTEP_PIXEL_U8, &error), ONESTEP_OK);
        for (size_t i = 0; i < 18; i++) {
            ((uint8_t *)image.pixels)[i] = (uint8_t)('0' + i / 3);
        }
        assert_int_equal(image_orient(&image, orientation_value, &error), ONESTEP_OK);
        assert_int_equal(image.width, orientation_value >= 5 ? 2 : 3);
        for (size_t i = 0; i < 18; i++) {
            assert_int_equal(((uint8_t *)image.pixels)[i], expected[orientation_value][i / 3]);
        }
        image_destroy(&image);
    }
    /* Larger than the blocks in which it turns; twice by 90 degrees is once by 180. */
    onestep_image image, other;
    onestep_error error;
    picture_generate(&image, 0, 3, 150, 67);
    assert_int_equal(image_copy(&other, &image, &error), ONESTEP_OK);
    assert_int_equal(image_orient(&image, 6, &error), ONESTEP_OK);
    assert_memory_equal(pixel(&image, 66, 0), pixel(&other, 0, 0), 3);
    assert_memory_equal(pixel(&image, 0, 149), pixel(&other, 149, 66), 3);
    assert_int_equal(image_orient(&image, 6, &error), ONESTEP_OK);
    assert_int_equal(image_orient(&other, 3, &error), ONESTEP_OK);
    assert_true(picture_equal(&image, &other));
    image_destroy(&image);
    image_destroy(&other);
}

static void cropping(void **state)
{
    (void)state;
    onestep_image image, part;
    onestep_error error;
    picture_generate(&image, 0, 3, 10, 8);
    assert_int_equal(image_crop(&part, &image, 9, 7, 1, 1, &error), ONESTEP_OK);
    assert_memory_equal(part.pixels, pixel(&image, 9, 7), 3);
    image_destroy(&part);
    static const uint32_t outside[][4] = {
        {10, 0, 1, 1}, {0, 8, 1, 1}, {5, 0, 6, 1}, {0, 0, 1, 9}, {0xffffffff, 0, 2, 1}};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(image_crop(&part, &image, outside[i][0], outside[i][1], outside[i][2],
                                    outside[i][3], &error),
                         ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "inside 10 x 8");
        assert_null(part.pixels);
    }
    assert_int_equal(image_crop(&part, &image, 0, 0, 0, 1, &error), ONESTEP_ERROR_ARGUMENT);
    image_destroy(&image);
    image_destroy(&image);
    image_destroy(NULL);
}

static void outside_pictures_are_checked(void **state)
{
    (void)state;
    uint8_t bytes[64] = {0};
    onestep_error error;
    onestep_image good = {.width = 2, .height = 2, .stride = 6, .pixels = bytes};
    assert_int_equal(image_check(&good, "input", &error), ONESTEP_OK);
    onestep_image wrong[] = {good, good, good, good, good, good};
    wrong[0].width = 0;
    wrong[1].height = 0;
    wrong[2].pixels = NULL;
    wrong[3].stride = 5;
    wrong[4].type = (onestep_pixel_type)7;
    wrong[5].stride = SIZE_MAX;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(image_check(&wrong[i], "input", &error), ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "input");
    }
    onestep_image result;
    assert_int_equal(image_create(&result, 0xffffffff, 0xffffffff, ONESTEP_PIXEL_F32, &error),
                     ONESTEP_ERROR_MEMORY);
    assert_null(result.pixels);
}

static void contact_sheet(void **state)
{
    (void)state;
    onestep_image a, b, c, grid;
    onestep_error error;
    picture_generate(&a, 0, 1, 4, 3);
    picture_generate(&b, 0, 2, 2, 5);
    picture_generate(&c, 0, 3, 3, 1);
    const onestep_image *const pictures[] = {&a, &b, &c};
    assert_int_equal(image_grid(&grid, pictures, 3, 0, 2, &error), ONESTEP_OK);
    assert_int_equal(grid.width, 2 + 4 + 2 + 2 + 2 + 3 + 2);
    assert_int_equal(grid.height, 2 + 5 + 2);
    assert_memory_equal(pixel(&grid, 2, 3), pixel(&a, 0, 0), 12);
    assert_memory_equal(pixel(&grid, 8, 6), pixel(&b, 0, 4), 6);
    assert_memory_equal(pixel(&grid, 12, 4), pixel(&c, 0, 0), 9);
    assert_memory_equal(pixel(&grid, 0, 0), "\xff\xff\xff", 3);
    assert_memory_equal(pixel(&grid, 7, 4), "\xff\xff\xff", 3);
    image_destroy(&grid);
    assert_int_equal(image_grid(&grid, pictures, 3, 2, 0, &error), ONESTEP_OK);
    assert_int_equal(grid.width, 6);
    assert_int_equal(grid.height, 6);
    assert_memory_equal(pixel(&grid, 0, 5), pixel(&c, 0, 0), 9);
    assert_memory_equal(pixel(&grid, 4, 0), pixel(&b, 0, 0), 6);
    image_destroy(&grid);
    assert_int_equal(image_grid(&grid, pictures, 1, 5, 0, &error), ONESTEP_OK);
    assert_true(picture_equal(&grid, &a));
    image_destroy(&grid);
    assert_int_equal(image_grid(&grid, pictures, 0, 0, 0, &error), ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(image_grid(&grid, pictures, 3, 0, 0x80000000, &error),
                     ONESTEP_ERROR_UNSUPPORTED);
    image_destroy(&a);
    image_destroy(&b);
    image_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(fixed_sizes),
        cmocka_unit_test(resized_crop),
        cmocka_unit_test(random_crop),
        cmocka_unit_test(paired),
        cmocka_unit_test(reflection),
        cmocka_unit_test(max_side),
        cmocka_unit_test(sketch_and_invert),
        cmocka_unit_test(to_floats),
        cmocka_unit_test(from_floats),
        cmocka_unit_test(float_pictures_to_bytes),
        cmocka_unit_test(orientation),
        cmocka_unit_test(cropping),
        cmocka_unit_test(outside_pictures_are_checked),
        cmocka_unit_test(contact_sheet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
