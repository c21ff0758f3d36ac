/* Running element-wise operations and those that only move values. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* About so many numbers a task. */
enum { TASK_FLOATS = 16384 };

typedef struct element_context {
    const tensor_kernels *kernels;
    const lowered_step *step;
    const float *a, *b;
    float *output;
    float scale_a, scale_b;
} element_context;

static size_t pixels_of(const size_t dims[4])
{
    return dims[0] * dims[1] * dims[2];
}

static onestep_status element_context_make(element_context *c, step_context *context,
                                           const lowered_step *step, onestep_error *error)
{
    *c = (element_context){
        .kernels = context->backend->kernels,
        .step = step,
        .output = context_output(context, 0),
        .scale_a = coefficient_value(step->attributes.scale[0], context->scalars),
        .scale_b = coefficient_value(step->attributes.scale[1], context->scalars),
    };
    const onestep_status status = context_operand(context, &step->inputs[0], &c->a, error);
    return status == ONESTEP_OK ? context_operand(context, &step->inputs[1], &c->b, error) : status;
}

static void run_elements(void *opaque, size_t first, size_t count)
{
    const element_context *c = opaque;
    const tensor_kernels *k = c->kernels;
    const node_attributes *attributes = &c->step->attributes;
    const float *a = c->a + first;
    float *y = c->output + first;
    switch (c->step->operation) {
    case OPERATION_SILU:
        k->silu(y, a, count);
        break;
    case OPERATION_GELU:
        k->gelu(y, a, count);
        break;
    case OPERATION_QUICK_GELU:
        k->quick_gelu(y, a, count);
        break;
    case OPERATION_EXP:
        k->exponential(y, a, count);
        break;
    case OPERATION_CLAMP:
        k->clamp(y, a, count, attributes->low, attributes->high);
        break;
    case OPERATION_SCALE:
        k->scale(y, a, count, c->scale_a, attributes->offset);
        break;
    case OPERATION_MULTIPLY:
        k->multiply(y, a, c->b + first, count);
        break;
    default: /* COMBINE */
        k->combine(y, a, c->scale_a, c->b + first, c->scale_b, count);
        break;
    }
}

onestep_status step_elements(step_context *context, const lowered_step *step, onestep_error *error)
{
    element_context c;
    const onestep_status status = element_context_make(&c, context, step, error);
    if (status == ONESTEP_OK) {
        parallel_range(context->backend->base.pool, pixels_of(step->dims) * step->dims[3],
                       TASK_FLOATS, run_elements, &c);
    }
    return status;
}

/* Runs a function over the output's pixels. */
static onestep_status run_pixels(step_context *context, const lowered_step *step,
                                 range_function run, onestep_error *error)
{
    element_context c;
    const onestep_status status = element_context_make(&c, context, step, error);
    if (status == ONESTEP_OK) {
        parallel_range(context->backend->base.pool, pixels_of(step->dims),
                       TASK_FLOATS / step->dims[3], run, &c);
    }
    return status;
}

static void geglu_pixels(void *opaque, size_t first, size_t count)
{
    const element_context *c = opaque;
    const size_t channels = c->step->dims[3];
    for (size_t p = first; p < first + count; p++) {
        c->kernels->geglu(c->output + p * channels, c->a + 2 * p * channels, channels);
    }
}

onestep_status step_geglu(step_context *context, const lowered_step *step, onestep_error *error)
{
    return run_pixels(context, step, geglu_pixels, error);
}

/* b is one vector a picture, or one for all. */
static void broadcast_pixels(void *opaque, size_t first, size_t count)
{
    const element_context *c = opaque;
    const size_t channels = c->step->dims[3];
    const size_t picture_pixels = c->step->dims[1] * c->step->dims[2];
    for (size_t p = first; p < first + count; p++) {
        const size_t vector = c->step->second[0] == 1 ? 0 : p / picture_pixels;
        c->kernels->combine(c->output + p * channels, c->a + p * channels, c->scale_a,
                            c->b + vector * channels, c->scale_b, channels);
    }
}

onestep_status step_broadcast(step_context *context, const lowered_step *step, onestep_error *error)
{
    return run_pixels(context, step, broadcast_pixels, error);
}

