/* The products of attention with 8-bit integers: four of them take the place of two of 16 bits.
 *
 * Queries and keys are rotated by the same Hadamard matrix first, which leaves their products as
 * they are and spreads channels that are larger than others over all of them (Ashkboos et al.,
 * QuaRot, arXiv 2404.00456). The mean of all keys is taken off each key before: it adds the same to
 * all logits of a query, which the softmax does not see, and what is common to all keys would leave
 * few of the 8 bits to what tells them apart (Zhang et al., SageAttention, arXiv 2410.02367).
 *
 * Every query and key has a scale. A key's counts as a fraction of the largest one of its block, so
 * that the scores of a query and a block become integers of one unit, which 16 bits hold better
 * than 8-bit queries and keys know them. The kernel takes unsigned queries, so they are moved up by
 * QUERY_ZERO, and a key's sums begin with what that adds, taken off.
 *
 * The softmax's weights are unsigned as they are. Each block of keys counts them from its own
 * largest on and divides by the sum of the rounded ones, so that few vanish and the result stays a
 * mean of the values, of which each channel has a scale in every block. */
#include "backend/cpu/attention.h"

#include <math.h>
#include <string.h>

#define QUERY_ZERO 128

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

/* The factor that brings numbers to bytes. */
static float byte_factor(float largest)
{
    return largest > 0 ? ATTENTION_BYTE / largest : 0;
}

/* A vector as bytes, or the largest of several: what 1 of them stands for, and their Euclidean
 * norm. */
typedef struct byte_vector {
    float scale, norm;
} byte_vector;

/* The largest of each block of keys. */
static byte_vector *block_vectors(const attention_head *head)
{
    return (byte_vector *)(void *)head->key_scales;
}

static byte_vector quantise(const float *values, size_t count, int8_t *bytes)
{
    float largest = 0;
    for (size_t c = 0; c < count; c++) {
        const float magnitude = fabsf(values[c]);
        largest = largest > magnitude ? largest : magnitude;
    }
    const float factor = byte_factor(largest);
    int32_t squares = 0;
    for (size_t c = 0; c < count; c++) {
        bytes[c] = (int8_t)attention_integer(values[c], factor);
        squares += bytes[c] * bytes[c];
    }
    return (byte_vector){.scale = largest / ATTENTION_BYTE, .norm = sqrtf((float)squares)};
}

/* A key's bytes: [four channels][key of the panel][4], and what its sums begin with. A panel has
 * its even keys first, as multiply_int8_words wants them. */
static void store_key(const attention_context *context, const attention_head *head,
                      const int8_t *bytes, size_t index)
{
    const size_t columns = context->products->columns, chunk = context->plan->chunk;
    const size_t panel = index / columns * columns;
    const size_t column = index % 2 * columns / 2 + index % columns / 2;
    int8_t *destination = (int8_t *)(void *)head->keys + panel * chunk + column * 4;
    int32_t sum = 0;
    for (size_t c = 0; c < chunk; c += 4) {
        memcpy(destination + c * columns, bytes + c, 4);
        sum += bytes[c] + bytes[c + 1] + bytes[c + 2] + bytes[c + 3];
    }
    head->key_begins[panel + column] = -QUERY_ZERO * sum;
}

