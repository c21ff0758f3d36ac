/* Prologue and epilogue of convolutions, compiled by each kernel file for its own vectors. */
#ifndef ONESTEP_BACKEND_CPU_CONV_ELEMENTS_H
#define ONESTEP_BACKEND_CPU_CONV_ELEMENTS_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

#define LINE_FLOATS 16 /* of a cache line */

ALWAYS_INLINE void prologue_pixels(const conv_prologue *task, bool normalise, bool silu)
{
    const size_t whole = task->channels / CONV_VECTOR_FLOATS * CONV_VECTOR_FLOATS;
    const size_t rest = task->channels - whole;
    for (size_t pixel = 0; pixel < task->pixels; pixel++) {
        const float *source = task->source + pixel * task->source_stride;
        float *destination = task->destination + pixel * task->destination_stride;
        for (size_t c = 0; c < task->channels; c += LINE_FLOATS) {
            __builtin_prefetch(source + task->ahead + c);
        }
        for (size_t c = 0; c < whole; c += CONV_VECTOR_FLOATS) {
            vector x = vector_load(source + c);
            if (normalise) {
                x = vector_fma(x, vector_load(task->scale + c), vector_load(task->shift + c));
            }
            vector_store(destination + c, silu ? vector_silu(x) : x);
        }
        if (rest > 0) {
            vector x = vector_load_part(source + whole, rest);
            if (normalise) {
                x = vector_fma(x, vector_load_part(task->scale + whole, rest),
                               vector_load_part(task->shift + whole, rest));
            }
            vector_store_part(destination + whole, silu ? vector_silu(x) : x, rest);
        }
    }
}

static void prologue_run(const conv_prologue *task)
{
    if (task->scale != NULL) {
        if (task->silu) {
            prologue_pixels(task, true, true);
        } else {
            prologue_pixels(task, true, false);
        }
    } else if (task->silu) {
        prologue_pixels(task, false, true);
    } else {
        prologue_pixels(task, false, false);
    }
}

ALWAYS_INLINE void quantise_vector(int16_t *destination, vector x, float factor)
{
    const vector_half half = __builtin_convertvector(vector_round(x * factor), vector_half);
    memcpy(destination, &half, sizeof half);
}

static void quantise_run(const conv_quantise *task)
{
    const size_t whole = task->channels / CONV_VECTOR_FLOATS * CONV_VECTOR_FLOATS;
    const size_t rest = task->channels - whole;
    for (size_t row = 0; row < task->rows; row++) {
        const float *source = task->source + row * task->source_stride;
        int16_t *destination = task->destination + row * task->destination_stride;
        vector largest = {0};
        for (size_t c = 0; c < whole; c += CONV_VECTOR_FLOATS) {
            largest = vector_max(vector_absolute(vector_load(source + c)), largest);
        }
        vector last = {0};
        if (rest > 0) {
            last = vector_load_part(source + whole, rest);
            largest = vector_max(vector_absolute(last), largest);
        }
        const float most = vector_largest(largest);
        const float factor = most > 0.0f ? CONV_INT16_INPUT / most : 0.0f;
        task->scales[row * task->scales_stride] = most / CONV_INT16_INPUT;
        size_t c = 0;
        for (; c < whole; c += CONV_VECTOR_FLOATS) {
            quantise_vector(destination + c, vector_load(source + c), factor);
        }
        for (; c < task->padded; c += CONV_VECTOR_FLOATS) {
            quantise_vector(destination + c, last, factor);
            last = (vector){0};
        }
    }
}

/* Part `index` of `floats` floats at `source`, or zero when there is no source. */
ALWAYS_INLINE vector epilogue_load(const float *source, size_t count)
{
    if (source == NULL) {
        return (vector){0};
    }
    return count == CONV_VECTOR_FLOATS ? vector_load(source) : vector_load_part(source, count);
}

/* All rows of `count` channels (at most a vector) from `channel` on; `column` is where their sums
 * stand and `gate_column` where the gates do. */
ALWAYS_INLINE void epilogue_channels(const conv_epilogue *task, size_t channel, size_t count,
                                     size_t column, size_t gate_column, bool geglu,
                                     conv_activation activation)
{
    const vector bias = epilogue_load(task->bias == NULL ? NULL : task->bias + channel, count);
    const vector image_bias =
        epilogue_load(task->image_bias == NULL ? NULL : task->image_bias + channel, count);
    const vector gate_bias =
        epilogue_load(!geglu || task->gate_bias == NULL ? NULL : task->gate_bias + channel, count);
    const vector output_scale = vector_set(task->output_scale);
    const vector residual_scale = vector_set(task->residual_scale);
    vector sum = {0};
    vector square = {0};
    for (size_t row = 0; row < task->rows; row++) {
        const float *sums = task->sums + row * task->sums_stride;
        /* Sums are padded to whole panels. The image bias comes after the bias, where a residual
         * would: on pictures of one pixel the two cannot be told apart, and must round alike. */
        vector y = vector_load(sums + column) + bias + image_bias;
        if (geglu) {
            y *= vector_gelu(vector_load(sums + gate_column) + gate_bias);
        }
        switch (activation) {
        case CONV_LINEAR:
            break;
        case CONV_SILU:
            y = vector_silu(y);
            break;
        case CONV_GELU:
            y = vector_gelu(y);
            break;
        case CONV_QUICK_GELU:
            y = vector_quick_gelu(y);
            break;
        }
        y *= output_scale;
        const size_t pixel = task->pixels[row];
        if (task->residual != NULL) {
            const float *residual = task->residual + pixel * task->residual_stride + channel;
            y = vector_fma(epilogue_load(residual, count), residual_scale, y);
        }
        float *output = task->output + pixel * task->output_stride + channel;
        if (count == CONV_VECTOR_FLOATS) {
            vector_store(output, y);
        } else {
            vector_store_part(output, y, count);
        }
        sum += y;
        square = vector_fma(y, y, square);
    }
    if (task->statistics_sum != NULL) {
        float *sums = task->statistics_sum + channel;
        float *squares = task->statistics_square + channel;
        sum += epilogue_load(sums, count);
        square += epilogue_load(squares, count);
        vector_store_part(sums, sum, count);
        vector_store_part(squares, square, count);
    }
}

ALWAYS_INLINE void epilogue_all(const conv_epilogue *task, size_t columns, bool geglu,
                                conv_activation activation)
{
    for (size_t c = 0; c < task->channels; c += CONV_VECTOR_FLOATS) {
        const size_t column = geglu ? c / columns * 2 * columns + c % columns : c;
        const size_t left = task->channels - c;
        if (left >= CONV_VECTOR_FLOATS) {
            epilogue_channels(task, c, CONV_VECTOR_FLOATS, column, column + columns, geglu,
                              activation);
        } else {
            epilogue_channels(task, c, left, column, column + columns, geglu, activation);
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
