/* Gradients on the reference backend against finite differences: every gradient rule, by every
 * input, number by number. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIMS(...) ((const size_t[4]){__VA_ARGS__})
#define INPUTS    4

/* A function of some inputs, as a graph. */
typedef struct function {
    unsigned input_count;
    size_t dims[INPUTS][4];
    tensor_id (*build)(graph *g, const tensor_id *x, const void *context);
    const void *context;
    float deviation; /* of the inputs; 0: 1 */
} function;

static size_t count_of(const size_t dims[4])
{
    return dims[0] * dims[1] * dims[2] * dims[3];
}

typedef struct bench {
    thread_pool *pool;
    backend *backend;
    weight_cache *cache;
    float *values[INPUTS + 1]; /* inputs, upstream */
    test_input inputs[INPUTS + 1];
    unsigned count; /* of both: the upstream gradient is the last */
    float scalars[SCALAR_COUNT];
} bench;

static const char *const names[] = {"x0", "x1", "x2", "x3"};
static const char *const gradient_names[] = {"g0", "g1", "g2", "g3"};

static void bench_create(bench *b, const function *f, const size_t output_dims[4])
{
    memset(b, 0, sizeof *b);
    assert_ok(thread_pool_create(&b->pool, 2, error));
    assert_ok(backend_reference_create(&b->backend, b->pool, error));
    assert_ok(weight_cache_create(&b->cache, SIZE_MAX, error));
    b->scalars[SCALAR_GAMMA] = 0.7f;
    b->count = f->input_count + 1;
    for (unsigned i = 0; i <= f->input_count; i++) {
        size_t count = count_of(i < f->input_count ? f->dims[i] : output_dims);
        b->values[i] = malloc(count * sizeof(float));
        assert_non_null(b->values[i]);
        bool upstream = i == f->input_count;
        fill_random(b->values[i], count, 31 + i,
                    upstream || f->deviation == 0 ? 1.0f : f->deviation);
        b->inputs[i] = (test_input){.name = upstream ? "u" : names[i], .data = b->values[i]};
    }
}

static void bench_destroy(bench *b)
{
    weight_cache_destroy(&b->cache);
    backend_destroy(&b->backend);
    thread_pool_destroy(&b->pool);
    for (unsigned i = 0; i <= INPUTS; i++) {
        free(b->values[i]);
    }
}

static graph *build(const function *f, tensor_id *x, tensor_id *y)
{
    graph *g = NULL;
    assert_ok(graph_create(&g, error));
    for (unsigned i = 0; i < f->input_count; i++) {
        x[i] = graph_input(g, names[i], ELEMENT_F32, f->dims[i]);
    }
    *y = f->build(g, x, f->context);
    assert_ok(graph_check(g, error));
    return g;
}

/* sum(output * upstream), in double */
static double loss(bench *b, const graph *g, tensor_id y, unsigned upstream)
{
    onestep_error error = {0};
    float *result = test_run(b->backend, g, b->cache, PRECISION_F32, b->inputs, b->count,
                             b->scalars, "y", &error);
    if (!result) {
        fail_msg("%s", error.message);
    }
    double sum = 0;
    for (size_t i = 0; i < graph_element_count(&g->tensors[y]); i++) {
        sum += (double)result[i] * b->values[upstream][i];
    }
    free(result);
    return sum;
}

/* The derivative by one number, from four points: the error is of fourth order in the step. */
static double difference(bench *b, const graph *g, tensor_id y, unsigned upstream, float *x)
{
    const float step = 0.03125f;
    float kept = *x;
    double values[4];
    const float offsets[] = {-2, -1, 1, 2};
    for (int i = 0; i < 4; i++) {
        *x = kept + offsets[i] * step;
        values[i] = loss(b, g, y, upstream);
    }
    *x = kept;
    return (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * (double)step);
}

