/* The reference backend's operations against their definitions, written out as plainly as can be:
 * one output number at a time. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    thread_pool *pool;
    backend *backend;
    weight_cache *cache;
    graph *g;
    test_weight *weights[8];
    unsigned weight_count;
    float *data[8]; /* of the inputs */
    test_input inputs[8];
    unsigned input_count;
    float scalars[SCALAR_COUNT];
} fixture;

static void fixture_create(fixture *f, unsigned threads)
{
    memset(f, 0, sizeof *f);
    assert_ok(thread_pool_create(&f->pool, threads, error));
    assert_ok(backend_reference_create(&f->backend, f->pool, error));
    assert_ok(weight_cache_create(&f->cache, SIZE_MAX, error));
    assert_ok(graph_create(&f->g, error));
}

static void fixture_destroy(fixture *f)
{
    graph_destroy(&f->g);
    weight_cache_destroy(&f->cache);
    backend_destroy(&f->backend);
    thread_pool_destroy(&f->pool);
    for (unsigned i = 0; i < f->weight_count; i++) {
        test_weight_destroy(f->weights[i]);
    }
    for (unsigned i = 0; i < f->input_count; i++) {
        free(f->data[i]);
    }
}

#define DIMS(...) ((const size_t[4]){__VA_ARGS__})

static tensor_id input(fixture *f, const size_t dims[4])
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    unsigned i = f->input_count++;
    size_t count = dims[0] * dims[1] * dims[2] * dims[3];
    f->data[i] = malloc(count * sizeof(float));
    assert_non_null(f->data[i]);
    fill_random(f->data[i], count, 100 + i, 1.5f);
    f->inputs[i] = (test_input){.name = names[i], .data = f->data[i]};
    return graph_input(f->g, names[i], ELEMENT_F32, dims);
}

static tensor_id weight(fixture *f, const size_t dims[4])
{
    unsigned i = f->weight_count++;
    f->weights[i] = test_weight_create(dims, 200 + i, 0.7f);
    return graph_weight(f->g, &f->weights[i]->expression);
}

static float *run(fixture *f, tensor_id output)
{
    graph_output_add(f->g, "y", output);
    onestep_error error = {0};
    float *y = test_run(f->backend, f->g, f->cache, PRECISION_F32, f->inputs, f->input_count,
                        f->scalars, "y", &error);
    if (!y) {
        fail_msg("%s", error.message);
    }
    return y;
}

/* Compares with `expected`, frees both the result and the fixture. */
static void expect(fixture *f, tensor_id output, const double *expected)
{
    size_t count = graph_element_count(&f->g->tensors[output]);
    float *y = run(f, output);
    for (size_t i = 0; i < count; i++) {
        double tolerance = 1e-6 * fmax(1.0, fabs(expected[i]));
        if (!(fabs(y[i] - expected[i]) <= tolerance)) {
            fail_msg("number %zu: %.9g, expected %.9g", i, (double)y[i], expected[i]);
        }
    }
    free(y);
    fixture_destroy(f);
}

/* ---- products -----------------------------------------------------------------------------------
 */

static void check_conv(const size_t x[4], const size_t w[4], unsigned stride, padding pad,
                       bool with_bias)
{
    fixture f;
    fixture_create(&f, 2);
    tensor_id a = input(&f, x), k = weight(&f, w);
    tensor_id bias = with_bias ? weight(&f, DIMS(w[0], 1, 1, 1)) : TENSOR_NONE;
    tensor_id y = graph_conv2d(f.g, a, k, bias, stride, pad);
    const size_t *dims = graph_dims(f.g, y);
    double *expected = calloc(graph_element_count(&f.g->tensors[y]), sizeof *expected);
    size_t next = 0;
    for (size_t n = 0; n < dims[0]; n++) {
        for (size_t i = 0; i < dims[1]; i++) {
            for (size_t j = 0; j < dims[2]; j++) {
                for (size_t o = 0; o < dims[3]; o++) {
                    double sum = with_bias ? test_weight_values(f.weights[1])[o] : 0;
                    for (size_t c = 0; c < x[3]; c++) {
                        for (size_t ky = 0; ky < w[2]; ky++) {
                            for (size_t kx = 0; kx < w[3]; kx++) {
                                long row = (long)(i * stride + ky) - (long)pad.top;
                                long column = (long)(j * stride + kx) - (long)pad.left;
                                if (row >= 0 && row < (long)x[1] && column >= 0 &&
                                    column < (long)x[2]) {
                                    sum +=
                                        (double)f.data[0][((n * x[1] + (size_t)row) * x[2] +
                                                           (size_t)column) *
                                                              x[3] +
                                                          c] *
                                        test_weight_values(
                                            f.weights[0])[((o * x[3] + c) * w[2] + ky) * w[3] + kx];
                                }
                            }
                        }
                    }
                    expected[next++] = sum;
                }
            }
        }
    }
    expect(&f, y, expected);
    free(expected);
}

