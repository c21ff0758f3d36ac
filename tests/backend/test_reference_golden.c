/* Single operations and their gradients on the reference backend against PyTorch's
 * (tests/golden/gradients, described in tests/golden/README.md). */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDENS   PROJECT_FOLDER "/tests/golden/gradients/"
#define TOLERANCE 2e-6
#define INPUTS    3

/* A golden array as a graph has it: pictures NHWC, sequences [n,1,t,c]. */
typedef struct array {
    size_t dims[4], count;
    float *values;
} array;

static array load(const char *folder, const char *prefix, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, GOLDENS "%s/%s%s.npy", folder, prefix, name);
    named_tensor file;
    assert_ok(npy_read(&file, path, error));
    assert_int_equal(file.type, ELEMENT_F32);
    array a = {.dims = {1, 1, 1, 1}, .count = tensor_element_count(&file)};
    a.values = malloc(a.count * sizeof(float));
    assert_non_null(a.values);
    const float *from = file.data;
    memcpy(a.values, from, a.count * sizeof(float));
    const size_t *shape = file.shape;
    if (file.rank == 4 && strcmp(name, "weight") != 0) {
        size_t channels = shape[1], pixels = shape[2] * shape[3];
        memcpy(a.dims, (size_t[4]){shape[0], shape[2], shape[3], channels}, sizeof a.dims);
        for (size_t i = 0; i < a.count; i++) {
            size_t n = i / (channels * pixels), c = i / pixels % channels, p = i % pixels;
            a.values[(n * pixels + p) * channels + c] = from[i];
        }
    } else if (file.rank == 3) {
        memcpy(a.dims, (size_t[4]){shape[0], 1, shape[1], shape[2]}, sizeof a.dims);
    } else {
        memcpy(a.dims, shape, file.rank * sizeof *shape);
    }
    npy_free(&file);
    return a;
}

/* "key=" in "key=value key=value" */
static const char *setting(const char *settings, const char *key)
{
    const char *found = strstr(settings, key);
    if (!found) {
        fail_msg("no %s in %s", key, settings);
        abort();
    }
    return found + strlen(key);
}

static unsigned number(const char *settings, const char *key)
{
    return (unsigned)strtoul(setting(settings, key), NULL, 10);
}

/* softmax(x) = attention of queries x to the unit vectors, with the unit vectors as values. */
static tensor_id build_softmax(graph *g, tensor_id x)
{
    size_t width = graph_dims(g, x)[3];
    float unit[64] = {0};
    assert_true(width * width <= 64);
    for (size_t i = 0; i < width; i++) {
        unit[i * width + i] = 1.0f;
    }
    tensor_id units = graph_constant(g, unit, (size_t[4]){1, 1, width, width});
    return graph_attention(g, x, units, units, 1, 1.0f, false);
}

static tensor_id build(graph *g, const char *name, const char *s, const tensor_id *x,
                       unsigned inputs)
{
    static const struct {
        const char *name;
        operation operation;
    } activations[] = {{"silu", OPERATION_SILU},
                       {"gelu", OPERATION_GELU},
                       {"quick_gelu", OPERATION_QUICK_GELU},
                       {"geglu", OPERATION_GEGLU}};
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++) {
        if (strcmp(name, activations[i].name) == 0) {
            return graph_activation(g, activations[i].operation, x[0]);
        }
    }
    tensor_id bias = inputs > 2 ? x[2] : TENSOR_NONE;
    if (strcmp(name, "conv2d") == 0) {
        padding p;
        assert_int_equal(
            sscanf(setting(s, "pad="), "%u,%u,%u,%u", &p.left, &p.right, &p.top, &p.bottom), 4);
        return graph_conv2d(g, x[0], x[1], bias, number(s, "stride="), p);
    }
    if (strcmp(name, "linear") == 0) {
        return graph_linear(g, x[0], x[1], bias);
    }
    if (strcmp(name, "group_norm") == 0) {
        return graph_group_norm(g, x[0], x[1], bias, number(s, "groups="),
                                strtof(setting(s, "eps="), NULL));
    }
    if (strcmp(name, "layer_norm") == 0) {
        return graph_layer_norm(g, x[0], x[1], bias, strtof(setting(s, "eps="), NULL));
    }
    if (strcmp(name, "attention") == 0) {
        unsigned heads = number(s, "heads=");
        double width = (double)graph_dims(g, x[0])[3] / heads;
        return graph_attention(g, x[0], x[1], x[2], heads, (float)(1 / sqrt(width)),
                               number(s, "causal=") != 0);
    }
    if (strcmp(name, "upsample_nearest") == 0) {
        return graph_upsample(g, x[0], number(s, "height="), number(s, "width="));
    }
    if (strcmp(name, "softmax") == 0) {
        return build_softmax(g, x[0]);
    }
    fail_msg("the list names an operation %s that this test does not know", name);
    return TENSOR_NONE;
}

