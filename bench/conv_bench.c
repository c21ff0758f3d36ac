/* Micro-benchmark of convolutions: SD-Turbo's shapes, every level, precision and algorithm.
 *
 * conv_bench [threads=N] [seconds=S] [level=NAME] [precision=NAME] [algorithm=NAME] [shape=TEXT]
 *
 * Prints direct-count GFLOP/s, the share of the machine's f32 peak measured in the same run, and
 * GFLOP/s of one core by CPU time, which a busy machine disturbs least.
 * Everything runs: a level or algorithm is left out only when it cannot do the shape. */
#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct bench_shape {
    const char *name;
    unsigned kernel, stride;
    size_t size; /* height and width of the input; tokens of a linear layer */
    size_t inputs, outputs;
    bool upsample, geglu;
    unsigned weight; /* how often SD-Turbo's 512x512 run has it */
} bench_shape;

static const bench_shape shapes[] = {
    {"vae 3->128 512", 3, 1, 512, 3, 128, false, false, 1},
    {"vae 128->128 512", 3, 1, 512, 128, 128, false, false, 9},
    {"vae 128->128 512 s2", 3, 2, 512, 128, 128, false, false, 1},
    {"vae 256->256 256 s2", 3, 2, 256, 256, 256, false, false, 1},
    {"vae 512->512 128 s2", 3, 2, 128, 512, 512, false, false, 1},
    {"vae 128->256 256", 3, 1, 256, 128, 256, false, false, 1},
    {"vae 256->256 256", 3, 1, 256, 256, 256, false, false, 8},
    {"vae 256->512 128", 3, 1, 128, 256, 512, false, false, 1},
    {"vae 512->512 128", 3, 1, 128, 512, 512, false, false, 9},
    {"vae 512->512 64", 3, 1, 64, 512, 512, false, false, 18},
    {"vae 512->256 256", 3, 1, 256, 512, 256, false, false, 1},
    {"vae 256->128 512", 3, 1, 512, 256, 128, false, false, 1},
    {"vae 512->512 64 up", 3, 1, 64, 512, 512, true, false, 1},
    {"vae 512->512 128 up", 3, 1, 128, 512, 512, true, false, 1},
    {"vae 256->256 256 up", 3, 1, 256, 256, 256, true, false, 1},
    {"vae 128->3 512", 3, 1, 512, 128, 3, false, false, 1},
    {"vae 256->128 512 1x1", 1, 1, 512, 256, 128, false, false, 2},
    {"unet 320->320 64", 3, 1, 64, 320, 320, false, false, 9},
    {"unet 640->320 64", 3, 1, 64, 640, 320, false, false, 2},
    {"unet 320->640 32", 3, 1, 32, 320, 640, false, false, 1},
    {"unet 640->640 32", 3, 1, 32, 640, 640, false, false, 7},
    {"unet 1280->640 32", 3, 1, 32, 1280, 640, false, false, 1},
    {"unet 1280->1280 16", 3, 1, 16, 1280, 1280, false, false, 7},
    {"unet 2560->1280 16", 3, 1, 16, 2560, 1280, false, false, 2},
    {"unet 1280->1280 8", 3, 1, 8, 1280, 1280, false, false, 11},
    {"unet 2560->1280 8", 3, 1, 8, 2560, 1280, false, false, 3},
    {"unet 1280->1280 8 up", 3, 1, 8, 1280, 1280, true, false, 1},
    {"unet 1280->1280 16 up", 3, 1, 16, 1280, 1280, true, false, 1},
    {"unet 640->640 32 up", 3, 1, 32, 640, 640, true, false, 1},
    {"unet 320->320 64 s2", 3, 2, 64, 320, 320, false, false, 1},
    {"unet 640->640 32 s2", 3, 2, 32, 640, 640, false, false, 1},
    {"unet 1280->1280 16 s2", 3, 2, 16, 1280, 1280, false, false, 1},
    {"linear 4096 320->320", 1, 0, 4096, 320, 320, false, false, 40},
    {"linear 4096 320->1280 geglu", 1, 0, 4096, 320, 1280, false, true, 5},
    {"linear 4096 1280->320", 1, 0, 4096, 1280, 320, false, false, 5},
    {"linear 1024 640->640", 1, 0, 1024, 640, 640, false, false, 40},
    {"linear 1024 640->2560 geglu", 1, 0, 1024, 640, 2560, false, true, 5},
    {"linear 256 1280->1280", 1, 0, 256, 1280, 1280, false, false, 40},
    {"linear 256 1280->5120 geglu", 1, 0, 256, 1280, 5120, false, true, 5},
    {"linear 64 1280->5120 geglu", 1, 0, 64, 1280, 5120, false, true, 1},
    {"linear 77 1024->1024", 1, 0, 77, 1024, 1024, false, false, 92},
    {"linear 1 1280->1280", 1, 0, 1, 1280, 1280, false, false, 22},
};

static const char *const algorithm_names[] = {"direct",      "winograd2", "winograd4", "winograd6",
                                              "winograd8x6", "winograd8", "auto"};
