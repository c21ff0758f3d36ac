/* Weights into the order of the matrix kernels, compiled by each kernel file for its own vectors.
 *
 * A file holds the weights of one output side by side, a kernel reads one weight of many outputs:
 * packing is a transpose. Some channels of all outputs of a panel are brought into first-level
 * cache the right way round, and go from there to their places, as floats, 16-bit integers or
 * bfloat16. */
#ifndef ONESTEP_BACKEND_CPU_CONV_PACK_H
#define ONESTEP_BACKEND_CPU_CONV_PACK_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

enum {
    PACK_CHANNELS = 16, /* at once; blocks of the summation are multiples of it */
    PACK_TAPS = 9,
    PACK_COLUMNS = 32,
};

#if CONV_VECTOR_FLOATS == 16
#define INTERLEAVE_LOW  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define INTERLEAVE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif CONV_VECTOR_FLOATS == 8
#define INTERLEAVE_LOW  0, 8, 1, 9, 2, 10, 3, 11
#define INTERLEAVE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define INTERLEAVE_LOW  0, 4, 1, 5
#define INTERLEAVE_HIGH 2, 6, 3, 7
#endif

#ifdef __clang__
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (vector_bits){__VA_ARGS__})
#endif

/* A perfect shuffle of rows and of their numbers, once for every bit of a row's number. */
ALWAYS_INLINE void vector_transpose(vector rows[CONV_VECTOR_FLOATS])
{
    enum { HALF = CONV_VECTOR_FLOATS / 2 };
#pragma GCC unroll 4
    for (size_t bit = 1; bit < CONV_VECTOR_FLOATS; bit *= 2) {
        vector shuffled[CONV_VECTOR_FLOATS];
#pragma GCC unroll 8
        for (size_t i = 0; i < HALF; i++) {
            shuffled[2 * i] = INTERLEAVE(rows[i], rows[i + HALF], INTERLEAVE_LOW);
            shuffled[2 * i + 1] = INTERLEAVE(rows[i], rows[i + HALF], INTERLEAVE_HIGH);
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < CONV_VECTOR_FLOATS; i++) {
            rows[i] = shuffled[i];
        }
    }
}

/* Weights first..first+count-1 of every output of the panel: staged[weight][column]. */
ALWAYS_INLINE void stage_weights(const conv_pack_panel *task, size_t first, size_t count,
                                 float *staged)
{
    const size_t columns = task->columns;
    for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
        const size_t left = column < task->outputs ? task->outputs - column : 0;
        const size_t real = left < CONV_VECTOR_FLOATS ? left : CONV_VECTOR_FLOATS;
        const float *source = task->weights + column * task->output_stride + first;
        size_t i = 0;
        for (; i + CONV_VECTOR_FLOATS <= count; i += CONV_VECTOR_FLOATS) {
            vector rows[CONV_VECTOR_FLOATS] = {{0}};
            if (real == CONV_VECTOR_FLOATS) {
#pragma GCC unroll 16
                for (size_t r = 0; r < CONV_VECTOR_FLOATS; r++) {
                    rows[r] = vector_load(source + r * task->output_stride + i);
                }
            } else {
                for (size_t r = 0; r < real; r++) {
                    rows[r] = vector_load(source + r * task->output_stride + i);
                }
            }
            vector_transpose(rows);
#pragma GCC unroll 16
            for (size_t r = 0; r < CONV_VECTOR_FLOATS; r++) {
                vector_store(staged + (i + r) * columns + column, rows[r]);
            }
        }
        for (; i < count; i++) {
            for (size_t r = 0; r < CONV_VECTOR_FLOATS; r++) {
                staged[i * columns + column + r] =
                    r < real ? source[r * task->output_stride + i] : 0.0f;
            }
        }
    }
}

/* Largest magnitude of each column, and the largest sum of magnitudes that a step of the summation
 * (one tap of one block of channels) makes. */
ALWAYS_INLINE void measure_columns(const conv_pack_panel *task, float *staged, float *largest,
                                   float *largest_sum)
{
    float sums[PACK_TAPS][PACK_COLUMNS];
    const size_t columns = task->columns;
    memset(largest, 0, columns * sizeof *largest);
    memset(largest_sum, 0, columns * sizeof *largest_sum);
    for (size_t c = 0; c < task->channels; c += PACK_CHANNELS) {
        const size_t left = task->channels - c;
        const size_t count = left < PACK_CHANNELS ? left : PACK_CHANNELS;
        stage_weights(task, c * task->taps, count * task->taps, staged);
        if (c % task->block_channels == 0) {
            memset(sums, 0, sizeof sums);
        }
        for (size_t tap = 0; tap < task->taps; tap++) {
            for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
                vector sum = vector_load(sums[tap] + column);
                vector most = vector_load(largest + column);
                for (size_t i = 0; i < count; i++) {
                    const vector magnitude = vector_absolute(
                        vector_load(staged + (i * task->taps + tap) * columns + column));
                    sum += magnitude;
                    most = vector_max(magnitude, most);
                }
                vector_store(sums[tap] + column, sum);
                vector_store(largest + column, most);
                vector_store(largest_sum + column,
                             vector_max(sum, vector_load(largest_sum + column)));
            }
        }
    }
}

