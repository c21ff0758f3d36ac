#include "cpu_scenarios.h"

#include "backend/cpu/conv_kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float test_scalars[SCALAR_COUNT] = {[SCALAR_GAMMA] = 0.4f};

static void *checked(void *block)
{
    if (!block) {
        fail_msg("the test itself has no memory");
    }
    return block;
}

size_t scenario_random(scenario *s, size_t limit)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)(s->random >> 33) % limit;
}

size_t scenario_pick(scenario *s, const size_t *choices, size_t count)
{
    return choices[scenario_random(s, count)];
}

/* ---- inputs and weights -------------------------------------------------------------------------
 */

static tensor_id input_add(scenario *s, element_type type, const size_t picture_dims[4],
                           bool shared, float mean, float deviation, size_t limit)
{
    const size_t index = s->inputs_used++;
    if (index >= SCENARIO_INPUTS) {
        fail_msg("too many inputs in a scenario");
    }
    const size_t count = picture_dims[1] * picture_dims[2] * picture_dims[3];
    if (index == s->input_count) {
        const size_t numbers = count * (shared ? 1 : SCENARIO_PICTURES);
        float *values = checked(malloc(numbers * sizeof *values));
        fill_random(values, numbers, s->seed * 100 + index, deviation);
        for (size_t i = 0; i < numbers; i++) {
            values[i] += mean;
            if (type == ELEMENT_I32) {
                const int32_t id = (int32_t)((size_t)(fabsf(values[i]) * 1000) % limit);
                memcpy(&values[i], &id, sizeof id);
            }
        }
        s->data[index] = values;
        s->picture_bytes[index] = shared ? 0 : count * sizeof(float);
        snprintf(s->names[index], sizeof s->names[index], "x%zu", index);
        s->input_count++;
    }
    s->inputs[index] = (test_input){.name = s->names[index],
                                    .data = (const uint8_t *)s->data[index] +
                                            s->picture * s->picture_bytes[index]};
    const size_t dims[4] = {shared ? 1 : s->batch, picture_dims[1], picture_dims[2],
                            picture_dims[3]};
    return graph_input(s->g, s->names[index], type, dims);
}

tensor_id scenario_input(scenario *s, size_t height, size_t width, size_t channels, float mean,
                         float deviation)
{
    return input_add(s, ELEMENT_F32, (size_t[4]){1, height, width, channels}, false, mean,
                     deviation, 0);
}

tensor_id scenario_shared_input(scenario *s, size_t height, size_t width, size_t channels)
{
    return input_add(s, ELEMENT_F32, (size_t[4]){1, height, width, channels}, true, 0, 1, 0);
}

tensor_id scenario_ids(scenario *s, size_t tokens, size_t limit)
{
    return input_add(s, ELEMENT_I32, (size_t[4]){1, 1, tokens, 1}, false, 0, 1, limit);
}

static test_weight *weight_next(scenario *s, const size_t dims[4], float deviation)
{
    const size_t index = s->weights_used++;
    if (index >= SCENARIO_WEIGHTS) {
        fail_msg("too many weights in a scenario");
    }
    if (index == s->weight_count) {
        s->weights[s->weight_count++] = test_weight_create(dims, s->seed * 1000 + index, deviation);
    }
    return s->weights[index];
}

tensor_id scenario_weight(scenario *s, size_t d0, size_t d1, size_t d2, size_t d3)
{
    const size_t dims[4] = {d0, d1, d2, d3};
    const float deviation = 1 / sqrtf((float)(d1 * d2 * d3));
    return graph_weight(s->g, &weight_next(s, dims, deviation)->expression);
}

tensor_id scenario_low_rank_weight(scenario *s, size_t d0, size_t d1, size_t d2, size_t d3)
{
    const size_t dims[4] = {d0, d1, d2, d3};
    test_weight *weight = weight_next(s, dims, 1 / sqrtf((float)(d1 * d2 * d3)));
    if (weight->expression.term_count == 1) {
        const coefficient gamma = {.slope = 0.5f, .scalar = SCALAR_GAMMA};
        test_weight_add_low_rank(weight, ELEMENT_F32, gamma, 3, s->seed, 0.3f);
    }
    return graph_weight(s->g, &weight->expression);
}

tensor_id scenario_bias(scenario *s, size_t channels)
{
    const size_t dims[4] = {channels, 1, 1, 1};
    return graph_weight(s->g, &weight_next(s, dims, 0.5f)->expression);
}

