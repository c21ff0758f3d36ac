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
            vector rows[CONV_VECTOR_FLOATS];
            if (real == CONV_VECTOR_FLOATS) {
#pragma GCC unroll 16
                for (size_t r = 0; r < CONV_VECTOR_FLOATS; r++) {
                    rows[r] = vector_load(source + r * task->output_stride + i);
                }
            } else {
                for (size_t r = 0; r < CONV_VECTOR_FLOATS; r++) {
                    rows[r] =
                        r < real ? vector_load(source + r * task->output_stride + i) : (vector){0};
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

/* The scale of one output: of its largest magnitude, or for pairs of the largest norm of what a
 * step of the summation (one tap of one block of channels) takes. The weights are read as they lie;
 * PACK_CHANNELS channels of all taps are a whole number of vectors, whose lanes belong to the same
 * taps each time. */
ALWAYS_INLINE float output_scale(const conv_pack_panel *task, const float *weights, bool norms)
{
    const size_t taps = task->taps;
    const size_t period = PACK_CHANNELS * taps;
    const size_t count = task->channels * taps;
    float lanes[PACK_CHANNELS * PACK_TAPS];
    vector most = {0};
    float largest_square = 0.0f;
    size_t i = 0;
    while (i < count) {
        const size_t left = count - i;
        const size_t block = norms ? task->block_channels * taps : count;
        const size_t end = i + (left < block ? left : block);
        if (norms) {
            memset(lanes, 0, period * sizeof *lanes);
        }
        while (i < end) {
            const size_t run = end - i < period ? end - i : period;
            for (size_t lane = 0; lane < run; lane += CONV_VECTOR_FLOATS) {
                const size_t some =
                    run - lane < CONV_VECTOR_FLOATS ? run - lane : CONV_VECTOR_FLOATS;
                const vector x = some == CONV_VECTOR_FLOATS
                                     ? vector_load(weights + i + lane)
                                     : vector_load_part(weights + i + lane, some);
                if (norms) {
                    vector_store(lanes + lane, vector_fma(x, x, vector_load(lanes + lane)));
                } else {
                    most = vector_max(vector_absolute(x), most);
                }
            }
            i += run;
        }
        for (size_t tap = 0; norms && tap < taps; tap++) {
            float square = 0.0f;
            for (size_t lane = tap; lane < period; lane += taps) {
                square += lanes[lane];
            }
            largest_square = square > largest_square ? square : largest_square;
        }
    }
    return norms ? sqrtf(largest_square) / CONV_INT16_WEIGHT_NORM : vector_largest(most) / 32767;
}

/* The scale of every output and the factor that undoes it. */
ALWAYS_INLINE void choose_scales(const conv_pack_panel *task, conv_pack_type type, float *factors)
{
    for (size_t column = 0; column < task->columns; column++) {
        float scale = 0.0f;
        if (column < task->outputs) {
            scale = output_scale(task, task->weights + column * task->output_stride,
                                 type == CONV_PACK_INT16_PAIRS);
        }
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
        choose_scales(task, type, factors);
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
