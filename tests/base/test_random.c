#include "base/base.h"
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Normals may differ from torch's by this much (relative for values beyond 1 as float's own
 * spacing grows). */
static const double TOLERANCE = 5e-7;

/* The whole golden file, one string. */
static char *read_golden(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/random/%s", PROJECT_FOLDER, name);
    uint8_t *bytes;
    size_t size;
    onestep_error error;
    if (file_read(path, 1 << 24, &bytes, &size, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    return (char *)bytes;
}

static void check_near(double value, double expected, double tolerance, const char *what)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%s: %.9g instead of %.9g", what, value, expected);
    }
}

static void words_are_torchs(void **state)
{
    (void)state;
    char *text = read_golden("cpu_words.tsv");
    char *rest = text;
    int rows = 0;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; ++rows) {
        char *next;
        random_state generator;
        random_seed(&generator, RANDOM_CPU, strtoll(line, &next, 10));
        int words = 0;
        for (char *end; *next != '\0'; next = end, ++words) {
            unsigned long expected = strtoul(next, &end, 16);
            assert_ptr_not_equal(end, next);
            assert_int_equal(random_mt19937_word(&generator), expected);
        }
        assert_true(words >= 1300);
    }
    assert_true(rows >= 10);
    memory_free(text);
}

static void cpu_normals_are_torchs(void **state)
{
    (void)state;
    char *text = read_golden("cpu_normal.tsv");
    char *rest = text;
    int rows = 0;
    double largest = 0;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; ++rows) {
        char *seed = strsep(&line, "\t"), *sizes = strsep(&line, "\t"), *values = line;
        assert_non_null(values);
        random_state generator;
        random_seed(&generator, RANDOM_CPU, strtoll(seed, NULL, 10));
        for (char *end; *sizes != '\0'; sizes = end) {
            size_t count = strtoul(sizes, &end, 10);
            float *drawn = malloc(count * sizeof *drawn);
            random_normal(&generator, drawn, count);
            for (size_t i = 0; i < count; ++i) {
                double expected = strtod(values, &values);
                check_near(drawn[i], expected, TOLERANCE, seed);
                largest = fmax(largest, fabs(drawn[i] - expected));
            }
            free(drawn);
        }
        assert_int_equal(*values, '\0');
    }
    assert_true(rows >= 100);
    print_message("           largest difference from torch %.2g\n", largest);
    memory_free(text);
}

static void cuda_normals_follow_the_words(void **state)
{
    (void)state;
    char *text = read_golden("cuda.tsv");
    char *rest = text;
    int rows = 0;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; ++rows) {
        char *seed = strsep(&line, "\t"), *draws = strsep(&line, "\t"),
             *counts = strsep(&line, "\t"), *words = strsep(&line, "\t"), *values = line;
        assert_non_null(values);
        size_t count = strtoul(counts, NULL, 10);
        float *drawn = malloc(count * sizeof *drawn);
        random_state generator;
        random_seed(&generator, RANDOM_CUDA, strtoll(seed, NULL, 10));
        /* Earlier draws count one each, whatever their size. */
        for (unsigned long i = strtoul(draws, NULL, 10); i > 0; --i) {
            random_normal(&generator, drawn, i);
        }
        random_normal(&generator, drawn, count);
        for (size_t i = 0; i < count; ++i) {
            double u = (double)strtoul(words, &words, 16) * 0x1p-32 + 0x1p-33;
            double v = (double)strtoul(words + 1, &words, 16) * 0x1p-32 + 0x1p-33;
            double exact = sqrt(-2 * log(u)) * sin(2 * acos(-1) * v);
            /* Within half a step of float: the mathematics is right to far more digits. */
            check_near(drawn[i], exact, fmax(fabs(exact), 1e-30) * 0x1.0001p-24, seed);
            check_near(drawn[i], strtod(values, &values), TOLERANCE, seed);
        }
        assert_int_equal(*values, '\0');
        free(drawn);
    }
    assert_true(rows >= 50);
    memory_free(text);
}

static void published_cuda_values(void **state)
{
    (void)state;
    const double published[] = {-0.92466259, -0.42534415, -2.6438457,  0.14518388,
                                -0.12086647, -0.57972564, -0.62285122, -0.32838709,
                                -1.07454231, -0.36314407, -1.67105067, 2.26550497};
    random_state generator;
    random_seed(&generator, RANDOM_CUDA, 0);
    float drawn[12];
    random_normal(&generator, drawn, 12);
    for (int i = 0; i < 12; ++i) {
        check_near(drawn[i], published[i], 1e-6, "published");
    }
}

static void empty_draws(void **state)
{
    (void)state;
    float none, first, second;
    random_state generator;
    /* On the CPU an empty draw takes nothing; on CUDA torch launches no kernel for it either. */
    for (int kind = RANDOM_CUDA; kind <= RANDOM_CPU; ++kind) {
        random_seed(&generator, (random_generator)kind, 5);
        random_normal(&generator, &first, 1);
        random_seed(&generator, (random_generator)kind, 5);
        random_normal(&generator, &none, 0);
        random_normal(&generator, &second, 1);
        assert_true(first == second);
    }
}

static uint64_t hash_draws(random_generator kind)
{
    enum { COUNT = 300000 };
    float *drawn = malloc(COUNT * sizeof *drawn);
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (int64_t seed = -2; seed < 2; ++seed) {
        random_state generator;
        random_seed(&generator, kind, seed);
        random_normal(&generator, drawn, COUNT);
        const uint8_t *bytes = (const uint8_t *)drawn;
        for (size_t i = 0; i < COUNT * sizeof *drawn; ++i) {
            hash = (hash ^ bytes[i]) * 0x100000001b3;
        }
    }
    free(drawn);
    return hash;
}

static void bytes_are_the_same_on_every_machine(void **state)
{
    (void)state;
    /* Not a golden of correctness (those are above): what the first machine computed. */
    assert_true(hash_draws(RANDOM_CUDA) == 0x7e1145d2e68d8a4c);
    assert_true(hash_draws(RANDOM_CPU) == 0xfc30d44ac5ffdf52);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_torchs),
        cmocka_unit_test(cpu_normals_are_torchs),
        cmocka_unit_test(cuda_normals_follow_the_words),
        cmocka_unit_test(published_cuda_values),
        cmocka_unit_test(empty_draws),
        cmocka_unit_test(bytes_are_the_same_on_every_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