static void check(const function *f)
{
    tensor_id x[INPUTS] = {0}, y, gradients[INPUTS];
    graph *forward = build(f, x, &y), *g = build(f, x, &y);
    graph_output_add(forward, "y", y);
    tensor_id upstream = graph_input(g, "u", ELEMENT_F32, graph_dims(g, y));
    assert_ok(graph_differentiate(g, y, upstream, x, f->input_count, gradients, error));
    for (unsigned i = 0; i < f->input_count; i++) {
        assert_true(gradients[i] != TENSOR_NONE);
        graph_output_add(g, gradient_names[i], gradients[i]);
    }
    bench b;
    bench_create(&b, f, graph_dims(g, y));
    for (unsigned i = 0; i < f->input_count; i++) {
        onestep_error error = {0};
        float *gradient = test_run(b.backend, g, b.cache, PRECISION_F32, b.inputs, b.count,
                                   b.scalars, gradient_names[i], &error);
        if (!gradient) {
            fail_msg("%s", error.message);
        }
        size_t count = count_of(f->dims[i]);
        assert_int_equal(graph_element_count(&g->tensors[gradients[i]]), count);
        double largest = 0;
        for (size_t k = 0; k < count; k++) {
            largest = fmax(largest, fabs(gradient[k]));
        }
        for (size_t k = 0; k < count; k++) {
            double expected = difference(&b, forward, y, f->input_count, &b.values[i][k]);
            if (!(fabs(gradient[k] - expected) <= 2e-4 * largest)) {
                fail_msg("gradient by input %u, number %zu: %.7g, expected %.7g (largest %.3g)", i,
                         k, (double)gradient[k], expected, largest);
            }
        }
        free(gradient);
    }
    bench_destroy(&b);
    graph_destroy(&forward);
    graph_destroy(&g);
}

/* ---- products ------------------------------------------------------------------------------ */

typedef struct convolution {
    unsigned stride;
    padding pad;
} convolution;

static tensor_id build_conv2d(graph *g, const tensor_id *x, const void *context)
{
    const convolution *c = context;
    return graph_conv2d(g, x[0], x[1], x[2], c->stride, c->pad);
}

static void test_conv2d(void **state)
{
    (void)state;
    convolution same = {1, {1, 1, 1, 1}}, corner = {2, {0, 0, 1, 1}}, down = {2, {1, 1, 1, 1}},
                odd = {3, {2, 0, 1, 3}}, point = {1, {0, 0, 0, 0}};
    check(&(function){3, {{2, 3, 4, 3}, {2, 3, 3, 3}, {2, 1, 1, 1}}, build_conv2d, &same, 0});
    check(&(function){3, {{1, 4, 6, 2}, {3, 2, 3, 3}, {3, 1, 1, 1}}, build_conv2d, &corner, 0});
    check(&(function){3, {{1, 5, 4, 2}, {3, 2, 3, 3}, {3, 1, 1, 1}}, build_conv2d, &down, 0});
    check(&(function){3, {{1, 5, 6, 1}, {2, 1, 5, 2}, {2, 1, 1, 1}}, build_conv2d, &odd, 0});
    check(&(function){3, {{1, 2, 2, 66}, {2, 66, 1, 1}, {2, 1, 1, 1}}, build_conv2d, &point, 0});
}

static tensor_id build_linear(graph *g, const tensor_id *x, const void *context)
{
    (void)context;
    return graph_linear(g, x[0], x[1], x[2]);
}

static void test_linear(void **state)
{
    (void)state;
    check(&(function){3, {{2, 1, 3, 4}, {5, 4, 1, 1}, {5, 1, 1, 1}}, build_linear, NULL, 0});
}

/* ---- normalisation and attention ----------------------------------------------------------- */

static tensor_id build_group_norm(graph *g, const tensor_id *x, const void *context)
{
    return graph_group_norm(g, x[0], x[1], x[2], *(const unsigned *)context, 0.1f);
}

static tensor_id build_layer_norm(graph *g, const tensor_id *x, const void *context)
{
    (void)context;
    return graph_layer_norm(g, x[0], x[1], x[2], 0.1f);
}

static void test_normalisation(void **state)
{
    (void)state;
    const unsigned one = 1, two = 2, six = 6;
    const size_t dims[3][4] = {{2, 3, 2, 6}, {6, 1, 1, 1}, {6, 1, 1, 1}};
    function f = {.input_count = 3, .build = build_group_norm, .context = &one};
    memcpy(f.dims, dims, sizeof dims);
    check(&f);
    f.context = &two;
    check(&f);
    f.context = &six;
    check(&f);
    f.build = build_layer_norm;
    check(&f);
    /* More channels than one strip. */
    check(&(function){3, {{1, 1, 2, 70}, {70, 1, 1, 1}, {70, 1, 1, 1}}, build_layer_norm, NULL, 0});
}

typedef struct head_choice {
    unsigned heads;
    bool causal;
} head_choice;

static tensor_id build_attention(graph *g, const tensor_id *x, const void *context)
{
    const head_choice *c = context;
    return graph_attention(g, x[0], x[1], x[2], c->heads, 0.5f, c->causal);
}

