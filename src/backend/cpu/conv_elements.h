/* Prologue and epilogue of convolutions, compiled by each kernel file for its own vectors. */
#ifndef ONESTEP_BACKEND_CPU_CONV_ELEMENTS_H
#define ONESTEP_BACKEND_CPU_CONV_ELEMENTS_H

#include <math.h>

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

#define LINE_FLOATS 16 /* of a cache line */
#define LINE_BYTES  64

/* `count` (at most a vector) stored channels from channel `c` of a pixel on; the rest is zero. */
ALWAYS_INLINE vector load_channels(const void *pixel, size_t c, size_t count, bool f16)
{
    if (!f16) {
        const float *source = (const float *)pixel + c;
        return count == CONV_VECTOR_FLOATS ? vector_load(source) : vector_load_part(source, count);
    }
    const uint16_t *source = (const uint16_t *)pixel + c;
    if (count == CONV_VECTOR_FLOATS) {
        return vector_load_f16(source);
    }
    uint16_t part[CONV_VECTOR_FLOATS] = {0};
    memcpy(part, source, count * sizeof *part);
    return vector_load_f16(part);
}

ALWAYS_INLINE void store_channels(void *pixel, size_t c, size_t count, bool f16, vector x)
{
    if (!f16) {
        float *destination = (float *)pixel + c;
        if (count == CONV_VECTOR_FLOATS) {
            vector_store(destination, x);
        } else {
            vector_store_part(destination, x, count);
        }
        return;
    }
    uint16_t *destination = (uint16_t *)pixel + c;
    if (count == CONV_VECTOR_FLOATS) {
        vector_store_f16(destination, x);
        return;
    }
    uint16_t part[CONV_VECTOR_FLOATS];
    vector_store_f16(part, x);
    memcpy(destination, part, count * sizeof *part);
}

/* Fetches `bytes` from `first` on into the second cache: from memory they come there twice as fast
 * as into the first, which has few places for lines on their way. */
ALWAYS_INLINE void fetch_lines(const void *first, size_t bytes)
{
    for (size_t b = 0; b < bytes; b += LINE_BYTES) {
        __builtin_prefetch((const char *)first + b, 0, 2);
    }
}

/* `vectors` vectors of channels from channel `c` of a pixel on, each whole, or one of `count`. */
ALWAYS_INLINE void prologue_channels(const conv_prologue *task, const void *source,
                                     float *destination, size_t c, const size_t vectors,
                                     size_t count, bool normalise, conv_input_silu silu, bool f16)
{
    vector x[VECTORS_MOST];
    EACH_VECTOR (i, vectors) {
        const size_t channel = c + i * CONV_VECTOR_FLOATS;
        x[i] = load_channels(source, channel, count, f16);
        if (normalise) {
            x[i] = vector_fma(x[i], load_channels(task->scale, channel, count, false),
                              load_channels(task->shift, channel, count, false));
        }
    }
    if (silu != CONV_NO_SILU) {
        vectors_silu(x, vectors, silu == CONV_COARSE_SILU);
    }
    EACH_VECTOR (i, vectors) {
        store_channels(destination, c + i * CONV_VECTOR_FLOATS, count, false, x[i]);
    }
}

ALWAYS_INLINE void prologue_pixels(const conv_prologue *task, bool normalise, conv_input_silu silu,
                                   bool f16)
{
    enum { SEVERAL = VECTORS_MOST * CONV_VECTOR_FLOATS };
    const size_t value_bytes = f16 ? sizeof(uint16_t) : sizeof(float);
    for (size_t pixel = 0; pixel < task->pixels; pixel++) {
        const uint8_t *source =
            (const uint8_t *)task->source + pixel * task->source_stride * value_bytes;
        float *destination = task->destination + pixel * task->destination_stride;
        fetch_lines(source + task->ahead * value_bytes, task->channels * value_bytes);
        size_t c = 0;
        for (; c + SEVERAL <= task->channels; c += SEVERAL) {
            prologue_channels(task, source, destination, c, VECTORS_MOST, CONV_VECTOR_FLOATS,
                              normalise, silu, f16);
        }
        for (; c + CONV_VECTOR_FLOATS <= task->channels; c += CONV_VECTOR_FLOATS) {
            prologue_channels(task, source, destination, c, 1, CONV_VECTOR_FLOATS, normalise, silu,
                              f16);
        }
        if (c < task->channels) {
            prologue_channels(task, source, destination, c, 1, task->channels - c, normalise, silu,
                              f16);
        }
    }
}

