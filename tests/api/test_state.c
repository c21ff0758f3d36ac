/* Nothing that ran before, beside or with more threads changes a picture: bit for bit. */
#include "golden.h"
#include "support/check.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#define EDGE   "a_edge_64x64"
#define SKETCH "a_sketch_gamma0.4"

/* All tests run with each of the precisions of main. */
static onestep_precision precision = ONESTEP_PRECISION_F32;

/* An engine, a case's model and a session on it. */
typedef struct fixture {
    golden_case golden;
    onestep_engine *engine;
    onestep_model *model;
    onestep_session *session;
} fixture;

static void must(onestep_status status, const onestep_error *error)
{
    if (status != ONESTEP_OK) {
        fail_msg("%s", error->message);
    }
}

static void fixture_open(fixture *f, const char *name, unsigned threads)
{
    onestep_error error;
    onestep_engine_options options;
    onestep_engine_options_init(&options);
    options.threads = threads;
    golden_open(&f->golden, name);
    must(onestep_engine_create(&f->engine, &options, &error), &error);
    f->model = golden_model(&f->golden, f->engine, precision);
    must(onestep_session_create(&f->session, f->model, &error), &error);
}

static void fixture_close(fixture *f)
{
    onestep_session_destroy(&f->session);
    onestep_model_destroy(&f->model);
    onestep_engine_destroy(&f->engine);
    golden_close(&f->golden);
}

/* A checksum of the picture that a request gives; the picture has tight rows. */
static uint64_t checksum(const onestep_image *image)
{
    uint64_t sum = 14695981039346656037u;
    const uint8_t *bytes = image->pixels;
    for (size_t i = 0; i < image->stride * image->height; i++) {
        sum = (sum ^ bytes[i]) * 1099511628211u;
    }
    return sum;
}

static uint64_t run(onestep_session *session, const onestep_request *request)
{
    onestep_error error;
    onestep_result result;
    onestep_result_init(&result);
    must(onestep_translate(session, request, &result, &error), &error);
    uint64_t sum = checksum(&result.image);
    onestep_result_free(&result);
    return sum;
}

static uint64_t run_with(fixture *f, const char *prompt, double gamma, int64_t seed)
{
    onestep_request request;
    golden_request(&f->golden, &request);
    request.prompt = prompt;
    request.gamma = gamma;
    request.seed = seed;
    return run(f->session, &request);
}

static void test_order(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, SKETCH, 2);
    uint64_t a = run_with(&f, "a bird", 0.4, 1), b = run_with(&f, "a cat", 0.4, 2);
    assert_true(a != b);
    assert_true(run_with(&f, "a bird", 0.4, 1) == a);
    uint64_t zero = run_with(&f, "a bird", 0, 1), one = run_with(&f, "a bird", 1, 1);
    assert_true(zero != one && one != a && zero != a);
    assert_true(run_with(&f, "a bird", 0.4, 1) == a);
    assert_true(run_with(&f, "a bird", 1, 1) == one);
    assert_true(run_with(&f, "a bird", 0, 1) == zero);
    fixture_close(&f);
    /* What is kept of one caption and gamma does not leak into the next. */
    fixture_open(&f, SKETCH, 2);
    assert_true(run_with(&f, "a cat", 0.4, 2) == b);
    fixture_close(&f);
    fixture_open(&f, SKETCH, 2);
    assert_true(run_with(&f, "a bird", 1, 1) == one);
    fixture_close(&f);
}

/* At gamma 0 the control picture has no influence at all. */
static void test_gamma_zero(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, SKETCH, 2);
    uint64_t drawn = run_with(&f, "a bird", 0, 7);
    onestep_request request;
    golden_request(&f.golden, &request);
    onestep_image blank = {0};
    onestep_error error;
    must(image_create(&blank, request.image.width, request.image.height, ONESTEP_PIXEL_U8, &error),
         &error);
    request.image = blank;
    request.prompt = "a bird";
    request.gamma = 0;
    request.seed = 7;
    assert_true(run(f.session, &request) == drawn);
    request.gamma = 1;
    assert_true(run(f.session, &request) != run_with(&f, "a bird", 1, 7));
    image_destroy(&blank);
    fixture_close(&f);
}

