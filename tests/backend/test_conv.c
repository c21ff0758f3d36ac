/* Convolutions of the cpu backend against a simple one in double precision: every kernel table
 * (through SIMDe where the machine lacks its level), every algorithm and precision, many shapes. */
#include "conv_reference.h"
#include "conv_tables.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const algorithm_names[] = {"direct",     "winograd 2",   "winograd 4",
                                              "winograd 6", "winograd 8x6", "winograd 8"};
static const char *const precision_names[] = {"f32", "bf16", "int16"};

/* norm(error) / norm(result) allowed, by precision and algorithm. */
static const double tolerances[3][CONV_ALGORITHM_COUNT] = {
    [CONV_F32] = {1e-6, 2e-6, 4e-6, 3e-5, 5e-5, 1.5e-4},
    [CONV_BF16] = {5e-3},
    [CONV_INT16] = {4e-4, 6e-4, 3e-3, 6e-3, 1.2e-2, 3e-2},
};

static const cpu_level levels[] = {
#define CONV_KERNELS(name, level, family) level,
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS
};

enum { LEVELS = sizeof levels / sizeof levels[0] };

static void describe(char *text, size_t size, const conv_case *test, const conv_plan *plan)
{
    const conv_shape *s = &test->shape;
    snprintf(text, size,
             "%s %s %s: %zux %zux%zux%zu -> %zux%zux%zu k%u s%u pad %u,%u up %d geglu %d norm %d "
             "silu %d residual %d activation %d stored as %d, %d",
             cpu_level_name(plan->level), precision_names[plan->precision],
             algorithm_names[plan->algorithm], s->batch, s->input_height, s->input_width,
             s->input_channels, s->output_height, s->output_width, s->output_channels, s->kernel,
             s->stride, s->pad_top, s->pad_left, s->upsample, s->geglu, test->normalise, test->silu,
             test->residual, test->activation, test->input_storage, test->residual_storage);
}

/* Packs and runs one case; the statistics buffer is made here, as its size is the plan's. */
static void run_case_kernels(conv_buffers *buffers, const conv_case *test, const conv_plan *plan,
                             unsigned threads, const conv_kernels *kernels)
{
    onestep_error error;
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, threads, &error), ONESTEP_OK);
    void *packed = memory_allocate_aligned(plan->packed_bytes, &error);
    void *scratch = memory_allocate_aligned(plan->scratch_bytes + 64, &error);
    assert_non_null(packed);
    assert_non_null(scratch);
    memset(packed, 0xff, plan->packed_bytes); /* NaN: padding must be written */
    memset(scratch, 0xff, plan->scratch_bytes);
    memset((uint8_t *)scratch + plan->scratch_bytes, 0x5a, 64);

    const size_t taps = (size_t)test->shape.kernel * test->shape.kernel;
    const size_t outputs = test->shape.output_channels * (test->shape.geglu ? 2 : 1);
    const size_t granularity = conv_pack_granularity(plan);
    for (size_t first = 0; first < outputs; first += granularity) {
        /* A copy of just this block: nothing beyond it may be read. */
        const size_t count = size_minimum(granularity, outputs - first);
        const size_t floats = count * test->shape.input_channels * taps;
        guarded_floats block = {0};
        guarded_create(&block, floats, test->at_end);
        memcpy(block.values, buffers->weights.values + first * test->shape.input_channels * taps,
               floats * sizeof(float));
        conv_pack_kernels(plan, packed, block.values, first, count, kernels);
        guarded_destroy(&block);
    }
    if (test->statistics) {
        guarded_destroy(&buffers->statistics);
        guarded_create(&buffers->statistics,
                       test->shape.batch * conv_statistics_blocks(plan) * 2 *
                           test->shape.output_channels,
                       test->at_end);
    }
    conv_arguments arguments = conv_buffers_arguments(buffers, test);
    arguments.packed = packed;
    conv_buffers_clear(buffers);
    const size_t value_bytes = conv_storage_bytes(test->output_storage);
    if (test->in_place && test->residual &&
        conv_storage_bytes(test->residual_storage) == value_bytes) {
        memcpy(arguments.output, arguments.residual, buffers->residual.count * value_bytes);
        arguments.residual = arguments.output;
    }
    if (kernels == conv_kernels_find(plan->level)) {
        conv_run(plan, &arguments, scratch, pool);
    } else {
        conv_run_kernels(plan, &arguments, scratch, pool, kernels);
    }
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(((uint8_t *)scratch)[plan->scratch_bytes + i], 0x5a);
    }
    assert_true(conv_buffers_gaps_kept(buffers, test));
    memory_free_aligned(packed, plan->packed_bytes);
    memory_free_aligned(scratch, plan->scratch_bytes + 64);
    thread_pool_destroy(&pool);
}

