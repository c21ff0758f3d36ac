/* Weights into the order of the matrix kernels, compiled by each kernel file for its own vectors.
 *
 * A file holds the weights of one output side by side, a kernel reads one weight of many outputs:
 * packing is a transpose. Where it changes nothing but that, tiles are transposed in registers;
 * else some channels of all outputs of a panel are brought into first-level cache the right way
 * round, and go from there to their places. They become floats, 16-bit integers or bfloat16. */
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
#define EVEN_LANES      0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD_LANES       1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif CONV_VECTOR_FLOATS == 4
#define INTERLEAVE_LOW  0, 4, 1, 5
#define INTERLEAVE_HIGH 2, 6, 3, 7
#define EVEN_LANES      0, 2, 4, 6
#define ODD_LANES       1, 3, 5, 7
#endif

#ifdef __clang__
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (vector_bits){__VA_ARGS__})
#endif

#if CONV_VECTOR_FLOATS == 8
/* AVX2's shuffles of floats stay within 128 bits: halves change places last. */
ALWAYS_INLINE void vector_transpose(vector rows[CONV_VECTOR_FLOATS])
{
    __m256 pairs[8];
    __m256 quads[8]; /* columns i and i + 4 of rows 0..3 (i < 4) or 4..7 */
#pragma GCC unroll 4
    for (size_t i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps((__m256)rows[i], (__m256)rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps((__m256)rows[i], (__m256)rows[i + 1]);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 8; i += 4) {
        quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        rows[i] = (vector)_mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
        rows[i + 4] = (vector)_mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
    }
}

/* The numbers of even and of odd index of two vectors' worth. */
ALWAYS_INLINE void load_even_odd(const float *x, vector *even, vector *odd)
{
    const __m256 left = _mm256_loadu2_m128(x + 8, x);
    const __m256 right = _mm256_loadu2_m128(x + 12, x + 4);
    *even = (vector)_mm256_shuffle_ps(left, right, 0x88);
    *odd = (vector)_mm256_shuffle_ps(left, right, 0xdd);
}

/* The low and the high halves of words. */
ALWAYS_INLINE void split_words(vector_words words, vector_half halves[2])
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0,
                                           1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i sorted =
        _mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)words, order), 0xd8);
    memcpy(halves, &sorted, sizeof sorted);
}
#else
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

/* The numbers of even and of odd index of two vectors' worth. */
ALWAYS_INLINE void load_even_odd(const float *x, vector *even, vector *odd)
{
    const vector left = vector_load(x);
    const vector right = vector_load(x + CONV_VECTOR_FLOATS);
    *even = INTERLEAVE(left, right, EVEN_LANES);
    *odd = INTERLEAVE(left, right, ODD_LANES);
}

/* The low and the high halves of words. */
ALWAYS_INLINE void split_words(vector_words words, vector_half halves[2])
{
    halves[0] = __builtin_convertvector(words, vector_half);
    halves[1] = __builtin_convertvector(words >> 16, vector_half);
}
#endif

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