ALWAYS_INLINE void prologue_normalised(const conv_prologue *task, bool normalise, bool f16)
{
    switch (task->silu) {
    case CONV_NO_SILU:
        prologue_pixels(task, normalise, CONV_NO_SILU, f16);
        break;
    case CONV_EXACT_SILU:
        prologue_pixels(task, normalise, CONV_EXACT_SILU, f16);
        break;
    case CONV_COARSE_SILU:
        prologue_pixels(task, normalise, CONV_COARSE_SILU, f16);
        break;
    }
}

ALWAYS_INLINE void prologue_stored(const conv_prologue *task, bool f16)
{
    if (task->scale != NULL) {
        prologue_normalised(task, true, f16);
    } else {
        prologue_normalised(task, false, f16);
    }
}

static void prologue_run(const conv_prologue *task)
{
    if (task->storage == CONV_STORE_F16) {
        prologue_stored(task, true);
    } else {
        prologue_stored(task, false);
    }
}

/* The largest magnitude and the sum of squares of whole lines and a last one, in four lanes each.
 * Four chains of each, so that none waits for the one before it. */
ALWAYS_INLINE void measure_row(const float *row, size_t whole, const float *last,
                               vector_four *largest, vector_four *square)
{
    enum { CHAINS = 4 };
    vector most[CHAINS] = {{0}};
    vector sums[CHAINS] = {{0}};
    for (size_t c = 0; c < whole;) {
        const size_t left = (whole - c) / CONV_VECTOR_FLOATS;
        const size_t chains = left < CHAINS ? left : CHAINS;
#pragma GCC unroll 4
        for (size_t chain = 0; chain < CHAINS; chain++) {
            if (chain < chains) {
                const vector x = vector_load(row + c + chain * CONV_VECTOR_FLOATS);
                most[chain] = vector_max(vector_absolute(x), most[chain]);
                sums[chain] = vector_fma(x, x, sums[chain]);
            }
        }
        c += chains * CONV_VECTOR_FLOATS;
    }
    for (size_t c = 0; last != NULL && c < LINE_FLOATS; c += CONV_VECTOR_FLOATS) {
        const vector x = vector_load(last + c);
        most[0] = vector_max(vector_absolute(x), most[0]);
        sums[0] = vector_fma(x, x, sums[0]);
    }
    *largest =
        vector_fold_largest(vector_max(vector_max(most[0], most[1]), vector_max(most[2], most[3])));
    *square = vector_fold_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* A cache line of floats. */
ALWAYS_INLINE void quantise_line(int16_t *destination, const float *source, float factor)
{
#if CONV_VECTOR_FLOATS > 4
    /* AVX-512's own conversion to half the width takes twice as long as all of this. */
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(source), factors));
    const __m256i second = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(source + 8), factors));
    const __m256i halves =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8); /* each has 128 bits */
    memcpy(destination, &halves, sizeof halves);
#else
    for (size_t c = 0; c < LINE_FLOATS; c += CONV_VECTOR_FLOATS) {
        const vector_half half =
            __builtin_convertvector(vector_round(vector_load(source + c) * factor), vector_half);
        memcpy(destination + c, &half, sizeof half);
    }
#endif
}

enum { QUANTISE_ROWS = 16 }; /* whose scales are computed side by side */

/* What rows are measured by -> their scales and what to multiply by. */
ALWAYS_INLINE void quantise_scales(const vector_four *row_largest, const vector_four *row_squares,
                                   float *scales, float *factors)
{
    float largest[QUANTISE_ROWS], squares[QUANTISE_ROWS];
    for (size_t r = 0; r < QUANTISE_ROWS; r += 4) {
        const vector_four most = four_largest(row_largest + r), sums = four_sums(row_squares + r);
        memcpy(largest + r, &most, sizeof most);
        memcpy(squares + r, &sums, sizeof sums);
    }
    for (size_t r = 0; r < QUANTISE_ROWS; r += CONV_VECTOR_FLOATS) {
        const vector by_size = vector_load(largest + r) * (1.0f / 32767);
        const vector by_norm =
            vector_root(vector_load(squares + r)) * (1.0f / CONV_INT16_INPUT_NORM);
        const vector scale = vector_max(by_norm, by_size);
        const vector_bits positive = scale > 0.0f;
        vector_store(scales + r, scale);
        vector_store(factors + r, (vector)((vector_bits)(1.0f / scale) & positive));
    }
}

/* Every second line of a row that will be quantised, from line `first` on: each of the two passes
 * over a row fetches half of another one, so that memory has work all the time. */