static void run_case(conv_buffers *buffers, const conv_case *test, const conv_plan *plan,
                     unsigned threads)
{
    run_case_kernels(buffers, test, plan, threads, kernels_of(plan->level));
}

/* The blocks' sums, added in order, are the sums of what was stored. */
static void check_statistics(const conv_buffers *buffers, const conv_case *test,
                             const conv_plan *plan, const char *name)
{
    const conv_shape *shape = &test->shape;
    const size_t channels = shape->output_channels;
    const size_t blocks = conv_statistics_blocks(plan);
    const size_t pixels = shape->output_height * shape->output_width;
    for (size_t n = 0; n < shape->batch; n++) {
        for (size_t c = 0; c < channels; c++) {
            double sum = 0;
            double square = 0;
            double magnitude = 0;
            for (size_t p = 0; p < pixels; p++) {
                const double value =
                    buffers->output.values[(n * pixels + p) * (channels + test->extra_stride) + c];
                sum += value;
                square += value * value;
                magnitude += fabs(value);
            }
            for (size_t b = 0; b < blocks; b++) {
                const float *found =
                    buffers->statistics.values + (n * blocks + b) * 2 * channels + c;
                sum -= found[0];
                square -= found[channels];
            }
            if (!(fabs(sum) <= 1e-5 * magnitude + 1e-6) ||
                !(fabs(square) <= 1e-5 * magnitude * (magnitude + 1) + 1e-6)) {
                fail_msg("%s: statistics of channel %zu are off by %g, %g", name, c, sum, square);
            }
        }
    }
}

static unsigned cases_run;

/* Runs one plan of a case whose result is floats and compares it with what is expected. */
static void check_floats(conv_buffers *buffers, const conv_case *test, const conv_plan *plan)
{
    char name[256];
    describe(name, sizeof name, test, plan);
    run_case(buffers, test, plan, 2);
    const double error = conv_buffers_error(buffers, test);
    const double allowed = tolerances[plan->precision][plan->algorithm];
    if (!(error <= allowed)) {
        fail_msg("%s: error %g, allowed %g", name, error, allowed);
    }
    if (test->statistics) {
        check_statistics(buffers, test, plan, name);
    }
    cases_run++;
}

/* Every level, precision and algorithm that takes the shape. */
static void check_plans(const conv_case *test, uint64_t seed,
                        void (*check)(conv_buffers *, const conv_case *, const conv_plan *))
{
    conv_buffers buffers;
    conv_buffers_create(&buffers, test, seed);
    for (size_t i = 0; i < LEVELS; i++) {
        for (conv_precision precision = CONV_F32; precision <= CONV_INT16; precision++) {
            for (conv_algorithm algorithm = CONV_DIRECT; algorithm < CONV_ALGORITHM_COUNT;
                 algorithm++) {
                conv_plan plan;
                if (kernels_of(levels[i]) != NULL &&
                    conv_plan_create(&plan, &test->shape, levels[i], precision, algorithm, 2)) {
                    check(&buffers, test, &plan);
                }
            }
        }
    }
    conv_buffers_destroy(&buffers);
}

static void check_case(const conv_case *test, uint64_t seed)
{
    check_plans(test, seed, check_floats);
}

static conv_shape square_shape(size_t batch, size_t height, size_t width, size_t inputs,
                               size_t outputs)
{
    return (conv_shape){
        .batch = batch,
        .input_height = height,
        .input_width = width,
        .input_channels = inputs,
        .output_height = height,
        .output_width = width,
        .output_channels = outputs,
        .kernel = 3,
        .stride = 1,
        .pad_top = 1,
        .pad_left = 1,
    };
}

