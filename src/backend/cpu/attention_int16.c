/* The two products of attention with 16-bit integers.
 *
 * A query has a scale for every chunk of channels, a key too; the softmax's weights of a query have
 * a scale in every block of keys, and so has a channel of the values.
 * Scales keep the sums of each product in 32 bits, whatever the numbers are. */
#include "backend/cpu/attention.h"

#include <math.h>
#include <string.h>

/* A chunk of channels, and one more for an odd count. */
enum { INTEGERS_MOST = ATTENTION_CHUNK + 1 };

/* Most of the sum of a channel's quantised values in a block of keys: times SOFTMAX_INT16 it
 * stays below 2^31. */
#define VALUES_SUM 262000

/* The factor that brings numbers to integers: as large as 16 bits and the sum of the products
 * allow. */
static float integer_factor(float largest, float sum)
{
    if (!(largest > 0)) {
        return 0;
    }
    const float by_size = 32767 / largest, by_sum = VALUES_SUM / sum;
    return by_size < by_sum ? by_size : by_sum;
}

/* Values are looked at in this many lanes, so that the loops become vectors. */
enum { LANES = 8 };

static float sum_of_squares(const float *values, size_t count)
{
    float squares[LANES] = {0};
    for (size_t i = 0; i + LANES <= count; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            squares[lane] += values[i + lane] * values[i + lane];
        }
    }
    for (size_t i = count / LANES * LANES; i < count; i++) {
        squares[0] += values[i] * values[i];
    }
    for (size_t lane = 1; lane < LANES; lane++) {
        squares[0] += squares[lane];
    }
    return squares[0];
}

/* The factor that brings a key's channels to integers: its queries respect
 * CONV_INT16_INPUT_NORM. */
static float factor_of(const float *values, size_t count)
{
    const size_t half = conv_half_step(count);
    const float first = sum_of_squares(values, half);
    const float second = sum_of_squares(values + half, count - half);
    /* Not where one is NaN. */
    return first + second > 0 ? CONV_INT16_WEIGHT_NORM / sqrtf(fmaxf(first, second)) : 0;
}

/* One key: [chunk][pair][key of the panel][2] */
static void pack_key(const attention_plan *plan, size_t columns, const float *key, int16_t *panel,
                     float *scales, size_t column)
{
    for (size_t chunk = 0; chunk < plan->chunks; chunk++) {
        int16_t integers[INTEGERS_MOST];
        const size_t first = chunk * plan->chunk;
        const size_t count = size_minimum(plan->chunk, plan->shape.width - first);
        const float factor = factor_of(key + first, count);
        scales[chunk * columns + column] = factor > 0 ? 1 / factor : 0;
        for (size_t c = 0; c < count; c++) {
            integers[c] = attention_integer(key[first + c], factor);
        }
        integers[count] = 0;
        int16_t *destination = panel + first * columns + column * 2;
        for (size_t c = 0; c < count; c += 2) {
            memcpy(destination + c * columns, integers + c, 2 * sizeof *integers);
        }
    }
}

void attention_pack_keys_int16(const attention_context *context, const attention_head *head,
                               const attention_block *block)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns, width = attention_integer_stride(plan);
    int16_t *keys = (int16_t *)(void *)head->keys;
    const size_t last = block->first + size_round_up(block->count, columns);
    for (size_t first = block->first; first < last; first += columns) {
        int16_t *panel = keys + first * width;
        float *scales = head->key_scales + first * plan->chunks;
        const size_t left = block->count - (first - block->first);
        if (left < columns || width != plan->shape.width) {
            memset(panel, 0, columns * width * sizeof *panel);
            memset(scales, 0, columns * plan->chunks * sizeof *scales);
        }
        for (size_t k = 0; k < size_minimum(columns, left); k++) {
            pack_key(plan, columns, block->key + (first - block->first + k) * block->stride, panel,
                     scales, k);
        }
    }
}