static const char *const precision_names[] = {"f32", "bf16", "int16"};

static const cpu_level levels[] = {
#define CONV_KERNELS(name, level, family) level,
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS
};

/* ---- one measurement --------------------------------------------------------------------------
 */

typedef struct pack_job {
    const conv_plan *plan;
    void *packed;
    const float *weights;
    size_t outputs, output_floats;
} pack_job;

static void pack_task(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const pack_job *job = context;
    const size_t first = index * conv_pack_granularity(job->plan);
    const size_t count = size_minimum(conv_pack_granularity(job->plan), job->outputs - first);
    conv_pack(job->plan, job->packed, job->weights + first * job->output_floats, first, count);
}

static conv_shape shape_of(const bench_shape *bench)
{
    conv_shape shape = {
        .batch = 1,
        .input_height = bench->stride == 0 ? 1 : bench->size,
        .input_width = bench->size,
        .input_channels = bench->inputs,
        .output_channels = bench->outputs,
        .kernel = bench->kernel,
        .stride = bench->stride == 0 ? 1 : bench->stride,
        .pad_top = bench->kernel / 2,
        .pad_left = bench->kernel / 2,
        .upsample = bench->upsample,
        .geglu = bench->geglu,
    };
    const size_t grown = bench->upsample ? 2 : 1;
    shape.output_height = shape.input_height * grown / shape.stride;
    shape.output_width = shape.input_width * grown / shape.stride;
    return shape;
}

static float *random_floats(size_t count, float scale, onestep_error *error)
{
    float *values = memory_allocate_aligned(count * sizeof(float), error);
    uint32_t state = 12345;
    for (size_t i = 0; values != NULL && i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = ((float)(state >> 8) * 0x1p-24f - 0.5f) * scale;
    }
    return values;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

/* CPU time of all threads: what one core does, even while others use the machine. */
static double processor_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void bench_plan(const conv_plan *plan, const char *name, thread_pool *pool, double peak,
                       double seconds)
{
    onestep_error error;
    const conv_shape *shape = &plan->shape;
    const size_t inputs =
        shape->batch * shape->input_height * shape->input_width * shape->input_channels;
    const size_t outputs =
        shape->batch * shape->output_height * shape->output_width * shape->output_channels;
    const size_t weight_outputs = shape->output_channels * (shape->geglu ? 2 : 1);
    const size_t output_floats = shape->input_channels * shape->kernel * shape->kernel;
    float *input = random_floats(inputs, 2.0f, &error);
    float *weights = random_floats(weight_outputs * output_floats, 0.1f, &error);
    float *output = memory_allocate_aligned(outputs * sizeof(float), &error);
    float *norm = random_floats(2 * shape->batch * shape->input_channels, 1.0f, &error);
    float *bias = random_floats(weight_outputs, 1.0f, &error);
    float *statistics = memory_allocate_aligned(conv_statistics_blocks(plan) * shape->batch * 2 *
                                                    shape->output_channels * sizeof(float),
                                                &error);
    void *packed = memory_allocate_aligned(plan->packed_bytes, &error);
    void *scratch = memory_allocate_aligned(plan->scratch_bytes, &error);
    if (input == NULL || weights == NULL || output == NULL || norm == NULL || bias == NULL ||
        statistics == NULL || packed == NULL || scratch == NULL) {
        printf("%s: out of memory\n", name);
        exit(1);
    }
    pack_job job = {plan, packed, weights, weight_outputs, output_floats};
    const size_t blocks =
        (weight_outputs + conv_pack_granularity(plan) - 1) / conv_pack_granularity(plan);
    thread_pool_run(pool, blocks, pack_task, &job);
    double start = monotonic_seconds();
    thread_pool_run(pool, blocks, pack_task, &job);
    const double pack_seconds = monotonic_seconds() - start;

    /* 3x3 layers of the networks follow a GroupNorm with SiLU and precede another. */
    const bool fused = shape->kernel == 3 && !shape->upsample && shape->input_channels > 4;
    const conv_arguments arguments = {
        .input = input,
        .input_stride = shape->input_channels,
        .packed = packed,
        .input_scale = fused ? norm : NULL,
        .input_shift = fused ? norm + shape->batch * shape->input_channels : NULL,
        .input_silu = fused,
        .bias = bias,
        .output_scale = 1.0f,
        .output = output,
        .output_stride = shape->output_channels,
        .statistics = fused ? statistics : NULL,
    };
    double best = 1e9;
    double best_processor = 1e9;
    double spent = 0;
    conv_run(plan, &arguments, scratch, pool);
    for (int i = 0; i < 3 || spent < seconds; i++) {
        start = monotonic_seconds();
        const double processor = processor_seconds();
        conv_run(plan, &arguments, scratch, pool);
        const double elapsed = monotonic_seconds() - start;
        best_processor = smaller(best_processor, processor_seconds() - processor);
        best = smaller(best, elapsed);
        spent += elapsed;
    }
    const double operations =
        2.0 * (double)outputs * (double)output_floats * (shape->geglu ? 2.0 : 1.0);
    printf("%-28s %-7s %-6s %-10s %2u  %9.3f ms %8.1f GFLOP/s", name,
           conv_kernels_find(plan->level)->name, precision_names[plan->precision],
           algorithm_names[plan->algorithm], plan->threads, best * 1e3, operations / best * 1e-9);
    printf(" %6.1f %% of peak cpu %8.1f;", operations / best / peak * 100,
           operations / best_processor * 1e-9);
    printf("  predicted %.3f ms, pack %.1f ms, packed %.1f MB, scratch %.1f MB\n",
           plan->predicted_seconds * 1e3, pack_seconds * 1e3, (double)plan->packed_bytes * 1e-6,
           (double)plan->scratch_bytes * 1e-6);
    fflush(stdout);
    memory_free_aligned(input, inputs * sizeof(float));
    memory_free_aligned(weights, weight_outputs * output_floats * sizeof(float));
    memory_free_aligned(output, outputs * sizeof(float));
    memory_free_aligned(norm, 2 * shape->batch * shape->input_channels * sizeof(float));
    memory_free_aligned(bias, weight_outputs * sizeof(float));
    memory_free_aligned(statistics, conv_statistics_blocks(plan) * shape->batch * 2 *
                                        shape->output_channels * sizeof(float));
    memory_free_aligned(packed, plan->packed_bytes);
    memory_free_aligned(scratch, plan->scratch_bytes);
}

typedef struct bench_options {
    unsigned threads;
    double seconds;
    const char *level, *precision, *algorithm, *shape;
} bench_options;

static const char *option_value(const char *argument, const char *name)
{
    const size_t length = strlen(name);
    return strncmp(argument, name, length) == 0 ? argument + length : NULL;
}

static void bench_shape_all(const bench_shape *bench, const bench_options *options,
                            thread_pool *pool, double peak)
{
    const conv_shape shape = shape_of(bench);
    cpu_features features;
    cpu_features_detect(&features);
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (!cpu_level_runs(&features, levels[i]) ||
            conv_kernels_find(levels[i])->level != levels[i] ||
            (options->level != NULL &&
             strcmp(options->level, conv_kernels_find(levels[i])->name) != 0)) {
            continue;
        }
        for (unsigned p = CONV_F32; p <= CONV_INT16; p++) {
            if (options->precision != NULL && strcmp(options->precision, precision_names[p]) != 0) {
                continue;
            }
            for (unsigned a = CONV_DIRECT; a <= CONV_ALGORITHM_COUNT; a++) {
                conv_plan plan;
                const bool wanted = options->algorithm == NULL
                                        ? a != CONV_ALGORITHM_COUNT
                                        : strcmp(options->algorithm, algorithm_names[a]) == 0;
                if (!wanted) {
                    continue;
                }
                const bool planned =
                    a == CONV_ALGORITHM_COUNT
                        ? conv_plan_cheapest(&plan, &shape, levels[i], p,
                                             (conv_largest){CONV_WINOGRAD_8, CONV_WINOGRAD_8X6},
                                             options->threads)
                        : conv_plan_create(&plan, &shape, levels[i], p, a, options->threads);
                if (planned) {
                    bench_plan(&plan, bench->name, pool, peak, options->seconds);
                }
            }
        }
    }
}