static void compare(backend *b, const graph *g, const test_input *inputs, unsigned input_count,
                    const char *output, const array *expected, const char *folder)
{
    weight_cache *cache = NULL;
    assert_ok(weight_cache_create(&cache, SIZE_MAX, error));
    onestep_error error = {0};
    float *result = test_run(b, g, cache, PRECISION_F32, inputs, input_count, NULL, output, &error);
    if (!result) {
        fail_msg("%s: %s", folder, error.message);
    }
    double difference = relative_error(result, expected->values, expected->count);
    if (!(difference <= TOLERANCE)) {
        fail_msg("%s: %s is off by %.2g", folder, output, difference);
    }
    free(result);
    weight_cache_destroy(&cache);
}

/* One line of the list. `names` is cut into words. */
static void check_case(backend *b, const char *folder, const char *operation_wanted,
                       const char *settings, char *names)
{
    array x[INPUTS + 1], gradients[INPUTS];
    test_input inputs[INPUTS + 1];
    char output_names[INPUTS][64];
    tensor_id ids[INPUTS], found[INPUTS];
    unsigned count = 0;
    graph *g = NULL;
    assert_ok(graph_create(&g, error));
    for (char *name = strtok(names, " \n"); name; name = strtok(NULL, " \n"), count++) {
        assert_true(count < INPUTS);
        x[count] = load(folder, "", name);
        gradients[count] = load(folder, "grad_", name);
        inputs[count] = (test_input){.name = name, .data = x[count].values};
        snprintf(output_names[count], sizeof output_names[count], "grad_%s", name);
        ids[count] = graph_input(g, name, ELEMENT_F32, x[count].dims);
    }
    tensor_id y = build(g, operation_wanted, settings, ids, count);
    assert_ok(graph_check(g, error));
    array expected = load(folder, "", "out");
    assert_memory_equal(graph_dims(g, y), expected.dims, sizeof expected.dims);
    x[count] = load(folder, "", "grad_out");
    inputs[count] = (test_input){.name = "upstream", .data = x[count].values};
    tensor_id upstream = graph_input(g, "upstream", ELEMENT_F32, expected.dims);
    assert_ok(graph_differentiate(g, y, upstream, ids, count, found, error));
    graph_output_add(g, "out", y);
    for (unsigned i = 0; i < count; i++) {
        graph_output_add(g, output_names[i], found[i]);
    }
    compare(b, g, inputs, count + 1, "out", &expected, folder);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(graph_element_count(&g->tensors[found[i]]), gradients[i].count);
        compare(b, g, inputs, count + 1, output_names[i], &gradients[i], folder);
        free(gradients[i].values);
    }
    for (unsigned i = 0; i <= count; i++) {
        free(x[i].values);
    }
    free(expected.values);
    graph_destroy(&g);
}

static void test_goldens(void **state)
{
    (void)state;
    thread_pool *pool = NULL;
    backend *b = NULL;
    assert_ok(thread_pool_create(&pool, 2, error));
    assert_ok(backend_reference_create(&b, pool, error));
    FILE *list = fopen(GOLDENS "list.tsv", "r");
    assert_non_null(list);
    char line[512];
    unsigned cases = 0;
    while (fgets(line, sizeof line, list)) {
        char *fields[4], *rest = line;
        for (int i = 0; i < 4; i++) {
            fields[i] = strsep(&rest, "\t");
            assert_non_null(fields[i]);
        }
        check_case(b, fields[0], fields[1], fields[2], fields[3]);
        cases++;
    }
    fclose(list);
    assert_true(cases >= 20);
    backend_destroy(&b);
    thread_pool_destroy(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
