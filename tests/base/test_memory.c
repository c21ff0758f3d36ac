#include "base/base.h"
#include "support/allocation_failure.h"
#include "support/check.h"

static void sizes_are_checked(void **state)
{
    (void)state;
    size_t result = 7;
    assert_true(size_multiply(3, 5, &result));
    assert_int_equal(result, 15);
    assert_false(size_multiply(SIZE_MAX / 2, 3, &result));
    assert_false(size_add(SIZE_MAX, 1, &result));
    assert_int_equal(result, 15);
    assert_true(size_add(SIZE_MAX - 1, 1, &result));
    assert_true(result == SIZE_MAX);
    assert_int_equal(size_round_up(0, 64), 0);
    assert_int_equal(size_round_up(1, 64), 64);
    assert_int_equal(size_round_up(64, 64), 64);
    assert_int_equal(size_round_up(10, 3), 12);
    assert_int_equal(size_minimum(2, 3), 2);
    assert_int_equal(size_maximum(2, 3), 3);
}

static void blocks_are_zeroed_and_resized(void **state)
{
    (void)state;
    onestep_error error;
    uint8_t *block = memory_allocate(1000, 3, &error);
    assert_non_null(block);
    for (int i = 0; i < 3000; ++i) {
        assert_int_equal(block[i], 0);
        block[i] = (uint8_t)i;
    }
    block = memory_resize(block, 100000, 1, &error);
    assert_non_null(block);
    for (int i = 0; i < 3000; ++i) {
        assert_int_equal(block[i], (uint8_t)i);
    }
    memory_free(block);
    void *empty = memory_allocate(0, 8, &error);
    assert_non_null(empty);
    empty = memory_resize(empty, 8, 0, &error);
    assert_non_null(empty);
    memory_free(empty);
    memory_free(NULL);
}

static void impossible_sizes_are_named(void **state)
{
    (void)state;
    onestep_error error;
    assert_null(memory_allocate(SIZE_MAX / 2, 3, &error));
    assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
    check_contains(error.message, "more than can be addressed");
    char *block = memory_allocate(4, 1, &error);
    assert_non_null(block);
    memcpy(block, "abc", 4);
    assert_null(memory_resize(block, SIZE_MAX, 2, &error));
    assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
    assert_string_equal(block, "abc");
    memory_free(block);
    assert_null(memory_allocate_aligned(SIZE_MAX, &error));
    assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
    assert_null(memory_allocate_aligned(SIZE_MAX - 100, &error));
    assert_null(memory_allocate_aligned(SIZE_MAX / 2, &error));
    check_contains(error.message, "bytes are not to be had");
}

static void aligned_blocks(void **state)
{
    (void)state;
    const size_t sizes[] = {
        0, 1, 63, 64, 65, 4096 + 1, 4194303, 4194304, 4194305, (size_t)9 << 20, (8 << 20) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        uint8_t *block = memory_allocate_aligned(sizes[i], NULL);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        if (sizes[i] > 0) {
            block[0] = 1;
            block[sizes[i] - 1] = 2;
        }
        memory_free_aligned(block, sizes[i]);
    }
    memory_free_aligned(NULL, 100);
}

static void strings(void **state)
{
    (void)state;
    char *copy = string_duplicate("name", NULL);
    assert_string_equal(copy, "name");
    char *made = string_format(NULL, "%s-%05d", copy, 42);
    assert_string_equal(made, "name-00042");
    char *empty = string_format(NULL, "%s", "");
    assert_string_equal(empty, "");
    char *joined = path_join("a", "b", NULL), *rooted = path_join("/", "b", NULL),
         *bare = path_join("", "b", NULL);
    assert_string_equal(joined, "a/b");
    assert_string_equal(rooted, "/b");
    assert_string_equal(bare, "b");
    char *all[] = {copy, made, empty, joined, rooted, bare};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
        memory_free(all[i]);
    }
}

static void buffer_grows(void **state)
{
    (void)state;
    text_buffer buffer = {0};
    text_buffer_append(&buffer, "", 0);
    assert_string_equal(buffer.data, "");
    for (int i = 0; i < 1000; ++i) {
        text_buffer_print(&buffer, "%03d", i);
        text_buffer_append(&buffer, "\0", 1);
    }
    assert_false(buffer.failed);
    assert_int_equal(buffer.length, 4000);
    assert_string_equal(buffer.data + 3996, "999");
    assert_int_equal(buffer.data[4000], 0);
    text_buffer_free(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer.length, 0);
}

static void every_failure_is_reported(void **state)
{
    (void)state;
    onestep_error error = {0};
    allocation_failure_start(1);
    assert_null(memory_allocate(10, 10, &error));
    assert_true(allocation_failure_stop());
    assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
    assert_string_equal(error.message, "out of memory: 100 bytes are not to be had");

    for (size_t bytes = 100; bytes <= (size_t)8 << 20; bytes *= 1024) {
        error.code = ONESTEP_OK;
        allocation_failure_start(1);
        assert_null(memory_allocate_aligned(bytes, &error));
        assert_true(allocation_failure_stop());
        assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
    }
    allocation_failure_start(1);
    assert_null(string_duplicate("x", &error));
    assert_true(allocation_failure_stop());
    allocation_failure_start(1);
    assert_null(string_format(&error, "x"));
    assert_true(allocation_failure_stop());

    text_buffer buffer = {0};
    text_buffer_append(&buffer, "kept", 4);
    allocation_failure_start(1);
    text_buffer_print(&buffer, "%1000d", 1);
    assert_true(allocation_failure_stop());
    assert_true(buffer.failed);
    text_buffer_append(&buffer, "more", 4);
    text_buffer_print(&buffer, "more");
    assert_true(buffer.failed);
    assert_string_equal(buffer.data, "kept");
    text_buffer_free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(blocks_are_zeroed_and_resized),
        cmocka_unit_test(impossible_sizes_are_named),
        cmocka_unit_test(aligned_blocks),
        cmocka_unit_test(strings),
        cmocka_unit_test(buffer_grows),
        cmocka_unit_test(every_failure_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
