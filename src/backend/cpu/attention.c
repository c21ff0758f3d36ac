#include "backend/cpu/attention.h"

#include <string.h>

enum {
    LINE_FLOATS = 16, /* a cache line: keeps rows off the same cache sets */
    QUERY_BLOCK = 96, /* with 64 channels queries, scores and sums stay in the second cache */
    QUERY_BLOCK_WIDE = 48,
    KEY_BLOCK = ATTENTION_KEY_BLOCK,
    KEY_BLOCK_WIDE = 128,
    WIDE = 160, /* channels a head from which on the blocks are smaller */
};

size_t attention_query_stride(const attention_plan *plan)
{
    return size_round_up(plan->shape.width, LINE_FLOATS) + LINE_FLOATS;
}

size_t attention_score_stride(const attention_plan *plan)
{
    return plan->key_block + LINE_FLOATS;
}

size_t attention_integer_stride(const attention_plan *plan)
{
    return plan->chunk * plan->chunks;
}

static bool with_integers(const attention_plan *plan)
{
    return plan->precision != ATTENTION_F32;
}

static bool keys_are_bytes(const attention_plan *plan)
{
    return plan->precision == ATTENTION_INT8;
}

static bool values_are_bytes(const attention_plan *plan)
{
    return plan->precision == ATTENTION_INT8 || plan->precision == ATTENTION_INT8_VALUES;
}

/* Floats that hold `count` bytes, 16-bit integers or as many floats. */
static size_t number_floats(const attention_plan *plan, size_t count, bool bytes)
{
    const size_t floats = bytes ? (count + 3) / 4 : with_integers(plan) ? (count + 1) / 2 : count;
    return size_round_up(floats, LINE_FLOATS);
}

/* What a worker's memory holds, from the `memory` on; returns the floats. */
static size_t worker_layout(const attention_plan *plan, float *memory, attention_worker *worker)
{
    const size_t rows = plan->query_block;
    size_t used = 0;
#define TAKE(type, count)                                                                          \
    (type *)(void *)(memory + used);                                                               \
    used += size_round_up(((count) * sizeof(type) + sizeof(float) - 1) / sizeof(float), LINE_FLOATS)
    worker->query = TAKE(float, rows *attention_query_stride(plan));
    worker->scores =
        TAKE(float, rows *attention_score_stride(plan) / (keys_are_bytes(plan) ? 2 : 1));
    worker->sums = TAKE(float, rows * plan->padded_width);
    worker->largest = TAKE(float, rows);
    worker->sum = TAKE(float, rows);
    worker->factor = TAKE(float, rows);
    if (with_integers(plan)) {
        worker->query_scales = TAKE(float, rows * plan->chunks);
        worker->query_integers = TAKE(int16_t, rows * attention_integer_stride(plan));
        worker->score_integers = TAKE(int16_t, rows * attention_score_stride(plan));
        worker->score_scales = TAKE(float, rows);
        worker->zeros = TAKE(int32_t, plan->padded_width);
    }
    if (keys_are_bytes(plan)) {
        worker->query_norm = TAKE(float, 1);
        worker->word_factors = TAKE(float, rows);
    }
#undef TAKE
    return used;
}

/* Seconds on one core, measured on AMD Zen 3: multiply-adds of both products, and the softmax a
 * score. */
static double predict_seconds(const attention_plan *plan, const conv_kernels *products)
{
    const attention_shape *shape = &plan->shape;
    double rate = with_integers(plan) ? 64e9 : 43e9, softmax = 0.35e-9;
    if (products->level == CPU_LEVEL_AVX_VNNI && with_integers(plan)) {
        rate = 85e9;
    } else if (products->level >= CPU_LEVEL_AVX512) {
        rate *= 1.9;
        softmax /= 1.9;
    } else if (products->level == CPU_LEVEL_NEON) {
        rate /= 2;
        softmax *= 2;
    } else if (products->level < CPU_LEVEL_AVX2) {
        rate /= 4;
        softmax *= 3;
    }
    const double scores = (double)shape->batch * (double)shape->heads * (double)shape->queries *
                          (double)plan->padded_keys * (shape->causal ? 0.5 : 1.0);
    const double logits = keys_are_bytes(plan) ? 1.7 * rate : rate;
    const double weighing = values_are_bytes(plan) ? 1.8 * rate : rate;
    return scores *
           ((double)shape->width / logits + (double)plan->padded_width / weighing + softmax);
}

