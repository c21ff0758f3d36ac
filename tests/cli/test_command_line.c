/* The command line: every option's errors, exit codes, the official scripts' spellings. */
#include "program.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN PROJECT_FOLDER "/tests/golden/"
#define BASE   GOLDEN "models/base_a"
#define EDGE   GOLDEN "models/base_a_edge.pkl"
#define SKETCH GOLDEN "models/base_a_sketch.pkl"
#define NIGHT  GOLDEN "models/base_a_day_night.pkl"
#define INPUT  GOLDEN "cases/a_edge_64x64/input.png"
#define SMALL  GOLDEN "cases/a_edge_8x8/input.png"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    program_folder_make(folder);
    return chdir(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    program_folder_remove(folder);
    return 0;
}

/* Arguments, the exit code that they must give, and a part of the message. */
typedef struct expectation {
    int exit_code;
    const char *message;
    const char *arguments[24];
} expectation;

static void check_one(const expectation *e)
{
    program_result result;
    program_run(&result, NULL, e->arguments);
    char line[1024] = "";
    for (int i = 0; e->arguments[i]; i++) {
        strncat(line, " ", sizeof line - strlen(line) - 1);
        strncat(line, e->arguments[i], sizeof line - strlen(line) - 1);
    }
    if (result.exit_code != e->exit_code) {
        fail_msg("onestep%s: exit %d, expected %d: %s", line, result.exit_code, e->exit_code,
                 result.error);
    }
    if (e->message && !strstr(result.error, e->message) && !strstr(result.out, e->message)) {
        fail_msg("onestep%s: \"%s\" not in: %s", line, e->message, result.error);
    }
    /* One clear line, then at most the pointer to --help. */
    if (e->exit_code == 1) {
        char *newline = strchr(result.error, '\n');
        assert_true(newline && newline[1] == '\0');
    }
    assert_int_equal(strncmp(result.error, "onestep: ", e->exit_code ? 9 : 0), 0);
}

static void check_all(const expectation *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_one(&list[i]);
    }
}

#define T    "translate"
#define OK_C "-b", BASE, "-c", EDGE
#define CHECK(...)                                                                                 \
    do {                                                                                           \
        static const expectation list[] = {__VA_ARGS__};                                           \
        check_all(list, sizeof list / sizeof *list);                                               \
    } while (0)

static void test_general(void **state)
{
    (void)state;
    CHECK({2, "Usage", {NULL}}, {0, "Usage", {"--help"}}, {0, "onestep 0.", {"--version"}},
          {0, "onestep 0.", {"version"}}, {2, "did you mean translate", {"translat"}},
          {2, "unknown command", {"xyzzyxyzzy"}}, {0, "--image-prep", {T, "--help"}},
          {0, "bench", {"bench", "--help"}}, {0, "info", {"info", "-h"}},
          {2, "did you mean --gamma", {T, "--gama", "1"}},
          {2, "did you mean --output", {T, "--outp", "x"}}, {2, "unknown option -Z", {T, "-Z"}},
          {2, "needs a value", {T, "--prompt"}}, {2, "needs a value", {T, "-p"}},
          {2, "takes no value", {T, "--grid=1"}}, {2, "unexpected argument", {T, "stray"}},
          {2, "more than once", {T, "-p", "a", "-p", "b"}});
}