static void test_threads(void **state)
{
    (void)state;
    static const unsigned counts[] = {1, 2, 3, 7};
    static const char *const cases[] = {EDGE, SKETCH, "a_day_to_night", "b_edge_64x48"};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint64_t expected = 0;
        for (size_t i = 0; i < 4; i++) {
            fixture f;
            onestep_request request;
            fixture_open(&f, cases[c], counts[i]);
            assert_int_equal(onestep_engine_threads(f.engine), counts[i]);
            golden_request(&f.golden, &request);
            uint64_t sum = run(f.session, &request);
            expected = i == 0 ? sum : expected;
            if (sum != expected) {
                fail_msg("%s: another picture with %u threads", cases[c], counts[i]);
            }
            fixture_close(&f);
        }
    }
}

typedef struct canceller {
    int calls, stop_at;
    double last;
    bool fell;
} canceller;

static int cancel_later(void *user_data, double fraction, const char *stage)
{
    canceller *c = user_data;
    c->fell = c->fell || fraction < c->last || fraction > 1 || !stage || !*stage;
    c->last = fraction;
    return ++c->calls == c->stop_at;
}

static void test_cancel(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, EDGE, 2);
    onestep_request request;
    golden_request(&f.golden, &request);
    uint64_t expected = run(f.session, &request);
    canceller whole = {0};
    request.progress = cancel_later;
    request.progress_user_data = &whole;
    assert_true(run(f.session, &request) == expected);
    assert_false(whole.fell);
    assert_true(whole.last > 0.5 && whole.calls > 10);
    for (int stop = 1; stop < whole.calls; stop += 1 + whole.calls / 12) {
        canceller c = {.stop_at = stop};
        onestep_result result;
        onestep_error error;
        onestep_result_init(&result);
        request.progress_user_data = &c;
        assert_int_equal(onestep_translate(f.session, &request, &result, &error),
                         ONESTEP_ERROR_CANCELLED);
        assert_null(result.image.pixels);
        request.progress = NULL;
        assert_true(run(f.session, &request) == expected);
        request.progress = cancel_later;
    }
    fixture_close(&f);
}

static void test_batch(void **state)
{
    (void)state;
    enum { COUNT = 11 };
    fixture f;
    fixture_open(&f, SKETCH, 2);
    golden_case other;
    golden_open(&other, "a_edge_40x24_cpu");
    onestep_request requests[COUNT];
    onestep_result results[COUNT];
    uint64_t expected[COUNT];
    static const char *const prompts[] = {"a bird", "a cat in the rain", "!", ""};
    for (int i = 0; i < COUNT; i++) {
        golden_request(&f.golden, &requests[i]);
        requests[i].prompt = prompts[i % 4];
        requests[i].seed = i;
        requests[i].gamma = i % 3 == 2 ? 0.9 : 0.3;
        if (i % 5 == 4) {
            requests[i].image = other.input; /* another size in between */
        }
        onestep_result_init(&results[i]);
        expected[i] = run(f.session, &requests[i]);
    }
    onestep_error error;
    must(onestep_translate_batch(f.session, requests, COUNT, results, &error), &error);
    for (int i = 0; i < COUNT; i++) {
        if (checksum(&results[i].image) != expected[i]) {
            fail_msg("item %d of a batch differs from its single run", i);
        }
        onestep_result_free(&results[i]);
    }
    golden_close(&other);
    fixture_close(&f);
}

static int look_away(void *user_data, const onestep_tensor *stage)
{
    (void)stage;
    ++*(int *)user_data;
    return 0;
}

/* Watching the stages does not change the picture, though it keeps tensors from being fused. */
static void test_dump(void **state)
{
    (void)state;
    static const char *const cases[] = {EDGE, SKETCH, "b_day_to_night", "b_sketch_gamma1"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        onestep_request request;
        int seen = 0;
        fixture_open(&f, cases[i], 2);
        golden_request(&f.golden, &request);
        uint64_t expected = run(f.session, &request);
        request.dump = look_away;
        request.dump_user_data = &seen;
        if (run(f.session, &request) != expected) {
            fail_msg("%s: another picture with a dump", cases[i]);
        }
        assert_true(seen >= 13);
        fixture_close(&f);
    }
}

typedef struct worker {
    fixture *fixture;
    double gamma;
    uint64_t sum;
    pthread_t thread;
} worker;

static void *translate_some(void *argument)
{
    worker *w = argument;
    onestep_error error;
    onestep_session *session;
    if (onestep_session_create(&session, w->fixture->model, &error) != ONESTEP_OK) {
        return NULL;
    }
    for (int i = 0; i < 3; i++) {
        onestep_request request;
        onestep_result result;
        golden_request(&w->fixture->golden, &request);
        request.gamma = w->gamma;
        onestep_result_init(&result);
        if (onestep_translate(session, &request, &result, &error) == ONESTEP_OK) {
            w->sum = checksum(&result.image);
            onestep_result_free(&result);
        }
    }
    onestep_session_destroy(&session);
    return NULL;
}