static void test_conv2d(void **state)
{
    (void)state;
    padding one = {1, 1, 1, 1}, none = {0, 0, 0, 0}, corner = {0, 0, 1, 1}, odd = {2, 0, 1, 3};
    check_conv(DIMS(2, 5, 7, 3), DIMS(4, 3, 3, 3), 1, one, true);
    check_conv(DIMS(1, 6, 5, 70), DIMS(130, 70, 3, 3), 1, one, false);
    check_conv(DIMS(1, 8, 9, 5), DIMS(3, 5, 3, 3), 2, corner, true);
    check_conv(DIMS(1, 8, 8, 2), DIMS(2, 2, 3, 3), 2, one, true);
    check_conv(DIMS(1, 1, 1, 1), DIMS(1, 1, 3, 3), 1, one, true);
    check_conv(DIMS(3, 4, 4, 6), DIMS(5, 6, 1, 1), 1, none, true);
    check_conv(DIMS(1, 7, 6, 3), DIMS(2, 3, 5, 2), 3, odd, true);
}

static void test_linear(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 2);
    tensor_id x = input(&f, DIMS(2, 1, 33, 9));
    tensor_id w = weight(&f, DIMS(66, 9, 1, 1)), bias = weight(&f, DIMS(66, 1, 1, 1));
    tensor_id y = graph_linear(f.g, x, w, bias);
    double *expected = calloc(2 * 33 * 66, sizeof *expected);
    for (size_t p = 0; p < 66; p++) {
        for (size_t o = 0; o < 66; o++) {
            expected[p * 66 + o] = test_weight_values(f.weights[1])[o];
            for (size_t c = 0; c < 9; c++) {
                expected[p * 66 + o] +=
                    (double)f.data[0][p * 9 + c] * test_weight_values(f.weights[0])[o * 9 + c];
            }
        }
    }
    expect(&f, y, expected);
    free(expected);
}

static void test_embedding(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 2);
    int32_t ids[] = {4, 0, 3, 3, 1, 2};
    tensor_id tokens = weight(&f, DIMS(5, 7, 1, 1)), positions = weight(&f, DIMS(4, 7, 1, 1));
    tensor_id y = graph_embedding(f.g, graph_input(f.g, "ids", ELEMENT_I32, DIMS(2, 1, 3, 1)),
                                  tokens, positions);
    f.inputs[f.input_count++] = (test_input){.name = "ids", .data = ids};
    double expected[2 * 3 * 7];
    for (size_t t = 0; t < 6; t++) {
        for (size_t c = 0; c < 7; c++) {
            expected[t * 7 + c] = (double)test_weight_values(f.weights[0])[(size_t)ids[t] * 7 + c] +
                                  test_weight_values(f.weights[1])[t % 3 * 7 + c];
        }
    }
    expect(&f, y, expected);
}

static void test_embedding_refuses_wrong_ids(void **state)
{
    (void)state;
    for (int32_t wrong = -1; wrong <= 5; wrong += 6) {
        fixture f;
        fixture_create(&f, 1);
        tensor_id tokens = weight(&f, DIMS(5, 7, 1, 1)), positions = weight(&f, DIMS(4, 7, 1, 1));
        graph_output_add(f.g, "y",
                         graph_embedding(f.g,
                                         graph_input(f.g, "ids", ELEMENT_I32, DIMS(1, 1, 1, 1)),
                                         tokens, positions));
        test_input ids = {.name = "ids", .data = &wrong};
        onestep_error error = {0};
        assert_null(test_run(f.backend, f.g, f.cache, PRECISION_F32, &ids, 1, NULL, "y", &error));
        assert_int_equal(error.code, ONESTEP_ERROR_MISMATCH);
        assert_non_null(strstr(error.message, "outside the embedding table of 5 entries"));
        fixture_destroy(&f);
    }
}

/* ---- normalisation ------------------------------------------------------------------------- */

