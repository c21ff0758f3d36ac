/* The structure of gradients: which nodes are added, and what is refused. Their numbers are tested
 * with the reference backend (tests/backend/test_reference_gradient.c). */
#include "graph/graph.h"
#include "support/allocation_failure.h"
#include "support/check.h"

#define DIMS(...) ((const size_t[4]){__VA_ARGS__})

static graph *new_graph(void)
{
    graph *g = NULL;
    assert_int_equal(graph_create(&g, NULL), ONESTEP_OK);
    return g;
}

static void test_weight_tells_its_size_and_scalars(void **state)
{
    (void)state;
    named_tensor any = {.name = "x"};
    weight_expression e = {.name = "w",
                           .dims = {2, 3, 5, 7},
                           .term_count = 1,
                           .terms = {{.scale = coefficient_constant(1), .full = &any}}};
    assert_int_equal(weight_element_count(&e), 210);
    assert_int_equal(weight_scalar_mask(&e), 0);
    e.terms[e.term_count++] =
        (weight_term){.scale = {.constant = 2, .slope = 0, .scalar = SCALAR_GAMMA}, .full = &any};
    assert_int_equal(weight_scalar_mask(&e), 0);
    e.terms[e.term_count++] =
        (weight_term){.scale = {.constant = 1, .slope = -1, .scalar = SCALAR_GAMMA}, .full = &any};
    assert_int_equal(weight_scalar_mask(&e), 1u << SCALAR_GAMMA);
}

static void test_no_path_is_no_gradient(void **state)
{
    (void)state;
    graph *g = new_graph();
    tensor_id x = graph_input(g, "x", ELEMENT_F32, DIMS(1, 2, 2, 3));
    tensor_id z = graph_input(g, "z", ELEMENT_F32, DIMS(1, 2, 2, 3));
    tensor_id y = graph_activation(g, OPERATION_SILU, x);
    tensor_id u = graph_input(g, "u", ELEMENT_F32, DIMS(1, 2, 2, 3));
    tensor_id gradients[2], wrt[] = {z, u};
    int nodes = g->node_count;
    assert_int_equal(graph_differentiate(g, y, u, wrt, 2, gradients, NULL), ONESTEP_OK);
    assert_int_equal(gradients[0], TENSOR_NONE);
    assert_int_equal(gradients[1], TENSOR_NONE);
    assert_int_equal(g->node_count, nodes);
    graph_destroy(&g);
}

static void test_gradient_of_itself_is_upstream(void **state)
{
    (void)state;
    graph *g = new_graph();
    tensor_id x = graph_input(g, "x", ELEMENT_F32, DIMS(1, 2, 2, 3));
    tensor_id y = graph_activation(g, OPERATION_SILU, x);
    tensor_id u = graph_input(g, "u", ELEMENT_F32, DIMS(1, 2, 2, 3));
    tensor_id gradient;
    assert_int_equal(graph_differentiate(g, y, u, &y, 1, &gradient, NULL), ONESTEP_OK);
    assert_int_equal(gradient, u);
    /* Nor is anything added to pass upstream through a plain sum. */
    tensor_id z = graph_sum_of(g, y, x);
    int nodes = g->node_count;
    assert_int_equal(graph_differentiate(g, z, u, &y, 1, &gradient, NULL), ONESTEP_OK);
    assert_int_equal(gradient, u);
    assert_int_equal(g->node_count, nodes);
    graph_destroy(&g);
}

/* Only what leads to `wrt` is differentiated: with x alone, neither weight gets a gradient. */
static void test_only_the_path_is_added(void **state)
{
    (void)state;
    graph *g = new_graph();
    weight_expression first = {.name = "first", .dims = {4, 3, 3, 3}},
                      second = {.name = "second", .dims = {2, 4, 1, 1}},
                      bias = {.name = "bias", .dims = {2, 1, 1, 1}};
    tensor_id x = graph_input(g, "x", ELEMENT_F32, DIMS(1, 5, 6, 3));
    tensor_id a =
        graph_conv2d(g, x, graph_weight(g, &first), TENSOR_NONE, 1, (padding){1, 1, 1, 1});
    tensor_id y = graph_linear(g, a, graph_weight(g, &second), graph_weight(g, &bias));
    tensor_id u = graph_input(g, "u", ELEMENT_F32, DIMS(1, 5, 6, 2));
    tensor_id gradient;
    int nodes = g->node_count;
    assert_int_equal(graph_differentiate(g, y, u, &x, 1, &gradient, NULL), ONESTEP_OK);
    assert_int_equal(g->node_count, nodes + 2);
    assert_memory_equal(graph_dims(g, gradient), DIMS(1, 5, 6, 3), 4 * sizeof(size_t));

    nodes = g->node_count;
    tensor_id wrt[] = {graph_weight(g, &bias), graph_weight(g, &second)}, gradients[2];
    assert_int_equal(graph_differentiate(g, y, u, wrt, 2, gradients, NULL), ONESTEP_OK);
    assert_int_equal(g->node_count, nodes + 2); /* a sum, a weight gradient */
    assert_memory_equal(graph_dims(g, gradients[0]), DIMS(1, 1, 1, 2), 4 * sizeof(size_t));
    assert_memory_equal(graph_dims(g, gradients[1]), DIMS(2, 4, 1, 1), 4 * sizeof(size_t));
    graph_destroy(&g);
}