/* The sum of squares of `count` numbers. */
ALWAYS_INLINE float sum_of_squares(const float *x, size_t count)
{
    vector sums[4] = {{0}}; /* a chain each */
    size_t i = 0;
    for (; i + (size_t)4 * CONV_VECTOR_FLOATS <= count; i += (size_t)4 * CONV_VECTOR_FLOATS) {
#pragma GCC unroll 4
        for (size_t chain = 0; chain < 4; chain++) {
            const vector v = vector_load(x + i + chain * CONV_VECTOR_FLOATS);
            sums[chain] = vector_fma(v, v, sums[chain]);
        }
    }
    for (; i + CONV_VECTOR_FLOATS <= count; i += CONV_VECTOR_FLOATS) {
        const vector v = vector_load(x + i);
        sums[0] = vector_fma(v, v, sums[0]);
    }
    if (i < count) {
        const vector v = vector_load_part(x + i, count - i);
        sums[1] = vector_fma(v, v, sums[1]);
    }
    return vector_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* The largest sum of squares of one tap among `count` weights, which begin with the first tap. They
 * are read as they lie: PACK_CHANNELS channels of all taps are a whole number of vectors, whose
 * lanes belong to the same taps each time. */
ALWAYS_INLINE float largest_tap_square(const float *weights, size_t count, size_t taps)
{
    const size_t period = PACK_CHANNELS * taps;
    float lanes[PACK_CHANNELS * PACK_TAPS] = {0};
    for (size_t i = 0; i < count; i += period) {
        const size_t run = count - i < period ? count - i : period;
        for (size_t lane = 0; lane < run; lane += CONV_VECTOR_FLOATS) {
            const size_t some = run - lane < CONV_VECTOR_FLOATS ? run - lane : CONV_VECTOR_FLOATS;
            const vector x = some == CONV_VECTOR_FLOATS
                                 ? vector_load(weights + i + lane)
                                 : vector_load_part(weights + i + lane, some);
            vector_store(lanes + lane, vector_fma(x, x, vector_load(lanes + lane)));
        }
    }
    float largest = 0.0f;
    for (size_t tap = 0; tap < taps; tap++) {
        float square = 0.0f;
        for (size_t lane = tap; lane < period; lane += taps) {
            square += lanes[lane];
        }
        largest = square > largest ? square : largest;
    }
    return largest;
}

/* The scale of one output of pairs: of the largest norm of what half a step of the summation (one
 * tap of one block of channels) takes. */
ALWAYS_INLINE float scale_of_norms(const conv_pack_panel *task, const float *weights)
{
    const size_t count = task->channels * task->taps;
    const size_t half = conv_half_step(task->block_channels) * task->taps;
    float largest = 0.0f;
    for (size_t i = 0; i < count; i += half) {
        const size_t some = count - i < half ? count - i : half;
        const float square = task->taps == 1 ? sum_of_squares(weights + i, some)
                                             : largest_tap_square(weights + i, some, task->taps);
        largest = square > largest ? square : largest;
    }
    return sqrtf(largest) / CONV_INT16_WEIGHT_NORM;
}

/* The scale of one output: of its largest magnitude. */
ALWAYS_INLINE float scale_of_magnitude(const conv_pack_panel *task, const float *weights)
{
    const size_t count = task->channels * task->taps;
    const size_t whole = count / CONV_VECTOR_FLOATS * CONV_VECTOR_FLOATS;
    vector most = {0};
    for (size_t i = 0; i < whole; i += CONV_VECTOR_FLOATS) {
        most = vector_max(vector_absolute(vector_load(weights + i)), most);
    }
    const vector last = vector_load_part(weights + whole, count - whole);
    return vector_largest(vector_max(vector_absolute(last), most)) / 32767;
}

/* The scale of every output and the factor that undoes it. */
ALWAYS_INLINE void choose_scales(const conv_pack_panel *task, conv_pack_type type, float *factors)
{
    for (size_t column = 0; column < task->columns; column++) {
        float scale = 0.0f;
        if (column < task->outputs) {
            const float *weights = task->weights + column * task->output_stride;
            scale = type == CONV_PACK_INT16_PAIRS ? scale_of_norms(task, weights)
                                                  : scale_of_magnitude(task, weights);
        }
        task->scales[column] = scale;
        factors[column] = scale > 0.0f ? 1.0f / scale : 0.0f;
    }
}

/* Two weights of as many outputs as a vector has lanes, in 16 bits each; the first in the low half.
 */
ALWAYS_INLINE vector_words pack_words(conv_pack_type type, vector first, vector second,
                                      vector factor)
{
    if (type == CONV_PACK_BF16_PAIRS) {
        return vector_bfloat16(first) >> 16 | vector_bfloat16(second);
    }
    return vector_round_pairs(first, second, factor);
}

/* ---- weights that stay in the order of the file ---------------------------------------------- */

/* `count` (at most two vectors) weights of `outputs` (at most a vector) that lie side by side.
 * Values of 16 bits are paired before they are transposed, so that there are half as many vectors
 * to transpose. */
ALWAYS_INLINE void pack_tile(conv_pack_type type, const float *weights, size_t stride,
                             const float *factors, size_t outputs, size_t count, size_t columns,
                             void *destination)
{
    enum { LANES = CONV_VECTOR_FLOATS };
    vector rows[LANES];
    vector more[LANES]; /* of floats: the second vector of each output */
#pragma GCC unroll 16
    for (size_t r = 0; r < LANES; r++) {
        rows[r] = more[r] = (vector){0};
        if (r < outputs) {
            const float *row = weights + r * stride;
            float part[2 * LANES];
            if (count < (size_t)2 * LANES) {
                memset(part, 0, sizeof part);
                memcpy(part, row, count * sizeof *part);
                row = part;
            }
            if (type == CONV_PACK_F32) {
                rows[r] = vector_load(row);
                more[r] = vector_load(row + LANES);
            } else {
                vector even;
                vector odd;
                load_even_odd(row, &even, &odd);
                rows[r] = (vector)pack_words(type, even, odd, vector_set(factors[r]));
            }
        }
    }
    vector_transpose(rows);
    if (type == CONV_PACK_F32) {
        vector_transpose(more);
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < LANES; r++) {
        if (type == CONV_PACK_F32) {
            float *to = (float *)destination + r * columns;
            if (r < count) {
                vector_store(to, rows[r]);
            }
            if (r + LANES < count) {
                vector_store(to + LANES * columns, more[r]);
            }
        } else if (2 * r < count && type == CONV_PACK_INT16) {
            int16_t *to = (int16_t *)destination + 2 * r * columns;
            vector_half halves[2];
            split_words((vector_words)rows[r], halves);
            memcpy(to, &halves[0], sizeof halves[0]);
            if (2 * r + 1 < count) {
                memcpy(to + columns, &halves[1], sizeof halves[1]);
            }
        } else if (2 * r < count) {
            memcpy((int16_t *)destination + 2 * r * columns, &rows[r], sizeof rows[r]);
        }
    }
}

/* Weights whose order does not change: of one tap, or one channel a block. */
ALWAYS_INLINE void pack_in_order(const conv_pack_panel *task, conv_pack_type type,
                                 const float *factors)
{
    enum { TILE = 2 * CONV_VECTOR_FLOATS };
    const size_t count = task->channels * task->taps;
    const size_t value_bytes = type == CONV_PACK_F32 ? sizeof(float) : sizeof(int16_t);
    /* A pair of channels takes the place of two values. */
    const size_t column_values =
        type == CONV_PACK_INT16_PAIRS || type == CONV_PACK_BF16_PAIRS ? 2 : 1;
    for (size_t column = 0; column < task->columns; column += CONV_VECTOR_FLOATS) {
        const size_t left = column < task->outputs ? task->outputs - column : 0;
        const size_t outputs = left < CONV_VECTOR_FLOATS ? left : CONV_VECTOR_FLOATS;
        const float *weights = task->weights + column * task->output_stride;
        char *destination = (char *)task->panel + column * column_values * value_bytes;
        const size_t value_stride = task->columns * value_bytes;
        size_t i = 0;
        for (; outputs == CONV_VECTOR_FLOATS && i + TILE <= count; i += TILE) {
            pack_tile(type, weights + i, task->output_stride, factors + column, CONV_VECTOR_FLOATS,
                      TILE, task->columns, destination + i * value_stride);
        }
        for (; i < count; i += TILE) {
            pack_tile(type, weights + i, task->output_stride, factors + column, outputs,
                      count - i < TILE ? count - i : TILE, task->columns,
                      destination + i * value_stride);
        }
    }
}

/* ---- blocks of channels, tap by tap ---------------------------------------------------------- */

/* One weight of all outputs, or of a pair of channels (`odd` NULL: the second is zero). */
ALWAYS_INLINE void emit_columns(conv_pack_type type, size_t columns, const float *even,
                                const float *odd, const float *factors, void *destination)
{
    for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
        const vector first = vector_load(even + column);
        if (type == CONV_PACK_F32) {
            vector_store((float *)destination + column, first);
            continue;
        }
        const vector second = odd == NULL ? (vector){0} : vector_load(odd + column);
        const vector_words words = pack_words(type, first, second, vector_load(factors + column));
        memcpy((int16_t *)destination + 2 * column, &words, sizeof words);
    }
}

