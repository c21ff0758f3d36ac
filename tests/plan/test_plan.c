/* Running a plan again and again: what stays from run to run, and what must not. */
#include "plan/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { VALUES = 12 };

typedef struct fixture {
    thread_pool *pool;
    backend *backend;
    weight_cache *weights;
    graph *graph;
    plan *plan;
    float picture[VALUES], text[VALUES], scalars[SCALAR_COUNT];
    int steps; /* that the last run announced */
    int most;  /* after so many it is called off */
    float result[VALUES];
} fixture;

static void must(onestep_status status, const onestep_error *error)
{
    if (status != ONESTEP_OK) {
        fail_msg("%s", error->message);
    }
}

/* y = (text * gamma + 3) * silu(5) + silu(picture) */
static void fixture_create(fixture *f, bool fast, bool steady, bool watch)
{
    static const size_t dims[4] = {1, 2, 2, 3};
    static const logger silent;
    float threes[VALUES], fives[VALUES];
    onestep_error error;
    *f = (fixture){.most = 1000};
    for (int i = 0; i < VALUES; i++) {
        threes[i] = 3;
        fives[i] = 5;
        f->picture[i] = (float)i;
        f->text[i] = (float)(VALUES - i);
    }
    f->scalars[SCALAR_GAMMA] = 0.5f;
    must(thread_pool_create(&f->pool, 2, &error), &error);
    must(fast ? backend_cpu_create(&f->backend, f->pool, CPU_LEVEL_PLAIN, &error)
              : backend_reference_create(&f->backend, f->pool, &error),
         &error);
    must(weight_cache_create(&f->weights, SIZE_MAX, &error), &error);
    must(graph_create(&f->graph, &error), &error);
    graph *g = f->graph;
    graph_stage(g, "stage");
    const coefficient gamma = {.constant = 0, .slope = 1, .scalar = SCALAR_GAMMA};
    const tensor_id picture = graph_input(g, "picture", ELEMENT_F32, dims);
    const tensor_id text = graph_input(g, "text", ELEMENT_F32, dims);
    if (steady) {
        graph_steady(g, text);
    }
    const tensor_id three = graph_constant(g, threes, dims);
    const tensor_id five = graph_activation(g, OPERATION_SILU, graph_constant(g, fives, dims));
    const tensor_id moved = graph_combine(g, text, gamma, three, coefficient_constant(1));
    const tensor_id product = graph_multiply(g, moved, five);
    if (watch) {
        graph_output_add(g, "watched", moved);
    }
    graph_output_add(g, "y",
                     graph_sum_of(g, graph_activation(g, OPERATION_SILU, picture), product));
    const lower_options options = {
        .precision = PRECISION_F32, .weights = f->weights, .log = &silent};
    must(plan_create(&f->plan, f->backend, g, &options, &error), &error);
}

static void fixture_destroy(fixture *f)
{
    plan_destroy(&f->plan);
    graph_destroy(&f->graph);
    weight_cache_destroy(&f->weights);
    backend_destroy(&f->backend);
    thread_pool_destroy(&f->pool);
}

static onestep_status take(void *context, const char *name, const size_t dims[4],
                           const float *values, onestep_error *error)
{
    fixture *f = context;
    (void)dims;
    (void)error;
    if (strcmp(name, "y") == 0) {
        memcpy(f->result, values, sizeof f->result);
    }
    return ONESTEP_OK;
}

static onestep_status count_step(void *context, double done, const char *stage,
                                 onestep_error *error)
{
    fixture *f = context;
    (void)done;
    (void)stage;
    if (f->steps == f->most) {
        return error_set(error, ONESTEP_ERROR_CANCELLED, "enough");
    }
    f->steps++;
    return ONESTEP_OK;
}

static onestep_status run(fixture *f)
{
    onestep_error error;
    const plan_input inputs[] = {{"picture", f->picture}, {"text", f->text}};
    const plan_run_arguments arguments = {.inputs = inputs,
                                          .input_count = 2,
                                          .scalars = f->scalars,
                                          .output = take,
                                          .progress = count_step,
                                          .context = f};
    f->steps = 0;
    memset(f->result, 0xff, sizeof f->result);
    return plan_run(f->plan, &arguments, &error);
}

/* Runs, and compares with a plan that never ran before. Gives the number of steps. */
static int check(fixture *f, bool fast)
{
    fixture fresh;
    fixture_create(&fresh, fast, false, false);
    memcpy(fresh.picture, f->picture, sizeof f->picture);
    memcpy(fresh.text, f->text, sizeof f->text);
    memcpy(fresh.scalars, f->scalars, sizeof f->scalars);
    assert_int_equal(run(&fresh), ONESTEP_OK);
    assert_int_equal(run(f), ONESTEP_OK);
    assert_memory_equal(f->result, fresh.result, sizeof f->result);
    fixture_destroy(&fresh);
    return f->steps;
}

static void steady_steps_run_once(bool fast)
{
    fixture f;
    fixture_create(&f, fast, true, false);
    const int all = check(&f, fast);
    const int few = check(&f, fast);
    assert_true(few < all);
    f.picture[3] = -7;
    assert_int_equal(check(&f, fast), few);
    f.text[VALUES - 1] = 40;
    assert_int_equal(check(&f, fast), all);
    assert_int_equal(check(&f, fast), few);
    f.scalars[SCALAR_GAMMA] = 0.25f;
    assert_int_equal(check(&f, fast), all);
    assert_int_equal(check(&f, fast), few);
    plan_release_memory(f.plan);
    assert_int_equal(check(&f, fast), all);
    /* Called off in the middle: nothing that was half made counts as kept. */
    f.text[0] = 11;
    for (f.most = 0; f.most < all; f.most++) {
        assert_int_equal(run(&f), ONESTEP_ERROR_CANCELLED);
        const int most = f.most;
        f.most = 1000;
        assert_int_equal(check(&f, fast), all);
        f.most = most;
        f.text[0]++;
    }
    /* Called off while what is kept is not made: it stays. */
    f.most = 1000;
    assert_int_equal(check(&f, fast), all);
    f.most = few - 1;
    assert_int_equal(run(&f), ONESTEP_ERROR_CANCELLED);
    f.most = 1000;
    assert_int_equal(check(&f, fast), few);
    fixture_destroy(&f);
}

static void steady_steps(void **state)
{
    (void)state;
    steady_steps_run_once(false);
    steady_steps_run_once(true);
}

/* Without the graph's word the text may be another each time, and only constants are steady. */
static void other_inputs_are_not_kept(void **state)
{
    (void)state;
    fixture f, steady;
    fixture_create(&f, true, false, false);
    fixture_create(&steady, true, true, false);
    const int all = check(&f, true);
    const int constants_kept = check(&f, true);
    assert_int_equal(check(&steady, true), all);
    assert_true(check(&steady, true) < constants_kept);
    assert_true(constants_kept < all);
    fixture_destroy(&f);
    fixture_destroy(&steady);
}

/* What is handed out is made in every run. */
static void watched_steps_run_always(void **state)
{
    (void)state;
    fixture f, unwatched;
    fixture_create(&f, true, true, true);
    fixture_create(&unwatched, true, true, false);
    check(&f, true);
    check(&unwatched, true);
    assert_true(check(&f, true) > check(&unwatched, true));
    fixture_destroy(&f);
    fixture_destroy(&unwatched);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady_steps),
        cmocka_unit_test(other_inputs_are_not_kept),
        cmocka_unit_test(watched_steps_run_always),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