void attention_pack_keys_int8(const attention_context *context, const attention_head *head,
                              const attention_block *block, const attention_worker *w)
{
    const attention_plan *plan = context->plan;
    const size_t width = plan->shape.width;
    const size_t padded = size_round_up(block->count, context->products->columns);
    float scales[ATTENTION_KEY_BLOCK];
    byte_vector largest = {0};
    float *rotated = w->query;
    int8_t *bytes = (int8_t *)w->query_integers;
    memset(bytes, 0, plan->chunk);
    for (size_t k = 0; k < block->count; k++) {
        const float *key = block->key + k * block->stride;
        context->kernels->combine(rotated, key, 1, head->center, -1, width);
        context->kernels->hadamard(rotated, width);
        const byte_vector vector = quantise(rotated, width, bytes);
        store_key(context, head, bytes, block->first + k);
        scales[k] = vector.scale;
        largest.scale = fmaxf(largest.scale, vector.scale);
        largest.norm = fmaxf(largest.norm, vector.norm);
    }
    memset(bytes, 0, width);
    for (size_t k = block->count; k < padded; k++) { /* as if they were the mean */
        store_key(context, head, bytes, block->first + k);
        scales[k] = 0;
    }
    const float factor = largest.scale > 0 ? INT16_MAX / largest.scale : 0;
    for (size_t k = 0; k < padded; k++) {
        head->key_factors[block->first + k] = attention_integer(scales[k], factor);
    }
    /* The rotation of both sides multiplies a product by the length of its runs. */
    largest.scale /= (float)hadamard_run(width);
    block_vectors(head)[block->first / plan->key_block] = largest;
}

void attention_quantise_query_int8(const attention_context *context, const attention_worker *w,
                                   size_t rows)
{
    const attention_plan *plan = context->plan;
    const size_t width = plan->shape.width;
    *w->query_norm = 0;
    for (size_t r = 0; r < rows; r++) {
        float *query = w->query + r * attention_query_stride(plan);
        int8_t *bytes = (int8_t *)w->query_integers + r * attention_integer_stride(plan);
        context->kernels->hadamard(query, width);
        const byte_vector vector = quantise(query, width, bytes);
        memset(bytes + width, 0, plan->chunk - width);
        for (size_t c = 0; c < plan->chunk; c++) {
            bytes[c] = (int8_t)(bytes[c] ^ QUERY_ZERO); /* adds it, as unsigned bytes */
        }
        w->query_scales[r] = vector.scale;
        *w->query_norm = fmaxf(*w->query_norm, vector.norm);
    }
}

/* The shift that brings sums of that magnitude, and the difference of two of them, to 16 bits. */
static unsigned word_shift(float largest)
{
    unsigned shift = 0;
    for (; largest > INT16_MAX / 2; largest /= 2) {
        shift++;
    }
    return shift;
}

void attention_scores_int8(const attention_context *context, const attention_worker *w,
                           const attention_head *head, size_t rows, size_t first_key, size_t padded)
{
    const attention_plan *plan = context->plan;
    const size_t columns = context->products->columns;
    const size_t width = plan->chunk / 2; /* in 16-bit numbers, as the kernel counts */
    const byte_vector keys = block_vectors(head)[first_key / plan->key_block];
    const unsigned shift = word_shift(*w->query_norm * keys.norm);
    for (size_t r = 0; r < rows; r++) {
        w->word_factors[r] = w->query_scales[r] * keys.scale * (float)(1u << shift);
    }
    const conv_multiply_pairs task = {
        .a = w->query_integers,
        .a_stride = attention_integer_stride(plan) / 2,
        .rows = rows,
        .b = (const int16_t *)(const void *)head->keys + first_key * width,
        .b_stride = columns * width,
        .panels = padded / columns,
        .pairs = plan->chunk / 4,
        .column_scales_stride = columns,
        .column_begins = head->key_begins + first_key,
        .words = (int16_t *)(void *)w->scores,
        .words_stride = attention_score_stride(plan),
        .shift = shift,
        .word_factors = head->key_factors + first_key,
        .next_b = (const int16_t *)(const void *)head->values + first_key * columns,
    };
    context->products->multiply_int8_words(&task);
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
        factor[c] = byte_factor(largest[c]);
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
        .a_stride = attention_score_stride(plan) / 2,
        .rows = rows,
        .b = values,
        .b_stride = plan->padded_keys * columns / 2,
        .panels = plan->padded_width / columns,
        .pairs = padded / 4,
        .row_scales = w->score_scales,
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
