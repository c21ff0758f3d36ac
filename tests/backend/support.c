#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void fill_random(float *values, size_t count, uint64_t seed, float deviation)
{
    uint64_t state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        for (int k = 0; k < 4; k++) {
            sum += (double)(splitmix(&state) >> 40) / (double)(1 << 24) - 0.5;
        }
        values[i] = (float)(sum * 1.7320508) * deviation;
    }
}

double relative_error(const float *a, const float *b, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) {
            return INFINITY;
        }
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : difference > 0 ? INFINITY : 0;
}

/* ---- weights ------------------------------------------------------------------------------------
 */

static void *checked(void *block)
{
    if (!block) {
        fail_msg("the test itself has no memory");
    }
    return block;
}

/* A random tensor of a type in slot `slot`. */
static const named_tensor *make_tensor(test_weight *weight, unsigned slot, element_type type,
                                       const size_t dims[4], uint64_t seed, float deviation)
{
    size_t count = dims[0] * dims[1] * dims[2] * dims[3];
    float *values = checked(malloc(count * sizeof *values));
    fill_random(values, count, seed, deviation);
    uint8_t *data = checked(malloc(count * element_size(type)));
    for (size_t i = 0; i < count; i++) {
        double wide = values[i];
        uint16_t half = float_to_half(values[i]), brain = float_to_bfloat16(values[i]);
        const void *source = type == ELEMENT_F64    ? (const void *)&wide
                             : type == ELEMENT_F16  ? (const void *)&half
                             : type == ELEMENT_BF16 ? (const void *)&brain
                                                    : (const void *)&values[i];
        memcpy(data + i * element_size(type), source, element_size(type));
    }
    free(values);
    weight->data[slot] = data;
    named_tensor *t = &weight->tensors[slot];
    *t = (named_tensor){
        .name = "test", .type = type, .rank = 4, .data = data, .bytes = count * element_size(type)};
    memcpy(t->shape, dims, 4 * sizeof *dims);
    return t;
}

void test_weight_add_full(test_weight *weight, element_type type, coefficient scale, uint64_t seed,
                          float deviation)
{
    weight_expression *e = &weight->expression;
    unsigned index = e->term_count++;
    e->terms[index] = (weight_term){
        .scale = scale, .full = make_tensor(weight, 3 * index, type, e->dims, seed, deviation)};
}

void test_weight_add_low_rank(test_weight *weight, element_type type, coefficient scale,
                              size_t rank, uint64_t seed, float deviation)
{
    weight_expression *e = &weight->expression;
    unsigned index = e->term_count++;
    size_t down[4] = {rank, e->dims[1], e->dims[2], e->dims[3]}, up[4] = {e->dims[0], rank, 1, 1};
    e->terms[index] =
        (weight_term){.scale = scale,
                      .down = make_tensor(weight, 3 * index + 1, type, down, seed, deviation),
                      .up = make_tensor(weight, 3 * index + 2, type, up, seed + 1, deviation)};
}

test_weight *test_weight_create(const size_t dims[4], uint64_t seed, float deviation)
{
    test_weight *weight = checked(calloc(1, sizeof *weight));
    weight->expression.name = "test.weight";
    memcpy(weight->expression.dims, dims, sizeof weight->expression.dims);
    test_weight_add_full(weight, ELEMENT_F32, coefficient_constant(1), seed, deviation);
    return weight;
}

void test_weight_destroy(test_weight *weight)
{
    for (size_t i = 0; weight && i < sizeof weight->data / sizeof *weight->data; i++) {
        free(weight->data[i]);
    }
    free(weight);
}

float *test_weight_values(test_weight *weight)
{
    return weight->data[0];
}

/* ---- running ------------------------------------------------------------------------------- */

#define GUARD_BYTES 256
#define GUARD       0xa5

/* Gives every value and the largest scratch its place. */
static size_t place(const program *p, size_t *offsets, size_t *scratch_offset)
{
    size_t bytes = GUARD_BYTES;
    for (int v = 0; v < p->value_count; v++) {
        offsets[v] = bytes;
        bytes += size_round_up(p->values[v].bytes, 64) + GUARD_BYTES;
    }
    *scratch_offset = bytes;
    size_t scratch_bytes = 0;
    for (int s = 0; s < p->step_count; s++) {
        scratch_bytes = size_maximum(scratch_bytes, p->steps[s].scratch_bytes);
    }
    return bytes + size_round_up(scratch_bytes, 64) + GUARD_BYTES;
}