static void test_two_sessions(void **state)
{
    (void)state;
    enum { WORKERS = 4 };
    fixture f;
    fixture_open(&f, SKETCH, 2);
    const char *prompt;
    onestep_request request;
    golden_request(&f.golden, &request);
    prompt = request.prompt;
    worker workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (worker){.fixture = &f, .gamma = 0.25 * i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, translate_some, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    for (int i = 0; i < WORKERS; i++) {
        assert_true(workers[i].sum == run_with(&f, prompt, 0.25 * i, request.seed));
    }
    fixture_close(&f);
}

static void test_memory_limit(void **state)
{
    (void)state;
    uint64_t expected = 0;
    for (int limited = 0; limited < 2; limited++) {
        golden_case g;
        onestep_engine *engine;
        onestep_session *session;
        onestep_error error;
        onestep_engine_options options;
        onestep_engine_options_init(&options);
        options.memory_limit = limited ? 4000000 : 0;
        golden_open(&g, EDGE);
        must(onestep_engine_create(&engine, &options, &error), &error);
        onestep_model *model = golden_model(&g, engine, ONESTEP_PRECISION_F32);
        must(onestep_session_create(&session, model, &error), &error);
        onestep_request request;
        golden_request(&g, &request);
        uint64_t sum = run(session, &request);
        assert_true(run(session, &request) == sum);
        expected = limited ? expected : sum;
        assert_true(sum == expected);
        onestep_session_destroy(&session);
        onestep_model_destroy(&model);
        onestep_engine_destroy(&engine);
        golden_close(&g);
    }
}

static onestep_status try_request(fixture *f, onestep_request *request, onestep_error *error)
{
    onestep_result result;
    onestep_result_init(&result);
    onestep_status status = onestep_translate(f->session, request, &result, error);
    onestep_result_free(&result);
    return status;
}

static void test_bad_requests(void **state)
{
    (void)state;
    fixture f;
    onestep_error error;
    onestep_request request;
    fixture_open(&f, SKETCH, 1);
    const double gammas[] = {-0.1, 1.1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        golden_request(&f.golden, &request);
        request.gamma = gammas[i];
        assert_int_equal(try_request(&f, &request, &error), ONESTEP_ERROR_ARGUMENT);
        check_contains(error.message, "gamma");
    }
    golden_request(&f.golden, &request);
    request.prompt = NULL;
    assert_int_equal(try_request(&f, &request, &error), ONESTEP_ERROR_ARGUMENT);
    check_contains(error.message, "prompt");
    golden_request(&f.golden, &request);
    request.prompt = "caf\xe9";
    assert_true(try_request(&f, &request, &error) != ONESTEP_OK);
    check_contains(error.message, "UTF-8");
    golden_request(&f.golden, &request);
    request.direction = ONESTEP_DIRECTION_A2B;
    assert_int_equal(try_request(&f, &request, &error), ONESTEP_ERROR_ARGUMENT);
    golden_request(&f.golden, &request);
    request.image.width = 0;
    assert_true(try_request(&f, &request, &error) != ONESTEP_OK);
    golden_request(&f.golden, &request);
    request.image.pixels = NULL;
    assert_true(try_request(&f, &request, &error) != ONESTEP_OK);
    golden_request(&f.golden, &request);
    request.image.width = 7;
    assert_int_equal(try_request(&f, &request, &error), ONESTEP_ERROR_UNSUPPORTED);
    float noise[3] = {0};
    golden_request(&f.golden, &request);
    request.noise = noise;
    request.noise_count = 3;
    assert_int_equal(try_request(&f, &request, &error), ONESTEP_ERROR_ARGUMENT);
    check_contains(error.message, "noise");
    golden_request(&f.golden, &request);
    request.size = 3;
    assert_int_equal(try_request(&f, &request, &error), ONESTEP_ERROR_ARGUMENT);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),        cmocka_unit_test(test_gamma_zero),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_batch),        cmocka_unit_test(test_two_sessions),
        cmocka_unit_test(test_memory_limit), cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_dump),
    };
    const int failed = cmocka_run_group_tests_name("f32", tests, NULL, NULL);
    precision = ONESTEP_PRECISION_AUTO;
    return failed + cmocka_run_group_tests_name("auto", tests, NULL, NULL);
}
