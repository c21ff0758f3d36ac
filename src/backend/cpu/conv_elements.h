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

ALWAYS_INLINE void prologue_channels(const conv_prologue *task, const void *source,
                                     float *destination, size_t c, size_t count, bool normalise,
                                     bool silu, bool f16)
{
    vector x = load_channels(source, c, count, f16);
    if (normalise) {
        x = vector_fma(x, load_channels(task->scale, c, count, false),
                       load_channels(task->shift, c, count, false));
    }
    store_channels(destination, c, count, false, silu ? vector_silu(x) : x);
}

ALWAYS_INLINE void prologue_pixels(const conv_prologue *task, bool normalise, bool silu, bool f16)
{
    const size_t value_bytes = f16 ? sizeof(uint16_t) : sizeof(float);
    const size_t whole = task->channels / CONV_VECTOR_FLOATS * CONV_VECTOR_FLOATS;
    const size_t rest = task->channels - whole;
    for (size_t pixel = 0; pixel < task->pixels; pixel++) {
        const uint8_t *source =
            (const uint8_t *)task->source + pixel * task->source_stride * value_bytes;
        float *destination = task->destination + pixel * task->destination_stride;
        for (size_t b = 0; b < task->channels * value_bytes; b += LINE_BYTES) {
            __builtin_prefetch(source + task->ahead * value_bytes + b);
        }
        for (size_t c = 0; c < whole; c += CONV_VECTOR_FLOATS) {
            prologue_channels(task, source, destination, c, CONV_VECTOR_FLOATS, normalise, silu,
                              f16);
        }
        if (rest > 0) {
            prologue_channels(task, source, destination, whole, rest, normalise, silu, f16);
        }
    }
}

ALWAYS_INLINE void prologue_stored(const conv_prologue *task, bool f16)
{
    if (task->scale != NULL) {
        if (task->silu) {
            prologue_pixels(task, true, true, f16);
        } else {
            prologue_pixels(task, true, false, f16);
        }
    } else if (task->silu) {
        prologue_pixels(task, false, true, f16);
    } else {
        prologue_pixels(task, false, false, f16);
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
        vector squares = {0};
        for (size_t c = 0; c < whole; c += CONV_VECTOR_FLOATS) {
            const vector x = vector_load(source + c);
            largest = vector_max(vector_absolute(x), largest);
            squares = vector_fma(x, x, squares);
        }
        vector last = {0};
        if (rest > 0) {
            last = vector_load_part(source + whole, rest);
            largest = vector_max(vector_absolute(last), largest);
            squares = vector_fma(last, last, squares);
        }
        const float by_size = vector_largest(largest) * (1.0f / 32767);
        const float by_norm = sqrtf(vector_sum(squares)) * (1.0f / CONV_INT16_INPUT_NORM);
        const float scale = by_norm > by_size ? by_norm : by_size;
        const float factor = scale > 0.0f ? 1.0f / scale : 0.0f;
        task->scales[row * task->scales_stride] = scale;
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

/* `count` floats at `source`, or zero when there is no source. */
ALWAYS_INLINE vector epilogue_load(const float *source, size_t count)
{
    return source == NULL ? (vector){0} : load_channels(source, 0, count, false);
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
    const bool residual_f16 = task->residual_storage == CONV_STORE_F16;
    const bool output_f16 = task->output_storage == CONV_STORE_F16;
    const bool rounded = task->output_storage == CONV_STORE_ROUNDED;
    const size_t residual_bytes = conv_storage_bytes(task->residual_storage);
    const size_t output_bytes = conv_storage_bytes(task->output_storage);
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
            const uint8_t *residual = task->residual;
            residual += (pixel * task->residual_stride + channel) * residual_bytes;
            y = vector_fma(load_channels(residual, 0, count, residual_f16), residual_scale, y);
        }
        uint8_t *output = task->output;
        output += (pixel * task->output_stride + channel) * output_bytes;
        if (rounded) {
            uint16_t halves[CONV_VECTOR_FLOATS];
            vector_store_f16(halves, y);
            store_channels(output, 0, count, false, vector_load_f16(halves));
        } else {
            store_channels(output, 0, count, output_f16, y);
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