static void check_guards(const program *p, const uint8_t *image, const size_t *offsets, int step)
{
    const uint8_t *start = image;
    for (int v = 0; v <= p->value_count; v++) {
        const uint8_t *end = v < p->value_count ? image + offsets[v] : start + GUARD_BYTES;
        for (const uint8_t *b = start; b < end; b++) {
            if (*b != GUARD) {
                fail_msg("step %d (%s) wrote outside its output, beside value %d", step,
                         p->steps[step].algorithm, v);
            }
        }
        if (v < p->value_count) {
            start = image + offsets[v] + p->values[v].bytes;
        }
    }
}

float *test_run(backend *b, const graph *g, weight_cache *weights, precision wanted,
                const test_input *inputs, size_t input_count, const float *scalars,
                const char *name, onestep_error *error)
{
    static const float no_scalars[SCALAR_COUNT];
    const logger silent = {0};
    lower_options options = {.precision = wanted, .weights = weights, .log = &silent};
    program p;
    float *result = NULL;
    device_buffer *arena = NULL;
    size_t *offsets = NULL;
    uint8_t *image = NULL;
    if (graph_check(g, error) != ONESTEP_OK ||
        b->functions->lower(b, g, &options, &p, error) != ONESTEP_OK) {
        return NULL;
    }
    offsets = checked(calloc((size_t)p.value_count + 1, sizeof *offsets));
    size_t scratch_offset;
    size_t bytes = place(&p, offsets, &scratch_offset);
    image = checked(malloc(bytes));
    if (b->functions->allocate(b, bytes, &arena, error) != ONESTEP_OK) {
        goto done;
    }
    memset(image, GUARD, bytes);
    for (int v = 0; v < p.value_count; v++) {
        memset(image + offsets[v], 0xff, p.values[v].bytes); /* NaN */
    }
    b->functions->upload(b, arena, 0, image, bytes);
    for (int t = 0; t < g->tensor_count; t++) {
        for (size_t i = 0; i < input_count && p.tensor_values[t] >= 0; i++) {
            if (g->tensors[t].kind == TENSOR_INPUT &&
                strcmp(g->tensors[t].name, inputs[i].name) == 0) {
                int v = p.tensor_values[t];
                b->functions->upload(b, arena, offsets[v], inputs[i].data, p.values[v].bytes);
            }
        }
    }
    step_bindings bindings = {.arena = arena,
                              .offsets = offsets,
                              .scratch_offset = scratch_offset,
                              .scalars = scalars ? scalars : no_scalars};
    for (int s = 0; s < p.step_count; s++) {
        size_t used = p.steps[s].scratch_bytes, rest = bytes - scratch_offset - used;
        memset(image + scratch_offset, 0xff, used);
        memset(image + scratch_offset + used, GUARD, rest);
        b->functions->upload(b, arena, scratch_offset, image + scratch_offset, used + rest);
        if (b->functions->run(b, &p, s, &bindings, error) != ONESTEP_OK) {
            goto done;
        }
        b->functions->sync(b);
        b->functions->download(b, arena, 0, image, bytes);
        check_guards(&p, image, offsets, s);
        for (size_t i = scratch_offset + used; i < bytes; i++) {
            if (image[i] != GUARD) {
                fail_msg("step %d (%s) wrote behind its scratch", s, p.steps[s].algorithm);
            }
        }
    }
    for (int o = 0; o < g->output_count; o++) {
        if (strcmp(g->outputs[o].name, name) == 0) {
            int v = p.tensor_values[g->outputs[o].tensor];
            result = checked(malloc(p.values[v].bytes));
            memcpy(result, image + offsets[v], p.values[v].bytes);
        }
    }
    if (!result) {
        fail_msg("the graph has no output %s", name);
    }
done:
    if (arena) {
        b->functions->release(b, arena);
    }
    program_destroy(b, &p);
    free(offsets);
    free(image);
    return result;
}
