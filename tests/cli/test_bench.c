/* What `onestep bench` tells: the text table, and one JSON object with every layer. */
#include "program.h"
#include "support/check.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define BASE PROJECT_FOLDER "/tests/golden/models/base_a"
#define EDGE PROJECT_FOLDER "/tests/golden/models/base_a_edge.pkl"

static program_result last;

#define BENCH(...)                                                                                 \
    do {                                                                                           \
        static const char *const arguments[] = {                                                   \
            "bench",  "-b", BASE,        "-c", EDGE,        "--size", "64",                        \
            "--runs", "1",  "--threads", "1",  __VA_ARGS__, NULL};                                 \
        program_run(&last, NULL, arguments);                                                       \
        assert_int_equal(last.exit_code, 0);                                                       \
    } while (0)

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    assert_non_null(value);
    return value;
}

static json_t *object_of_one_line(void)
{
    const char *newline = strchr(last.out, '\n');
    assert_true(newline && newline[1] == '\0');
    json_t *object = json_loads(last.out, 0, NULL);
    assert_non_null(object);
    return object;
}

/* Sums of what the layers of a stage tell. */
typedef struct stage_sums {
    int layers, weights;
    double seconds, gflop;
} stage_sums;

static stage_sums sums_of(const json_t *layers, const char *stage)
{
    stage_sums sums = {0};
    size_t index;
    const json_t *layer;
    json_array_foreach(layers, index, layer)
    {
        if (strcmp(text(layer, "stage"), stage) != 0) {
            continue;
        }
        sums.layers++;
        sums.weights += *text(layer, "weight") != '\0';
        sums.seconds += number(layer, "took_s");
        sums.gflop += number(layer, "gflop");
        assert_true(*text(layer, "algorithm") != '\0');
        assert_true(number(layer, "predicted_s") >= 0);
        const json_t *output = json_object_get(layer, "output");
        assert_int_equal(json_array_size(output), 4);
        double elements = 1;
        for (size_t i = 0; i < 4; i++) {
            elements *= json_number_value(json_array_get(output, i));
        }
        assert_true(elements >= 1);
        /* Statistics are smaller than their node's output, and a gate that runs inside its product
         * leaves half of what that makes; every other step writes its output as float32. */
        const bool gated = strstr(text(layer, "weight"), "ff.net.0.proj") != NULL;
        if (!strstr(text(layer, "algorithm"), "statistics")) {
            assert_true(number(layer, "bytes") >= (gated ? 2 : 4) * elements);
        }
    }
    return sums;
}

static void check_near(double value, double expected, double part)
{
    if (!(value >= expected * (1 - part) && value <= expected * (1 + part))) {
        fail_msg("%g is not within %g of %g", value, part, expected);
    }
}

static void test_layers(void **state)
{
    (void)state;
    BENCH("--plan", "--json");
    json_t *object = object_of_one_line();
    const json_t *layers = json_object_get(object, "layers");
    static const char *const names[3][2] = {
        {"encode", "encode_s"}, {"unet", "unet_s"}, {"decode", "decode_s"}};
    double gflop = 0;
    int count = 0;
    for (int i = 0; i < 3; i++) {
        const stage_sums sums = sums_of(layers, names[i][0]);
        assert_true(sums.weights > 10);
        check_near(sums.seconds, number(object, names[i][1]), 1e-3);
        gflop += sums.gflop;
        count += sums.layers;
    }
    assert_int_equal(count, json_array_size(layers));
    check_near(gflop, number(object, "gflops") * number(object, "total_s"), 1e-3);
    json_decref(object);
}

/* The layer of the last run that uses a weight and whose algorithm's name ends with `type`, or
 * NULL. */
static const json_t *layer_of(const json_t *object, const char *weight, const char *type)
{
    size_t index;
    const json_t *layer;
    json_array_foreach(json_object_get(object, "layers"), index, layer)
    {
        const char *algorithm = text(layer, "algorithm");
        const size_t length = strlen(algorithm), end = strlen(type);
        if (strcmp(text(layer, "weight"), weight) == 0 && length >= end &&
            strcmp(algorithm + length - end, type) == 0) {
            return layer;
        }
    }
    return NULL;
}

static double channels_of(const json_t *layer)
{
    return json_number_value(json_array_get(json_object_get(layer, "output"), 3));
}

static void test_bytes(void **state)
{
    (void)state;
    BENCH("--plan", "--json", "--backend", "reference");
    json_t *object = object_of_one_line();
    const json_t *layer = layer_of(object, "encoder.conv_in.weight", "conv2d");
    assert_non_null(layer);
    const double channels = channels_of(layer);
    check_near(number(layer, "bytes"), 4 * (64 * 64 * (3 + channels) + 9 * 3 * channels), 1e-9);
    json_decref(object);

    /* The same layer, no statistics beside it, with a weight of half as many bytes. */
    static const char weight[] = "encoder.mid_block.attentions.0.to_q.weight";
    BENCH("--plan", "--json");
    object = object_of_one_line();
    layer = layer_of(object, weight, " int16");
    if (!layer) { /* no kernels for integers on this CPU */
        json_decref(object);
        return;
    }
    const double reduced = number(layer, "bytes"), width = channels_of(layer);
    json_decref(object);
    BENCH("--plan", "--json", "--precision", "f32");
    object = object_of_one_line();
    layer = layer_of(object, weight, " f32");
    assert_non_null(layer);
    check_near(number(layer, "bytes") - reduced, 2 * width * width, 1e-9);
    json_decref(object);
}

static void test_text(void **state)
{
    (void)state;
    BENCH("--plan");
    check_contains(last.out, "seconds a picture, best of the warm runs");
    check_contains(last.out, "predict ms    took ms  GFLOP/s  weight\n");
    check_contains(last.out, "encoder.conv_in.weight\n");
    BENCH("--json");
    json_t *object = object_of_one_line();
    assert_null(json_object_get(object, "layers"));
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers), cmocka_unit_test(test_bytes),
                                       cmocka_unit_test(test_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