static void test_attention(void **state)
{
    (void)state;
    head_choice plain = {2, false}, causal = {1, true};
    check(&(function){3, {{2, 2, 3, 4}, {2, 2, 3, 4}, {2, 2, 3, 4}}, build_attention, &plain, 0});
    check(&(function){3, {{2, 1, 5, 3}, {2, 1, 5, 3}, {2, 1, 5, 3}}, build_attention, &causal, 0});
    /* Keys of another number, shared by the pictures of a batch. */
    check(&(function){3, {{3, 2, 2, 4}, {1, 1, 5, 4}, {1, 1, 5, 4}}, build_attention, &plain, 0});
}

/* ---- element by element -------------------------------------------------------------------- */

static tensor_id build_activation(graph *g, const tensor_id *x, const void *context)
{
    return graph_activation(g, *(const operation *)context, x[0]);
}

static void test_activations(void **state)
{
    (void)state;
    static const operation operations[] = {OPERATION_SILU, OPERATION_GELU, OPERATION_QUICK_GELU,
                                           OPERATION_EXP, OPERATION_GEGLU};
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        check(&(function){1, {{2, 3, 5, 4}}, build_activation, &operations[i], 1.2f});
    }
}

static tensor_id build_arithmetic(graph *g, const tensor_id *x, const void *context)
{
    (void)context;
    coefficient gamma = {.constant = 1, .slope = -2, .scalar = SCALAR_GAMMA};
    tensor_id y = graph_combine(g, x[0], gamma, x[1], coefficient_constant(3)); /* [n,1,1,c] */
    y = graph_combine(g, y, coefficient_constant(-1), x[2], gamma);             /* [1,1,1,c] */
    y = graph_combine(g, y, coefficient_constant(1), x[3], coefficient_constant(0.5f));
    y = graph_multiply(g, y, x[0]); /* x[0] is used again: gradients add up */
    return graph_scale(g, y, gamma, 0.25f);
}

static void test_arithmetic(void **state)
{
    (void)state;
    check(&(function){
        4, {{2, 3, 2, 3}, {2, 1, 1, 3}, {1, 1, 1, 3}, {2, 3, 2, 3}}, build_arithmetic, NULL, 0});
    check(&(function){
        4, {{1, 1, 1, 5}, {1, 1, 1, 5}, {1, 1, 1, 5}, {1, 1, 1, 5}}, build_arithmetic, NULL, 0});
}

static tensor_id build_square(graph *g, const tensor_id *x, const void *context)
{
    (void)context;
    return graph_sum_of(g, graph_multiply(g, x[0], x[0]), x[0]);
}

static void test_one_tensor_twice(void **state)
{
    (void)state;
    check(&(function){1, {{1, 2, 2, 3}}, build_square, NULL, 0});
}

static tensor_id build_movement(graph *g, const tensor_id *x, const void *context)
{
    const size_t *size = context;
    tensor_id y = graph_concat(g, x[0], x[1]);
    y = graph_upsample(g, graph_slice(g, y, 1, 3), size[0], size[1]);
    return graph_multiply(g, y, y);
}

static void test_movement(void **state)
{
    (void)state;
    check(&(function){2, {{2, 2, 3, 3}, {2, 2, 3, 2}}, build_movement, DIMS(4, 6, 0, 0), 0});
    check(&(function){2, {{1, 3, 2, 2}, {1, 3, 2, 2}}, build_movement, DIMS(5, 3, 0, 0), 0});
}

/* The slope is 1 between the limits and on them, 0 outside, as in PyTorch. */
static void test_clamp(void **state)
{
    (void)state;
    bench b;
    function f = {.input_count = 1, .dims = {{1, 1, 1, 5}}};
    bench_create(&b, &f, f.dims[0]);
    memcpy(b.values[0], (float[]){-2, -1, 0, 0.5f, 0.75f}, 5 * sizeof(float));
    graph *g = NULL;
    assert_ok(graph_create(&g, error));
    tensor_id x = graph_input(g, "x0", ELEMENT_F32, f.dims[0]), gradient;
    tensor_id u = graph_input(g, "u", ELEMENT_F32, f.dims[0]);
    assert_ok(graph_differentiate(g, graph_clamp(g, x, -1, 0.5f), u, &x, 1, &gradient, error));
    graph_output_add(g, "g", gradient);
    onestep_error error = {0};
    float *result =
        test_run(b.backend, g, b.cache, PRECISION_F32, b.inputs, 2, b.scalars, "g", &error);
    assert_non_null(result);
    for (size_t i = 0; i < 5; i++) {
        assert_true(result[i] == (i == 0 || i == 4 ? 0.0f : b.values[1][i]));
    }
    free(result);
    graph_destroy(&g);
    bench_destroy(&b);
}