static void concat_pixels(void *opaque, size_t first, size_t count)
{
    const element_context *c = opaque;
    const size_t all = c->step->dims[3], left = c->step->source[3], right = all - left;
    for (size_t p = first; p < first + count; p++) {
        memcpy(c->output + p * all, c->a + p * left, left * sizeof(float));
        memcpy(c->output + p * all + left, c->b + p * right, right * sizeof(float));
    }
}

onestep_status step_concat(step_context *context, const lowered_step *step, onestep_error *error)
{
    return run_pixels(context, step, concat_pixels, error);
}

static void slice_pixels(void *opaque, size_t first, size_t count)
{
    const element_context *c = opaque;
    const size_t channels = c->step->dims[3], all = c->step->source[3];
    for (size_t p = first; p < first + count; p++) {
        memcpy(c->output + p * channels, c->a + p * all + c->step->attributes.first,
               channels * sizeof(float));
    }
}

onestep_status step_slice(step_context *context, const lowered_step *step, onestep_error *error)
{
    return run_pixels(context, step, slice_pixels, error);
}

static void upsample_pixels(void *opaque, size_t first, size_t count)
{
    const element_context *c = opaque;
    const size_t *dims = c->step->dims, *source = c->step->source;
    for (size_t p = first; p < first + count; p++) {
        const size_t column = p % dims[2], row = p / dims[2] % dims[1], n = p / dims[2] / dims[1];
        const size_t from = (n * source[1] + row / 2) * source[2] + column / 2;
        memcpy(c->output + p * dims[3], c->a + from * dims[3], dims[3] * sizeof(float));
    }
}

onestep_status step_upsample(step_context *context, const lowered_step *step, onestep_error *error)
{
    return run_pixels(context, step, upsample_pixels, error);
}

/* ---- embedding
 * -------------------------------------------------------------------------------------- */

typedef struct embedding_context {
    const lowered_step *step;
    const tensor_kernels *kernels;
    const float *scalars;
    const int32_t *ids;
    float *output, *rows; /* a row a worker */
    bool damaged[2];      /* the tokens, the positions */
} embedding_context;

static void embed_token(void *opaque, size_t index, unsigned worker)
{
    embedding_context *c = opaque;
    const size_t width = c->step->dims[3];
    float *output = c->output + index * width, *row = c->rows + worker * width;
    weight_evaluate(c->step->inputs[1].weight, c->scalars, (size_t)c->ids[index], 1, output);
    weight_evaluate(c->step->inputs[2].weight, c->scalars, index % c->step->dims[2], 1, row);
    if (!c->kernels->all_finite(output, width)) {
        __atomic_store_n(&c->damaged[0], true, __ATOMIC_RELAXED);
    }
    if (!c->kernels->all_finite(row, width)) {
        __atomic_store_n(&c->damaged[1], true, __ATOMIC_RELAXED);
    }
    c->kernels->combine(output, output, 1, row, 1, width);
}

onestep_status step_embedding(step_context *context, const lowered_step *step, onestep_error *error)
{
    const float *ids = NULL;
    const onestep_status status = context_operand(context, &step->inputs[0], &ids, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    embedding_context c = {.step = step,
                           .kernels = context->backend->kernels,
                           .scalars = context->scalars,
                           .ids = (const int32_t *)(const void *)ids,
                           .output = context_output(context, 0),
                           .rows = (float *)(void *)context->scratch};
    const size_t tokens = pixels_of(step->dims), entries = step->inputs[1].weight->dims[0];
    for (size_t i = 0; i < tokens; i++) {
        if (c.ids[i] < 0 || (size_t)c.ids[i] >= entries) {
            return error_set(error, ONESTEP_ERROR_MISMATCH,
                             "token id %d is outside the embedding table of %zu entries: "
                             "tokenizer and text encoder do not belong together",
                             (int)c.ids[i], entries);
        }
    }
    thread_pool_run(context->backend->base.pool, tokens, embed_token, &c);
    for (unsigned i = 0; i < 2; i++) {
        if (c.damaged[i]) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "weight %s holds a value that is not finite: the file is damaged or "
                             "was made by a training that diverged",
                             step->inputs[1 + i].weight->name);
        }
    }
    return ONESTEP_OK;
}