/* The networks' kinds of layer. */
static conv_shape shape_of_kind(unsigned kind, size_t batch, size_t height, size_t width,
                                size_t inputs, size_t outputs)
{
    conv_shape shape = square_shape(batch, height, width, inputs, outputs);
    switch (kind) {
    case 0: /* 3x3 */
        break;
    case 1: /* the UNet's down-sampling */
        shape.stride = 2;
        shape.output_height = (height + 1) / 2;
        shape.output_width = (width + 1) / 2;
        break;
    case 2: /* the VAE's: zeros on the right and below only */
        shape.stride = 2;
        shape.pad_top = shape.pad_left = 0;
        shape.output_height = (height + 1) / 2;
        shape.output_width = (width + 1) / 2;
        break;
    case 3: /* up-sampling */
        shape.upsample = true;
        shape.output_height = 2 * height;
        shape.output_width = 2 * width;
        break;
    case 4: /* up-sampling to an odd size */
        shape.upsample = true;
        shape.output_height = 2 * height - 1;
        shape.output_width = 2 * width - 1;
        break;
    case 5: /* 1x1 */
        shape.kernel = 1;
        shape.pad_top = shape.pad_left = 0;
        break;
    case 6: /* linear */
        shape.kernel = 1;
        shape.pad_top = shape.pad_left = 0;
        shape.input_width = shape.output_width = height * width;
        shape.input_height = shape.output_height = 1;
        break;
    default: /* linear, GEGLU */
        shape = shape_of_kind(6, batch, height, width, inputs, outputs);
        shape.geglu = true;
        break;
    }
    return shape;
}

enum { KINDS = 8 };

static void plain_shapes(void **state)
{
    (void)state;
    static const size_t sizes[][5] = {
        /* batch, height, width, inputs, outputs */
        {1, 1, 1, 1, 1},     {1, 1, 1, 16, 16},   {1, 2, 3, 3, 5},    {1, 8, 8, 32, 32},
        {2, 5, 7, 17, 33},   {3, 4, 4, 40, 24},   {1, 13, 11, 64, 3}, {1, 9, 33, 4, 48},
        {1, 6, 6, 330, 8},   {1, 12, 12, 16, 64}, {1, 1, 37, 24, 20}, {1, 62, 75, 3, 17},
        {1, 130, 135, 3, 5}, /* many parts, with stride 2 too */
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            const size_t *s = sizes[i];
            const conv_case test = {
                .shape = shape_of_kind(kind, s[0], s[1], s[2], s[3], s[4]),
                .output_scale = 1.0f,
                .at_end = i % 2 == 0,
            };
            check_case(&test, 1000 * i + kind);
        }
    }
    assert_true(cases_run > 0);
}

/* Case `i`: a layer of some kind with everything that may stand around it, or not. */
static conv_case random_case(test_random *random, unsigned i)
{
    const unsigned kind = i % KINDS;
    const size_t batch = 1 + test_random_below(random, 3);
    const size_t height = 1 + test_random_below(random, 20);
    const size_t width = 1 + test_random_below(random, 20);
    const size_t inputs = 1 + test_random_below(random, i % 5 == 0 ? 400 : 70);
    const size_t outputs = 1 + test_random_below(random, 70);
    conv_case test = {.shape = shape_of_kind(kind, batch, height, width, inputs, outputs)};
    test.normalise = test_random_below(random, 2);
    test.silu = test_random_below(random, 2);
    test.bias = test_random_below(random, 2);
    test.image_bias = !test.shape.geglu && test_random_below(random, 2);
    test.residual = test_random_below(random, 2);
    test.in_place = test_random_below(random, 2);
    test.statistics = test_random_below(random, 2);
    test.activation = test.shape.geglu ? CONV_LINEAR : test_random_below(random, 4);
    test.output_scale = test_random_below(random, 2) ? 1.0f : 0.7f;
    test.residual_scale = test_random_below(random, 2) ? 1.0f : -1.3f;
    test.extra_stride = test_random_below(random, 2) * test_random_below(random, 40);
    test.at_end = test_random_below(random, 2);
    return test;
}

