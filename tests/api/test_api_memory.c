/* Every allocation of opening a model and translating a picture fails once: a clean error each
 * time, and the next run gives the same picture. */
#include "golden.h"
#include "support/allocation_failure.h"
#include "support/check.h"

static onestep_status whole_run(const golden_case *g, onestep_error *error)
{
    onestep_engine *engine = NULL;
    onestep_base *base = NULL;
    onestep_model *model = NULL;
    onestep_session *session = NULL;
    onestep_engine_options engine_options;
    onestep_model_options model_options;
    onestep_result result;
    onestep_request request;
    onestep_engine_options_init(&engine_options);
    engine_options.threads = 1;
    onestep_model_options_init(&model_options);
    onestep_result_init(&result);
    onestep_request_init(&request);
    request.image = g->input;
    request.prompt = "a bird";
    onestep_status status = onestep_engine_create(&engine, &engine_options, error);
    if (status == ONESTEP_OK) {
        status =
            onestep_base_open(&base, engine, PROJECT_FOLDER "/tests/golden/models/base_a", error);
    }
    if (status == ONESTEP_OK) {
        status =
            onestep_model_open(&model, base, PROJECT_FOLDER "/tests/golden/models/base_a_edge.pkl",
                               &model_options, error);
    }
    if (status == ONESTEP_OK) {
        status = onestep_session_create(&session, model, error);
    }
    if (status == ONESTEP_OK) {
        status = onestep_translate(session, &request, &result, error);
    }
    if (status == ONESTEP_OK) {
        assert_non_null(result.image.pixels);
    }
    onestep_result_free(&result);
    onestep_session_destroy(&session);
    onestep_model_destroy(&model);
    onestep_base_destroy(&base);
    onestep_engine_destroy(&engine);
    return status;
}

static void test_every_allocation(void **state)
{
    (void)state;
    golden_case g;
    onestep_error error = {0};
    golden_open(&g, "a_edge_8x8");
    assert_int_equal(whole_run(&g, &error), ONESTEP_OK);
    size_t failures = 0, survived = 0;
    /* The first allocations one by one, later ones with growing strides: the whole has thousands.
     */
    for (size_t n = 1;; n += 1 + n / 60) {
        error = (onestep_error){0};
        allocation_failure_start(n);
        onestep_status status = whole_run(&g, &error);
        if (!allocation_failure_stop()) {
            assert_int_equal(status, ONESTEP_OK);
            break;
        }
        failures++;
        /* A cache that cannot grow, or a thread that cannot start, is no failure. */
        survived += status == ONESTEP_OK;
        if (status != ONESTEP_OK && error.message[0] == '\0') {
            fail_msg("allocation %zu: an error without a message", n);
        }
    }
    print_message("%zu allocations failed, %zu of them harmlessly\n", failures, survived);
    assert_true(failures > 100);
    assert_true(survived < failures / 2);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