tensor_id scenario_gain(scenario *s, size_t channels)
{
    const size_t dims[4] = {channels, 1, 1, 1};
    const bool fresh = s->weights_used == s->weight_count;
    test_weight *weight = weight_next(s, dims, 0.3f);
    for (size_t i = 0; fresh && i < channels; i++) {
        test_weight_values(weight)[i] += 1;
    }
    return graph_weight(s->g, &weight->expression);
}

tensor_id scenario_conv(scenario *s, tensor_id x, size_t channels, unsigned kernel, bool bias)
{
    const size_t input = graph_dims(s->g, x)[3];
    const tensor_id weight = scenario_weight(s, channels, input, kernel, kernel);
    const tensor_id offset = bias ? scenario_bias(s, channels) : TENSOR_NONE;
    const unsigned side = kernel / 2;
    return graph_conv2d(s->g, x, weight, offset, 1, (padding){side, side, side, side});
}

tensor_id scenario_linear(scenario *s, tensor_id x, size_t channels, bool bias)
{
    const tensor_id weight = scenario_weight(s, channels, graph_dims(s->g, x)[3], 1, 1);
    return graph_linear(s->g, x, weight, bias ? scenario_bias(s, channels) : TENSOR_NONE);
}

tensor_id scenario_group_norm(scenario *s, tensor_id x, size_t groups)
{
    const size_t channels = graph_dims(s->g, x)[3];
    const tensor_id gamma = scenario_gain(s, channels), beta = scenario_bias(s, channels);
    return graph_group_norm(s->g, x, gamma, beta, (unsigned)groups, 1e-5f);
}

/* ---- running
 * -------------------------------------------------------------------------------------- */

/* Starts a build for `batch` pictures from `picture` on. */
static void scenario_build(scenario *s, scenario_builder build, size_t batch, size_t picture)
{
    graph_destroy(&s->g);
    assert_ok(graph_create(&s->g, error));
    graph_stage(s->g, "test");
    s->batch = batch;
    s->picture = picture;
    s->random = s->seed * UINT64_C(0x9e3779b97f4a7c15) + 7;
    s->weights_used = s->inputs_used = 0;
    build(s);
    assert_ok(graph_check(s->g, error));
}

static void scenario_free(scenario *s)
{
    graph_destroy(&s->g);
    for (size_t i = 0; i < s->weight_count; i++) {
        test_weight_destroy(s->weights[i]);
    }
    for (size_t i = 0; i < s->input_count; i++) {
        free(s->data[i]);
    }
}

/* Lets outputs take over the memory of inputs wherever the program says that they may and the input
 * is not needed any more: a placement as unforgiving as can be. */
static void share_places(const program *p, size_t *offsets)
{
    for (int s = 0; s < p->step_count; s++) {
        const program_step *step = &p->steps[s];
        if (step->in_place < 0) {
            continue;
        }
        const int from = step->inputs[step->in_place], to = step->outputs[0];
        bool last =
            p->values[from].kind == VALUE_INTERNAL && p->values[from].bytes >= p->values[to].bytes;
        for (int later = s + 1; later < p->step_count; later++) {
            for (unsigned i = 0; i < p->steps[later].input_count; i++) {
                last = last && p->steps[later].inputs[i] != from;
            }
        }
        if (last) {
            offsets[to] = offsets[from];
        }
    }
}

static void run_shared(backend *b, const scenario *s, precision wanted, weight_cache *weights,
                       scenario_results *results)
{
    const logger silent = {0};
    const lower_options options = {.weights = weights, .precision = wanted, .log = &silent};
    program p;
    assert_ok(b->functions->lower(b, s->g, &options, &p, error));
    size_t *offsets = checked(calloc((size_t)p.value_count, sizeof *offsets));
    size_t bytes = 0, scratch = 0;
    for (int v = 0; v < p.value_count; v++) {
        offsets[v] = bytes;
        bytes += size_round_up(p.values[v].bytes, 64);
    }
    share_places(&p, offsets);
    for (int i = 0; i < p.step_count; i++) {
        scratch = size_maximum(scratch, p.steps[i].scratch_bytes);
    }
    device_buffer *arena = NULL;
    assert_ok(b->functions->allocate(b, bytes + scratch, &arena, error));
    for (int t = 0; t < s->g->tensor_count; t++) {
        for (size_t i = 0; i < s->inputs_used && p.tensor_values[t] >= 0; i++) {
            const tensor *input = &s->g->tensors[t];
            if (input->kind == TENSOR_INPUT && strcmp(input->name, s->inputs[i].name) == 0) {
                b->functions->upload(b, arena, offsets[p.tensor_values[t]], s->inputs[i].data,
                                     p.values[p.tensor_values[t]].bytes);
            }
        }
    }
    const step_bindings bindings = {
        .arena = arena, .offsets = offsets, .scratch_offset = bytes, .scalars = test_scalars};
    for (int i = 0; i < p.step_count; i++) {
        assert_ok(b->functions->run(b, &p, i, &bindings, error));
    }
    *results = (scenario_results){0};
    for (int o = 0; o < s->g->output_count; o++) {
        assert_true(results->count < SCENARIO_OUTPUTS);
        const int y = p.tensor_values[s->g->outputs[o].tensor];
        float *result = checked(malloc(p.values[y].bytes));
        b->functions->download(b, arena, offsets[y], result, p.values[y].bytes);
        results->counts[results->count] = p.values[y].bytes / sizeof *result;
        results->values[results->count++] = result;
    }
    b->functions->release(b, arena);
    program_destroy(b, &p);
    free(offsets);
}

