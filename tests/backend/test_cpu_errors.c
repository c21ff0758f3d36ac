/* What the cpu backend refuses, and what it does when memory runs out. */
#include "cpu_scenarios.h"
#include "support/allocation_failure.h"
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DIMS(...) ((const size_t[4]){__VA_ARGS__})

typedef struct fixture {
    thread_pool *pool;
    backend *b;
    weight_cache *weights;
    graph *g;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_ok(thread_pool_create(&f->pool, 2, error));
    assert_ok(backend_cpu_create(&f->b, f->pool, CPU_LEVEL_AVX512_BF16, error));
    assert_ok(weight_cache_create(&f->weights, SIZE_MAX, error));
    assert_ok(graph_create(&f->g, error));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    graph_destroy(&f->g);
    weight_cache_destroy(&f->weights);
    backend_destroy(&f->b);
    thread_pool_destroy(&f->pool);
    free(f);
    return 0;
}

/* Lowers and runs the fixture's graph, which must fail with a message that holds `text`. */
static void expect_failure(fixture *f, const void *x, onestep_status code, const char *text)
{
    onestep_error error = {0};
    const test_input input = {"x", x};
    float *y = test_run(f->b, f->g, f->weights, PRECISION_F32, &input, 1, NULL, "y", &error);
    assert_null(y);
    assert_int_equal(error.code, code);
    check_contains(error.message, text);
}

/* ---- damaged weights
 * ------------------------------------------------------------------------------ */

/* The name and the place are told; repairing the weight repairs the run: nothing damaged was kept.
 */
static void test_weight_not_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    fixture *f = *state;
    float x[5 * 4 * 7];
    fill_random(x, 5 * 4 * 7, 1, 1);
    test_weight *kernel = test_weight_create(DIMS(130, 7, 3, 3), 2, 0.1f);
    test_weight *bias = test_weight_create(DIMS(130, 1, 1, 1), 3, 0.1f);
    kernel->expression.name = "block.conv.weight";
    bias->expression.name = "block.conv.bias";
    const tensor_id input = graph_input(f->g, "x", ELEMENT_F32, DIMS(1, 5, 4, 7));
    graph_output_add(f->g, "y",
                     graph_conv2d(f->g, input, graph_weight(f->g, &kernel->expression),
                                  graph_weight(f->g, &bias->expression), 1, (padding){1, 1, 1, 1}));
    for (size_t i = 0; i < 3; i++) {
        float *value = &test_weight_values(kernel)[(128 + i % 2) * 63 + 40 + i];
        const float before = *value;
        char place[32];
        snprintf(place, sizeof place, "[%zu,%zu]", 128 + i % 2, 40 + i);
        *value = bad[i];
        expect_failure(f, x, ONESTEP_ERROR_FORMAT, "block.conv.weight");
        expect_failure(f, x, ONESTEP_ERROR_FORMAT, place);
        *value = before;
    }
    test_weight_values(bias)[129] = NAN;
    expect_failure(f, x, ONESTEP_ERROR_FORMAT, "block.conv.bias");
    test_weight_values(bias)[129] = 0;
    onestep_error error = {0};
    const test_input bound = {"x", x};
    free(test_run(f->b, f->g, f->weights, PRECISION_F32, &bound, 1, NULL, "y", &error));
    assert_int_equal(error.code, ONESTEP_OK);
    graph_destroy(&f->g);
    test_weight_destroy(kernel);
    test_weight_destroy(bias);
}