static void test_operation_without_gradient_is_named(void **state)
{
    (void)state;
    graph *g = new_graph();
    weight_expression tokens = {.name = "tokens", .dims = {5, 4, 1, 1}},
                      positions = {.name = "positions", .dims = {3, 4, 1, 1}};
    tensor_id ids = graph_input(g, "ids", ELEMENT_I32, DIMS(1, 1, 3, 1));
    tensor_id table = graph_weight(g, &tokens);
    tensor_id e = graph_embedding(g, ids, table, graph_weight(g, &positions));
    tensor_id y = graph_activation(g, OPERATION_SILU, e);
    tensor_id u = graph_input(g, "u", ELEMENT_F32, DIMS(1, 1, 3, 4));
    tensor_id gradient = 77;
    int nodes = g->node_count;
    onestep_error error = {0};
    assert_int_equal(graph_differentiate(g, y, u, &table, 1, &gradient, &error),
                     ONESTEP_ERROR_UNSUPPORTED);
    check_contains(error.message, "embedding");
    /* The graph is as it was and can be used. */
    assert_int_equal(g->node_count, nodes);
    assert_int_equal(graph_check(g, NULL), ONESTEP_OK);
    assert_int_equal(graph_differentiate(g, y, u, &e, 1, &gradient, &error), ONESTEP_OK);
    /* A gradient cannot be differentiated again. */
    assert_int_equal(graph_differentiate(g, gradient, u, &e, 1, &gradient, &error),
                     ONESTEP_ERROR_UNSUPPORTED);
    check_contains(error.message, "activation_gradient");
    graph_destroy(&g);
}

static void test_wrong_arguments(void **state)
{
    (void)state;
    graph *g = new_graph();
    tensor_id x = graph_input(g, "x", ELEMENT_F32, DIMS(1, 2, 2, 4));
    tensor_id y = graph_slice(g, x, 0, 2);
    tensor_id gradient, missing = TENSOR_NONE;
    onestep_error error = {0};
    assert_int_equal(graph_differentiate(g, y, x, &x, 1, &gradient, &error),
                     ONESTEP_ERROR_INTERNAL);
    check_contains(error.message, "another shape");
    assert_int_equal(graph_differentiate(g, y, y, &missing, 1, &gradient, &error),
                     ONESTEP_ERROR_INTERNAL);
    assert_int_equal(graph_differentiate(g, 99, y, &x, 1, &gradient, &error),
                     ONESTEP_ERROR_INTERNAL);
    graph_fail(g, ONESTEP_ERROR_MISMATCH, "broken before");
    assert_int_equal(graph_differentiate(g, y, y, &x, 1, &gradient, &error),
                     ONESTEP_ERROR_MISMATCH);
    check_contains(error.message, "broken before");
    graph_destroy(&g);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    for (size_t n = 1;; n++) {
        graph *g = new_graph();
        tensor_id x = graph_input(g, "x", ELEMENT_F32, DIMS(1, 2, 2, 4)), gradient;
        tensor_id y = x;
        for (int i = 0; i < 40; i++) {
            y = graph_activation(g, OPERATION_GEGLU, graph_concat(g, y, y));
        }
        tensor_id u = graph_input(g, "u", ELEMENT_F32, graph_dims(g, y));
        onestep_error error = {0};
        allocation_failure_start(n);
        onestep_status status = graph_differentiate(g, y, u, &x, 1, &gradient, &error);
        bool failed = allocation_failure_stop();
        assert_int_equal(status, failed ? ONESTEP_ERROR_MEMORY : ONESTEP_OK);
        assert_true(!failed || error.message[0] != '\0');
        graph_destroy(&g);
        if (!failed) {
            assert_true(n > 5); /* three arrays of its own, nodes and tensors grow */
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight_tells_its_size_and_scalars),
        cmocka_unit_test(test_no_path_is_no_gradient),
        cmocka_unit_test(test_gradient_of_itself_is_upstream),
        cmocka_unit_test(test_only_the_path_is_added),
        cmocka_unit_test(test_operation_without_gradient_is_named),
        cmocka_unit_test(test_wrong_arguments),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
