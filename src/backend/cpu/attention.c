#include "backend/cpu/attention.h"

#include <string.h>

enum {
    LINE_FLOATS = 16, /* a cache line: keeps rows off the same cache sets */
    QUERY_BLOCK = 96, /* with 64 channels queries, scores and sums stay in the second cache */
    QUERY_BLOCK_WIDE = 48,
    KEY_BLOCK = 256,
    KEY_BLOCK_WIDE = 128,
    WIDE = 160,      /* channels a head from which on the blocks are smaller */
    PACK_PANELS = 4, /* panels of keys a packing task */
};

/* What a worker needs: queries, scores, sums, three numbers and an offset a query. */
typedef struct attention_worker {
    float *query, *scores, *sums;
    float *largest, *sum, *factor;
    uint32_t *query_offsets, *score_offsets;
} attention_worker;

static size_t query_stride(const attention_plan *plan)
{
    return size_round_up(plan->shape.width, LINE_FLOATS) + LINE_FLOATS;
}

static size_t score_stride(const attention_plan *plan)
{
    return plan->key_block + LINE_FLOATS;
}

bool attention_plan_create(attention_plan *plan, const attention_shape *shape,
                           const conv_kernels *products, unsigned threads)
{
    const bool wide = shape->width >= WIDE;
    *plan = (attention_plan){.shape = *shape};
    if (shape->queries > UINT32_MAX || shape->keys > UINT32_MAX || shape->width > UINT32_MAX) {
        return false;
    }
    /* Even blocks: 77 tokens are one of 77, 4096 queries 43 of 96 (the last 64). */
    plan->query_block = size_minimum(wide ? QUERY_BLOCK_WIDE : QUERY_BLOCK, shape->queries);
    plan->padded_keys = size_round_up(shape->keys, products->columns);
    plan->padded_width = size_round_up(shape->width, products->columns);
    plan->key_block = size_minimum(wide ? KEY_BLOCK_WIDE : KEY_BLOCK, plan->padded_keys);
    const size_t rows = plan->query_block;
    const size_t row_floats = query_stride(plan) + score_stride(plan) + plan->padded_width + 5;
    plan->worker_floats = size_round_up(rows * row_floats, LINE_FLOATS);
    const size_t packed_heads = 2 * shape->heads;
    size_t key_floats, value_floats, packed, bytes;
    if (!size_multiply(plan->padded_keys, shape->width, &key_floats) ||
        !size_multiply(plan->padded_keys, plan->padded_width, &value_floats)) {
        return false;
    }
    plan->packed_floats = size_round_up(size_maximum(key_floats, value_floats), LINE_FLOATS);
    if (!size_multiply(plan->packed_floats, packed_heads, &packed) ||
        !size_multiply(packed, shape->shared_keys ? 1 : shape->batch, &packed) ||
        !size_add(packed, plan->worker_floats * threads, &packed) ||
        !size_multiply(packed, sizeof(float), &bytes)) {
        return false;
    }
    plan->scratch_bytes = bytes;
    return true;
}

typedef struct attention_context {
    const attention_plan *plan;
    const attention_arguments *arguments;
    const conv_kernels *products;
    const tensor_kernels *kernels;
    float *packed; /* per picture and head: keys, then values */
    float *workers;
    size_t key_tasks, query_blocks;
} attention_context;

static float *packed_keys(const attention_context *context, size_t picture, size_t head)
{
    const attention_plan *plan = context->plan;
    const size_t image = plan->shape.shared_keys ? 0 : picture;
    return context->packed + (image * plan->shape.heads + head) * 2 * plan->packed_floats;
}

/* Keys become panels of `columns` keys, [channel][key]; values panels of `columns` channels,
 * [key][channel]. What lies beyond the last key or channel is zero. */
static void pack_panel(const attention_context *context, size_t picture, size_t head, size_t panel)
{
    const attention_plan *plan = context->plan;
    const attention_shape *shape = &plan->shape;
    const size_t columns = context->products->columns, width = shape->width;
    const size_t stride = shape->heads * width, first = panel * columns;
    const size_t count = size_minimum(columns, shape->keys - first);
    const size_t position = (picture * shape->keys + first) * stride + head * width;
    const float *key = context->arguments->key + position;
    float *keys = packed_keys(context, picture, head) + first * width;
    if (count < columns) {
        memset(keys, 0, columns * width * sizeof *keys);
    }
    for (size_t c = 0; c < width; c++) {
        for (size_t k = 0; k < count; k++) {
            keys[c * columns + k] = key[k * stride + c];
        }
    }
    float *values = packed_keys(context, picture, head) + plan->packed_floats;
    for (size_t c = 0; c < plan->padded_width; c += columns) {
        const size_t run = size_minimum(columns, width - c);
        float *destination = values + c * plan->padded_keys + first * columns;
        if (count < columns || run < columns) {
            memset(destination, 0, columns * columns * sizeof *destination);
        }
        for (size_t k = 0; k < count; k++) {
            memcpy(destination + k * columns, context->arguments->value + position + k * stride + c,
                   run * sizeof(float));
        }
    }
}

static void pack_task(void *opaque, size_t index, unsigned worker)
{
    const attention_context *context = opaque;
    (void)worker;
    const size_t panels = context->plan->padded_keys / context->products->columns;
    const size_t head = index / context->key_tasks % context->plan->shape.heads;
    const size_t picture = index / context->key_tasks / context->plan->shape.heads;
    const size_t first = index % context->key_tasks * PACK_PANELS;
    for (size_t panel = first; panel < size_minimum(first + PACK_PANELS, panels); panel++) {
        pack_panel(context, picture, head, panel);
    }
}

