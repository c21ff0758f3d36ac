#include "base/base.h"
#include "support/allocation_failure.h"
#include "support/check.h"

#include <stdio.h>

static size_t number_name(char *name, size_t capacity, uint32_t number)
{
    return (size_t)snprintf(name, capacity, "down_blocks.%u.weight", number);
}

static void holds_many_names(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    name_map *map;
    assert_int_equal(name_map_create(&map, NULL), ONESTEP_OK);
    char name[64];
    uint32_t value = 7;
    assert_false(name_map_get(map, "x", 1, &value));
    for (uint32_t i = 0; i < COUNT; ++i) {
        size_t length = number_name(name, sizeof name, i);
        assert_int_equal(name_map_put(map, name, length, i ^ 0x5555, NULL), ONESTEP_OK);
    }
    assert_int_equal(name_map_count(map), COUNT);
    for (uint32_t i = 0; i < COUNT; ++i) {
        size_t length = number_name(name, sizeof name, i);
        assert_true(name_map_get(map, name, length, &value));
        assert_int_equal(value, i ^ 0x5555);
        assert_false(name_map_get(map, name, length - 1, &value));
    }
    name_map_destroy(&map);
    assert_null(map);
    name_map_destroy(&map);
}

static void names_are_byte_strings(void **state)
{
    (void)state;
    name_map *map;
    assert_int_equal(name_map_create(&map, NULL), ONESTEP_OK);
    const char bytes[] = "\0\0\0\0\0\0\0\0\0\0";
    for (uint32_t length = 0; length <= 10; ++length) {
        assert_int_equal(name_map_put(map, bytes, length, length, NULL), ONESTEP_OK);
    }
    assert_int_equal(name_map_count(map), 11);
    uint32_t value;
    for (uint32_t length = 0; length <= 10; ++length) {
        assert_true(name_map_get(map, bytes, length, &value));
        assert_int_equal(value, length);
    }
    assert_int_equal(name_map_put(map, bytes, 3, 99, NULL), ONESTEP_OK);
    assert_int_equal(name_map_count(map), 11);
    assert_true(name_map_get(map, bytes, 3, &value));
    assert_int_equal(value, 99);
    name_map_destroy(&map);
}

static void survives_failed_growth(void **state)
{
    (void)state;
    size_t n = 1;
    bool failed;
    do {
        name_map *map;
        onestep_error error = {0};
        allocation_failure_start(n++);
        onestep_status status = name_map_create(&map, &error);
        uint32_t added = 0;
        char name[64];
        while (status == ONESTEP_OK && added < 300) {
            status = name_map_put(map, name, number_name(name, sizeof name, added), added, &error);
            added += status == ONESTEP_OK;
        }
        failed = allocation_failure_stop();
        assert_int_equal(status, failed ? ONESTEP_ERROR_MEMORY : ONESTEP_OK);
        assert_int_equal(error.code, status);
        if (map != NULL) {
            /* What was there is there, and the failed name can be added now. */
            assert_int_equal(name_map_count(map), added);
            assert_int_equal(name_map_put(map, "last", 4, 1000, NULL), ONESTEP_OK);
            for (uint32_t i = 0; i < added; ++i) {
                uint32_t value = 0;
                assert_true(name_map_get(map, name, number_name(name, sizeof name, i), &value));
                assert_int_equal(value, i);
            }
        }
        name_map_destroy(&map);
    } while (failed);
    assert_true(n > 10);
}

static void suggests_names(void **state)
{
    (void)state;
    const char *const tasks[] = {"edge_to_image",  "sketch_to_image_stochastic",
                                 "day_to_night",   "night_to_day",
                                 "clear_to_rainy", "rainy_to_clear"};
    const struct {
        const char *word, *nearest;
    } cases[] = {
        {"day_to_night", "day_to_night"},
        {"day2night", "day_to_night"},
        {"Day-To-Nihgt", "day_to_night"},
        {"edge_to_imgae", "edge_to_image"},
        {"sketch_to_image", "sketch_to_image_stochastic"},
        {"Rainy", "rainy_to_clear"},
        {"ra", NULL},
        {"sketch_to_image_stochastc", "sketch_to_image_stochastic"},
        {"rainy_to_claer", "rainy_to_clear"},
        {"xyz", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        const char *nearest = nearest_name(cases[i].word, tasks, 6);
        if (cases[i].nearest == NULL) {
            assert_null(nearest);
        } else {
            assert_non_null(nearest);
            assert_string_equal(nearest, cases[i].nearest);
        }
    }
    char long_word[200];
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = '\0';
    const char *const long_candidates[] = {long_word};
    assert_null(nearest_name(long_word, tasks, 6));
    assert_null(nearest_name("a", long_candidates, 1));
    assert_null(nearest_name("day", tasks, 0));
    const char *const levels[] = {"avx2", "avx512"};
    assert_string_equal(nearest_name("avx3", levels, 2), "avx2");
    assert_string_equal(nearest_name("vax512", levels, 2), "avx512");
    assert_null(nearest_name("q", levels, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_many_names),
        cmocka_unit_test(names_are_byte_strings),
        cmocka_unit_test(survives_failed_growth),
        cmocka_unit_test(suggests_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
