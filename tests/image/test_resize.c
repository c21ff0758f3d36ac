/* Lanczos against Pillow and Canny against OpenCV, bit for bit. */
#include "image/picture_helpers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static thread_pool *pools[3]; /* none, two and five threads */

static int create_pools(void **state)
{
    (void)state;
    onestep_error error;
    return thread_pool_create(&pools[1], 2, &error) == ONESTEP_OK &&
                   thread_pool_create(&pools[2], 5, &error) == ONESTEP_OK
               ? 0
               : -1;
}

static int destroy_pools(void **state)
{
    (void)state;
    thread_pool_destroy(&pools[1]);
    thread_pool_destroy(&pools[2]);
    return 0;
}

static void resize(onestep_image *result, const onestep_image *image, uint32_t width,
                   uint32_t height, thread_pool *pool)
{
    onestep_error error;
    if (image_resize(result, image, width, height, pool, &error) != ONESTEP_OK) {
        fail_msg("%u x %u: %s", width, height, error.message);
    }
    assert_int_equal(result->width, width);
    assert_int_equal(result->height, height);
}

static void lanczos_is_pillows(void **state)
{
    (void)state;
    char line[LINE_SIZE], *fields[7];
    FILE *table = table_open(GOLDEN_FOLDER "lanczos/generated.tsv");
    size_t cases = 0;
    while (table_next(table, line, fields, 7)) {
        onestep_image image, result;
        unsigned long number[6];
        for (size_t i = 0; i < 6; i++) {
            number[i] = strtoul(fields[i], NULL, 10);
        }
        picture_generate(&image, (unsigned)number[0], (uint32_t)number[1], (uint32_t)number[2],
                         (uint32_t)number[3]);
        for (size_t p = 0; p < 3; p++) {
            resize(&result, &image, (uint32_t)number[4], (uint32_t)number[5], pools[p]);
            if (picture_crc(&result) != strtoul(fields[6], NULL, 16)) {
                fail_msg("pattern %lu, %lu x %lu to %lu x %lu (pool %zu): not Pillow's bytes",
                         number[0], number[2], number[3], number[4], number[5], p);
            }
            image_destroy(&result);
        }
        image_destroy(&image);
        cases++;
    }
    fclose(table);
    assert_true(cases >= 200);
}

static void extreme_sizes(void **state)
{
    (void)state;
    static const uint32_t sizes[][4] = {
        {100000, 1, 1, 1},     {1, 100000, 1, 3},      {1, 1, 100000, 1}, {1, 1, 1, 100000},
        {100000, 2, 99999, 2}, {2, 100000, 3, 100000}, {3, 100000, 3, 7}, {100000, 3, 8, 8},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        onestep_image image, result;
        onestep_error error;
        assert_int_equal(image_create(&image, sizes[i][0], sizes[i][1], ONESTEP_PIXEL_U8, &error),
                         ONESTEP_OK);
        size_t count = image.stride * image.height;
        memset(image.pixels, 201, count);
        resize(&result, &image, sizes[i][2], sizes[i][3], pools[1]);
        /* Weights add up to one: an even ground stays as it is. */
        const uint8_t *bytes = result.pixels;
        count = result.stride * result.height;
        for (size_t byte = 0; byte < count; byte++) {
            assert_int_equal(bytes[byte], 201);
        }
        image_destroy(&result);
        image_destroy(&image);
    }
}

/* A picture of which every other sum would leave the range of a byte. */
static void overshoot_is_clipped(void **state)
{
    (void)state;
    onestep_image image, result;
    onestep_error error;
    assert_int_equal(image_create(&image, 64, 64, ONESTEP_PIXEL_U8, &error), ONESTEP_OK);
    for (size_t y = 0; y < 64; y++) {
        memset((uint8_t *)image.pixels + y * image.stride, (y / 8) % 2 == 0 ? 0 : 255,
               image.stride);
    }
    resize(&result, &image, 64, 128, NULL);
    size_t between = 0;
    for (size_t y = 0; y < 128; y++) {
        uint8_t value = *((uint8_t *)result.pixels + y * result.stride);
        bool bright = (y / 16) % 2 != 0;
        assert_true(bright ? value >= 128 : value <= 127);
        between += value != 0 && value != 255;
    }
    assert_true(between > 10 && between < 60);
    image_destroy(&result);
    image_destroy(&image);
}