static void test_group_norm(void **state)
{
    (void)state;
    const size_t dims[4] = {2, 3, 5, 12};
    for (unsigned groups = 1; groups <= 12; groups += groups == 4 ? 8 : 3) { /* 1, 4, 12 */
        fixture f;
        fixture_create(&f, 2);
        tensor_id x = input(&f, dims);
        tensor_id gamma = weight(&f, DIMS(12, 1, 1, 1)), beta = weight(&f, DIMS(12, 1, 1, 1));
        tensor_id y = graph_group_norm(f.g, x, gamma, beta, groups, 0.25f);
        size_t width = 12 / groups;
        double expected[2 * 15 * 12];
        for (size_t i = 0; i < 2 * 15 * 12; i++) {
            size_t n = i / (15 * 12), c = i % 12, first = c / width * width;
            double sum = 0, squares = 0;
            for (size_t p = 0; p < 15; p++) {
                for (size_t k = first; k < first + width; k++) {
                    double number = f.data[0][(n * 15 + p) * 12 + k];
                    sum += number;
                    squares += number * number;
                }
            }
            double count = 15.0 * (double)width, mean = sum / count;
            double deviation = sqrt(squares / count - mean * mean + 0.25);
            expected[i] = (f.data[0][i] - mean) / deviation * test_weight_values(f.weights[0])[c] +
                          test_weight_values(f.weights[1])[c];
        }
        expect(&f, y, expected);
    }
}

static void test_layer_norm(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 2);
    tensor_id x = input(&f, DIMS(2, 1, 7, 10));
    tensor_id gamma = weight(&f, DIMS(10, 1, 1, 1)), beta = weight(&f, DIMS(10, 1, 1, 1));
    tensor_id y = graph_layer_norm(f.g, x, gamma, beta, 0.125f);
    double expected[140];
    for (size_t i = 0; i < 140; i++) {
        double sum = 0, squares = 0;
        for (size_t c = 0; c < 10; c++) {
            double number = f.data[0][i / 10 * 10 + c];
            sum += number;
            squares += number * number;
        }
        double mean = sum / 10, deviation = sqrt(squares / 10 - mean * mean + 0.125);
        expected[i] = (f.data[0][i] - mean) / deviation * test_weight_values(f.weights[0])[i % 10] +
                      test_weight_values(f.weights[1])[i % 10];
    }
    expect(&f, y, expected);
}

/* A constant offset a million times the spread must not drown the variance. */
static void test_group_norm_of_a_large_mean(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 1);
    tensor_id x = input(&f, DIMS(1, 16, 16, 4));
    tensor_id gamma = weight(&f, DIMS(4, 1, 1, 1)), beta = weight(&f, DIMS(4, 1, 1, 1));
    tensor_id y = graph_group_norm(f.g, x, gamma, beta, 1, 0.0f);
    for (size_t i = 0; i < 1024; i++) {
        f.data[0][i] = 1048576.0f + (float)(i % 4); /* exact; mean 1.5 over, variance 1.25 */
    }
    double expected[1024];
    for (size_t i = 0; i < 1024; i++) {
        expected[i] =
            ((double)(i % 4) - 1.5) / sqrt(1.25) * test_weight_values(f.weights[0])[i % 4] +
            test_weight_values(f.weights[1])[i % 4];
    }
    expect(&f, y, expected);
}

/* ---- attention ----------------------------------------------------------------------------- */

static void check_attention(const size_t q[4], const size_t k[4], unsigned heads, bool causal)
{
    fixture f;
    fixture_create(&f, 3);
    tensor_id a = input(&f, q), b = input(&f, k), c = input(&f, k);
    tensor_id y = graph_attention(f.g, a, b, c, heads, 0.6f, causal);
    size_t queries = q[1] * q[2], keys = k[1] * k[2], width = q[3] / heads;
    double *expected = calloc(q[0] * queries * q[3], sizeof *expected);
    double *p = calloc(keys, sizeof *p);
    for (size_t i = 0; i < q[0] * queries * q[3]; i++) {
        size_t token = i / q[3], n = k[0] == 1 ? 0 : token / queries, head = i % q[3] / width;
        double sum = 0, seen = 0;
        for (size_t t = 0; t < keys; t++) {
            double dot = 0;
            for (size_t d = 0; d < width; d++) {
                dot += (double)f.data[0][token * q[3] + head * width + d] *
                       f.data[1][(n * keys + t) * q[3] + head * width + d];
            }
            p[t] = causal && t > token % queries ? 0 : exp(0.6f * dot);
            seen += p[t];
        }
        for (size_t t = 0; t < keys; t++) {
            sum += p[t] / seen * f.data[2][(n * keys + t) * q[3] + i % q[3]];
        }
        expected[i] = sum;
    }
    expect(&f, y, expected);
    free(expected);
    free(p);
}

