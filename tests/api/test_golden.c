/* Every golden case against the official Python, stage by stage: the reference backend within 1e-5,
 * the cpu backend's float32 within 1e-4, pictures within the levels of docs/ARCHITECTURE.md. */
#include "golden.h"
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CASES_MOST 100

typedef struct comparison {
    const golden_case *golden;
    onestep_precision precision;
    bool reference;
    unsigned seen, wrong; /* stages */
} comparison;

static double stage_tolerance(const comparison *c, const char *stage)
{
    onestep_error error;
    config *tolerances, *tolerance;
    double value;
    assert_int_equal(config_object(c->golden->settings, "tolerance", &tolerances, &error),
                     ONESTEP_OK);
    assert_int_equal(config_object(tolerances, stage, &tolerance, &error), ONESTEP_OK);
    assert_non_null(tolerance);
    assert_int_equal(
        config_number(tolerance, c->reference ? "reference" : "f32", 0, 1e-9, 1, &value, &error),
        ONESTEP_OK);
    config_close(&tolerance);
    config_close(&tolerances);
    return value;
}

static int compare_stage(void *user_data, const onestep_tensor *found)
{
    comparison *c = user_data;
    bool stored = false;
    for (size_t i = 0; i < c->golden->stage_count; i++) {
        stored = stored || strcmp(c->golden->stages[i], found->stage) == 0;
    }
    if (!stored) {
        return 0;
    }
    named_tensor expected;
    golden_stage(c->golden, found->stage, &expected);
    c->seen++;
    bool same_shape = expected.rank == found->rank;
    for (unsigned d = 0; d < found->rank && same_shape; d++) {
        same_shape = expected.shape[d] == (size_t)found->shape[d];
    }
    if (!same_shape) {
        print_message("%s: %s has another shape\n", c->golden->name, found->stage);
        c->wrong++;
        npy_free(&expected);
        return 0;
    }
    if (found->is_int64) {
        if (memcmp(expected.data, found->data, expected.bytes) != 0) {
            print_message("%s: %s differs\n", c->golden->name, found->stage);
            c->wrong++;
        }
    } else {
        const float *a = found->data, *b = expected.data;
        double difference = 0, norm = 0;
        for (size_t i = 0; i < expected.bytes / sizeof(float); i++) {
            difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
            norm += (double)b[i] * b[i];
        }
        double error = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
        double tolerance = stage_tolerance(c, found->stage);
        if (!(error <= tolerance)) {
            print_message("%s: %s is off by %.3g, allowed %.3g\n", c->golden->name, found->stage,
                          error, tolerance);
            c->wrong++;
        }
    }
    npy_free(&expected);
    return 0;
}

static bool resized_after(const golden_case *g)
{
    bool value;
    onestep_error error;
    assert_int_equal(config_boolean(g->settings, "lanczos_after", false, &value, &error),
                     ONESTEP_OK);
    return value;
}

static void compare_picture(comparison *c, const onestep_image *found)
{
    const onestep_image *expected = &c->golden->output;
    assert_int_equal(found->width, expected->width);
    assert_int_equal(found->height, expected->height);
    int largest = 0;
    size_t different = 0, bytes = (size_t)found->width * 3;
    for (uint32_t y = 0; y < found->height; y++) {
        const uint8_t *a = (const uint8_t *)found->pixels + y * found->stride;
        const uint8_t *b = (const uint8_t *)expected->pixels + y * expected->stride;
        for (size_t i = 0; i < bytes; i++) {
            int d = abs(a[i] - b[i]);
            largest = d > largest ? d : largest;
            different += d != 0;
        }
    }
    double share = (double)different / (double)(bytes * found->height);
    int levels = resized_after(c->golden) ? 2 : 1;
    if (largest > levels || share > (c->reference ? 0.01 : 0.05)) {
        print_message("%s: picture off by up to %d levels in %.2f %% of the bytes\n",
                      c->golden->name, largest, share * 100);
        c->wrong++;
    }
}

static unsigned run_case(const char *name, onestep_engine *engine, bool reference,
                         onestep_precision precision)
{
    golden_case g;
    golden_open(&g, name);
    onestep_model *model = golden_model(&g, engine, precision);
    onestep_session *session;
    onestep_error error;
    assert_int_equal(onestep_session_create(&session, model, &error), ONESTEP_OK);
    comparison c = {.golden = &g, .reference = reference, .precision = precision};
    onestep_request request;
    onestep_result result;
    golden_request(&g, &request);
    onestep_result_init(&result);
    request.dump = compare_stage;
    request.dump_user_data = &c;
    onestep_status status = onestep_translate(session, &request, &result, &error);
    if (status != ONESTEP_OK) {
        fail_msg("%s: %s", name, error.message);
    }
    if (c.seen != g.stage_count) {
        print_message("%s: %u of %zu stages were dumped\n", name, c.seen, g.stage_count);
        c.wrong++;
    }
    compare_picture(&c, &result.image);
    onestep_result_free(&result);
    onestep_session_destroy(&session);
    onestep_model_destroy(&model);
    golden_close(&g);
    return c.wrong;
}

static void run_all(onestep_backend backend, onestep_precision precision, const char *isa)
{
    static char names[CASES_MOST][80];
    size_t count = golden_list(names, CASES_MOST);
    assert_true(count >= 30);
    onestep_engine_options options;
    onestep_engine *engine;
    onestep_error error;
    onestep_engine_options_init(&options);
    options.backend = backend;
    options.isa = isa;
    assert_int_equal(onestep_engine_create(&engine, &options, &error), ONESTEP_OK);
    unsigned wrong = 0;
    for (size_t i = 0; i < count; i++) {
        wrong += run_case(names[i], engine, backend == ONESTEP_BACKEND_REFERENCE, precision);
    }
    onestep_engine_destroy(&engine);
    assert_int_equal(wrong, 0);
}

static void test_reference(void **state)
{
    (void)state;
    run_all(ONESTEP_BACKEND_REFERENCE, ONESTEP_PRECISION_F32, NULL);
}

static void test_cpu(void **state)
{
    (void)state;
    run_all(ONESTEP_BACKEND_CPU, ONESTEP_PRECISION_F32, NULL);
}

static void test_cpu_plain(void **state)
{
    (void)state;
    run_all(ONESTEP_BACKEND_CPU, ONESTEP_PRECISION_F32, "plain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_cpu),
                                       cmocka_unit_test(test_cpu_plain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