/* ---- together ------------------------------------------------------------------------------ */

/* A resnet with a time embedding and an attention block, by its picture, a weight and a bias. */
static tensor_id build_network(graph *g, const tensor_id *x, const void *context)
{
    const weight_expression *const *weights = context;
    tensor_id gamma = graph_weight(g, weights[0]), beta = graph_weight(g, weights[1]);
    tensor_id y = graph_group_norm(g, x[0], gamma, beta, 2, 1e-2f);
    y = graph_activation(g, OPERATION_SILU, y);
    y = graph_conv2d(g, y, x[1], x[2], 1, (padding){1, 1, 1, 1});
    y = graph_sum_of(g, y, x[0]);
    tensor_id n = graph_layer_norm(g, y, gamma, beta, 1e-2f); /* shares its weights */
    tensor_id q = graph_linear(g, n, graph_weight(g, weights[2]), TENSOR_NONE);
    tensor_id a = graph_attention(g, q, n, n, 2, 0.7f, false);
    return graph_sum_of(g, y, a);
}

static void test_network(void **state)
{
    (void)state;
    test_weight *gamma = test_weight_create(DIMS(4, 1, 1, 1), 1, 0.8f),
                *beta = test_weight_create(DIMS(4, 1, 1, 1), 2, 0.8f),
                *query = test_weight_create(DIMS(4, 4, 1, 1), 3, 0.5f);
    const weight_expression *weights[] = {&gamma->expression, &beta->expression,
                                          &query->expression};
    check(&(function){3, {{2, 3, 3, 4}, {4, 4, 3, 3}, {4, 1, 1, 1}}, build_network, weights, 0.7f});
    test_weight_destroy(gamma);
    test_weight_destroy(beta);
    test_weight_destroy(query);
}

/* By weight tensors, one of which is used twice: by differences of the weight's own numbers. */
static void test_weights(void **state)
{
    (void)state;
    test_weight *made[] = {test_weight_create(DIMS(4, 1, 1, 1), 1, 0.8f),
                           test_weight_create(DIMS(4, 1, 1, 1), 2, 0.8f),
                           test_weight_create(DIMS(4, 4, 1, 1), 3, 0.5f)};
    const weight_expression *weights[] = {&made[0]->expression, &made[1]->expression,
                                          &made[2]->expression};
    function f = {.input_count = 3,
                  .dims = {{1, 2, 3, 4}, {4, 4, 3, 3}, {4, 1, 1, 1}},
                  .build = build_network,
                  .context = weights,
                  .deviation = 0.7f};
    tensor_id x[INPUTS], y, gradients[3];
    graph *forward = build(&f, x, &y), *g = build(&f, x, &y);
    graph_output_add(forward, "y", y);
    tensor_id u = graph_input(g, "u", ELEMENT_F32, graph_dims(g, y));
    tensor_id wrt[] = {graph_weight(g, weights[0]), graph_weight(g, weights[1]),
                       graph_weight(g, weights[2])};
    assert_ok(graph_differentiate(g, y, u, wrt, 3, gradients, error));
    bench b;
    bench_create(&b, &f, graph_dims(g, y));
    for (unsigned i = 0; i < 3; i++) {
        graph_output_add(g, gradient_names[i], gradients[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        onestep_error error = {0};
        float *gradient = test_run(b.backend, g, b.cache, PRECISION_F32, b.inputs, b.count,
                                   b.scalars, gradient_names[i], &error);
        assert_non_null(gradient);
        weight_cache_set_limit(b.cache, 0); /* the weight changes under the cache's feet */
        for (size_t k = 0; k < weight_element_count(weights[i]); k++) {
            double expected = difference(&b, forward, y, 3, &test_weight_values(made[i])[k]);
            assert_true(fabs(gradient[k] - expected) <= 2e-3);
        }
        free(gradient);
    }
    bench_destroy(&b);
    graph_destroy(&forward);
    graph_destroy(&g);
    for (unsigned i = 0; i < 3; i++) {
        test_weight_destroy(made[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_normalisation),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_one_tensor_twice),
        cmocka_unit_test(test_movement),
        cmocka_unit_test(test_clamp),
        cmocka_unit_test(test_network),
        cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