static void test_attention(void **state)
{
    (void)state;
    check_attention(DIMS(1, 3, 4, 8), DIMS(1, 3, 4, 8), 2, false);
    check_attention(DIMS(2, 1, 9, 6), DIMS(2, 1, 9, 6), 3, true);
    check_attention(DIMS(2, 4, 5, 6), DIMS(2, 1, 7, 6), 1, false);
    check_attention(DIMS(3, 2, 2, 10), DIMS(1, 1, 5, 10), 5, false); /* keys shared by the batch */
    check_attention(DIMS(1, 1, 1, 70), DIMS(1, 1, 1, 70), 1, false);
}

/* Large logits must neither overflow nor vanish. */
static void test_attention_of_large_logits(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 1);
    tensor_id q = input(&f, DIMS(1, 1, 1, 2)), k = input(&f, DIMS(1, 1, 2, 2)),
              v = input(&f, DIMS(1, 1, 2, 2));
    memcpy(f.data[0], (float[]){1000, 0}, 2 * sizeof(float));
    memcpy(f.data[1], (float[]){1000, 0, 1000.001f, 0}, 4 * sizeof(float));
    memcpy(f.data[2], (float[]){1, 2, 3, 4}, 4 * sizeof(float));
    double second = 1 / (1 + exp(-1000.0 * (1000.001f - 1000.0f)));
    double expected[2] = {1 + 2 * second, 2 + 2 * second};
    expect(&f, graph_attention(f.g, q, k, v, 1, 1.0f, false), expected);
}

/* ---- element by element -------------------------------------------------------------------- */

static void test_activations(void **state)
{
    (void)state;
    const operation operations[] = {OPERATION_SILU, OPERATION_GELU, OPERATION_QUICK_GELU,
                                    OPERATION_EXP};
    for (size_t k = 0; k < 4; k++) {
        fixture f;
        fixture_create(&f, 2);
        tensor_id x = input(&f, DIMS(1, 100, 100, 1));
        f.data[0][0] = -2.4f;
        f.data[0][1] = -80.0f;
        f.data[0][2] = 80.0f;
        double *expected = calloc(10000, sizeof *expected);
        for (size_t i = 0; i < 10000; i++) {
            double a = f.data[0][i];
            expected[i] = k == 0   ? a / (1 + exp(-a))
                          : k == 1 ? a * 0.5 * (1 + erf(a / sqrt(2)))
                          : k == 2 ? a / (1 + exp(-1.702 * a))
                                   : exp(a);
        }
        expect(&f, graph_activation(f.g, operations[k], x), expected);
        free(expected);
    }
}

static void test_geglu(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 2);
    tensor_id x = input(&f, DIMS(2, 3, 1, 10));
    double expected[30];
    for (size_t i = 0; i < 30; i++) {
        double a = f.data[0][i / 5 * 10 + i % 5], b = f.data[0][i / 5 * 10 + 5 + i % 5];
        expected[i] = a * (b * 0.5 * (1 + erf(b / sqrt(2))));
    }
    expect(&f, graph_activation(f.g, OPERATION_GEGLU, x), expected);
}

static void test_clamp_and_scale(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 1);
    f.scalars[SCALAR_GAMMA] = 0.4f;
    tensor_id x = input(&f, DIMS(1, 5, 5, 3));
    coefficient c = {.constant = 1, .slope = -1, .scalar = SCALAR_GAMMA}; /* 1 - gamma */
    double expected[75];
    for (size_t i = 0; i < 75; i++) {
        expected[i] = (double)(1.0f - 0.4f) * fmin(fmax(f.data[0][i], -1), 0.5) + 0.25;
    }
    expect(&f, graph_scale(f.g, graph_clamp(f.g, x, -1, 0.5f), c, 0.25f), expected);
}

