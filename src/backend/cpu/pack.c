/* Weights on their way into the weight cache: evaluated and packed in blocks of rows on the pool.
 */
#include "backend/cpu/cpu.h"

#include <math.h>

enum {
    BLOCK_ROWS = 48,       /* weight_evaluate converts LoRA's A once for so many rows */
    BLOCK_FLOATS = 131072, /* at least about so many numbers a task */
};

/* Plain floats: the same bytes as other backends' plain form, under a name of our own. */
#define PLAIN_FORMAT UINT64_C(0x63707520706c6169)

typedef struct packing {
    step_context *context;
    const conv_plan *plan; /* NULL: plain floats */
    const weight_expression *weight;
    const float *scalars;
    const tensor_kernels *kernels;
    void *packed;
    float *blocks;     /* a block a worker (not for plain floats) */
    size_t rest, rows; /* numbers a row, rows a block */
    bool damaged;
} packing;

static size_t block_rows(const weight_expression *weight, size_t granularity)
{
    const size_t rest = weight->dims[1] * weight->dims[2] * weight->dims[3];
    const size_t rows = size_maximum(BLOCK_ROWS, BLOCK_FLOATS / rest);
    return size_round_up(size_minimum(rows, weight->dims[0]), granularity);
}

bool pack_scratch(const weight_expression *weight, const conv_plan *plan, size_t *bytes)
{
    const size_t rest = weight->dims[1] * weight->dims[2] * weight->dims[3];
    return size_multiply(block_rows(weight, conv_pack_granularity(plan)), plan->threads, bytes) &&
           size_multiply(*bytes, rest, bytes) && size_multiply(*bytes, sizeof(float), bytes);
}

static void pack_block(void *opaque, size_t index, unsigned worker)
{
    packing *p = opaque;
    const size_t first = index * p->rows;
    const size_t count = size_minimum(p->rows, p->weight->dims[0] - first);
    float *block =
        p->plan ? p->blocks + worker * p->rows * p->rest : (float *)p->packed + first * p->rest;
    weight_evaluate(p->weight, p->scalars, first, count, block);
    if (!p->kernels->all_finite(block, count * p->rest)) {
        __atomic_store_n(&p->damaged, true, __ATOMIC_RELAXED);
    }
    if (p->plan) {
        conv_pack(p->plan, p->packed, block, first, count);
    }
}

/* Says where the first number is that is not finite. */
static onestep_status damage_report(const packing *p, onestep_error *error)
{
    float *row = memory_allocate(p->rest, sizeof *row, error);
    if (!row) {
        return ONESTEP_ERROR_MEMORY;
    }
    size_t r = 0, c = 0;
    for (bool found = false; !found && r < p->weight->dims[0]; r += !found) {
        weight_evaluate(p->weight, p->scalars, r, 1, row);
        for (c = 0; c < p->rest && isfinite(row[c]); c++) {
        }
        found = c < p->rest;
    }
    error_set(error, ONESTEP_ERROR_FORMAT,
              "weight %s holds a value that is not finite (%f at [%zu,%zu]): the file is damaged "
              "or was made by a training that diverged",
              p->weight->name, c < p->rest ? (double)row[c] : 0.0, r, c);
    memory_free(row);
    return ONESTEP_ERROR_FORMAT;
}

static onestep_status pack(void *opaque, const weight_expression *weight, const float *scalars,
                           void *packed, onestep_error *error)
{
    packing *p = opaque;
    thread_pool *pool = p->context->backend->base.pool;
    p->context->packed = true;
    p->weight = weight;
    p->scalars = scalars;
    p->packed = packed;
    p->kernels = p->context->backend->kernels;
    p->blocks = (float *)(void *)p->context->scratch;
    p->rest = weight->dims[1] * weight->dims[2] * weight->dims[3];
    p->rows = block_rows(weight, p->plan ? conv_pack_granularity(p->plan) : 1);
    thread_pool_run(pool, (weight->dims[0] + p->rows - 1) / p->rows, pack_block, p);
    return p->damaged ? damage_report(p, error) : ONESTEP_OK;
}

static onestep_status acquire(step_context *context, const weight_expression *weight,
                              const conv_plan *plan, uint64_t format, size_t bytes,
                              const void **packed, onestep_error *error)
{
    packing p = {.context = context, .plan = plan};
    onestep_status status = weight_cache_acquire(context->lowered->weights, weight, format, bytes,
                                                 context->scalars, pack, &p, packed, error);
    if (status == ONESTEP_OK) {
        context->held[context->held_count++] = *packed;
    }
    return status;
}

onestep_status context_acquire_conv(step_context *context, const conv_step *conv,
                                    const void **packed, onestep_error *error)
{
    return acquire(context, conv->weight, &conv->plan, conv->format, conv->plan.packed_bytes,
                   packed, error);
}

onestep_status context_acquire_plain(step_context *context, const weight_expression *weight,
                                     const float **values, onestep_error *error)
{
    const void *packed = NULL;
    onestep_status status = acquire(context, weight, NULL, PLAIN_FORMAT,
                                    weight_element_count(weight) * sizeof(float), &packed, error);
    *values = packed;
    return status;
}

void context_release(step_context *context)
{
    while (context->held_count > 0) {
        weight_cache_release(context->lowered->weights, context->held[--context->held_count]);
    }
}

uint64_t conv_format(const conv_plan *plan)
{
    const uint64_t parts[] = {
        plan->algorithm,     plan->precision,      plan->level,        plan->shape.geglu,
        plan->shape.kernel,  plan->shape.upsample, plan->packed_bytes, conv_pack_granularity(plan),
        plan->step_channels,
    };
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a over words */
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        hash = (hash ^ parts[i]) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    return hash;
}