static void everything_fused(void **state)
{
    (void)state;
    test_random random = {7};
    for (unsigned i = 0; i < 96; i++) {
        const conv_case test = random_case(&random, i);
        check_case(&test, i);
    }
}

/* The bytes of the output and the statistics for one number of threads. */
static float *output_with_threads(conv_buffers *buffers, const conv_case *test, cpu_level level,
                                  conv_precision precision, conv_algorithm algorithm,
                                  unsigned threads)
{
    conv_plan plan;
    if (!conv_plan_create(&plan, &test->shape, level, precision, algorithm, threads)) {
        return NULL;
    }
    run_case(buffers, test, &plan, threads);
    return conv_buffers_output(buffers, test);
}

/* The bytes of one thread come from other numbers of threads too. */
static void check_threads(conv_buffers *buffers, const conv_case *test, const conv_plan *plan)
{
    static const unsigned threads[] = {2, 3, 7};
    float *one =
        output_with_threads(buffers, test, plan->level, plan->precision, plan->algorithm, 1);
    assert_non_null(one);
    const size_t bytes = buffers->statistics.count * sizeof(float);
    float *statistics = malloc(bytes);
    memcpy(statistics, buffers->statistics.values, bytes);
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        float *many = output_with_threads(buffers, test, plan->level, plan->precision,
                                          plan->algorithm, threads[t]);
        assert_non_null(many);
        assert_memory_equal(one, many, buffers->outputs * sizeof(float));
        assert_int_equal(bytes, buffers->statistics.count * sizeof(float));
        assert_memory_equal(statistics, buffers->statistics.values, bytes);
        free(many);
    }
    free(statistics);
    free(one);
}

/* The larger picture has enough parts for a thread to take each alone, and for seven not. */
static void threads_change_nothing(void **state)
{
    (void)state;
    static const size_t sizes[][5] = {{2, 21, 27, 37, 70}, {1, 62, 75, 9, 35}};
    for (unsigned i = 0; i < 2 * KINDS; i++) {
        const size_t *s = sizes[i / KINDS];
        const conv_case test = {
            .shape = shape_of_kind(i % KINDS, s[0], s[1], s[2], s[3], s[4]),
            .normalise = true,
            .bias = true,
            .statistics = true,
            .output_scale = 1.0f,
        };
        check_plans(&test, i, check_threads);
    }
}

/* Image 2 of a batch of 3 has the bytes of a run of its own, statistics too. */
static void batch_changes_nothing(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{5, 6}, {19, 23}};
    for (unsigned i = 0; i < 2 * KINDS; i++) {
        const size_t *size = sizes[i / KINDS];
        conv_case batch = {
            .shape = shape_of_kind(i % KINDS, 3, size[0], size[1], 21, 40),
            .statistics = true,
            .output_scale = 1.0f,
        };
        conv_case single = batch;
        single.shape.batch = 1;
        conv_buffers all;
        conv_buffers one;
        conv_buffers_create(&all, &batch, i);
        conv_buffers_create(&one, &single, i);
        memcpy(one.weights.values, all.weights.values, all.weights.count * sizeof(float));
        memcpy(one.input.values, all.input.values + 2 * one.input.count,
               one.input.count * sizeof(float));
        for (size_t level = 0; level < LEVELS; level++) {
            for (unsigned variant = 0; variant < 3 * CONV_ALGORITHM_COUNT; variant++) {
                const conv_precision precision = variant / CONV_ALGORITHM_COUNT;
                const conv_algorithm algorithm = variant % CONV_ALGORITHM_COUNT;
                float *batched =
                    kernels_of(levels[level]) == NULL
                        ? NULL
                        : output_with_threads(&all, &batch, levels[level], precision, algorithm, 2);
                if (batched == NULL) {
                    continue;
                }
                float *alone =
                    output_with_threads(&one, &single, levels[level], precision, algorithm, 2);
                assert_non_null(alone);
                assert_memory_equal(batched + 2 * one.outputs, alone, one.outputs * sizeof(float));
                assert_memory_equal(all.statistics.values + 2 * one.statistics.count,
                                    one.statistics.values, one.statistics.count * sizeof(float));
                free(batched);
                free(alone);
            }
        }
        conv_buffers_destroy(&all);
        conv_buffers_destroy(&one);
    }
}