int main(int argc, char **argv)
{
    bench_options options = {.seconds = 0.3};
    for (int i = 1; i < argc; i++) {
        const char *value;
        if ((value = option_value(argv[i], "threads=")) != NULL) {
            options.threads = (unsigned)strtoul(value, NULL, 10);
        } else if ((value = option_value(argv[i], "seconds=")) != NULL) {
            options.seconds = strtod(value, NULL);
        } else if ((value = option_value(argv[i], "level=")) != NULL) {
            options.level = value;
        } else if ((value = option_value(argv[i], "precision=")) != NULL) {
            options.precision = value;
        } else if ((value = option_value(argv[i], "algorithm=")) != NULL) {
            options.algorithm = value;
        } else if ((value = option_value(argv[i], "shape=")) != NULL) {
            options.shape = value;
        } else {
            fprintf(stderr, "conv_bench: unknown argument %s\n", argv[i]);
            return 2;
        }
    }
    onestep_error error;
    thread_pool *pool;
    if (thread_pool_create(&pool, options.threads, &error) != ONESTEP_OK) {
        fprintf(stderr, "conv_bench: %s\n", error.message);
        return 1;
    }
    options.threads = thread_pool_size(pool);
    cpu_features features;
    cpu_features_detect(&features);
    const double peak = cpu_peak(pool, features.level);
    printf("f32 peak of %u threads: %.1f GFLOP/s\n", options.threads, peak * 1e-9);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (options.shape == NULL || strstr(shapes[i].name, options.shape) != NULL) {
            bench_shape_all(&shapes[i], &options, pool, peak);
        }
    }
    thread_pool_destroy(&pool);
    return 0;
}
