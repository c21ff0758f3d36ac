/* Running normalisations. */
#include "backend/cpu/cpu.h"

#include <math.h>

enum {
    PASS_PIXELS = 256,    /* a block of the statistics */
    APPLY_FLOATS = 16384, /* about so many numbers a task */
};

static size_t pixels_of(const size_t dims[4])
{
    return dims[1] * dims[2];
}

static size_t pass_blocks(const size_t dims[4])
{
    return (pixels_of(dims) + PASS_PIXELS - 1) / PASS_PIXELS;
}

bool norm_statistics_scratch(const lowered_step *step, size_t *bytes)
{
    *bytes = 0;
    if (!step->norm.pass) {
        return true;
    }
    return size_multiply(step->dims[0] * 2 * sizeof(float), pass_blocks(step->dims), bytes) &&
           size_multiply(*bytes, step->dims[3], bytes);
}

typedef struct norm_context {
    const tensor_kernels *kernels;
    const lowered_step *step;
    const float *parts[NORM_PARTS];
    const float *input, *gamma, *beta;
    float *sums; /* of a pass */
    float *scale, *shift;
} norm_context;

/* Sums of one block of pixels of one picture. */
static void sum_block(void *opaque, size_t index, unsigned worker)
{
    const norm_context *c = opaque;
    const size_t *dims = c->step->dims;
    const size_t blocks = pass_blocks(dims), pixels = pixels_of(dims);
    const size_t first = index % blocks * PASS_PIXELS;
    (void)worker;
    c->kernels->channel_sums(c->sums + index * 2 * dims[3],
                             c->input + (index / blocks * pixels + first) * dims[3],
                             size_minimum(PASS_PIXELS, pixels - first), dims[3]);
}

/* Adds the blocks of one channel of one part, in their order. */
static void sum_channel(const float *sums, const norm_part *part, size_t picture, size_t channel,
                        double *sum, double *square)
{
    const float *block = sums + picture * part->blocks * 2 * part->channels + channel;
    for (size_t b = 0; b < part->blocks; b++) {
        *sum += (double)block[0];
        *square += (double)block[part->channels];
        block += 2 * part->channels;
    }
}

/* Scale and shift of the channels of one group of one picture. */
static void fold_group(void *opaque, size_t index, unsigned worker)
{
    const norm_context *c = opaque;
    const norm_statistics_step *norm = &c->step->norm;
    const size_t *dims = c->step->dims;
    const size_t picture = index / norm->groups, width = dims[3] / norm->groups;
    const size_t first = index % norm->groups * width;
    (void)worker;
    double sum = 0, square = 0;
    size_t part = 0, part_first = 0;
    for (size_t channel = first; channel < first + width; channel++) {
        while (channel - part_first >= norm->parts[part].channels) {
            part_first += norm->parts[part++].channels;
        }
        sum_channel(c->parts[part], &norm->parts[part], picture, channel - part_first, &sum,
                    &square);
    }
    const double count = (double)(pixels_of(dims) * width);
    const double mean = sum / count;
    const double variance = fmax(square / count - mean * mean, 0);
    const double factor = 1 / sqrt(variance + (double)norm->epsilon);
    for (size_t channel = first; channel < first + width; channel++) {
        const double scale = (double)c->gamma[channel] * factor;
        c->scale[picture * dims[3] + channel] = (float)scale;
        c->shift[picture * dims[3] + channel] = (float)((double)c->beta[channel] - mean * scale);
    }
}

onestep_status step_norm_statistics(step_context *context, const lowered_step *step,
                                    onestep_error *error)
{
    thread_pool *pool = context->backend->base.pool;
    const norm_statistics_step *norm = &step->norm;
    norm_context c = {.kernels = context->backend->kernels,
                      .step = step,
                      .sums = (float *)(void *)context->scratch,
                      .scale = context_output(context, 0)};
    c.shift = c.scale + step->dims[0] * step->dims[3];
    onestep_status status = context_operand(context, &norm->gamma, &c.gamma, error);
    if (status == ONESTEP_OK) {
        status = context_operand(context, &norm->beta, &c.beta, error);
    }
    for (unsigned i = 0; i < norm->part_count && status == ONESTEP_OK; i++) {
        status = context_operand(context, &norm->parts[i].sums, &c.parts[i], error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    lowered_step passed; /* as if a convolution had given the sums of the pass */
    if (norm->pass) {
        passed = *step;
        passed.norm.parts[0].blocks = pass_blocks(step->dims);
        c.step = &passed;
        c.input = c.parts[0];
        c.parts[0] = c.sums;
        thread_pool_run(pool, step->dims[0] * pass_blocks(step->dims), sum_block, &c);
    }
    thread_pool_run(pool, step->dims[0] * norm->groups, fold_group, &c);
    return ONESTEP_OK;
}

typedef struct apply_context {
    const tensor_kernels *kernels;
    const lowered_step *step;
    const float *input, *scale, *shift;
    float *output;
} apply_context;

static void apply_pixels(void *opaque, size_t first, size_t count)
{
    const apply_context *c = opaque;
    const size_t pixels = pixels_of(c->step->dims), channels = c->step->dims[3];
    while (count > 0) { /* a piece may hold pixels of several pictures */
        const size_t picture = first / pixels;
        const size_t piece = size_minimum(count, (picture + 1) * pixels - first);
        c->kernels->normalise(c->output + first * channels, c->input + first * channels, piece,
                              channels, c->scale + picture * channels,
                              c->shift + picture * channels, c->step->silu);
        first += piece;
        count -= piece;
    }
}

onestep_status step_norm_apply(step_context *context, const lowered_step *step,
                               onestep_error *error)
{
    apply_context c = {
        .kernels = context->backend->kernels, .step = step, .output = context_output(context, 0)};
    onestep_status status = context_operand(context, &step->inputs[0], &c.input, error);
    if (status == ONESTEP_OK) {
        status = context_operand(context, &step->inputs[1], &c.scale, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    c.shift = c.scale + step->dims[0] * step->dims[3];
    parallel_range(context->backend->base.pool, step->dims[0] * pixels_of(step->dims),
                   APPLY_FLOATS / step->dims[3], apply_pixels, &c);
    return ONESTEP_OK;
}

typedef struct layer_norm_context {
    const tensor_kernels *kernels;
    const lowered_step *step;
    const float *input, *gamma, *beta;
    float *output;
} layer_norm_context;

static void layer_norm_pixels(void *opaque, size_t first, size_t count)
{
    const layer_norm_context *c = opaque;
    const size_t channels = c->step->dims[3];
    for (size_t p = first; p < first + count; p++) {
        c->kernels->layer_norm(c->output + p * channels, c->input + p * channels, channels,
                               c->gamma, c->beta, c->step->attributes.epsilon);
    }
}

onestep_status step_layer_norm(step_context *context, const lowered_step *step,
                               onestep_error *error)
{
    layer_norm_context c = {
        .kernels = context->backend->kernels, .step = step, .output = context_output(context, 0)};
    const float **const data[] = {&c.input, &c.gamma, &c.beta};
    for (unsigned i = 0; i < 3; i++) {
        const onestep_status status = context_operand(context, &step->inputs[i], data[i], error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    parallel_range(context->backend->base.pool, step->dims[0] * pixels_of(step->dims),
                   APPLY_FLOATS / step->dims[3], layer_norm_pixels, &c);
    return ONESTEP_OK;
}