ALWAYS_INLINE void fetch_half_row(const conv_quantise *task, const float *row, size_t first)
{
    for (size_t c = first * LINE_FLOATS; task->ahead && c < task->channels; c += 2 * LINE_FLOATS) {
        __builtin_prefetch(row + task->ahead + c, 0, 2);
    }
}

/* Rows first..first+rows-1, at most QUANTISE_ROWS. */
ALWAYS_INLINE void quantise_rows(const conv_quantise *task, size_t first, size_t rows)
{
    const size_t whole = task->channels / LINE_FLOATS * LINE_FLOATS;
    const size_t rest = task->channels - whole;
    const float *source = task->source + first * task->source_stride;
    float lasts[QUANTISE_ROWS][LINE_FLOATS]; /* what is left of rows */
    vector_four largest[QUANTISE_ROWS] = {{0}};
    vector_four squares[QUANTISE_ROWS] = {{0}};
    for (size_t r = 0; r < rows; r++) {
        const float *row = source + r * task->source_stride;
        fetch_half_row(task, row, 0);
        fetch_lines(task->destination + (first + r) * task->destination_stride,
                    task->padded * sizeof *task->destination);
        if (rest > 0) {
            memset(lasts[r], 0, sizeof lasts[r]);
            memcpy(lasts[r], row + whole, rest * sizeof(float));
        }
        measure_row(row, whole, rest > 0 ? lasts[r] : NULL, &largest[r], &squares[r]);
    }
    float scales[QUANTISE_ROWS];
    float factors[QUANTISE_ROWS];
    quantise_scales(largest, squares, scales, factors);
    for (size_t r = 0; r < rows; r++) {
        const float *row = source + r * task->source_stride;
        int16_t *destination = task->destination + (first + r) * task->destination_stride;
        task->scales[(first + r) * task->scales_stride] = scales[r];
        fetch_half_row(task, row, 1);
        size_t c = 0;
        for (; c < whole; c += LINE_FLOATS) {
            quantise_line(destination + c, row + c, factors[r]);
        }
        if (rest > 0) {
            quantise_line(destination + c, lasts[r], factors[r]);
            c += LINE_FLOATS;
        }
        if (c < task->padded) {
            memset(destination + c, 0, (task->padded - c) * sizeof *destination);
        }
    }
}

static void quantise_run(const conv_quantise *task)
{
    for (size_t row = 0; row < task->rows; row += QUANTISE_ROWS) {
        const size_t left = task->rows - row;
        quantise_rows(task, row, left < QUANTISE_ROWS ? left : QUANTISE_ROWS);
    }
}

/* `count` floats at `source`, or zero when there is no source. */
ALWAYS_INLINE vector epilogue_load(const float *source, size_t count)
{
    return source == NULL ? (vector){0} : load_channels(source, 0, count, false);
}

ALWAYS_INLINE vector epilogue_activate(vector y, conv_activation activation)
{
    switch (activation) {
    case CONV_LINEAR:
        break;
    case CONV_SILU:
        return vector_silu(y);
    case CONV_GELU:
        return vector_gelu(y);
    case CONV_QUICK_GELU:
        return vector_quick_gelu(y);
    }
    return y;
}

/* Stores `x` as channels c..c+count-1 of a pixel. */
ALWAYS_INLINE void epilogue_store(void *pixel, size_t c, size_t count, conv_storage storage,
                                  vector x)
{
    if (storage == CONV_STORE_ROUNDED) {
        uint16_t halves[CONV_VECTOR_FLOATS];
        vector_store_f16(halves, x);
        store_channels(pixel, c, count, false, vector_load_f16(halves));
    } else {
        store_channels(pixel, c, count, storage == CONV_STORE_F16, x);
    }
}

/* All rows of `vectors` vectors of channels from `channel` on, each whole, or one of `count`;
 * `column` is where their sums stand and `gate_column` where the gates do. Several vectors, so that
 * memory is read and written line after line. */