static void test_values(void **state)
{
    (void)state;
    CHECK({2, "did you mean edge_to_image", {T, "-t", "edge_to_imag"}},
          {2, "expected 0 to 1", {T, "--gamma", "1.5"}}, {2, "a number", {T, "--gamma", "nan"}},
          {2, "a number", {T, "--gamma", "0x1"}}, {2, "a number", {T, "--gamma", ""}},
          {2, "expected 0", {T, "--low-threshold", "-1"}},
          {2, "a number", {T, "--high-threshold", "inf"}}, {2, "threads", {T, "--threads", "0"}},
          {2, "whole number", {T, "--threads", "two"}}, {2, "whole number", {T, "--seed", "1.5"}},
          {2, "whole number", {T, "--seed", "99999999999999999999"}},
          {2, "numbers", {T, "--gammas", "0,,1"}}, {2, "expected 0", {T, "--gammas", "0,2"}},
          {2, "a size", {T, "--memory-limit", "much"}}, {2, "a size", {T, "--memory-limit", "0"}},
          {2, "quality", {T, "--quality", "101"}}, {2, "format", {T, "--format", "gif"}},
          {2, "precision", {T, "--precision", "f64"}}, {2, "rng", {T, "--rng", "mt"}},
          {2, "posterior", {T, "--posterior", "mode"}}, {2, "direction", {T, "--direction", "ab"}},
          {2, "control", {T, "--control", "depth"}}, {2, "fit", {T, "--fit", "crop"}},
          {2, "image-prep", {T, "--image-prep", "resize"}}, {2, "backend", {T, "--backend", "gpu"}},
          {2, "on-error", {T, "--on-error", "go"}}, {2, "count", {T, "--count", "0"}},
          {2, "max-side", {T, "--max-side", "4"}}, {2, "empty path", {T, "-i", ""}});
}

static void test_combinations(void **state)
{
    (void)state;
    CHECK(
        {2, "--task NAME or --checkpoint", {T, "-i", INPUT}}, {2, "no input", {T, OK_C, "-p", "x"}},
        {2, "needs a --prompt", {T, "-t", "edge_to_image", "-i", INPUT}},
        {2, "prompt", {T, OK_C, "-i", INPUT, "-o", "x.png"}},
        {2, "exclude", {T, "--model_name", "edge_to_image", "--model_path", EDGE, "-p", "x"}},
        {2, "direction", {T, "-t", "day_to_night", "--direction", "a2b", "-i", INPUT}},
        {2, "direction", {T, "-b", BASE, "-c", NIGHT, "-p", "x", "-i", INPUT, "-o", "x.png"}},
        {2, "direction", {T, OK_C, "-p", "x", "-i", INPUT, "--direction", "a2b", "-o", "x.png"}},
        {2, "exclude", {T, "-t", "day_to_night", "--fit", "exact", "--image-prep", "no_resize"}},
        {2, "paired", {T, "-t", "edge_to_image", "-p", "x", "--image-prep", "no_resize"}},
        {2, "exclude", {T, OK_C, "-p", "x", "--gamma", "0", "--gammas", "0,1"}},
        {2, "need an output folder", {T, OK_C, "-p", "x", "-i", INPUT, "-i", SMALL, "-o", "x.png"}},
        {2, "both be written", {T, OK_C, "-p", "x", "-i", INPUT, "-i", SMALL, "-o", "out"}},
        {2, "one picture", {T, OK_C, "-p", "x", "-i", INPUT, "-o", "-", "-n", "2"}},
        {2,
         "AVX512_BF16",
         {T, OK_C, "-p", "x", "-i", INPUT, "--isa", "plain", "--precision", "bf16", "-o",
          "x.png"}});
    assert_int_not_equal(access("x.png", F_OK), 0);
}