/* Steps of the summation have weights of unlike sizes, and sums as large as integers can hold. */
static void unlike_steps(void **state)
{
    (void)state;
    static const size_t sizes[] = {9, 24}; /* few tiles, and for F(2,3) many */
    /* One step gentle; all but half of a step; all but one channel. */
    static const size_t gentle[][2] = {{0, 160}, {160, 320}, {80, 320}, {0, 240}, {1, 320}};
    for (unsigned i = 0; i < 2 * sizeof gentle / sizeof *gentle; i++) {
        const conv_case test = {
            .shape = square_shape(1, sizes[i % 2], sizes[i % 2], 320, 24),
            .output_scale = 1.0f,
            .offset = 3.0f,
            .gentle_begin = gentle[i / 2][0],
            .gentle_end = gentle[i / 2][1],
        };
        check_case(&test, i);
    }
}

static void refused_shapes(void **state)
{
    (void)state;
    conv_plan plan;
    const conv_shape good = square_shape(1, 8, 8, 4, 4);
    assert_true(conv_plan_create(&plan, &good, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    conv_shape bad = good;
    bad.kernel = 5;
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    bad = good;
    bad.stride = 3;
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    bad = good;
    bad.upsample = true; /* but the output is not twice as large */
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    bad = good;
    bad.geglu = true; /* of a 3x3 kernel */
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    bad = good;
    bad.input_channels = SIZE_MAX / 8;
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    bad = good;
    bad.output_width = bad.input_width = SIZE_MAX / 2;
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    bad = good;
    bad.batch = 0;
    assert_false(conv_plan_create(&plan, &bad, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 1));
    assert_false(conv_plan_create(&plan, &good, CPU_LEVEL_PLAIN, CONV_F32, CONV_DIRECT, 0));
    const conv_shape strided = {1, 8, 8, 4, 4, 4, 4, 3, 2, 1, 1, false, false};
    assert_false(conv_plan_create(&plan, &strided, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_2, 1));
    assert_false(conv_plan_create(&plan, &strided, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_6, 1));
    assert_false(
        conv_plan_create(&plan, &strided, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_8X6, 1));
    assert_false(conv_plan_create(&plan, &strided, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_8, 1));
    const conv_shape larger = {1, 8, 8, 4, 16, 16, 4, 3, 1, 1, 1, true, false};
    assert_true(conv_plan_create(&plan, &larger, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_6, 1));
    assert_false(conv_plan_create(&plan, &larger, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_8X6, 1));
    assert_false(conv_plan_create(&plan, &larger, CPU_LEVEL_PLAIN, CONV_F32, CONV_WINOGRAD_8, 1));
}

/* Bit by bit, except that one NaN is as good as another. */
static bool same_number(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

/* The result stored as halves, and as floats that are rounded like these, is the result in floats,
 * rounded; its statistics are those of what was not yet rounded, to the byte. */
static void check_halves(conv_buffers *buffers, const conv_case *test, const conv_plan *plan)
{
    char name[256];
    conv_case stored = *test;
    describe(name, sizeof name, test, plan);
    check_floats(buffers, test, plan);
    float *exact = conv_buffers_output(buffers, test);
    const size_t statistics_bytes = buffers->statistics.count * sizeof(float);
    float *statistics = malloc(statistics_bytes + 1);
    assert_non_null(statistics);
    if (test->statistics) {
        memcpy(statistics, buffers->statistics.values, statistics_bytes);
    }
    static const conv_storage storages[] = {CONV_STORE_F16, CONV_STORE_ROUNDED};
    for (size_t s = 0; s < 2; s++) {
        stored.output_storage = storages[s];
        run_case(buffers, &stored, plan, 2);
        float *found = conv_buffers_output(buffers, &stored);
        for (size_t i = 0; i < buffers->outputs; i++) {
            if (!same_number(found[i], conv_rounded(exact[i]))) {
                fail_msg("%s: value %zu of storage %d is %.9g, not %.9g rounded", name, i,
                         storages[s], found[i], exact[i]);
            }
        }
        if (test->statistics) {
            assert_int_equal(statistics_bytes, buffers->statistics.count * sizeof(float));
            assert_memory_equal(statistics, buffers->statistics.values, statistics_bytes);
        }
        free(found);
    }
    free(statistics);
    free(exact);
}

static void stored_as_halves(void **state)
{
    (void)state;
    test_random random = {11};
    for (unsigned i = 0; i < 40; i++) {
        conv_case test = random_case(&random, i);
        test.residual = test_random_below(&random, 4) > 0;
        test.input_storage = test_random_below(&random, 4) > 0 ? CONV_STORE_F16 : CONV_STORE_F32;
        test.residual_storage = test_random_below(&random, 3) > 0 ? CONV_STORE_F16 : CONV_STORE_F32;
        check_plans(&test, 5000 + i, check_halves);
    }
}

/* A layer of one input, one, and `channels` outputs with weights of zero: minus zero comes out,
 * which leaves any residual that is added as it is. */
static conv_case residual_case(size_t values, size_t channels, conv_storage storage)
{
    const size_t pixels = (values + channels - 1) / channels;
    return (conv_case){
        .shape = shape_of_kind(6, 1, 1, pixels, 1, channels),
        .output_scale = -1.0f,
        .residual = true,
        .residual_scale = 1.0f,
        .residual_storage = storage,
        .extra_stride = 3,
        .at_end = true,
    };
}

/* The residual, with all ways of storing it, in its own place or not. */
static void check_residual(conv_buffers *buffers, const conv_case *test, const conv_plan *plan,
                           const conv_kernels *kernels, const float *values, size_t count)
{
    for (unsigned variant = 0; variant < 6; variant++) {
        conv_case stored = *test;
        stored.output_storage = variant / 2;
        stored.in_place = variant % 2;
        run_case_kernels(buffers, &stored, plan, 2, kernels);
        float *found = conv_buffers_output(buffers, &stored);
        for (size_t i = 0; i < count; i++) {
            const float expected =
                stored.output_storage == CONV_STORE_F32 ? values[i] : conv_rounded(values[i]);
            if (!same_number(found[i], expected)) {
                fail_msg("%s %s: residual %.9g of storage %d gives %.9g in storage %d, not %.9g",
                         kernels->name, precision_names[plan->precision], values[i],
                         test->residual_storage, found[i], stored.output_storage, expected);
            }
        }
        free(found);
    }
}

/* Every table that the machine can run, and those through SIMDe besides: they convert halves with
 * code of their own. */
static void check_residuals(const float *values, size_t count, conv_storage storage)
{
    const conv_case test = residual_case(count, 37, storage);
    conv_buffers buffers;
    conv_buffers_create(&buffers, &test, 1);
    memset(buffers.weights.values, 0, buffers.weights.count * sizeof(float));
    for (size_t i = 0; i < buffers.outputs; i++) {
        conv_buffers_set_residual(&buffers, &test, i, i < count ? values[i] : 0.0f);
    }
    for (size_t i = 0; i < conv_table_count(); i++) {
        const conv_kernels *kernels = conv_table(i);
        for (conv_precision precision = CONV_F32; precision <= CONV_INT16; precision++) {
            conv_plan plan;
            if (kernels != NULL &&
                conv_plan_create(&plan, &test.shape, kernels->level, precision, CONV_DIRECT, 2)) {
                check_residual(&buffers, &test, &plan, kernels, values, count);
            }
        }
    }
    conv_buffers_destroy(&buffers);
}

enum { HALVES = 1 << 16, INFINITE_HALF = 0x7c00 };

/* Every half there is (subnormal, negative zero, infinite, no number) is read as what it stands for
 * and written as itself. */
static void every_half_is_kept(void **state)
{
    (void)state;
    float *values = malloc(HALVES * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < HALVES; i++) {
        values[i] = conv_value_of((uint16_t)i);
    }
    check_residuals(values, HALVES, CONV_STORE_F16);
    free(values);
}

/* Floats are rounded as IEEE says: between every half and the next one, at the very middle and
 * beside it; beyond the largest, to infinity; far below the smallest, to a zero of their sign. */
static void every_half_is_rounded_to(void **state)
{
    (void)state;
    static const float others[] = {0.0f,  1e-30f, 1e-45f,   3e-7f,       2e-6f,   65504.0f,
                                   65536, 4.19e6, 4192256,  4193279.75f, 4193280, 4.2e6f,
                                   1e10f, 3.4e38, INFINITY, 0x1p-126f,   NAN};
    enum { OTHERS = sizeof others / sizeof others[0], COUNT = 2 * (4 * INFINITE_HALF + OTHERS) };
    float *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    size_t count = 0;
    for (size_t i = 0; i < INFINITE_HALF; i++) {
        const float value = conv_value_of((uint16_t)i);
        /* Behind the largest one as if there were another exponent. */
        const float next =
            i + 1 < INFINITE_HALF ? conv_value_of((uint16_t)(i + 1)) : 0x1p16f * 64.0f;
        const float middle = value + (next - value) / 2;
        values[count++] = value;
        values[count++] = nextafterf(middle, value);
        values[count++] = middle;
        values[count++] = nextafterf(middle, next);
    }
    memcpy(values + count, others, sizeof others);
    count += OTHERS;
    for (size_t i = 0; i < COUNT / 2; i++) {
        values[count++] = -values[i];
    }
    assert_int_equal(count, COUNT);
    check_residuals(values, count, CONV_STORE_F32);
    free(values);
}

/* Every half as an input of a layer that hands its input on; finite ones only when there are
 * several channels, as each output is a sum of products of all. */
static void check_inputs(size_t channels)
{
    const size_t pixels = HALVES / channels + 1;
    const conv_case test = {
        .shape = shape_of_kind(6, 1, 1, pixels, channels, channels),
        .output_scale = 1.0f,
        .input_storage = CONV_STORE_F16,
        .at_end = true,
    };
    conv_buffers buffers;
    conv_buffers_create(&buffers, &test, 1);
    for (size_t i = 0; i < channels * channels; i++) {
        buffers.weights.values[i] = i % (channels + 1) == 0 ? 1.0f : 0.0f;
    }
    for (size_t i = 0; i < buffers.input_halves.count; i++) {
        const bool finite = (i & INFINITE_HALF) != INFINITE_HALF;
        buffers.input_halves.values[i] = finite || channels == 1 ? (uint16_t)i : 0;
    }
    for (size_t i = 0; i < conv_table_count(); i++) {
        const conv_kernels *kernels = conv_table(i);
        conv_plan plan;
        if (kernels == NULL ||
            !conv_plan_create(&plan, &test.shape, kernels->level, CONV_F32, CONV_DIRECT, 2)) {
            continue;
        }
        run_case_kernels(&buffers, &test, &plan, 2, kernels);
        for (size_t v = 0; v < buffers.outputs; v++) {
            /* A sum of zeros is positive. */
            const uint16_t half = buffers.input_halves.values[v];
            const float expected = conv_value_of(half) + 0.0f;
            if (!same_number(buffers.output.values[v], expected)) {
                fail_msg("%s: input %#x is read as %.9g, not %.9g", kernels->name, half,
                         buffers.output.values[v], expected);
            }
        }
    }
    conv_buffers_destroy(&buffers);
}

static void every_half_is_read(void **state)
{
    (void)state;
    check_inputs(1);
    check_inputs(37);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_shapes),           cmocka_unit_test(everything_fused),
        cmocka_unit_test(threads_change_nothing), cmocka_unit_test(batch_changes_nothing),
        cmocka_unit_test(refused_shapes),         cmocka_unit_test(stored_as_halves),
        cmocka_unit_test(every_half_is_kept),     cmocka_unit_test(every_half_is_rounded_to),
        cmocka_unit_test(every_half_is_read),     cmocka_unit_test(unlike_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
