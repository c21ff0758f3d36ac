/* JSON configs: every getter with right, missing, null and wrong values. */
#include "formats/fixture.h"

#include <stdlib.h>
#include <string.h>

static const char text[] = "{\"integer\": 1280, \"whole\": 32.0, \"half\": 0.5, \"null\": null,"
                           " \"yes\": true, \"no\": false, \"text\": \"silu \\u00e4\","
                           " \"list\": [320, 640.0, 1280, 1280], \"numbers\": [1, 2.5],"
                           " \"texts\": [\"A\", \"B\"], \"flags\": [true, false],"
                           " \"object\": {\"content\": \"!\", \"deep\": {\"x\": 1}},"
                           " \"objects\": [{\"id\": 1}, {\"id\": 2}, 3], \"empty\": [],"
                           " \"huge\": 1e300, \"large\": 9223372036854775807}";

static config *open_text(const char *content)
{
    config *settings;
    onestep_error error = {0};
    if (config_parse(&settings, "unet/config.json", content, strlen(content), &error) !=
        ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    return settings;
}

static void expect_error(onestep_status status, const onestep_error *error, const char *key,
                         const char *message)
{
    assert_true(status == ONESTEP_ERROR_FORMAT || status == ONESTEP_ERROR_UNSUPPORTED);
    expect_message(error, "unet/config.json: ", key, message, NULL);
}

static void test_integers(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    int64_t value = -1;
    assert_int_equal(config_integer(settings, "integer", 5, 1, 1280, &value, &error), ONESTEP_OK);
    assert_int_equal(value, 1280);
    assert_int_equal(config_integer(settings, "whole", 5, 1, 100, &value, &error), ONESTEP_OK);
    assert_int_equal(value, 32);
    assert_int_equal(config_integer(settings, "missing", 5, 10, 20, &value, &error), ONESTEP_OK);
    assert_int_equal(value, 5);
    assert_int_equal(config_integer(settings, "null", 6, 10, 20, &value, &error), ONESTEP_OK);
    assert_int_equal(value, 6);
    assert_int_equal(config_integer(settings, "large", 0, 0, INT64_MAX, &value, &error),
                     ONESTEP_OK);
    assert_true(value == INT64_MAX);
    value = 77;
    expect_error(config_integer(settings, "integer", 5, 1, 1279, &value, &error), &error,
                 "integer: ", "1280 is outside the range 1 to 1279");
    expect_error(config_integer(settings, "integer", 5, 1281, 2000, &value, &error), &error,
                 "integer: ", "outside the range");
    static const char *const wrong[] = {"half", "yes", "text", "list", "object", "huge"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        expect_error(config_integer(settings, wrong[i], 5, INT64_MIN, INT64_MAX, &value, &error),
                     &error, wrong[i], "an integer expected, found ");
    }
    assert_int_equal(value, 77);
    config_close(&settings);
    assert_null(settings);
    config_close(&settings);
}

static void test_numbers(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    double value = -1;
    assert_int_equal(config_number(settings, "half", 1, 0, 1, &value, &error), ONESTEP_OK);
    assert_true(value == 0.5);
    assert_int_equal(config_number(settings, "integer", 1, 0, 2000, &value, &error), ONESTEP_OK);
    assert_true(value == 1280);
    assert_int_equal(config_number(settings, "missing", 1e-5, 0, 1, &value, &error), ONESTEP_OK);
    assert_true(value == 1e-5);
    assert_int_equal(config_number(settings, "null", 2e-5, 0, 1, &value, &error), ONESTEP_OK);
    assert_true(value == 2e-5);
    expect_error(config_number(settings, "huge", 1, 0, 1e9, &value, &error), &error,
                 "huge: ", "1e+300 is outside the range 0 to 1000000000");
    expect_error(config_number(settings, "text", 1, 0, 1, &value, &error), &error,
                 "text: ", "a number expected, found a text");
    config_close(&settings);
}

static void test_booleans_and_strings(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    bool flag = false;
    assert_int_equal(config_boolean(settings, "yes", false, &flag, &error), ONESTEP_OK);
    assert_true(flag);
    assert_int_equal(config_boolean(settings, "no", true, &flag, &error), ONESTEP_OK);
    assert_false(flag);
    assert_int_equal(config_boolean(settings, "missing", true, &flag, &error), ONESTEP_OK);
    assert_true(flag);
    expect_error(config_boolean(settings, "integer", true, &flag, &error), &error,
                 "integer: ", "true or false expected, found a number");
    const char *string;
    assert_int_equal(config_string(settings, "text", NULL, &string, &error), ONESTEP_OK);
    assert_string_equal(string, "silu \xC3\xA4");
    assert_int_equal(config_string(settings, "null", "gelu", &string, &error), ONESTEP_OK);
    assert_string_equal(string, "gelu");
    assert_int_equal(config_string(settings, "missing", NULL, &string, &error), ONESTEP_OK);
    assert_null(string);
    expect_error(config_string(settings, "yes", NULL, &string, &error), &error,
                 "yes: ", "a text expected, found true");
    config_close(&settings);
}

static void test_lists(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    int64_t integers[4] = {7, 8, 9, 10};
    size_t count = 4;
    assert_int_equal(config_integer_list(settings, "missing", 1, 2000, integers, &count, 2, &error),
                     ONESTEP_OK);
    assert_int_equal(count, 2);
    assert_int_equal(integers[0], 7);
    count = 4;
    assert_int_equal(config_integer_list(settings, "list", 1, 2000, integers, &count, 2, &error),
                     ONESTEP_OK);
    assert_int_equal(count, 4);
    assert_int_equal(integers[1], 640);
    assert_int_equal(integers[3], 1280);
    count = 4;
    assert_int_equal(config_integer_list(settings, "empty", 1, 2000, integers, &count, 2, &error),
                     ONESTEP_OK);
    assert_int_equal(count, 0);
    count = 3;
    expect_error(config_integer_list(settings, "list", 1, 2000, integers, &count, 2, &error),
                 &error, "list ", "has 4 elements: at most 3");
    count = 4;
    expect_error(config_integer_list(settings, "list", 1, 1000, integers, &count, 2, &error),
                 &error, "list: ", "1280 is outside");
    count = 4;
    expect_error(config_integer_list(settings, "integer", 1, 2000, integers, &count, 2, &error),
                 &error, "integer: ", "a list expected");
    count = 4;
    expect_error(config_integer_list(settings, "texts", 1, 2000, integers, &count, 2, &error),
                 &error, "texts: ", "an integer expected, found a text");
    double numbers[4];
    count = 4;
    assert_int_equal(config_number_list(settings, "numbers", 0, 3, numbers, &count, 0, &error),
                     ONESTEP_OK);
    assert_int_equal(count, 2);
    assert_true(numbers[0] == 1 && numbers[1] == 2.5);
    const char *strings[4];
    count = 4;
    assert_int_equal(config_string_list(settings, "texts", strings, &count, 0, &error), ONESTEP_OK);
    assert_int_equal(count, 2);
    assert_string_equal(strings[1], "B");
    count = 4;
    expect_error(config_string_list(settings, "numbers", strings, &count, 0, &error), &error,
                 "numbers: ", "a text expected");
    config_close(&settings);
}

static void test_each(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    int64_t integers[4];
    assert_int_equal(config_integer_each(settings, "integer", 8, 1, 2000, integers, 4, &error),
                     ONESTEP_OK);
    assert_int_equal(integers[0], 1280);
    assert_int_equal(integers[3], 1280);
    assert_int_equal(config_integer_each(settings, "list", 8, 1, 2000, integers, 4, &error),
                     ONESTEP_OK);
    assert_int_equal(integers[1], 640);
    assert_int_equal(config_integer_each(settings, "missing", 8, 1, 2000, integers, 4, &error),
                     ONESTEP_OK);
    assert_int_equal(integers[2], 8);
    expect_error(config_integer_each(settings, "list", 8, 1, 2000, integers, 3, &error), &error,
                 "list ", "has 4 elements: 3 expected, or one value");
    expect_error(config_integer_each(settings, "text", 8, 1, 2000, integers, 3, &error), &error,
                 "text: ", "an integer expected");
    bool flags[2];
    assert_int_equal(config_boolean_each(settings, "flags", false, flags, 2, &error), ONESTEP_OK);
    assert_true(flags[0] && !flags[1]);
    assert_int_equal(config_boolean_each(settings, "yes", false, flags, 2, &error), ONESTEP_OK);
    assert_true(flags[0] && flags[1]);
    assert_int_equal(config_boolean_each(settings, "null", false, flags, 2, &error), ONESTEP_OK);
    assert_true(!flags[0] && !flags[1]);
    expect_error(config_boolean_each(settings, "list", false, flags, 2, &error), &error, "list ",
                 "2 expected");
    config_close(&settings);
}

static void test_children(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    config *object, *deep, *second, *none;
    assert_int_equal(config_object(settings, "object", &object, &error), ONESTEP_OK);
    assert_string_equal(config_path(object), "unet/config.json: object");
    assert_int_equal(config_object(object, "deep", &deep, &error), ONESTEP_OK);
    assert_int_equal(config_list_object(settings, "objects", 1, &second, &error), ONESTEP_OK);
    assert_int_equal(config_object(settings, "missing", &none, &error), ONESTEP_OK);
    assert_null(none);
    expect_error(config_object(settings, "list", &none, &error), &error,
                 "list: ", "an object expected, found a list");
    expect_error(config_list_object(settings, "objects", 2, &none, &error), &error,
                 "objects: ", "a list of objects expected");
    expect_error(config_list_object(settings, "objects", 3, &none, &error), &error, "objects ",
                 "has no element 3");
    expect_error(config_list_object(settings, "missing", 0, &none, &error), &error, "missing ",
                 "has no element 0");
    size_t length;
    assert_int_equal(config_list_length(settings, "objects", &length, &error), ONESTEP_OK);
    assert_int_equal(length, 3);
    assert_int_equal(config_list_length(settings, "missing", &length, &error), ONESTEP_OK);
    assert_int_equal(length, 0);
    expect_error(config_list_length(settings, "text", &length, &error), &error,
                 "text: ", "a list expected");
    /* Children outlive the config they came from. */
    config_close(&settings);
    int64_t value;
    assert_int_equal(config_integer(deep, "x", 0, 0, 9, &value, &error), ONESTEP_OK);
    assert_int_equal(value, 1);
    assert_int_equal(config_integer(second, "id", 0, 0, 9, &value, &error), ONESTEP_OK);
    assert_int_equal(value, 2);
    expect_error(config_integer(second, "id", 0, 3, 9, &value, &error), &error,
                 "objects[1]: id: ", "outside");
    config_close(&object);
    config_close(&deep);
    config_close(&second);
}

static void test_keys(void **state)
{
    (void)state;
    config *settings = open_text(text);
    onestep_error error;
    assert_int_equal(config_count(settings), 16);
    assert_string_equal(config_key(settings, 0), "integer");
    assert_string_equal(config_key(settings, 15), "large");
    assert_true(config_has(settings, "integer"));
    assert_false(config_has(settings, "null"));
    assert_false(config_has(settings, "missing"));
    assert_int_equal(config_require(settings, "integer", &error), ONESTEP_OK);
    expect_error(config_require(settings, "null", &error), &error, "null", "is missing");
    expect_error(config_require(settings, "missing", &error), &error, "missing", "is missing");
    static const struct {
        const char *key;
        config_kind kind;
    } kinds[] = {
        {"missing", CONFIG_MISSING}, {"null", CONFIG_NULL},       {"no", CONFIG_BOOLEAN},
        {"yes", CONFIG_BOOLEAN},     {"integer", CONFIG_INTEGER}, {"half", CONFIG_NUMBER},
        {"text", CONFIG_STRING},     {"list", CONFIG_LIST},       {"object", CONFIG_OBJECT}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        assert_int_equal(config_kind_of(settings, kinds[i].key), kinds[i].kind);
    }
    config_close(&settings);
}

static void test_bad_json(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "one JSON object expected"},
        {"[]", "one JSON object expected"},
        {"1", "one JSON object expected"},
        {" \n", "one JSON object expected"},
        {"{", "ends in the middle"},
        {"{\"a\":[1, 2", "ends in the middle"},
        {"{\"a\":", "ends in the middle"},
        {"{\"a\"", "ends in the middle"},
        {"{\n\n\"a\" 1}", "bad JSON at line 3"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\":1,}", "bad JSON"},
        {"{\"a\":01}", "bad JSON"},
        {"{\"a\":NaN}", "bad JSON"},
        {"{\"a\":Infinity}", "bad JSON"},
        {"{\"a\":-1e999}", "bad JSON"},
        {"{\"a\":123456789012345678901234567890}", "bad JSON"},
        {"{'a':1}", "bad JSON"},
        {"{\"a\":1}//", "bad JSON"},
        {"{\"a\":1}]", "bad JSON"},
        {"{\"a\":1}],[{\"b\":1}", "bad JSON"},
        {"{\"a\":1},{\"b\":1}", "one JSON object expected"},
        {"\xEF\xBB\xBF{}", "bad JSON"},
        {"{\"\xFF\":1}", "bad JSON"},
        {"{\"a\":\"\\ud800\"}", "bad JSON"},
        {"{\"a\":\"\x01\"}", "bad JSON"},
        {"{\"a\":\"unfinished}", "bad JSON"},
        {"{\"a\":\"unfinished\\", "bad JSON"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t length = strlen(cases[i].text);
        uint8_t *copy = exact_copy(cases[i].text, length);
        config *settings;
        onestep_error error;
        assert_int_equal(config_parse(&settings, "c.json", copy, length, &error),
                         ONESTEP_ERROR_FORMAT);
        assert_null(settings);
        expect_message(&error, "c.json: ", cases[i].message, NULL);
        free(copy);
    }
    /* A NUL in the text. */
    config *settings;
    onestep_error error;
    assert_int_equal(config_parse(&settings, "c.json", "{\"a\":1}\0", 8, &error),
                     ONESTEP_ERROR_FORMAT);
}