/* Scores of one block of keys, softmax, and the values weighed by it added to the sums. */
static void attend_block(const attention_context *context, const attention_worker *w, size_t rows,
                         size_t first_query, size_t first_key, const float *keys)
{
    const attention_plan *plan = context->plan;
    const attention_shape *shape = &plan->shape;
    const size_t columns = context->products->columns;
    const size_t count = size_minimum(plan->key_block, shape->keys - first_key);
    const size_t padded = size_round_up(count, columns);
    const conv_multiply scores = {
        .a = w->query,
        .offsets = w->query_offsets,
        .rows = rows,
        .b = keys + first_key * shape->width,
        .b_stride = columns * shape->width,
        .panels = padded / columns,
        .depth = shape->width,
        .c = w->scores,
        .c_stride = score_stride(plan),
    };
    context->products->multiply(&scores);
    const softmax_block softmax = {
        .scores = w->scores,
        .stride = score_stride(plan),
        .rows = rows,
        .keys = count,
        .padded = padded,
        .visible =
            shape->causal ? (ptrdiff_t)(first_query + 1) - (ptrdiff_t)first_key : (ptrdiff_t)count,
        .first = first_key == 0,
        .largest = w->largest,
        .sum = w->sum,
        .factor = w->factor,
    };
    context->kernels->softmax(&softmax);
    if (first_key > 0) {
        for (size_t r = 0; r < rows; r++) {
            if (w->factor[r] != 1) {
                float *sums = w->sums + r * plan->padded_width;
                context->kernels->scale(sums, sums, plan->padded_width, w->factor[r], 0);
            }
        }
    }
    const conv_multiply weighed = {
        .a = w->scores,
        .offsets = w->score_offsets,
        .rows = rows,
        .b = keys + plan->packed_floats + first_key * columns,
        .b_stride = plan->padded_keys * columns,
        .panels = plan->padded_width / columns,
        .depth = padded,
        .c = w->sums,
        .c_stride = plan->padded_width,
        .accumulate = first_key > 0,
    };
    context->products->multiply(&weighed);
}

static void attend_task(void *opaque, size_t index, unsigned worker)
{
    const attention_context *context = opaque;
    const attention_plan *plan = context->plan;
    const attention_shape *shape = &plan->shape;
    const size_t block = index % context->query_blocks;
    const size_t head = index / context->query_blocks % shape->heads;
    const size_t picture = index / context->query_blocks / shape->heads;
    const size_t first = block * plan->query_block;
    const size_t rows = size_minimum(plan->query_block, shape->queries - first);
    const size_t stride = shape->heads * shape->width;
    const size_t position = (picture * shape->queries + first) * stride + head * shape->width;

    attention_worker w;
    w.query = context->workers + worker * plan->worker_floats;
    w.scores = w.query + plan->query_block * query_stride(plan);
    w.sums = w.scores + plan->query_block * score_stride(plan);
    w.largest = w.sums + plan->query_block * plan->padded_width;
    w.sum = w.largest + plan->query_block;
    w.factor = w.sum + plan->query_block;
    w.query_offsets = (uint32_t *)(void *)(w.factor + plan->query_block);
    w.score_offsets = w.query_offsets + plan->query_block;
    /* The softmax is taken to the base of 2. */
    const float scale = context->arguments->scale * 1.44269504f;
    for (size_t r = 0; r < rows; r++) {
        w.query_offsets[r] = (uint32_t)(r * query_stride(plan));
        w.score_offsets[r] = (uint32_t)(r * score_stride(plan));
        context->kernels->scale(w.query + w.query_offsets[r],
                                context->arguments->query + position + r * stride, shape->width,
                                scale, 0);
    }
    const size_t last_key = shape->causal ? size_minimum(shape->keys, first + rows) : shape->keys;
    const float *keys = packed_keys(context, picture, head);
    for (size_t key = 0; key < last_key; key += plan->key_block) {
        attend_block(context, &w, rows, first, key, keys);
    }
    for (size_t r = 0; r < rows; r++) {
        context->kernels->scale(context->arguments->output + position + r * stride,
                                w.sums + r * plan->padded_width, shape->width, 1.0f / w.sum[r], 0);
    }
}

void attention_run(const attention_plan *plan, const attention_arguments *arguments,
                   const conv_kernels *products, const tensor_kernels *kernels, void *scratch,
                   thread_pool *pool)
{
    const attention_shape *shape = &plan->shape;
    const size_t pictures = shape->shared_keys ? 1 : shape->batch;
    const size_t panels = plan->padded_keys / products->columns;
    attention_context context = {
        .plan = plan,
        .arguments = arguments,
        .products = products,
        .kernels = kernels,
        .packed = scratch,
        .workers = (float *)scratch + 2 * plan->packed_floats * shape->heads * pictures,
        .key_tasks = (panels + PACK_PANELS - 1) / PACK_PANELS,
        .query_blocks = (shape->queries + plan->query_block - 1) / plan->query_block,
    };
    thread_pool_run(pool, pictures * shape->heads * context.key_tasks, pack_task, &context);
    thread_pool_run(pool, shape->batch * shape->heads * context.query_blocks, attend_task,
                    &context);
}
