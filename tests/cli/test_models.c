/* `onestep models` and the store as `translate` sees it. */
#include "program.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define GOLDEN PROJECT_FOLDER "/tests/golden/"
#define BASE   GOLDEN "models/base_a"
#define EDGE   GOLDEN "models/base_a_edge.pkl"
#define INPUT  GOLDEN "cases/a_edge_8x8/input.png"

static char folder[64];
static program_result last;

static int make_folder(void **state)
{
    (void)state;
    program_folder_make(folder);
    setenv("ONESTEP_HOME", folder, 1);
    setenv("XDG_CONFIG_HOME", folder, 1);
    setenv("HF_HOME", folder, 1);
    return chdir(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    int result = chdir("/");
    program_folder_remove(folder);
    return result;
}

static void run_expecting(int exit_code, const char *const *arguments)
{
    program_run(&last, NULL, arguments);
    if (last.exit_code != exit_code) {
        fail_msg("exit %d: %s", last.exit_code, last.error);
    }
}

#define RUN(code, ...) run_expecting(code, (const char *const[]){__VA_ARGS__, NULL})

static void test_mistakes(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *message, *arguments[8];
    } cases[] = {
        {2, "did you mean pull", {"models", "pul"}},
        {2, "a name", {"models", "pull"}},
        {2, "did you mean day_to_night", {"models", "pull", "day_to_nigt"}},
        {2, "--yes", {"models", "pull", "day_to_night"}},
        {2, "one model", {"models", "pull", "sd-turbo", "day_to_night", "--url", "http://x/"}},
        {1, "--offline", {"models", "pull", "day_to_night", "--yes", "--offline"}},
        {1, "not in the model store", {"models", "path", "day_to_night"}},
        {1, "not in the model store", {"models", "remove", "nothing"}},
        {1, "no record", {"models", "verify", "day_to_night"}},
        {1, "no such file", {"models", "info", "nothing.here/at/all"}},
        {1, "nothing.pkl", {"models", "import", "nothing.pkl"}},
        {1, "diffusers folder", {"models", "import", INPUT}},
        {2, "is the name of", {"models", "import", EDGE, "--name", "sd-turbo"}},
        {2, "letters", {"models", "import", EDGE, "--name", "../x"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_expecting(cases[i].code, cases[i].arguments);
        check_contains(last.error, cases[i].message);
    }
}

/* What translate says about a model that is not there, and what works then. */
static void test_missing(void **state)
{
    (void)state;
    RUN(1, "translate", "-t", "day_to_night", "-i", INPUT, "-o", "x.png");
    check_contains(last.error, "`onestep models pull day_to_night`");
    check_contains(last.error, "3.8 GB");
    check_contains(last.error, "Stability AI");
    check_contains(last.error, "--demo works now");
    RUN(1, "translate", "-t", "day_to_night", "-b", BASE, "-i", INPUT, "-o", "x.png");
    check_contains(last.error, "1.2 GB");
    RUN(1, "translate", "-c", EDGE, "-p", "x", "-b", "nowhere", "-i", INPUT, "-o", "x.png");
    check_contains(last.error, "models import");
}

static void test_listing(void **state)
{
    (void)state;
    RUN(0, "models");
    check_contains(last.out, "rainy_to_clear");
    RUN(0, "models", "list", "--json");
    check_contains(last.out, "\"name\":\"sd-turbo\",\"kind\":\"base\",\"state\":\"absent\"");
    RUN(0, "models", "info", "sd-turbo");
    check_contains(last.out, "Stability AI");
    RUN(0, "models", "info", EDGE, "--json");
    check_contains(last.out, "\"family\":\"paired\"");
}

static void test_import(void **state)
{
    (void)state;
    RUN(0, "models", "import", BASE, "--name", "sd-turbo");
    check_contains(last.out, "unet");
    RUN(0, "models", "import", EDGE, "--name", "edge_to_image");
    check_contains(last.out, "lora_rank_unet");
    check_contains(last.error, "-t edge_to_image");
    RUN(0, "models", "import", EDGE, "--name", "mine");
    RUN(1, "models", "import", EDGE, "--name", "mine");
    check_contains(last.error, "already");
    RUN(0, "models", "list");
    check_contains(last.out, "mine");
    check_contains(last.out, "(imported)");
    RUN(0, "models", "pull", "edge_to_image"); /* there: nothing to ask, nothing to fetch */
    RUN(0, "translate", "-t", "edge_to_image", "-p", "x", "-i", INPUT, "-o", "a.png");
    RUN(0, "translate", "-b", BASE, "-c", EDGE, "-t", "edge_to_image", "-p", "x", "-i", INPUT, "-o",
        "b.png");
    RUN(0, "translate", "-c", "mine", "-t", "edge_to_image", "-p", "x", "-i", INPUT, "-o", "c.png");
    assert_int_equal(access("a.png", F_OK) + access("b.png", F_OK) + access("c.png", F_OK), 0);
    RUN(0, "models", "path", "mine", "sd-turbo");
    check_contains(last.out, "/checkpoints/mine.pkl\n");
    check_contains(last.out, "/bases/sd-turbo\n");
    RUN(0, "models", "verify");
    check_contains(last.out, "good mine/mine.pkl");
    assert_int_equal(truncate("checkpoints/mine.pkl", 1000), 0);
    RUN(1, "models", "verify", "mine", "--json");
    check_contains(last.out, "\"good\":false");
    RUN(0, "models", "remove", "mine");
    assert_int_not_equal(access("checkpoints/mine.pkl", F_OK), 0);
    RUN(1, "models", "path", "mine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_listing),
        cmocka_unit_test(test_import),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