void scenario_results_free(scenario_results *results)
{
    for (unsigned i = 0; i < results->count; i++) {
        free(results->values[i]);
    }
    *results = (scenario_results){0};
}

static float *run(backend *b, const scenario *s, precision wanted, weight_cache *weights)
{
    onestep_error error = {0};
    float *result =
        test_run(b, s->g, weights, wanted, s->inputs, s->inputs_used, test_scalars, "y", &error);
    if (!result) {
        fail_msg("%s: %s", b->functions->name, error.message);
    }
    return result;
}

static size_t output_count(const scenario *s)
{
    return graph_element_count(&s->g->tensors[s->g->outputs[0].tensor]);
}

static float *run_reference(const scenario *s)
{
    const precision wanted = PRECISION_F32;
    thread_pool *pool;
    backend *b;
    weight_cache *weights;
    assert_ok(thread_pool_create(&pool, 1, error));
    assert_ok(backend_reference_create(&b, pool, error));
    assert_ok(weight_cache_create(&weights, SIZE_MAX, error));
    float *result = run(b, s, wanted, weights);
    weight_cache_destroy(&weights);
    backend_destroy(&b);
    thread_pool_destroy(&pool);
    return result;
}

/* One level and thread count: the batch, the batch with shared places, and each picture alone. */
static void check_backend(scenario *s, scenario_builder build, const char *label, cpu_level level,
                          unsigned threads, precision wanted, const float *expected,
                          double tolerance, float **earlier)
{
    thread_pool *pool;
    backend *b;
    weight_cache *weights;
    assert_ok(thread_pool_create(&pool, threads, error));
    assert_ok(backend_cpu_create(&b, pool, level, error));
    assert_ok(weight_cache_create(&weights, SIZE_MAX, error));
    scenario_build(s, build, SCENARIO_PICTURES, 0);
    const size_t count = output_count(s);
    float *result = run(b, s, wanted, weights);
    const double difference = relative_error(result, expected, count);
    if (!(difference <= tolerance)) {
        fail_msg("%s, %s, %u threads: relative error %.3g", label, cpu_level_name(level), threads,
                 difference);
    }
    if (*earlier && memcmp(*earlier, result, count * sizeof *result) != 0) {
        fail_msg("%s, %s: %u threads give other bytes", label, cpu_level_name(level), threads);
    }
    if (!*earlier) {
        scenario_results shared;
        run_shared(b, s, wanted, weights, &shared);
        if (memcmp(shared.values[0], result, count * sizeof *result) != 0) {
            fail_msg("%s: running in place gives other bytes", label);
        }
        scenario_results_free(&shared);
        for (size_t picture = 0; picture < SCENARIO_PICTURES; picture++) {
            scenario_build(s, build, 1, picture);
            float *alone = run(b, s, wanted, weights);
            const size_t single = count / SCENARIO_PICTURES;
            assert_int_equal(output_count(s), single);
            if (memcmp(alone, result + picture * single, single * sizeof *alone) != 0) {
                fail_msg("%s, %s: picture %zu alone gives other bytes", label,
                         cpu_level_name(level), picture);
            }
            free(alone);
        }
        *earlier = result;
    } else {
        free(result);
    }
    weight_cache_destroy(&weights);
    backend_destroy(&b);
    thread_pool_destroy(&pool);
}

