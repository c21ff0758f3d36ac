/* The catalogue: built in, the user's, and what is refused. */
#include "store/store.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[64];
static onestep_error error;

static int make_file(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/onestep-catalogue-XXXXXX");
    int file = mkstemp(path);
    return file < 0 || close(file);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void test_built_in(void **state)
{
    (void)state;
    static const char *const names[] = {
        "sd-turbo",      "edge_to_image", "sketch_to_image_stochastic",
        "day_to_night",  "night_to_day",  "clear_to_rainy",
        "rainy_to_clear"};
    catalogue *c;
    assert_int_equal(catalogue_open(&c, NULL, &error), ONESTEP_OK);
    assert_int_equal(catalogue_count(c), 7);
    for (size_t i = 0; i < 7; i++) {
        const catalogue_model *model = catalogue_find(c, names[i]);
        assert_non_null(model);
        assert_int_equal(model->kind, i == 0 ? MODEL_BASE : MODEL_CHECKPOINT);
        assert_true(model->url ? strncmp(model->url, "https://", 8) == 0 : i == 0);
        assert_true(catalogue_bytes(model, false) > 1000000);
    }
    const catalogue_model *base = catalogue_find(c, "sd-turbo");
    assert_true(catalogue_bytes(base, true) > 2 * catalogue_bytes(base, false) - 10000000);
    assert_null(catalogue_find(c, "nothing"));
    catalogue_close(&c);
}

#define MODEL(rest)                                                                                \
    "{\"format\": 1, \"models\": [{\"name\": \"mine\", \"kind\": \"checkpoint\", "                 \
    "\"licence\": \"own\", \"url\": \"https://example.org/\"" rest "}]}"

static void test_user(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message; /* NULL: good */
    } cases[] = {
        {MODEL(", \"files\": [{\"path\": \"a.pkl\"}]"), NULL},
        {"{\"format\": 1, \"models\": []}", NULL},
        {"{\"format\": 1, \"models\": [", "line"},
        {"[]", "object"},
        {"", "line"},
        {"{\"models\": []}", "format"},
        {"{\"format\": 2, \"models\": []}", "format"},
        {MODEL(""), "files"},
        {MODEL(", \"files\": [{\"path\": \"../a.pkl\"}]"), "path"},
        {MODEL(", \"files\": [{\"path\": \"/a.pkl\"}]"), "path"},
        {MODEL(", \"files\": [{\"path\": \"a/b.pkl\"}]"), "plain file name"},
        {MODEL(", \"files\": [{\"path\": \".a\"}]"), "path"},
        {MODEL(", \"files\": [{\"path\": \"a\", \"sha256\": \"12\"}]"), "64"},
        {MODEL(", \"files\": [{\"path\": \"a\", \"bytes\": -1}]"), "size"},
        {MODEL(", \"files\": [{\"path\": \"a\", \"variant\": \"tiny\"}]"), "half or full"},
        {MODEL(", \"files\": [{\"path\": \"a\", \"sha\": \"12\"}]"), "keys"},
        {MODEL(", \"files\": [{\"path\": \"a\"}, {\"path\": \"b\"}]"), "one file"},
        {MODEL(", \"huggingface\": \"a/b\", \"files\": [{\"path\": \"a\"}]"), "either"},
        {"{\"format\": 1, \"models\": [{\"name\": \"../x\"}]}", "letters"},
        {"{\"format\": 1, \"models\": [{\"name\": \"x\", \"kind\": \"y\"}]}", "base or checkpoint"},
        {"{\"format\": 1, \"models\": [7]}", "letters"},
        {"{\"format\": 1, \"models\": [{\"name\": \"x\", \"kind\": \"base\", \"licence\": \"y\", "
         "\"url\": \"file:///etc/\", \"files\": [{\"path\": \"passwd\"}]}]}",
         "https://"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        catalogue *c;
        assert_int_equal(file_write_atomic(path, cases[i].text, strlen(cases[i].text), &error),
                         ONESTEP_OK);
        onestep_status status = catalogue_open(&c, path, &error);
        if (!cases[i].message) {
            assert_int_equal(status, ONESTEP_OK);
            catalogue_close(&c);
            continue;
        }
        assert_null(c);
        if (status != ONESTEP_ERROR_FORMAT || !strstr(error.message, cases[i].message) ||
            !strstr(error.message, path)) {
            fail_msg("%s: %s", cases[i].text, error.message);
        }
    }
}

/* An entry of a known name takes its place. */
static void test_replacing(void **state)
{
    (void)state;
    static const char text[] =
        "{\"format\": 1, \"models\": [{\"name\": \"day_to_night\", \"kind\": \"checkpoint\", "
        "\"licence\": \"own\", \"url\": \"https://example.org/\", "
        "\"files\": [{\"path\": \"day2night.pkl\", \"bytes\": 5}]}]}";
    catalogue *c;
    assert_int_equal(file_write_atomic(path, text, strlen(text), &error), ONESTEP_OK);
    assert_int_equal(catalogue_open(&c, path, &error), ONESTEP_OK);
    assert_int_equal(catalogue_count(c), 7);
    assert_int_equal(catalogue_bytes(catalogue_find(c, "day_to_night"), false), 5);
    catalogue_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_built_in, make_file, remove_file),
        cmocka_unit_test_setup_teardown(test_user, make_file, remove_file),
        cmocka_unit_test_setup_teardown(test_replacing, make_file, remove_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