static void test_combine_and_multiply(void **state)
{
    (void)state;
    const size_t others[][4] = {{2, 3, 4, 5}, {2, 1, 1, 5}, {1, 1, 1, 5}};
    for (size_t k = 0; k < 3; k++) {
        fixture f;
        fixture_create(&f, 2);
        f.scalars[SCALAR_GAMMA] = 0.3f;
        tensor_id a = input(&f, DIMS(2, 3, 4, 5)), b = input(&f, others[k]);
        coefficient c = {.constant = 0, .slope = 2, .scalar = SCALAR_GAMMA};
        tensor_id y = graph_combine(f.g, a, coefficient_constant(-3), b, c);
        y = graph_multiply(f.g, y, a);
        double expected[120];
        for (size_t i = 0; i < 120; i++) {
            size_t other = k == 0 ? i : k == 1 ? i / 60 * 5 + i % 5 : i % 5;
            double first = f.data[0][i];
            expected[i] = (-3 * first + (double)(2 * 0.3f) * f.data[1][other]) * first;
        }
        expect(&f, y, expected);
    }
}

/* ---- moving values ------------------------------------------------------------------------- */

static void test_concat_and_slice(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 1);
    tensor_id a = input(&f, DIMS(2, 1, 3, 2)), b = input(&f, DIMS(2, 1, 3, 4));
    tensor_id y = graph_slice(f.g, graph_concat(f.g, a, b), 1, 3);
    double expected[18];
    for (size_t p = 0; p < 6; p++) {
        expected[p * 3] = f.data[0][p * 2 + 1];
        expected[p * 3 + 1] = f.data[1][p * 4];
        expected[p * 3 + 2] = f.data[1][p * 4 + 1];
    }
    expect(&f, y, expected);
}

static void test_upsample(void **state)
{
    (void)state;
    for (size_t height = 5; height <= 6; height++) {
        for (size_t width = 7; width <= 8; width++) {
            fixture f;
            fixture_create(&f, 1);
            tensor_id x = input(&f, DIMS(2, 3, 4, 2));
            double expected[2 * 6 * 8 * 2];
            size_t next = 0;
            for (size_t n = 0; n < 2; n++) {
                for (size_t i = 0; i < height; i++) {
                    for (size_t j = 0; j < width; j++) {
                        for (size_t c = 0; c < 2; c++) {
                            expected[next++] = f.data[0][((n * 3 + i / 2) * 4 + j / 2) * 2 + c];
                        }
                    }
                }
            }
            expect(&f, graph_upsample(f.g, x, height, width), expected);
        }
    }
}

/* ---- the backend --------------------------------------------------------------------------- */

/* A small network with every kind of step; the same bytes for every number of threads. */
static void test_threads_do_not_matter(void **state)
{
    (void)state;
    float *first = NULL;
    const unsigned threads[] = {1, 2, 3, 7};
    for (size_t i = 0; i < 4; i++) {
        fixture f;
        fixture_create(&f, threads[i]);
        tensor_id x = input(&f, DIMS(2, 9, 11, 8));
        tensor_id gamma = weight(&f, DIMS(8, 1, 1, 1)), beta = weight(&f, DIMS(8, 1, 1, 1));
        tensor_id y = graph_group_norm(f.g, x, gamma, beta, 4, 1e-5f);
        y = graph_activation(f.g, OPERATION_SILU, y);
        y = graph_conv2d(f.g, y, weight(&f, DIMS(72, 8, 3, 3)), TENSOR_NONE, 1,
                         (padding){1, 1, 1, 1});
        tensor_id q = graph_slice(f.g, y, 0, 24), k = graph_slice(f.g, y, 24, 24),
                  v = graph_slice(f.g, y, 48, 24);
        y = graph_attention(f.g, q, k, v, 3, 0.1f, true);
        tensor_id out = weight(&f, DIMS(16, 24, 1, 1)), bias = weight(&f, DIMS(16, 1, 1, 1));
        y = graph_linear(f.g, y, out, bias);
        y = graph_sum_of(f.g, graph_activation(f.g, OPERATION_GEGLU, y), x);
        float *result = run(&f, y);
        size_t bytes = graph_element_count(&f.g->tensors[y]) * sizeof *result;
        if (first) {
            assert_memory_equal(result, first, bytes);
            free(result);
        } else {
            first = result;
        }
        fixture_destroy(&f);
    }
    free(first);
}

static void test_damaged_weight_is_named(void **state)
{
    (void)state;
    const float wrong[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        fixture f;
        fixture_create(&f, 1);
        tensor_id x = input(&f, DIMS(1, 1, 3, 4));
        tensor_id y = graph_linear(f.g, x, weight(&f, DIMS(5, 4, 1, 1)), TENSOR_NONE);
        test_weight_values(f.weights[0])[13] = wrong[i];
        graph_output_add(f.g, "y", y);
        onestep_error error = {0};
        assert_null(test_run(f.backend, f.g, f.cache, PRECISION_F32, f.inputs, f.input_count, NULL,
                             "y", &error));
        assert_int_equal(error.code, ONESTEP_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "test.weight"));
        assert_non_null(strstr(error.message, "[3,1]"));
        assert_int_equal(weight_cache_bytes(f.cache), 0);
        fixture_destroy(&f);
    }
}