static void test_cut_off_anywhere(void **state)
{
    (void)state;
    for (size_t length = 0; length < sizeof(text) - 1; length++) {
        uint8_t *copy = exact_copy(text, length);
        config *settings;
        onestep_error error;
        assert_int_equal(config_parse(&settings, "c.json", copy, length, &error),
                         ONESTEP_ERROR_FORMAT);
        free(copy);
    }
}

static void test_files(void **state)
{
    (void)state;
    config *settings;
    onestep_error error;
    const char *name = "sharded/diffusion_pytorch_model.safetensors.index.json";
    assert_int_equal(config_open(&settings, fixture_path(name), &error), ONESTEP_OK);
    assert_string_equal(config_path(settings), fixture_path(name));
    assert_true(config_has(settings, "weight_map"));
    config_close(&settings);
    assert_int_equal(config_open(&settings, fixture_path("missing.json"), &error),
                     ONESTEP_ERROR_IO);
    assert_null(settings);
    assert_int_equal(config_open(&settings, fixture_path("paired.pkl"), &error),
                     ONESTEP_ERROR_FORMAT);
    expect_message(&error, "paired.pkl: ", NULL);
    char *folder = temporary_folder();
    const char *path = temporary_path(folder, "large.json");
    size_t size = ((size_t)16 << 20) + 1;
    char *spaces = malloc(size);
    assert_non_null(spaces);
    memset(spaces, ' ', size);
    assert_int_equal(file_write_atomic(path, spaces, size, &error), ONESTEP_OK);
    assert_int_equal(config_open(&settings, path, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "large.json: ", "16777216", NULL);
    assert_int_equal(config_parse(&settings, "c.json", spaces, size, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "16777217 bytes: the limit is 16777216", NULL);
    free(spaces);
    temporary_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_booleans_and_strings),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_bad_json),
        cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
