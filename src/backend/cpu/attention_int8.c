/* The products of attention with 8-bit integers: four of them take the place of two of 16 bits.
 *
 * Every query and key has a scale for each chunk of channels. The mean of all keys is taken off
 * each key first: it adds the same to all logits of a query, which the softmax does not see, and
 * what is common to all keys would leave few of the 8 bits to what tells them apart (Zhang et al.,
 * SageAttention, arXiv 2410.02367). The kernel takes unsigned queries, so they are moved up by
 * QUERY_ZERO, and a key's sums begin with what that adds, taken off.
 *
 * The softmax's weights are unsigned as they are. Each block of keys counts them from its own
 * largest on and divides by the sum of the rounded ones, so that few vanish and the result stays a
 * mean of the values, of which each channel has a scale in every block. */
#include "backend/cpu/attention.h"

#include <math.h>
#include <string.h>

#define BYTE_LARGEST 127
#define QUERY_ZERO   128

void attention_center(const attention_context *context, const attention_head *head,
                      const attention_block *keys)
{
    const size_t width = context->plan->shape.width;
    memset(head->center, 0, width * sizeof *head->center);
    for (size_t k = 0; k < keys->count; k++) {
        for (size_t c = 0; c < width; c++) {
            head->center[c] += keys->key[k * keys->stride + c];
        }
    }
    for (size_t c = 0; c < width; c++) {
        head->center[c] /= (float)keys->count;
    }
}

/* The factor that brings a chunk of channels to bytes. */
static float byte_factor(const float *values, size_t count)
{
    float largest = 0;
    for (size_t c = 0; c < count; c++) {
        const float magnitude = fabsf(values[c]);
        largest = largest > magnitude ? largest : magnitude;
    }
    return largest > 0 ? BYTE_LARGEST / largest : 0;
}

/* One key: [chunk][four channels][key of the panel][4]; its scales and the beginnings of its sums.
 */
static void pack_key(const attention_context *context, const attention_head *head, const float *key,
                     size_t index)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    const size_t panel = index / columns * columns, column = index % columns;
    int8_t *bytes = (int8_t *)(void *)head->keys + panel * attention_integer_stride(plan);
    for (size_t chunk = 0; chunk < plan->chunks; chunk++) {
        float centered[ATTENTION_CHUNK];
        int8_t integers[ATTENTION_CHUNK] = {0};
        const size_t first = chunk * plan->chunk;
        const size_t count = size_minimum(plan->chunk, plan->shape.width - first);
        for (size_t c = 0; c < count; c++) {
            centered[c] = key[first + c] - head->center[first + c];
        }
        const float factor = byte_factor(centered, count);
        int32_t sum = 0;
        for (size_t c = 0; c < count; c++) {
            integers[c] = (int8_t)attention_integer(centered[c], factor);
            sum += integers[c];
        }
        for (size_t c = 0; c < plan->chunk; c += 4) {
            memcpy(bytes + (first + c) * columns + column * 4, integers + c, 4);
        }
        const size_t place = panel * plan->chunks + chunk * columns + column;
        head->key_scales[place] = factor > 0 ? 1 / factor : 0;
        head->key_begins[place] = -QUERY_ZERO * sum;
    }
}

void attention_pack_keys_int8(const attention_context *context, const attention_head *head,
                              const attention_block *block)
{
    const size_t last = size_round_up(block->first + block->count, context->products->columns);
    for (size_t k = 0; k < block->count; k++) {
        pack_key(context, head, block->key + k * block->stride, block->first + k);
    }
    for (size_t k = block->first + block->count; k < last; k++) { /* as if they were the mean */
        pack_key(context, head, head->center, k);
    }
}

void attention_quantise_query_int8(const attention_context *context, const attention_worker *w,
                                   size_t rows)
{
    const attention_plan *plan = context->plan;
    for (size_t r = 0; r < rows; r++) {
        const float *query = w->query + r * attention_query_stride(plan);
        uint8_t *bytes = (uint8_t *)w->query_integers + r * attention_integer_stride(plan);
        for (size_t chunk = 0; chunk < plan->chunks; chunk++) {
            const size_t first = chunk * plan->chunk;
            const size_t count = size_minimum(plan->chunk, plan->shape.width - first);
            const float factor = byte_factor(query + first, count);
            for (size_t c = 0; c < count; c++) {
                const int32_t integer = attention_integer(query[first + c], factor);
                bytes[first + c] = (uint8_t)(integer + QUERY_ZERO);
            }
            /* Keys are zero there. */
            memset(bytes + first + count, QUERY_ZERO, plan->chunk - count);
            w->query_scales[chunk * plan->query_block + r] = factor > 0 ? 1 / factor : 0;
        }
    }
}