bool attention_plan_create(attention_plan *plan, const attention_shape *shape,
                           attention_precision precision, const conv_kernels *products,
                           unsigned threads)
{
    const bool wide = shape->width >= WIDE;
    *plan = (attention_plan){.shape = *shape, .precision = precision};
    const bool integers = with_integers(plan);
    if (shape->queries > UINT32_MAX || shape->keys > UINT32_MAX ||
        shape->width > (keys_are_bytes(plan) ? ATTENTION_INT8_WIDTH : UINT32_MAX / 256)) {
        return false;
    }
    plan->query_block = size_minimum(wide ? QUERY_BLOCK_WIDE : QUERY_BLOCK, shape->queries);
    plan->padded_keys = size_round_up(shape->keys, products->columns);
    plan->padded_width = size_round_up(shape->width, products->columns);
    plan->key_block = size_minimum(wide ? KEY_BLOCK_WIDE : KEY_BLOCK, plan->padded_keys);
    plan->chunk = size_round_up(shape->width, LINE_FLOATS);
    if (!keys_are_bytes(plan)) {
        plan->chunk = size_minimum(ATTENTION_CHUNK, plan->chunk);
    }
    plan->chunks = (shape->width + plan->chunk - 1) / plan->chunk;
    const size_t blocks = (shape->keys + plan->key_block - 1) / plan->key_block;
    const size_t width = integers ? attention_integer_stride(plan) : shape->width;
    size_t keys, values, packed, bytes;
    if (!size_multiply(plan->padded_keys, size_maximum(width, plan->padded_width) + 64, &bytes) ||
        bytes > SIZE_MAX / 64) {
        return false;
    }
    keys = plan->padded_keys * width;
    values = plan->padded_keys * plan->padded_width;
    plan->key_floats = number_floats(plan, keys, keys_are_bytes(plan));
    plan->value_floats = number_floats(plan, values, values_are_bytes(plan));
    plan->key_scales = keys_are_bytes(plan) ? size_round_up(2 * blocks, LINE_FLOATS)
                       : integers           ? plan->padded_keys * plan->chunks
                                            : 0;
    plan->value_scales = integers ? blocks * plan->padded_width : 0;
    plan->key_begins = keys_are_bytes(plan) ? plan->padded_keys : 0;
    plan->key_factors = keys_are_bytes(plan) ? plan->padded_keys / 2 : 0;
    plan->center = keys_are_bytes(plan) ? size_round_up(shape->width, LINE_FLOATS) : 0;
    plan->head_floats =
        size_round_up(plan->key_floats + plan->key_scales + plan->key_begins + plan->key_factors +
                          plan->center + plan->value_floats + plan->value_scales,
                      LINE_FLOATS);
    attention_worker worker;
    float none;
    plan->worker_floats = worker_layout(plan, &none, &worker);
    if (!size_multiply(plan->head_floats, shape->heads, &packed) ||
        !size_multiply(packed, shape->shared_keys ? 1 : shape->batch, &packed) ||
        !size_add(packed, plan->worker_floats * threads, &packed) ||
        !size_multiply(packed, sizeof(float), &bytes)) {
        return false;
    }
    plan->scratch_bytes = bytes;
    plan->predicted_seconds = predict_seconds(plan, products) / threads;
    return true;
}

static attention_worker worker_memory(const attention_context *context, unsigned worker)
{
    const attention_plan *plan = context->plan;
    attention_worker result = {0};
    worker_layout(plan, context->workers + worker * plan->worker_floats, &result);
    return result;
}

static attention_head packed_head(const attention_context *context, size_t picture, size_t head)
{
    const attention_plan *plan = context->plan;
    const size_t image = plan->shape.shared_keys ? 0 : picture;
    attention_head result;
    result.keys = context->packed + (image * plan->shape.heads + head) * plan->head_floats;
    result.key_scales = result.keys + plan->key_floats;
    result.key_begins = (int32_t *)(void *)(result.key_scales + plan->key_scales);
    result.key_factors = (int16_t *)(void *)(result.key_begins + plan->key_begins);
    result.center = result.key_scales + plan->key_scales + plan->key_begins + plan->key_factors;
    result.values = result.center + plan->center;
    result.value_scales = result.values + plan->value_floats;
    return result;
}

/* Keys become panels of `columns` keys, [channel][key]; values panels of `columns` channels,
 * [key][channel]. What lies beyond the last key or channel is zero. */