/* The scale of every output and the factor that undoes it. */
ALWAYS_INLINE void choose_scales(const conv_pack_panel *task, float *staged, float *factors)
{
    float largest[PACK_COLUMNS];
    float largest_sum[PACK_COLUMNS];
    measure_columns(task, staged, largest, largest_sum);
    for (size_t column = 0; column < task->columns; column++) {
        const float by_value = largest[column] / 32767;
        const float by_sum = largest_sum[column] / CONV_INT16_WEIGHTS;
        const float scale =
            task->type == CONV_PACK_INT16_PAIRS && by_sum > by_value ? by_sum : by_value;
        task->scales[column] = scale;
        factors[column] = scale > 0.0f ? 1.0f / scale : 0.0f;
    }
}

/* One weight of all outputs, or of a pair of channels (`odd` NULL: the second is zero). */
ALWAYS_INLINE void emit_columns(conv_pack_type type, size_t columns, const float *even,
                                const float *odd, const float *factors, void *destination)
{
    for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
        const vector first = vector_load(even + column);
        const vector second = odd == NULL ? (vector){0} : vector_load(odd + column);
        if (type == CONV_PACK_F32) {
            vector_store((float *)destination + column, first);
        } else if (type == CONV_PACK_INT16) {
            const vector_half half = __builtin_convertvector(
                vector_round(first * vector_load(factors + column)), vector_half);
            memcpy((int16_t *)destination + column, &half, sizeof half);
        } else if (type == CONV_PACK_INT16_PAIRS) {
            const vector factor = vector_load(factors + column);
            const vector_bits pairs =
                (vector_round(first * factor) & 0xffff) | (vector_round(second * factor) << 16);
            memcpy((int16_t *)destination + 2 * column, &pairs, sizeof pairs);
        } else {
            const vector_words pairs = vector_bfloat16(first) >> 16 | vector_bfloat16(second);
            memcpy((int16_t *)destination + 2 * column, &pairs, sizeof pairs);
        }
    }
}

ALWAYS_INLINE void pack_typed(const conv_pack_panel *task, conv_pack_type type, size_t value_bytes,
                              size_t step)
{
    _Alignas(64) float staged[PACK_CHANNELS * PACK_TAPS * PACK_COLUMNS];
    float factors[PACK_COLUMNS] = {0};
    const size_t columns = task->columns;
    const size_t taps = task->taps;
    if (type == CONV_PACK_INT16 || type == CONV_PACK_INT16_PAIRS) {
        choose_scales(task, staged, factors);
    }
    for (size_t c = 0; c < task->channels; c += PACK_CHANNELS) {
        const size_t left = task->channels - c;
        const size_t count = left < PACK_CHANNELS ? left : PACK_CHANNELS;
        stage_weights(task, c * taps, count * taps, staged);
        for (size_t i = 0; i < count; i += step) {
            const size_t begin = (c + i) / task->block_channels * task->block_channels;
            const size_t rest = task->channels - begin;
            size_t block = rest < task->block_channels ? rest : task->block_channels;
            block = (block + step - 1) / step * step;
            for (size_t tap = 0; tap < taps; tap++) {
                const float *even = staged + (i * taps + tap) * columns;
                const float *odd = i + 1 < count ? even + taps * columns : NULL;
                const size_t value = begin * taps + tap * block + (c + i - begin);
                emit_columns(type, columns, even, odd, factors,
                             (char *)task->panel + value * columns * value_bytes);
            }
        }
    }
}

static void pack_run(const conv_pack_panel *task)
{
    switch (task->type) {
    case CONV_PACK_F32:
        pack_typed(task, CONV_PACK_F32, sizeof(float), 1);
        break;
    case CONV_PACK_INT16:
        pack_typed(task, CONV_PACK_INT16, sizeof(int16_t), 1);
        break;
    case CONV_PACK_INT16_PAIRS:
        pack_typed(task, CONV_PACK_INT16_PAIRS, sizeof(int16_t), 2);
        break;
    case CONV_PACK_BF16_PAIRS:
        pack_typed(task, CONV_PACK_BF16_PAIRS, sizeof(int16_t), 2);
        break;
    }
}

#endif