static void test_embedding(void **state)
{
    fixture *f = *state;
    test_weight *tokens = test_weight_create(DIMS(10, 6, 1, 1), 1, 1);
    test_weight *positions = test_weight_create(DIMS(4, 6, 1, 1), 2, 1);
    tokens->expression.name = "token_embedding.weight";
    positions->expression.name = "position_embedding.weight";
    int32_t ids[4] = {0, 9, 10, 3};
    const tensor_id x = graph_input(f->g, "x", ELEMENT_I32, DIMS(1, 1, 4, 1));
    graph_output_add(f->g, "y",
                     graph_embedding(f->g, x, graph_weight(f->g, &tokens->expression),
                                     graph_weight(f->g, &positions->expression)));
    expect_failure(f, ids, ONESTEP_ERROR_MISMATCH, "token id 10");
    ids[2] = -1;
    expect_failure(f, ids, ONESTEP_ERROR_MISMATCH, "token id -1");
    ids[2] = 2;
    test_weight_values(tokens)[2 * 6 + 5] = NAN;
    expect_failure(f, ids, ONESTEP_ERROR_FORMAT, "token_embedding.weight");
    test_weight_values(tokens)[2 * 6 + 5] = 0;
    test_weight_values(positions)[3 * 6] = INFINITY;
    expect_failure(f, ids, ONESTEP_ERROR_FORMAT, "position_embedding.weight");
    graph_destroy(&f->g);
    test_weight_destroy(tokens);
    test_weight_destroy(positions);
}

/* ---- what it cannot do
 * --------------------------------------------------------------------------- */

static void test_gradients_are_refused(void **state)
{
    fixture *f = *state;
    const float x[12] = {0};
    const tensor_id input = graph_input(f->g, "x", ELEMENT_F32, DIMS(1, 2, 2, 3));
    const tensor_id inputs[2] = {input, input};
    const node_attributes attributes = {.of = OPERATION_SILU};
    graph_output_add(f->g, "y",
                     graph_add(f->g, OPERATION_ACTIVATION_GRADIENT, inputs, 2, &attributes));
    expect_failure(f, x, ONESTEP_ERROR_UNSUPPORTED, "activation_gradient");
}

static void test_kernel_is_refused(void **state)
{
    fixture *f = *state;
    const float x[75] = {0};
    test_weight *kernel = test_weight_create(DIMS(2, 3, 5, 5), 1, 1);
    kernel->expression.name = "large.weight";
    const tensor_id input = graph_input(f->g, "x", ELEMENT_F32, DIMS(1, 5, 5, 3));
    graph_output_add(f->g, "y",
                     graph_conv2d(f->g, input, graph_weight(f->g, &kernel->expression), TENSOR_NONE,
                                  1, (padding){2, 2, 2, 2}));
    expect_failure(f, x, ONESTEP_ERROR_UNSUPPORTED, "large.weight");
    graph_destroy(&f->g);
    test_weight_destroy(kernel);
}

/* ---- memory
 * --------------------------------------------------------------------------------------- */

static void test_every_allocation_may_fail(void **state)
{
    fixture *f = *state;
    test_weight *kernel = test_weight_create(DIMS(8, 8, 3, 3), 1, 0.2f);
    test_weight *vector = test_weight_create(DIMS(8, 1, 1, 1), 2, 0.5f);
    float x[6 * 5 * 8], *expected = NULL;
    fill_random(x, 6 * 5 * 8, 3, 1);
    const tensor_id input = graph_input(f->g, "x", ELEMENT_F32, DIMS(1, 6, 5, 8));
    const tensor_id w = graph_weight(f->g, &kernel->expression);
    const tensor_id v = graph_weight(f->g, &vector->expression);
    tensor_id h = graph_conv2d(f->g, input, w, v, 1, (padding){1, 1, 1, 1});
    h = graph_activation(f->g, OPERATION_SILU, graph_group_norm(f->g, h, v, v, 2, 1e-5f));
    h = graph_conv2d(f->g, h, w, v, 1, (padding){1, 1, 1, 1});
    h = graph_sum_of(f->g, h, graph_attention(f->g, h, h, h, 2, 0.5f, false));
    graph_output_add(f->g, "y", h);
    const test_input bound = {"x", x};
    unsigned failures = 0;
    for (size_t n = 0;; n++) { /* 0: none fails */
        weight_cache *cache = NULL;
        backend *b = NULL;
        onestep_error error = {0};
        float *y = NULL;
        assert_ok(weight_cache_create(&cache, SIZE_MAX, error));
        allocation_failure_start(n);
        onestep_status status = backend_cpu_create(&b, f->pool, CPU_LEVEL_AVX512_BF16, &error);
        program p = {0};
        const logger silent = {0};
        const lower_options options = {.weights = cache, .log = &silent};
        if (status == ONESTEP_OK) {
            status = b->functions->lower(b, f->g, &options, &p, &error);
        }
        const bool failed_lowering = allocation_failure_stop();
        if (status == ONESTEP_OK) {
            program_destroy(b, &p);
        } else {
            assert_int_equal(status, ONESTEP_ERROR_MEMORY);
            assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
            failures++;
        }
        if (b) { /* and works afterwards */
            y = test_run(b, f->g, cache, PRECISION_F32, &bound, 1, NULL, "y", &error);
            assert_non_null(y);
            if (!expected) {
                expected = y;
            } else {
                assert_memory_equal(y, expected, sizeof x);
                free(y);
            }
        }
        backend_destroy(&b);
        weight_cache_destroy(&cache);
        if (n > 0 && !failed_lowering) {
            break;
        }
    }
    assert_true(failures >= 12);
    free(expected);
    graph_destroy(&f->g);
    test_weight_destroy(kernel);
    test_weight_destroy(vector);
}