ALWAYS_INLINE void epilogue_channels(const conv_epilogue *task, size_t channel,
                                     const size_t vectors, size_t count, size_t column,
                                     size_t gate_column, bool geglu, conv_activation activation)
{
    const vector output_scale = vector_set(task->output_scale);
    const vector residual_scale = vector_set(task->residual_scale);
    const bool residual_f16 = task->residual_storage == CONV_STORE_F16;
    const size_t residual_bytes = conv_storage_bytes(task->residual_storage);
    const size_t output_bytes = conv_storage_bytes(task->output_storage);
    vector bias[VECTORS_MOST], image_bias[VECTORS_MOST], gate_bias[VECTORS_MOST];
    vector sum[VECTORS_MOST] = {{0}}, square[VECTORS_MOST] = {{0}};
    EACH_VECTOR (i, vectors) {
        const size_t c = channel + i * CONV_VECTOR_FLOATS;
        bias[i] = epilogue_load(task->bias == NULL ? NULL : task->bias + c, count);
        image_bias[i] =
            epilogue_load(task->image_bias == NULL ? NULL : task->image_bias + c, count);
        gate_bias[i] =
            epilogue_load(!geglu || task->gate_bias == NULL ? NULL : task->gate_bias + c, count);
    }
    for (size_t row = 0; row < task->rows; row++) {
        const float *sums = task->sums + row * task->sums_stride;
        const size_t pixel = task->pixels[row];
        uint8_t *output =
            (uint8_t *)task->output + (pixel * task->output_stride + channel) * output_bytes;
        fetch_lines(output + task->ahead * task->output_stride * output_bytes,
                    vectors * count * output_bytes);
        const uint8_t *residual = task->residual;
        if (residual != NULL) {
            residual += (pixel * task->residual_stride + channel) * residual_bytes;
            fetch_lines(residual + task->ahead * task->residual_stride * residual_bytes,
                        vectors * count * residual_bytes);
        }
        EACH_VECTOR (i, vectors) {
            const size_t c = i * CONV_VECTOR_FLOATS;
            /* Sums are padded to whole panels. The image bias comes after the bias, where a
             * residual would: on pictures of one pixel the two cannot be told apart, and must round
             * alike. */
            vector y = vector_load(sums + column + c) + bias[i] + image_bias[i];
            if (geglu) {
                y *= vector_gelu(vector_load(sums + gate_column + c) + gate_bias[i]);
            }
            y = epilogue_activate(y, activation) * output_scale;
            if (residual != NULL) {
                y = vector_fma(load_channels(residual, c, count, residual_f16), residual_scale, y);
            }
            epilogue_store(output, c, count, task->output_storage, y);
            sum[i] += y;
            square[i] = vector_fma(y, y, square[i]);
        }
    }
    for (size_t i = 0; task->statistics_sum != NULL && i < vectors; i++) {
        float *sums = task->statistics_sum + channel + i * CONV_VECTOR_FLOATS;
        float *squares = task->statistics_square + channel + i * CONV_VECTOR_FLOATS;
        vector_store_part(sums, sum[i] + epilogue_load(sums, count), count);
        vector_store_part(squares, square[i] + epilogue_load(squares, count), count);
    }
}

ALWAYS_INLINE void epilogue_all(const conv_epilogue *task, const size_t columns, bool geglu,
                                conv_activation activation)
{
    /* Those of geglu's values that stand side by side are a panel at most. */
    const size_t panel = columns / CONV_VECTOR_FLOATS;
    const size_t vectors = geglu && panel < VECTORS_MOST ? panel : VECTORS_MOST;
    size_t done;
    for (size_t c = 0; c < task->channels; c += done) {
        const size_t column = geglu ? c / columns * 2 * columns + c % columns : c;
        const size_t left = task->channels - c;
        if (left >= vectors * CONV_VECTOR_FLOATS) {
            done = vectors * CONV_VECTOR_FLOATS;
            epilogue_channels(task, c, vectors, CONV_VECTOR_FLOATS, column, column + columns, geglu,
                              activation);
        } else if (left >= CONV_VECTOR_FLOATS) {
            done = CONV_VECTOR_FLOATS;
            epilogue_channels(task, c, 1, CONV_VECTOR_FLOATS, column, column + columns, geglu,
                              activation);
        } else {
            done = left;
            epilogue_channels(task, c, 1, left, column, column + columns, geglu, activation);
        }
    }
}

ALWAYS_INLINE void epilogue_run_columns(const conv_epilogue *task, size_t columns)
{
    if (task->geglu) {
        epilogue_all(task, columns, true, CONV_LINEAR);
        return;
    }
    switch (task->activation) {
    case CONV_LINEAR:
        epilogue_all(task, columns, false, CONV_LINEAR);
        break;
    case CONV_SILU:
        epilogue_all(task, columns, false, CONV_SILU);
        break;
    case CONV_GELU:
        epilogue_all(task, columns, false, CONV_GELU);
        break;
    case CONV_QUICK_GELU:
        epilogue_all(task, columns, false, CONV_QUICK_GELU);
        break;
    }
}

#endif