static void make_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void test_bad_files(void **state)
{
    (void)state;
    /* A PNG header that asks for 100,000 x 100,000 pixels. */
    static const unsigned char huge[] = {0x89, 'P',  'N',  'G',  '\r', '\n', 0x1a, '\n', 0,    0,
                                         0,    13,   'I',  'H',  'D',  'R',  0,    1,    0x86, 0xa0,
                                         0,    1,    0x86, 0xa0, 8,    2,    0,    0,    0,    0x27,
                                         0x30, 0x9c, 0x9f, 0x00, 0x00, 0x00, 0x02, 0x49, 0x44, 0x41,
                                         0x54, 0x78, 0x9c, 0x62, 0xa4, 0x91, 0x2b};
    make_file("text.png", "not a picture", 13);
    make_file("empty.png", "", 0);
    make_file("huge.png", huge, sizeof huge);
    make_file("text.pkl", "not a checkpoint at all, only words", 35);
    make_file("bad.txt", "nothing.png\n", 12);
    make_file("empty.txt", "", 0);
    mkdir("void", 0777);
    CHECK(
        {1, "none.png", {T, OK_C, "-p", "x", "-i", "none.png", "-o", "o.png"}},
        {1, "text.png", {T, OK_C, "-p", "x", "-i", "text.png", "-o", "o.png"}},
        {1, "empty.png", {T, OK_C, "-p", "x", "-i", "empty.png", "-o", "o.png"}},
        {1, "100000", {T, OK_C, "-p", "x", "-i", "huge.png", "-o", "o.png"}},
        {1, "no PNG", {T, OK_C, "-p", "x", "-i", "void", "-o", "o"}},
        {1, "no file matches", {T, OK_C, "-p", "x", "-i", "*.gif", "-o", "o"}},
        {1, "the list is empty", {T, OK_C, "-p", "x", "-i", "@empty.txt", "-o", "o"}},
        {1, "nothing.png", {T, OK_C, "-p", "x", "-i", "@bad.txt", "-o", "o"}},
        {1, "text.pkl", {T, "-b", BASE, "-c", "text.pkl", "-p", "x", "-i", INPUT, "-o", "o.png"}},
        {1, "no such file", {T, "-b", BASE, "-c", "no.pkl", "-p", "x", "-i", INPUT}},
        {1, "void", {T, "-b", "void", "-c", EDGE, "-p", "x", "-i", INPUT, "-o", "o.png"}},
        {1, "model store", {T, "-b", "nowhere", "-c", EDGE, "-p", "x", "-i", INPUT}},
        {1, "unpaired", {T, "-b", BASE, "-t", "day_to_night", "-c", EDGE, "-i", INPUT}},
        {1, "paired", {T, "-b", BASE, "-t", "edge_to_image", "-c", NIGHT, "-p", "x", "-i", INPUT}},
        {1, "twin", {T, "-b", BASE, "-t", "edge_to_image", "-c", SKETCH, "-p", "x", "-i", INPUT}},
        {2, "UTF-8", {T, OK_C, "-p", "caf\xe9", "-i", INPUT, "-o", "o.png"}},
        {1, "onestep", {T, OK_C, "-p", "x", "-i", INPUT, "-o", "/proc/nowhere/o.png"}},
        {1, "parameters", {T, "--like", INPUT, "-i", INPUT}},
        {1, "npy", {T, OK_C, "-p", "x", "-i", INPUT, "--posterior-noise", "text.png"}});
    assert_int_not_equal(access("o.png", F_OK), 0);
}

/* A checkpoint for another base names the first tensor whose shape differs, and both shapes. */
static void test_other_base(void **state)
{
    (void)state;
    program_result result;
    const char *arguments[] = {
        T, "-b", GOLDEN "models/base_b", "-c", EDGE, "-p", "x", "-i", INPUT, "-o", "o.png", NULL};
    program_run(&result, NULL, arguments);
    assert_int_equal(result.exit_code, 1);
    check_contains(result.error, "expected");
    check_contains(result.error, "base");
    assert_int_not_equal(access("o.png", F_OK), 0);
}

static void test_full_disk(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) != 0) {
        skip();
    }
    const char *arguments[] = {T, OK_C, "-p", "x", "-i", SMALL, "-o", "-", NULL};
    char command[1024];
    (void)arguments;
    snprintf(command, sizeof command,
             "%s translate -q -b %s -c %s -p x -i %s -o - >/dev/full 2>full.txt", PROGRAM, BASE,
             EDGE, SMALL);
    int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_general),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_combinations), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_other_base),   cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
