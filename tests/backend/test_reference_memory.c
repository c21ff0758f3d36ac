/* The reference backend when the n-th allocation fails, for every n of a small run: an error that
 * says so, nothing lost, and the same backend and cache work afterwards. */
#include "support.h"
#include "support/allocation_failure.h"

#include <string.h>

#define DIMS(...) ((const size_t[4]){__VA_ARGS__})

static graph *small_graph(const weight_expression *kernel, const weight_expression *vector)
{
    graph *g = NULL;
    assert_ok(graph_create(&g, error));
    tensor_id x = graph_input(g, "x", ELEMENT_F32, DIMS(1, 3, 3, 4));
    tensor_id c = graph_constant(g, (const float[4]){1, 2, 3, 4}, DIMS(1, 1, 1, 4));
    tensor_id v = graph_weight(g, vector);
    tensor_id y = graph_group_norm(g, graph_sum_of(g, x, c), v, v, 2, 1e-5f);
    y = graph_conv2d(g, y, graph_weight(g, kernel), v, 1, (padding){1, 1, 1, 1});
    graph_output_add(g, "y", graph_attention(g, y, y, y, 2, 0.5f, false));
    assert_ok(graph_check(g, error));
    return g;
}

/* Everything that allocates in one run; writes the output when it works. */
static onestep_status run_all(backend *b, weight_cache *cache, const graph *g, const float *x,
                              float *y, onestep_error *error)
{
    const logger silent = {0};
    const lower_options options = {.weights = cache, .log = &silent};
    const float scalars[SCALAR_COUNT] = {0};
    program p;
    device_buffer *arena = NULL;
    onestep_status status = b->functions->lower(b, g, &options, &p, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    size_t offsets[16], bytes = 0;
    assert_true(p.value_count <= 16);
    for (int v = 0; v < p.value_count; v++) {
        offsets[v] = bytes;
        bytes += size_round_up(p.values[v].bytes, 64);
    }
    size_t scratch = bytes;
    for (int s = 0; s < p.step_count; s++) {
        bytes = size_maximum(bytes, scratch + p.steps[s].scratch_bytes);
    }
    status = b->functions->allocate(b, bytes, &arena, error);
    if (status == ONESTEP_OK) {
        b->functions->upload(b, arena, offsets[p.tensor_values[0]], x, 36 * sizeof *x);
    }
    step_bindings bindings = {
        .arena = arena, .offsets = offsets, .scratch_offset = scratch, .scalars = scalars};
    for (int s = 0; s < p.step_count && status == ONESTEP_OK; s++) {
        status = b->functions->run(b, &p, s, &bindings, error);
    }
    if (status == ONESTEP_OK) {
        int v = p.tensor_values[g->outputs[0].tensor];
        b->functions->download(b, arena, offsets[v], y, 36 * sizeof *y);
    }
    b->functions->release(b, arena);
    program_destroy(b, &p);
    return status;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    test_weight *kernel = test_weight_create(DIMS(4, 4, 3, 3), 1, 0.5f),
                *vector = test_weight_create(DIMS(4, 1, 1, 1), 2, 0.5f);
    graph *g = small_graph(&kernel->expression, &vector->expression);
    thread_pool *pool = NULL;
    assert_ok(thread_pool_create(&pool, 2, error));
    float x[36], expected[36] = {0}, y[36];
    fill_random(x, 36, 3, 1.0f);
    unsigned errors = 0;
    for (size_t n = 0;; n++) { /* 0: none fails */
        memset(y, 0, sizeof y);
        backend *b = NULL;
        weight_cache *cache = NULL;
        assert_ok(weight_cache_create(&cache, SIZE_MAX, error));
        onestep_error error = {0};
        allocation_failure_start(n);
        onestep_status status = backend_reference_create(&b, pool, &error);
        if (status == ONESTEP_OK) {
            status = run_all(b, cache, g, x, n == 0 ? expected : y, &error);
        }
        bool failed = allocation_failure_stop();
        /* A packed weight may take the place of one that is not in use: then nothing is lost. */
        if (status != ONESTEP_OK) {
            assert_true(failed);
            assert_int_equal(status, ONESTEP_ERROR_MEMORY);
            assert_true(error.code == ONESTEP_ERROR_MEMORY && error.message[0] != '\0');
            errors++;
        }
        if (status != ONESTEP_OK && b) {
            assert_int_equal(run_all(b, cache, g, x, y, NULL), ONESTEP_OK);
        }
        if (b && n > 0) {
            assert_memory_equal(y, expected, sizeof y);
        }
        backend_destroy(&b);
        assert_null(b);
        weight_cache_destroy(&cache);
        if (n > 0 && !failed) {
            assert_true(errors > 8);
            break;
        }
    }
    thread_pool_destroy(&pool);
    graph_destroy(&g);
    test_weight_destroy(kernel);
    test_weight_destroy(vector);
}

static void test_values_are_counted(void **state)
{
    (void)state;
    program p = {0};
    for (int i = 0; i < 200; i++) {
        assert_int_equal(program_value_add(&p, VALUE_INTERNAL, (size_t)i, i, NULL), i);
        program_step *step = program_step_add(&p, NULL);
        assert_non_null(step);
        assert_int_equal(step->in_place, -1);
        assert_int_equal(step->input_count, 0);
        step->node = i;
    }
    for (int i = 0; i < 200; i++) {
        assert_int_equal(p.values[i].bytes, i);
        assert_int_equal(p.values[i].tensor, i);
        assert_int_equal(p.steps[i].node, i);
    }
    program_destroy(NULL, &p); /* nothing lowered: the backend is not asked */
    assert_int_equal(p.value_count, 0);
    program_destroy(NULL, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_values_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