static void pack_panel(const attention_context *context, const attention_head *head,
                       const attention_block *block, size_t first)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns, width = plan->shape.width;
    const size_t count = size_minimum(columns, block->count - first);
    const float *key = block->key + first * block->stride;
    const float *value = block->value + first * block->stride;
    float *keys = head->keys + (block->first + first) * width;
    if (count < columns) {
        memset(keys, 0, columns * width * sizeof *keys);
    }
    for (size_t c = 0; c < width; c++) {
        for (size_t k = 0; k < count; k++) {
            keys[c * columns + k] = key[k * block->stride + c];
        }
    }
    for (size_t c = 0; c < plan->padded_width; c += columns) {
        const size_t run = size_minimum(columns, width - c);
        float *destination =
            head->values + c * plan->padded_keys + (block->first + first) * columns;
        if (count < columns || run < columns) {
            memset(destination, 0, columns * columns * sizeof *destination);
        }
        for (size_t k = 0; k < count; k++) {
            memcpy(destination + k * columns, value + k * block->stride + c, run * sizeof(float));
        }
    }
}

/* Keys first..first+count-1 of one head of one picture. */
static attention_block block_of(const attention_context *context, size_t picture, size_t head,
                                size_t first, size_t count)
{
    const attention_shape *shape = &context->plan->shape;
    const size_t stride = shape->heads * shape->width;
    const size_t position = (picture * shape->keys + first) * stride + head * shape->width;
    return (attention_block){
        .key = context->arguments->key + position,
        .value = context->arguments->value + position,
        .stride = stride,
        .first = first,
        .count = count,
    };
}

static void center_task(void *opaque, size_t index, unsigned worker)
{
    const attention_context *context = opaque;
    const attention_shape *shape = &context->plan->shape;
    const size_t picture = index / shape->heads, head_index = index % shape->heads;
    const attention_head head = packed_head(context, picture, head_index);
    const attention_block keys = block_of(context, picture, head_index, 0, shape->keys);
    (void)worker;
    attention_center(context, &head, &keys);
}

static void pack_task(void *opaque, size_t index, unsigned worker)
{
    const attention_context *context = opaque;
    const attention_plan *plan = context->plan;
    const attention_shape *shape = &plan->shape;
    const size_t head_index = index / context->key_blocks % shape->heads;
    const size_t picture = index / context->key_blocks / shape->heads;
    const attention_head head = packed_head(context, picture, head_index);
    const size_t first = index % context->key_blocks * plan->key_block;
    const attention_block block = block_of(context, picture, head_index, first,
                                           size_minimum(plan->key_block, shape->keys - first));
    if (!with_integers(plan)) {
        for (size_t key = 0; key < block.count; key += context->products->columns) {
            pack_panel(context, &head, &block, key);
        }
        return;
    }
    if (keys_are_bytes(plan)) {
        const attention_worker w = worker_memory(context, worker);
        attention_pack_keys_int8(context, &head, &block, &w);
    } else {
        attention_pack_keys_int16(context, &head, &block);
    }
    (values_are_bytes(plan) ? attention_pack_values_int8
                            : attention_pack_values_int16)(context, &head, &block);
}

static void quantise_query(const attention_context *context, const attention_worker *w, size_t rows)
{
    const attention_plan *plan = context->plan;
    (keys_are_bytes(plan) ? attention_quantise_query_int8
                          : attention_quantise_query_int16)(context, w, rows);
    memset(w->zeros, 0, plan->padded_width * sizeof *w->zeros);
}

static void scores_float(const attention_context *context, const attention_worker *w,
                         const attention_head *head, size_t rows, size_t first_key, size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns, width = plan->shape.width;
    const conv_multiply task = {
        .a = w->query,
        .a_stride = attention_query_stride(plan),
        .rows = rows,
        .b = head->keys + first_key * width,
        .b_stride = columns * width,
        .panels = padded / columns,
        .depth = width,
        .c = w->scores,
        .c_stride = attention_score_stride(plan),
    };
    context->products->multiply(&task);
}

static void weigh_float(const attention_context *context, const attention_worker *w,
                        const attention_head *head, size_t rows, size_t first_key, size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    const conv_multiply task = {
        .a = w->scores,
        .a_stride = attention_score_stride(plan),
        .rows = rows,
        .b = head->values + first_key * columns,
        .b_stride = plan->padded_keys * columns,
        .panels = plan->padded_width / columns,
        .depth = padded,
        .c = w->sums,
        .c_stride = plan->padded_width,
        .accumulate = first_key > 0,
    };
    context->products->multiply(&task);
}