static void resize_arguments(void **state)
{
    (void)state;
    onestep_image image, result, part, crop;
    onestep_error error;
    picture_generate(&image, 0, 9, 30, 20);
    assert_int_equal(image_resize(&result, &image, 0, 5, NULL, &error), ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(image_resize(&result, &image, 5, 0, NULL, &error), ONESTEP_ERROR_ARGUMENT);
    check_contains(error.message, "at least 1");
    part = image;
    part.type = ONESTEP_PIXEL_F32;
    assert_int_equal(image_resize(&result, &part, 5, 5, NULL, &error), ONESTEP_ERROR_ARGUMENT);
    /* The same size is a copy; rows of the input may be apart. */
    resize(&result, &image, 30, 20, NULL);
    assert_true(result.pixels != image.pixels);
    assert_true(picture_equal(&result, &image));
    image_destroy(&result);
    part = image;
    part.width = 11;
    part.height = 9;
    part.pixels = (uint8_t *)image.pixels + 3 * 7 + 4 * image.stride;
    assert_int_equal(image_crop(&crop, &image, 7, 4, 11, 9, &error), ONESTEP_OK);
    static const uint32_t sizes[][2] = {{20, 20}, {11, 5}, {5, 9}};
    for (size_t i = 0; i < 3; i++) {
        onestep_image from_part, from_crop;
        resize(&from_part, &part, sizes[i][0], sizes[i][1], pools[2]);
        resize(&from_crop, &crop, sizes[i][0], sizes[i][1], NULL);
        assert_true(picture_equal(&from_part, &from_crop));
        image_destroy(&from_part);
        image_destroy(&from_crop);
    }
    image_destroy(&crop);
    image_destroy(&image);
}

/* ---- Canny ---- */

static void canny(onestep_image *edges, const onestep_image *image, double low, double high,
                  thread_pool *pool)
{
    onestep_error error;
    if (image_canny(edges, image, low, high, pool, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(edges->width, image->width);
    assert_int_equal(edges->height, image->height);
}

static void canny_is_opencvs(void **state)
{
    (void)state;
    char line[LINE_SIZE], *fields[8];
    FILE *table = table_open(GOLDEN_FOLDER "canny/generated.tsv");
    size_t cases = 0;
    while (table_next(table, line, fields, 8)) {
        onestep_image image, edges;
        picture_generate(&image, (unsigned)atoi(fields[0]), (uint32_t)strtoul(fields[1], NULL, 10),
                         (uint32_t)atoi(fields[2]), (uint32_t)atoi(fields[3]));
        for (size_t p = 0; p < 3; p++) {
            canny(&edges, &image, atof(fields[4]), atof(fields[5]), pools[p]);
            size_t count = 0;
            for (size_t i = 0; i < edges.stride * edges.height; i += 3) {
                const uint8_t *pixel = (const uint8_t *)edges.pixels + i;
                assert_true(pixel[0] == pixel[1] && pixel[0] == pixel[2]);
                count += pixel[0] == 255;
            }
            if (picture_channel_crc(&edges) != strtoul(fields[6], NULL, 16) ||
                count != strtoul(fields[7], NULL, 10)) {
                fail_msg("pattern %s, seed %s, %s x %s, %s/%s: not OpenCV's edges", fields[0],
                         fields[1], fields[2], fields[3], fields[4], fields[5]);
            }
            image_destroy(&edges);
        }
        image_destroy(&image);
        cases++;
    }
    fclose(table);
    assert_true(cases >= 100);
}

static void photographs(void **state)
{
    (void)state;
    char path[4096], line[LINE_SIZE], *fields[5];
    FILE *table = table_open(GOLDEN_FOLDER "canny/photographs.tsv");
    size_t cases = 0;
    while (table_next(table, line, fields, 5)) {
        onestep_image image, edges, small;
        onestep_error error;
        snprintf(path, sizeof path, GOLDEN_FOLDER "canny/%s", fields[0]);
        assert_int_equal(image_load(&image, path, NULL, &error), ONESTEP_OK);
        canny(&edges, &image, atof(fields[1]), atof(fields[2]), pools[cases % 3]);
        assert_int_equal(picture_channel_crc(&edges), strtoul(fields[3], NULL, 16));
        resize(&small, &image, 160, 112, pools[cases % 3]);
        assert_int_equal(picture_crc(&small), strtoul(fields[4], NULL, 16));
        image_destroy(&edges);
        image_destroy(&small);
        image_destroy(&image);
        cases++;
    }
    fclose(table);
    assert_true(cases >= 20);
}

/* Grey pictures of 5 x 5 whose middle has one of the few gradients at which the tangents 13572 and
 * 13574 / 2^15 would choose another direction than 13573 does: is it an edge for OpenCV 5.0? */
static void canny_directions(void **state)
{
    (void)state;
    static const struct {
        double threshold;
        bool edge;
        uint8_t grey[25];
    } cases[] = {
        /* dx 338, dy 140 */
        {477, true, {248, 67,  35,  226, 160, 238, 70,  39, 140, 112, 7,  107, 167,
                     238, 215, 169, 71,  140, 77,  201, 46, 154, 110, 53, 35}},
        {477, false, {211, 79,  208, 42, 236, 44,  170, 114, 41, 85, 113, 57, 112,
                      253, 161, 244, 97, 155, 172, 238, 52,  39, 90, 245, 139}},
        /* dx 338, dy 816 */
        {1153, false, {74,  68,  224, 39,  130, 90,  5, 39, 33,  11,  208, 62, 210,
                       221, 205, 187, 215, 255, 207, 5, 51, 249, 105, 13,  11}},
        /* dx 239, dy 99 */
        {337, true, {155, 96,  100, 14,  171, 52,  24, 129, 142, 69, 188, 2,  166,
                     78,  125, 46,  194, 83,  163, 20, 69,  187, 84, 107, 197}},
        {337, false, {221, 6,  118, 184, 227, 178, 50,  219, 188, 208, 132, 214, 2,
                      238, 44, 5,   180, 181, 233, 138, 15,  221, 97,  131, 57}},
        /* dx 239, dy 577 */
        {815, true, {123, 115, 132, 6,   80,  65,  38, 85, 49,  234, 213, 94, 191,
                     192, 175, 163, 218, 183, 250, 16, 72, 174, 164, 18,  111}},
        {815, false, {148, 160, 151, 128, 181, 76,  1, 18, 38, 241, 146, 186, 229,
                      244, 8,   150, 165, 118, 251, 4, 47, 10, 14,  141, 57}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t rgb[75];
        for (size_t j = 0; j < 75; j++) {
            rgb[j] = cases[i].grey[j / 3];
        }
        onestep_image image = {.width = 5, .height = 5, .stride = 15, .pixels = rgb}, edges;
        canny(&edges, &image, cases[i].threshold, cases[i].threshold, NULL);
        assert_int_equal(((uint8_t *)edges.pixels)[2 * edges.stride + 6], cases[i].edge ? 255 : 0);
        image_destroy(&edges);
    }
}

static void canny_arguments(void **state)
{
    (void)state;
    onestep_image image, edges, other;
    onestep_error error;
    picture_generate(&image, 0, 4, 50, 40);
    static const double wrong[] = {-1.0, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(image_canny(&edges, &image, wrong[i], 200.0, NULL, &error),
                         ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "low threshold");
        assert_int_equal(image_canny(&edges, &image, 100.0, wrong[i], NULL, &error),
                         ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "high threshold");
        assert_null(edges.pixels);
    }
    /* Floored, swapped, and beyond every gradient. */
    canny(&edges, &image, 100.0, 200.0, NULL);
    canny(&other, &image, 200.9, 100.2, NULL);
    assert_true(picture_equal(&edges, &other));
    image_destroy(&other);
    canny(&other, &image, 0.0, 1e300, NULL);
    for (size_t i = 0; i < other.stride * other.height; i++) {
        assert_int_equal(((uint8_t *)other.pixels)[i], 0);
    }
    image_destroy(&other);
    image_destroy(&edges);
    image_destroy(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanczos_is_pillows),   cmocka_unit_test(extreme_sizes),
        cmocka_unit_test(overshoot_is_clipped), cmocka_unit_test(resize_arguments),
        cmocka_unit_test(canny_is_opencvs),     cmocka_unit_test(photographs),
        cmocka_unit_test(canny_directions),     cmocka_unit_test(canny_arguments),
    };
    return cmocka_run_group_tests(tests, create_pools, destroy_pools);
}
