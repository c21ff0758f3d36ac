/* JSON configs, every getter on every key. */
#include "formats/fuzz_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void walk(const config *settings, unsigned depth);

static void walk_key(const config *settings, const char *key, unsigned depth)
{
    int64_t integers[4];
    double numbers[4];
    bool flags[2];
    const char *strings[4];
    size_t count = 4;
    onestep_error error;
    (void)!config_require(settings, key, &error);
    (void)!config_integer(settings, key, 1, -5, 5000, integers, &error);
    if (config_number(settings, key, 1, -5, 5000, numbers, &error) == ONESTEP_OK) {
        fuzz_require(numbers[0] >= -5 && numbers[0] <= 5000);
    }
    (void)!config_boolean(settings, key, true, flags, &error);
    if (config_string(settings, key, "", strings, &error) == ONESTEP_OK) {
        fuzz_read(strings[0], strlen(strings[0]));
    }
    (void)!config_integer_list(settings, key, -5, 5000, integers, &count, 0, &error);
    count = 4;
    (void)!config_number_list(settings, key, -5, 5000, numbers, &count, 0, &error);
    count = 4;
    (void)!config_string_list(settings, key, strings, &count, 0, &error);
    (void)!config_integer_each(settings, key, 1, -5, 5000, integers, 4, &error);
    (void)!config_boolean_each(settings, key, true, flags, 2, &error);
    config *child;
    if (config_object(settings, key, &child, &error) == ONESTEP_OK && child != NULL) {
        walk(child, depth + 1);
    }
    config_close(&child);
    size_t length;
    if (config_list_length(settings, key, &length, &error) == ONESTEP_OK && length > 0) {
        if (config_list_object(settings, key, length - 1, &child, &error) == ONESTEP_OK) {
            walk(child, depth + 1);
        }
        config_close(&child);
        fuzz_require(config_list_object(settings, key, length, &child, &error) != ONESTEP_OK);
    }
}

static void walk(const config *settings, unsigned depth)
{
    fuzz_require(depth <= 32);
    for (size_t i = 0; i < config_count(settings); i++) {
        fuzz_require(config_kind_of(settings, config_key(settings, i)) != CONFIG_MISSING);
        walk_key(settings, config_key(settings, i), depth);
    }
    walk_key(settings, "no such key", depth);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_begin();
    config *settings;
    onestep_error error;
    if (config_parse(&settings, "fuzz.json", bytes, size, &error) == ONESTEP_OK) {
        walk(settings, 0);
    }
    config_close(&settings);
    return 0;
}
