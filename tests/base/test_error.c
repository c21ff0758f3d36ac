#include "base/base.h"
#include "support/check.h"

#include <stdio.h>

static void fills_code_and_message(void **state)
{
    (void)state;
    onestep_error error;
    assert_int_equal(error_set(&error, ONESTEP_ERROR_IO, "%s: %d", "file", 7), ONESTEP_ERROR_IO);
    assert_int_equal(error.code, ONESTEP_ERROR_IO);
    assert_string_equal(error.message, "file: 7");
    assert_int_equal(error_set(NULL, ONESTEP_ERROR_FORMAT, "unseen"), ONESTEP_ERROR_FORMAT);
}

static void message_may_be_its_own_argument(void **state)
{
    (void)state;
    onestep_error error;
    (void)error_set(&error, ONESTEP_ERROR_IO, "inner");
    (void)error_set(&error, ONESTEP_ERROR_FORMAT, "outer (%s)", error.message);
    assert_string_equal(error.message, "outer (inner)");
}

static void message_is_one_line(void **state)
{
    (void)state;
    onestep_error error;
    (void)error_set(&error, ONESTEP_ERROR_IO, "a\nb\tc\x1b[0m");
    assert_string_equal(error.message, "a b c [0m");
    error_prefix(&error, "x\ny");
    assert_string_equal(error.message, "x y: a b c [0m");
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'm', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    onestep_error error;
    (void)error_set(&error, ONESTEP_ERROR_IO, "%s", text);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    error_prefix(&error, "p");
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_memory_equal(error.message, "p: mm", 5);
    error_prefix(&error, "%s", text);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_int_equal(error.message[0], 'm');
}

static void prefix_keeps_the_code(void **state)
{
    (void)state;
    onestep_error error;
    (void)error_set(&error, ONESTEP_ERROR_MISMATCH, "inner");
    error_prefix(&error, "file %d", 3);
    assert_string_equal(error.message, "file 3: inner");
    assert_int_equal(error.code, ONESTEP_ERROR_MISMATCH);
    error_prefix(NULL, "unseen");
}

typedef struct heard {
    int count;
    onestep_log_level level;
    char message[2048];
} heard;

static void hear(void *user_data, onestep_log_level level, const char *message)
{
    heard *to = user_data;
    to->count += 1;
    to->level = level;
    snprintf(to->message, sizeof to->message, "%s", message);
}

static void log_filters_and_flattens(void **state)
{
    (void)state;
    heard got = {0};
    logger log = {.callback = hear, .user_data = &got, .level = ONESTEP_LOG_INFO};
    log_message(&log, ONESTEP_LOG_DEBUG, "too detailed");
    assert_int_equal(got.count, 0);
    log_message(&log, ONESTEP_LOG_INFO, "one %d\ntwo", 1);
    assert_int_equal(got.count, 1);
    assert_int_equal(got.level, ONESTEP_LOG_INFO);
    assert_string_equal(got.message, "one 1 two");
    char text[3000];
    memset(text, 'm', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_message(&log, ONESTEP_LOG_ERROR, "%s", text);
    assert_int_equal(got.count, 2);
    assert_int_equal(strlen(got.message), 1023);
    log_message(NULL, ONESTEP_LOG_ERROR, "nobody listens");
    log_message(&(logger){.level = ONESTEP_LOG_DEBUG}, ONESTEP_LOG_ERROR, "nobody listens");
    assert_int_equal(got.count, 2);
}

static void clock_goes_forward(void **state)
{
    (void)state;
    double before = monotonic_seconds();
    double after = before;
    while (after == before) {
        after = monotonic_seconds();
    }
    assert_true(after > before && after < before + 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_code_and_message), cmocka_unit_test(message_may_be_its_own_argument),
        cmocka_unit_test(message_is_one_line),    cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(prefix_keeps_the_code),  cmocka_unit_test(log_filters_and_flattens),
        cmocka_unit_test(clock_goes_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