/* Only what an output needs is computed, weights come from the cache, folded by the scalars. */
static void test_lowering(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 1);
    tensor_id x = input(&f, DIMS(1, 4, 4, 3)), k = weight(&f, DIMS(2, 3, 1, 1));
    tensor_id wasted = graph_activation(f.g, OPERATION_EXP, x);
    graph_stage(f.g, "unet");
    tensor_id y = graph_conv2d(f.g, x, k, TENSOR_NONE, 1, (padding){0, 0, 0, 0});
    tensor_id z = graph_activation(f.g, OPERATION_SILU, y);
    graph_output_add(f.g, "z", z);
    graph_output_add(f.g, "x", x);
    lower_options options = {.weights = f.cache};
    program p;
    assert_ok(f.backend->functions->lower(f.backend, f.g, &options, &p, error));
    assert_int_equal(p.step_count, 2);
    assert_int_equal(p.tensor_values[wasted], -1);
    assert_int_equal(p.tensor_values[k], -1);
    assert_int_equal(p.values[p.tensor_values[x]].kind, VALUE_INPUT);
    assert_int_equal(p.values[p.tensor_values[y]].kind, VALUE_INTERNAL);
    assert_int_equal(p.values[p.tensor_values[z]].kind, VALUE_OUTPUT);
    assert_int_equal(p.values[p.tensor_values[z]].bytes, 32 * sizeof(float));
    assert_string_equal(p.steps[0].algorithm, "conv2d");
    assert_string_equal(p.steps[0].stage, "unet");
    assert_int_equal(p.steps[0].in_place, -1);
    assert_int_equal(p.steps[0].scratch_bytes, 6 * sizeof(float));
    assert_true(p.steps[0].operations == 2.0 * 32 * 3);
    assert_int_equal(p.steps[1].in_place, 0);
    program_destroy(f.backend, &p);

    graph_output_add(f.g, "k", k);
    onestep_error error = {0};
    assert_int_equal(f.backend->functions->lower(f.backend, f.g, &options, &p, &error),
                     ONESTEP_ERROR_INTERNAL);
    fixture_destroy(&f);
}

static void test_weights_follow_the_scalars(void **state)
{
    (void)state;
    fixture f;
    fixture_create(&f, 1);
    tensor_id x = input(&f, DIMS(1, 1, 1, 4));
    tensor_id y = graph_linear(f.g, x, weight(&f, DIMS(3, 4, 1, 1)), TENSOR_NONE);
    coefficient gamma = {.constant = 0, .slope = 1, .scalar = SCALAR_GAMMA};
    test_weight_add_low_rank(f.weights[0], ELEMENT_F32, gamma, 2, 7, 0.5f);
    const weight_expression *e = &f.weights[0]->expression;
    const float *down = e->terms[1].down->data, *up = e->terms[1].up->data;
    graph_output_add(f.g, "y", y);
    const float gammas[] = {0, 1, 0.4f, 0};
    for (size_t i = 0; i < 4; i++) {
        onestep_error error = {0};
        float *result =
            test_run(f.backend, f.g, f.cache, PRECISION_F32, f.inputs, 1, &gammas[i], "y", &error);
        assert_non_null(result);
        for (size_t o = 0; o < 3; o++) {
            double sum = 0;
            for (size_t c = 0; c < 4; c++) {
                double folded = test_weight_values(f.weights[0])[o * 4 + c] +
                                (double)gammas[i] * ((double)up[o * 2] * down[c] +
                                                     (double)up[o * 2 + 1] * down[4 + c]);
                sum += folded * f.data[0][c];
            }
            assert_true(fabs(result[o] - sum) < 1e-6);
        }
        free(result);
    }
    fixture_destroy(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_embedding_refuses_wrong_ids),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_group_norm_of_a_large_mean),
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_of_large_logits),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_geglu),
        cmocka_unit_test(test_clamp_and_scale),
        cmocka_unit_test(test_combine_and_multiply),
        cmocka_unit_test(test_concat_and_slice),
        cmocka_unit_test(test_upsample),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_damaged_weight_is_named),
        cmocka_unit_test(test_lowering),
        cmocka_unit_test(test_weights_follow_the_scalars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
