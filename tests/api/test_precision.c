/* Reduced precision: what `auto` means, and how far its pictures are from float32's. */
#include "golden.h"
#include "support/check.h"

#include <math.h>

/* Cases of all families, on models whose last step amplifies errors. */
static const char *const cases[] = {"a_edge_64x64", "a_sketch_gamma0.4", "b_edge_64x48",
                                    "b_sketch_gamma0.4", "a_day_to_night"};

static void must(onestep_status status, const onestep_error *error)
{
    if (status != ONESTEP_OK) {
        fail_msg("%s", error->message);
    }
}

static onestep_engine *create_engine(const char *isa)
{
    onestep_error error;
    onestep_engine_options options;
    onestep_engine_options_init(&options);
    options.threads = 2;
    options.isa = isa;
    onestep_engine *engine = NULL;
    must(onestep_engine_create(&engine, &options, &error), &error);
    return engine;
}

static onestep_result picture_of(const golden_case *golden, onestep_engine *engine,
                                 onestep_precision precision)
{
    onestep_error error;
    onestep_request request;
    onestep_result result;
    onestep_session *session;
    onestep_model *model = golden_model(golden, engine, precision);
    must(onestep_session_create(&session, model, &error), &error);
    golden_request(golden, &request);
    onestep_result_init(&result);
    must(onestep_translate(session, &request, &result, &error), &error);
    onestep_session_destroy(&session);
    onestep_model_destroy(&model);
    return result;
}

/* Peak signal-to-noise ratio in dB. */
static double psnr(const onestep_image *a, const onestep_image *b)
{
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    const uint8_t *first = a->pixels, *second = b->pixels;
    const size_t row = (size_t)a->width * 3;
    double sum = 0;
    for (size_t y = 0; y < a->height; y++) {
        for (size_t x = 0; x < row; x++) {
            const double difference =
                (double)first[y * a->stride + x] - (double)second[y * b->stride + x];
            sum += difference * difference;
        }
    }
    return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)(row * a->height) / sum) : INFINITY;
}

static void check_distance(const char *name, onestep_engine *engine, onestep_precision precision,
                           double at_least)
{
    golden_case golden;
    golden_open(&golden, name);
    onestep_result exact = picture_of(&golden, engine, ONESTEP_PRECISION_F32);
    onestep_result reduced = picture_of(&golden, engine, precision);
    const double ratio = psnr(&exact.image, &reduced.image);
    if (ratio < at_least) {
        fail_msg("%s: %.1f dB from float32, expected %.0f", name, ratio, at_least);
    }
    onestep_result_free(&exact);
    onestep_result_free(&reduced);
    golden_close(&golden);
}

static void test_auto_is_close(void **state)
{
    (void)state;
    onestep_engine *engine = create_engine(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_distance(cases[i], engine, ONESTEP_PRECISION_AUTO, 42);
    }
    onestep_engine_destroy(&engine);
}

/* bfloat16 is less exact than what `auto` may be; it is there for those who ask for it. */
static void test_bf16_is_refused_or_close(void **state)
{
    (void)state;
    onestep_engine *engine = create_engine(NULL);
    if (strcmp(onestep_engine_isa(engine), "avx512bf16") == 0) {
        check_distance(cases[0], engine, ONESTEP_PRECISION_BF16, 25);
    }
    onestep_engine_destroy(&engine);

    golden_case golden;
    golden_open(&golden, cases[0]);
    engine = create_engine("plain");
    onestep_model *model = golden_model(&golden, engine, ONESTEP_PRECISION_AUTO);
    assert_string_equal(onestep_model_precision(model), "f32");
    onestep_model_destroy(&model);
    onestep_engine_destroy(&engine);
    golden_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto_is_close),
        cmocka_unit_test(test_bf16_is_refused_or_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