/* Scores of one block of keys, softmax, and the values weighed by it added to the sums. */
static void attend_block(const attention_context *context, const attention_worker *w,
                         const attention_head *head, size_t rows, size_t first_query,
                         size_t first_key)
{
    const attention_plan *plan = context->plan;
    const attention_shape *shape = &plan->shape;
    const size_t count = size_minimum(plan->key_block, shape->keys - first_key);
    const size_t padded = size_round_up(count, context->products->columns);
    static void (*const products[])(const attention_context *, const attention_worker *,
                                    const attention_head *, size_t, size_t, size_t) = {
        [ATTENTION_F32] = scores_float,
        [ATTENTION_INT16] = attention_scores_int16,
        [ATTENTION_INT8_VALUES] = attention_scores_int16,
        [ATTENTION_INT8] = attention_scores_int8,
    };
    products[plan->precision](context, w, head, rows, first_key, padded);
    const bool words = keys_are_bytes(plan);
    const softmax_block softmax = {
        .scores = w->scores,
        .stride = attention_score_stride(plan),
        .rows = rows,
        .keys = count,
        .padded = padded,
        .visible =
            shape->causal ? (ptrdiff_t)(first_query + 1) - (ptrdiff_t)first_key : (ptrdiff_t)count,
        .first = first_key == 0,
        .largest = w->largest,
        .sum = w->sum,
        .factor = w->factor,
        .form = !with_integers(plan)     ? SOFTMAX_FLOATS
                : values_are_bytes(plan) ? SOFTMAX_BYTES
                                         : SOFTMAX_WORDS,
        .words = words ? (const int16_t *)(const void *)w->scores : NULL,
        .words_stride = attention_score_stride(plan),
        .factors = w->word_factors,
        .integers = w->score_integers,
        .integers_stride = attention_score_stride(plan),
        .scales = w->score_scales,
    };
    context->kernels->softmax(&softmax);
    for (size_t r = 0; r < rows && first_key > 0; r++) {
        if (w->factor[r] != 1) {
            float *sums = w->sums + r * plan->padded_width;
            context->kernels->scale(sums, sums, plan->padded_width, w->factor[r], 0);
        }
    }
    (!with_integers(plan)     ? weigh_float
     : values_are_bytes(plan) ? attention_weigh_int8
                              : attention_weigh_int16)(context, w, head, rows, first_key, padded);
}

static void attend_task(void *opaque, size_t index, unsigned worker)
{
    const attention_context *context = opaque;
    const attention_plan *plan = context->plan;
    const attention_shape *shape = &plan->shape;
    const size_t block = index % context->query_blocks;
    const size_t head_index = index / context->query_blocks % shape->heads;
    const size_t picture = index / context->query_blocks / shape->heads;
    const size_t first = block * plan->query_block;
    const size_t rows = size_minimum(plan->query_block, shape->queries - first);
    const size_t stride = shape->heads * shape->width;
    const size_t position = (picture * shape->queries + first) * stride + head_index * shape->width;
    const attention_head head = packed_head(context, picture, head_index);

    const attention_worker w = worker_memory(context, worker);
    /* The softmax is taken to the base of 2. */
    const float scale = context->arguments->scale * 1.44269504f;
    for (size_t r = 0; r < rows; r++) {
        context->kernels->scale(w.query + r * attention_query_stride(plan),
                                context->arguments->query + position + r * stride, shape->width,
                                scale, 0);
    }
    if (with_integers(plan)) {
        quantise_query(context, &w, rows);
    }
    const size_t last_key = shape->causal ? size_minimum(shape->keys, first + rows) : shape->keys;
    for (size_t key = 0; key < last_key; key += plan->key_block) {
        attend_block(context, &w, &head, rows, first, key);
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
    attention_context context = {
        .plan = plan,
        .arguments = arguments,
        .products = products,
        .kernels = kernels,
        .packed = scratch,
        .workers = (float *)scratch + plan->head_floats * shape->heads * pictures,
        .key_blocks = (shape->keys + plan->key_block - 1) / plan->key_block,
        .query_blocks = (shape->queries + plan->query_block - 1) / plan->query_block,
    };
    if (keys_are_bytes(plan)) {
        thread_pool_run(pool, pictures * shape->heads, center_task, &context);
    }
    thread_pool_run(pool, pictures * shape->heads * context.key_blocks, pack_task, &context);
    thread_pool_run(pool, shape->batch * shape->heads * context.query_blocks, attend_task,
                    &context);
}