/* What the packed order groups by blocks of channels and within them by taps; never Winograd's
 * single integers. */
ALWAYS_INLINE void pack_blocks(const conv_pack_panel *task, conv_pack_type type,
                               const float *factors)
{
    const size_t value_bytes = type == CONV_PACK_F32 ? sizeof(float) : sizeof(int16_t);
    const size_t step = type == CONV_PACK_F32 ? 1 : 2; /* channels together */
    _Alignas(64) float staged[PACK_CHANNELS * PACK_TAPS * PACK_COLUMNS];
    const size_t columns = task->columns;
    const size_t taps = task->taps;
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

ALWAYS_INLINE void pack_typed(const conv_pack_panel *task, conv_pack_type type)
{
    float factors[PACK_COLUMNS] = {0};
    if (type == CONV_PACK_INT16 || type == CONV_PACK_INT16_PAIRS) {
        choose_scales(task, type, factors);
    }
    if (task->taps == 1 || task->block_channels == 1) {
        pack_in_order(task, type, factors);
    } else {
        pack_blocks(task, type, factors);
    }
}

static void pack_run(const conv_pack_panel *task)
{
    switch (task->type) {
    case CONV_PACK_F32:
        pack_typed(task, CONV_PACK_F32);
        break;
    case CONV_PACK_INT16:
        pack_typed(task, CONV_PACK_INT16);
        break;
    case CONV_PACK_INT16_PAIRS:
        pack_typed(task, CONV_PACK_INT16_PAIRS);
        break;
    case CONV_PACK_BF16_PAIRS:
        pack_typed(task, CONV_PACK_BF16_PAIRS);
        break;
    }
}

#endif