/* Packing that finds no memory is an error of that run only. */
static void test_packing_may_fail(void **state)
{
    fixture *f = *state;
    test_weight *kernel = test_weight_create(DIMS(8, 8, 1, 1), 1, 0.2f);
    float x[4 * 8], y[2][4 * 8];
    fill_random(x, 4 * 8, 3, 1);
    const tensor_id input = graph_input(f->g, "x", ELEMENT_F32, DIMS(1, 2, 2, 8));
    graph_output_add(
        f->g, "y", graph_linear(f->g, input, graph_weight(f->g, &kernel->expression), TENSOR_NONE));
    const logger silent = {0};
    const lower_options options = {.weights = f->weights, .log = &silent};
    const float scalars[SCALAR_COUNT] = {0};
    program p;
    assert_ok(f->b->functions->lower(f->b, f->g, &options, &p, error));
    assert_int_equal(p.step_count, 1);
    device_buffer *arena = NULL;
    assert_ok(f->b->functions->allocate(f->b, 512 + p.steps[0].scratch_bytes, &arena, error));
    const size_t offsets[2] = {p.steps[0].inputs[0] == 0 ? 0 : 256,
                               p.steps[0].inputs[0] == 0 ? 256 : 0};
    f->b->functions->upload(f->b, arena, offsets[p.steps[0].inputs[0]], x, sizeof x);
    const step_bindings bindings = {
        .arena = arena, .offsets = offsets, .scratch_offset = 512, .scalars = scalars};
    unsigned failures = 0;
    for (size_t n = 1;; n++) {
        onestep_error error = {0};
        allocation_failure_start(n);
        const onestep_status status = f->b->functions->run(f->b, &p, 0, &bindings, &error);
        const bool failed = allocation_failure_stop();
        if (status == ONESTEP_OK) {
            assert_false(failed);
            break;
        }
        assert_int_equal(status, ONESTEP_ERROR_MEMORY);
        assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
        failures++;
    }
    assert_true(failures > 0);
    f->b->functions->download(f->b, arena, offsets[p.steps[0].outputs[0]], y[0], sizeof y[0]);
    for (size_t i = 0; i < 4; i++) {
        for (size_t o = 0; o < 8; o++) {
            double sum = 0;
            for (size_t c = 0; c < 8; c++) {
                sum += (double)x[i * 8 + c] * (double)test_weight_values(kernel)[o * 8 + c];
            }
            y[1][i * 8 + o] = (float)sum;
        }
    }
    assert_true(relative_error(y[0], y[1], 32) < 1e-6);
    f->b->functions->release(f->b, arena);
    program_destroy(f->b, &p);
    graph_destroy(&f->g);
    test_weight_destroy(kernel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_weight_not_finite, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_embedding, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gradients_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kernel_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_allocation_may_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_packing_may_fail, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