/* One panel of channels of one block of values: [pair of keys][channel][2] */
static void pack_value_panel(const attention_block *block, size_t columns, const float *value,
                             size_t run, int16_t *panel, float *scales)
{
    enum { COLUMNS_MOST = 32 };
    float largest[COLUMNS_MOST] = {0}, sum[COLUMNS_MOST] = {0}, factor[COLUMNS_MOST];
    for (size_t k = 0; k < block->count; k++) {
        for (size_t c = 0; c < run; c++) {
            const float magnitude = fabsf(value[k * block->stride + c]);
            largest[c] = largest[c] > magnitude ? largest[c] : magnitude;
            sum[c] += magnitude;
        }
    }
    for (size_t c = 0; c < columns; c++) {
        factor[c] = integer_factor(largest[c], sum[c]);
        scales[c] = factor[c] > 0 ? 1 / factor[c] : 0;
    }
    const size_t padded = size_round_up(block->count, columns);
    if (padded != block->count || run != columns) {
        memset(panel, 0, padded * columns * sizeof *panel);
    }
    int16_t none[COLUMNS_MOST] = {0};
    for (size_t k = 0; k < block->count; k += 2) {
        const float *row = value + k * block->stride;
        int16_t first[COLUMNS_MOST], second[COLUMNS_MOST];
        for (size_t c = 0; c < run; c++) {
            first[c] = attention_integer(row[c], factor[c]);
        }
        const bool pair = k + 1 < block->count;
        for (size_t c = 0; pair && c < run; c++) {
            second[c] = attention_integer(row[block->stride + c], factor[c]);
        }
        const int16_t *other = pair ? second : none;
        int16_t *destination = panel + k * columns;
        for (size_t c = 0; c < run; c++) {
            destination[2 * c] = first[c];
            destination[2 * c + 1] = other[c];
        }
    }
}

void attention_pack_values_int16(const attention_context *context, const attention_head *head,
                                 const attention_block *block)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    int16_t *values = (int16_t *)(void *)head->values;
    for (size_t c = 0; c < plan->padded_width; c += columns) {
        pack_value_panel(
            block, columns, block->value + c, size_minimum(columns, plan->shape.width - c),
            values + c * plan->padded_keys + block->first * columns,
            head->value_scales + block->first / plan->key_block * plan->padded_width + c);
    }
}

void attention_quantise_query_int16(const attention_context *context, const attention_worker *w,
                                    size_t rows)
{
    const attention_plan *plan = context->plan;
    for (size_t chunk = 0; chunk < plan->chunks; chunk++) {
        const size_t first = chunk * plan->chunk;
        const conv_quantise task = {
            .source = w->query + first,
            .source_stride = attention_query_stride(plan),
            .rows = rows,
            .channels = size_minimum(plan->chunk, plan->shape.width - first),
            .padded = plan->chunk,
            .destination = w->query_integers + first,
            .destination_stride = attention_integer_stride(plan),
            .scales = w->query_scales + chunk * plan->query_block,
            .scales_stride = 1,
        };
        context->products->quantise(&task);
    }
}

void attention_scores_int16(const attention_context *context, const attention_worker *w,
                            const attention_head *head, size_t rows, size_t first_key,
                            size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns, width = attention_integer_stride(plan);
    const int16_t *keys = (const int16_t *)(const void *)head->keys + first_key * width;
    for (size_t chunk = 0; chunk < plan->chunks; chunk++) {
        const conv_multiply_pairs task = {
            .a = w->query_integers + chunk * plan->chunk,
            .a_stride = width,
            .rows = rows,
            .b = keys + chunk * plan->chunk * columns,
            .b_stride = columns * width,
            .panels = padded / columns,
            .pairs = plan->chunk / 2,
            .row_scales = w->query_scales + chunk * plan->query_block,
            .column_scales = head->key_scales + first_key * plan->chunks + chunk * columns,
            .column_scales_stride = plan->chunks * columns,
            .c = w->scores,
            .c_stride = attention_score_stride(plan),
            .accumulate = chunk > 0,
            .next_b = (const int16_t *)(const void *)head->values + first_key * columns,
        };
        context->products->multiply_int16(&task);
    }
}

void attention_weigh_int16(const attention_context *context, const attention_worker *w,
                           const attention_head *head, size_t rows, size_t first_key, size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    const int16_t *values = (const int16_t *)(const void *)head->values + first_key * columns;
    const conv_multiply_pairs task = {
        .a = w->score_integers,
        .a_stride = attention_score_stride(plan),
        .rows = rows,
        .b = values,
        .b_stride = plan->padded_keys * columns,
        .panels = plan->padded_width / columns,
        .pairs = padded / 2,
        .row_scales = w->score_scales,
        .column_scales = head->value_scales + first_key / plan->key_block * plan->padded_width,
        .column_scales_stride = columns,
        .c = w->sums,
        .c_stride = plan->padded_width,
        .accumulate = first_key > 0,
        .next_b = values,
    };
    context->products->multiply_int16(&task);
}