void scenario_check(scenario_builder build, const char *name, uint64_t seed, precision wanted,
                    bool bytes, double tolerance)
{
    static const unsigned thread_counts[] = {1, 2, 3, 7};
    static const cpu_level levels[] = {
#define CONV_KERNELS(kernels, level, family) level,
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS
    };
    cpu_features features;
    cpu_features_detect(&features);
    scenario s = {.seed = seed};
    char label[128];
    snprintf(label, sizeof label, "%s, seed %llu", name, (unsigned long long)seed);
    scenario_build(&s, build, SCENARIO_PICTURES, 0);
    float *expected = run_reference(&s);
    for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
        float *earlier = NULL;
        const conv_kernels *kernels = conv_kernels_find(levels[l]);
        if (!cpu_level_runs(&features, levels[l]) || kernels->level != levels[l] ||
            (kernels->multiply_int8 && !bytes)) {
            continue;
        }
        for (size_t t = 0; t < sizeof thread_counts / sizeof *thread_counts; t++) {
            check_backend(&s, build, label, levels[l], thread_counts[t], wanted, expected,
                          tolerance, &earlier);
        }
        free(earlier);
    }
    free(expected);
    scenario_free(&s);
}

/* A scenario's program of the plain level, for those that look at it instead of running it. */
typedef struct lowered {
    scenario s;
    thread_pool *pool;
    backend *b;
    weight_cache *weights;
    program p;
} lowered;

static void lowered_create(lowered *l, scenario_builder build, uint64_t seed, size_t batch,
                           precision wanted)
{
    const logger silent = {0};
    *l = (lowered){.s = {.seed = seed}};
    assert_ok(thread_pool_create(&l->pool, 1, error));
    assert_ok(backend_cpu_create(&l->b, l->pool, CPU_LEVEL_PLAIN, error));
    assert_ok(weight_cache_create(&l->weights, SIZE_MAX, error));
    scenario_build(&l->s, build, batch, 0);
    const lower_options options = {.weights = l->weights, .precision = wanted, .log = &silent};
    assert_ok(l->b->functions->lower(l->b, l->s.g, &options, &l->p, error));
}

static void lowered_destroy(lowered *l)
{
    program_destroy(l->b, &l->p);
    weight_cache_destroy(&l->weights);
    backend_destroy(&l->b);
    thread_pool_destroy(&l->pool);
    scenario_free(&l->s);
}

char *scenario_steps(scenario_builder build, uint64_t seed)
{
    lowered l;
    lowered_create(&l, build, seed, 1, PRECISION_F32);
    text_buffer text = {0};
    double operations = 0;
    for (int i = 0; i < l.p.step_count; i++) {
        const operation op = l.s.g->nodes[l.p.steps[i].node].operation;
        const bool product = op == OPERATION_CONV2D || op == OPERATION_LINEAR;
        text_buffer_print(&text, "%s%s", i ? ", " : "",
                          product ? "product" : l.p.steps[i].algorithm);
        operations += l.p.steps[i].operations;
    }
    /* Nothing that the graph costs is lost in fusing. */
    assert_true(fabs(operations - graph_cost(l.s.g, NULL)) <= 1e-9 * operations);
    lowered_destroy(&l);
    return text.data;
}

scenario_memory scenario_memory_of(scenario_builder build, size_t batch, precision wanted)
{
    lowered l;
    lowered_create(&l, build, 1, batch, wanted);
    scenario_memory memory = {0};
    for (int v = 0; v < l.p.value_count; v++) {
        memory.bytes += l.p.values[v].bytes;
    }
    for (int t = 0; t < l.s.g->tensor_count; t++) {
        const tensor *each = &l.s.g->tensors[t];
        const size_t bytes = graph_element_count(each) * element_size(each->type);
        if (l.p.tensor_values[t] >= 0 && l.p.values[l.p.tensor_values[t]].bytes != bytes) {
            assert_int_equal(l.p.values[l.p.tensor_values[t]].bytes, bytes / 2);
            memory.halves++;
        }
    }
    lowered_destroy(&l);
    return memory;
}

scenario_results scenario_run(scenario_builder build, precision wanted, bool apart)
{
    scenario s = {.seed = 1};
    cpu_features features;
    thread_pool *pool;
    backend *b;
    weight_cache *weights;
    scenario_results results;
    cpu_features_detect(&features);
    assert_ok(thread_pool_create(&pool, 2, error));
    assert_ok(backend_cpu_create(&b, pool, features.level, error));
    assert_ok(weight_cache_create(&weights, SIZE_MAX, error));
    scenario_build(&s, build, 1, 0);
    run_shared(b, &s, wanted, weights, &results);
    if (apart) {
        float *y = run(b, &s, wanted, weights);
        assert_memory_equal(y, results.values[0], results.counts[0] * sizeof *y);
        free(y);
    }
    weight_cache_destroy(&weights);
    backend_destroy(&b);
    thread_pool_destroy(&pool);
    scenario_free(&s);
    return results;
}
