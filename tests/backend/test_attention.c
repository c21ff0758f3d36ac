/* Attention with the kernels of every level, those that the machine lacks too, against a plain
 * softmax in double precision. */
#include "backend/cpu/attention.h"
#include "conv_tables.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PRECISIONS = ATTENTION_INT8 + 1 };

/* Relative error of the result. In the last two values and the softmax's weights have 8 bits: of
 * 256 keys most weights are of a few units, whose rounding adds up where the values have no mean.
 */
static const double tolerances[PRECISIONS] = {
    [ATTENTION_F32] = 2e-6,
    [ATTENTION_INT16] = 8e-4,
    [ATTENTION_INT8_VALUES] = 3e-2,
    [ATTENTION_INT8] = 3.2e-2,
};

static const attention_shape shapes[] = {
    {.batch = 1, .queries = 1, .keys = 1, .heads = 1, .width = 4},
    {.batch = 1, .queries = 13, .keys = 301, .heads = 2, .width = 40},
    {.batch = 2, .queries = 100, .keys = 256, .heads = 1, .width = 64},
    {.batch = 2, .queries = 11, .keys = 77, .heads = 3, .width = 16, .shared_keys = true},
    {.batch = 1, .queries = 201, .keys = 530, .heads = 1, .width = 7},
    {.batch = 1, .queries = 61, .keys = 270, .heads = 1, .width = 200},
    {.batch = 1, .queries = 290, .keys = 290, .heads = 2, .width = 24, .causal = true},
};

typedef struct attention_case {
    const attention_shape *shape;
    float *query, *key, *value, *expected, *output;
    size_t outputs;
    float scale;
} attention_case;

static float *random_tokens(size_t batch, size_t tokens, const attention_shape *shape,
                            uint64_t seed)
{
    const size_t count = batch * tokens * shape->heads * shape->width;
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    fill_random(values, count, seed, 1.0f);
    return values;
}

/* One query of one head. */
static void attend(const attention_case *test, size_t picture, size_t head, size_t query)
{
    const attention_shape *shape = test->shape;
    const size_t width = shape->width, stride = shape->heads * width;
    const size_t image = shape->shared_keys ? 0 : picture;
    const size_t seen = shape->causal ? query + 1 : shape->keys;
    const size_t place = (picture * shape->queries + query) * stride + head * width;
    const float *key = test->key + image * shape->keys * stride + head * width;
    const float *value = test->value + image * shape->keys * stride + head * width;
    double *weights = malloc(seen * sizeof *weights);
    assert_non_null(weights);
    double largest = -INFINITY, sum = 0;
    for (size_t k = 0; k < seen; k++) {
        weights[k] = 0;
        for (size_t c = 0; c < width; c++) {
            weights[k] += (double)test->query[place + c] * (double)key[k * stride + c];
        }
        weights[k] *= (double)test->scale;
        largest = fmax(largest, weights[k]);
    }
    for (size_t k = 0; k < seen; k++) {
        weights[k] = exp(weights[k] - largest);
        sum += weights[k];
    }
    for (size_t c = 0; c < width; c++) {
        double result = 0;
        for (size_t k = 0; k < seen; k++) {
            result += weights[k] * (double)value[k * stride + c];
        }
        test->expected[place + c] = (float)(result / sum);
    }
    free(weights);
}

static attention_case case_create(const attention_shape *shape)
{
    const size_t images = shape->shared_keys ? 1 : shape->batch;
    attention_case test = {
        .shape = shape,
        .query = random_tokens(shape->batch, shape->queries, shape, 1),
        .key = random_tokens(images, shape->keys, shape, 2),
        .value = random_tokens(images, shape->keys, shape, 3),
        .expected = random_tokens(shape->batch, shape->queries, shape, 4),
        .output = random_tokens(shape->batch, shape->queries, shape, 4),
        .outputs = shape->batch * shape->queries * shape->heads * shape->width,
        .scale = 2 / sqrtf((float)shape->width),
    };
    for (size_t picture = 0; picture < shape->batch; picture++) {
        for (size_t head = 0; head < shape->heads; head++) {
            for (size_t query = 0; query < shape->queries; query++) {
                attend(&test, picture, head, query);
            }
        }
    }
    return test;
}

static void case_destroy(attention_case *test)
{
    free(test->query);
    free(test->key);
    free(test->value);
    free(test->expected);
    free(test->output);
}

static void run(const attention_case *test, attention_precision precision,
                const conv_kernels *products, unsigned threads)
{
    cpu_features features;
    cpu_features_detect(&features);
    const attention_arguments arguments = {.query = test->query,
                                           .key = test->key,
                                           .value = test->value,
                                           .output = test->output,
                                           .scale = test->scale};
    thread_pool *pool = NULL;
    attention_plan plan;
    assert_ok(thread_pool_create(&pool, threads, error));
    assert_true(attention_plan_create(&plan, test->shape, precision, products, threads));
    void *scratch = aligned_alloc(64, size_round_up(plan.scratch_bytes, 64));
    assert_non_null(scratch);
    memset(scratch, 0xff, plan.scratch_bytes); /* NaN: nothing may be read before it is written */
    for (size_t i = 0; i < test->outputs; i++) {
        test->output[i] = NAN;
    }
    attention_run(&plan, &arguments, products, tensor_kernels_find(features.level), scratch, pool);
    free(scratch);
    thread_pool_destroy(&pool);
}

static void check(const attention_case *test, attention_precision precision,
                  const conv_kernels *products)
{
    run(test, precision, products, 1);
    const double error = relative_error(test->output, test->expected, test->outputs);
    if (!(error <= tolerances[precision])) {
        fail_msg("%s, precision %d, %zu queries, %zu keys, width %zu: relative error %.3g",
                 products->name, (int)precision, test->shape->queries, test->shape->keys,
                 test->shape->width, error);
    }
    float *alone = malloc(test->outputs * sizeof *alone);
    assert_non_null(alone);
    memcpy(alone, test->output, test->outputs * sizeof *alone);
    run(test, precision, products, 3);
    assert_memory_equal(alone, test->output, test->outputs * sizeof *alone);
    free(alone);
}

static void every_table_attends(void **state)
{
    (void)state;
    unsigned with_bytes = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        attention_case test = case_create(&shapes[s]);
        for (size_t i = 0; i < conv_table_count(); i++) {
            const conv_kernels *products = conv_table(i);
            for (int precision = ATTENTION_F32; products && precision < PRECISIONS; precision++) {
                if (precision <= ATTENTION_INT16 || products->multiply_int8) {
                    check(&test, (attention_precision)precision, products);
                    with_bytes += precision > ATTENTION_INT16;
                }
            }
        }
        case_destroy(&test);
    }
    assert_true(with_bytes > 0 || !KERNELS_HAVE_X86);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_table_attends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