void attention_scores_int8(const attention_context *context, const attention_worker *w,
                           const attention_head *head, size_t rows, size_t first_key, size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    const size_t width =
        attention_integer_stride(plan) / 2; /* in 16-bit numbers, as the kernel counts */
    const int16_t *keys = (const int16_t *)(const void *)head->keys + first_key * width;
    for (size_t chunk = 0; chunk < plan->chunks; chunk++) {
        const size_t scales = first_key * plan->chunks + chunk * columns;
        const conv_multiply_pairs task = {
            .a = w->query_integers + chunk * plan->chunk / 2,
            .offsets = w->query_offsets,
            .rows = rows,
            .b = keys + chunk * plan->chunk / 2 * columns,
            .b_stride = columns * width,
            .panels = padded / columns,
            .pairs = plan->chunk / 4,
            .row_scales = w->query_scales + chunk * plan->query_block,
            .scale_offsets = w->row_numbers,
            .column_scales = head->key_scales + scales,
            .column_scales_stride = plan->chunks * columns,
            .column_begins = head->key_begins + scales,
            .c = w->scores,
            .c_stride = attention_score_stride(plan),
            .accumulate = chunk > 0,
            .next_b = (const int16_t *)(const void *)head->values + first_key * columns,
        };
        context->products->multiply_int8(&task);
    }
}

/* One panel of channels of one block of values: [four keys][channel][4] */
static void pack_value_panel(const attention_block *block, size_t columns, const float *value,
                             size_t run, uint32_t *panel, float *scales)
{
    enum { COLUMNS_MOST = 32 };
    float largest[COLUMNS_MOST] = {0}, factor[COLUMNS_MOST];
    for (size_t k = 0; k < block->count; k++) {
        for (size_t c = 0; c < run; c++) {
            const float magnitude = fabsf(value[k * block->stride + c]);
            largest[c] = largest[c] > magnitude ? largest[c] : magnitude;
        }
    }
    for (size_t c = 0; c < columns; c++) {
        factor[c] = largest[c] > 0 ? BYTE_LARGEST / largest[c] : 0;
        scales[c] = factor[c] > 0 ? 1 / factor[c] : 0;
    }
    memset(panel, 0, size_round_up(block->count, columns) / 4 * columns * sizeof *panel);
    for (size_t k = 0; k < block->count; k++) {
        const float *row = value + k * block->stride;
        uint32_t *words = panel + k / 4 * columns;
        const unsigned shift = (unsigned)(k % 4 * 8);
        for (size_t c = 0; c < run; c++) {
            words[c] |= (uint32_t)(uint8_t)attention_integer(row[c], factor[c]) << shift;
        }
    }
}

void attention_pack_values_int8(const attention_context *context, const attention_head *head,
                                const attention_block *block)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    uint32_t *values = (uint32_t *)(void *)head->values;
    for (size_t c = 0; c < plan->padded_width; c += columns) {
        pack_value_panel(
            block, columns, block->value + c, size_minimum(columns, plan->shape.width - c),
            values + (c * plan->padded_keys + block->first * columns) / 4,
            head->value_scales + block->first / plan->key_block * plan->padded_width + c);
    }
}

void attention_weigh_int8(const attention_context *context, const attention_worker *w,
                          const attention_head *head, size_t rows, size_t first_key, size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    /* The kernel counts in 16-bit numbers. */
    const int16_t *values = (const int16_t *)(const void *)head->values + first_key * columns / 2;
    const conv_multiply_pairs task = {
        .a = w->score_integers,
        .offsets = w->score_offsets,
        .rows = rows,
        .b = values,
        .b_stride = plan->padded_keys * columns / 2,
        .panels = plan->padded_width / columns,
        .pairs = padded / 4,
        .row_scales = w->score_scales,
        .scale_offsets = w->row_numbers,
        .column_scales = head->value_scales + first_key / plan->key_block * plan->padded_width,
        .column_scales_stride = columns,
        .column_begins = w->zeros,
        .c = w->sums,
        .c_stride = plan->padded_width,
        .accumulate = first_key > 0,
        .next_b = values,
    };
    context->products->multiply_int8(&task);
}
