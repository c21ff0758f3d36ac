/* The tensor kernels in terms of conv_vector.h: compiled by tensor_plain.c, tensor_avx2.c, ... each
 * for its own vectors. */
#ifndef ONESTEP_BACKEND_CPU_TENSOR_LOOPS_H
#define ONESTEP_BACKEND_CPU_TENSOR_LOOPS_H

#include "backend/cpu/conv_vector.h"
#include "backend/cpu/tensor_kernels.h"

#include <math.h>

enum { WIDTH = CONV_VECTOR_FLOATS };

ALWAYS_INLINE vector vector_select(vector_bits mask, vector yes, vector no)
{
    return (vector)(((vector_bits)yes & mask) | ((vector_bits)no & ~mask));
}

/* 2^v for v <= 0 (below -126 it stays at 2^-126), relative error below 2e-7. */
ALWAYS_INLINE vector vector_exp2(vector v)
{
    v = vector_max(vector_set(-126.0f), v);         /* in this order NaN stays */
    const vector rounder = vector_set(12582912.0f); /* 1.5 * 2^23, as in vector_exp */
    const vector shifted = v + rounder;
    return vector_power_of_two(shifted, v - (shifted - rounder));
}

/* ---- element by element -----------------------------------------------------------------------
 */

/* A loop over `count` elements of x (and b) in vectors, then the tail in a part of one. */
#define ELEMENT_LOOP(y, x, count, expression)                                                      \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + WIDTH <= (count); i += WIDTH) {                                                 \
            const vector v = vector_load((x) + i);                                                 \
            vector_store((y) + i, expression(v));                                                  \
        }                                                                                          \
        if (i < (count)) {                                                                         \
            const vector v = vector_load_part((x) + i, (count)-i);                                 \
            vector_store_part((y) + i, expression(v), (count)-i);                                  \
        }                                                                                          \
    } while (0)

static void silu(float *y, const float *x, size_t count)
{
    ELEMENT_LOOP(y, x, count, vector_silu);
}

static void gelu(float *y, const float *x, size_t count)
{
    ELEMENT_LOOP(y, x, count, vector_gelu);
}

static void quick_gelu(float *y, const float *x, size_t count)
{
    ELEMENT_LOOP(y, x, count, vector_quick_gelu);
}

ALWAYS_INLINE vector exponential_vector(vector v)
{
    /* vector_exp is good up to 87: the last 1.72 before float ends come by a factor of e^2. */
    const vector_bits large = v > 86.0f;
    const vector reduced = vector_select(large, v - 2.0f, v);
    const vector ordinary =
        vector_exp(vector_select((vector_bits)(reduced > 87.0f), vector_set(87.0f), reduced));
    const vector result = vector_select(large, ordinary * 7.38905609893065f, ordinary);
    const vector bounded = vector_select((vector_bits)(v > 88.7228f), vector_set(INFINITY), result);
    return vector_select((vector_bits)(v == v), bounded, v);
}

static void exponential(float *y, const float *x, size_t count)
{
    ELEMENT_LOOP(y, x, count, exponential_vector);
}

static void geglu(float *y, const float *x, size_t channels)
{
    size_t i = 0;
    for (; i + WIDTH <= channels; i += WIDTH) {
        vector_store(y + i, vector_load(x + i) * vector_gelu(vector_load(x + channels + i)));
    }
    if (i < channels) {
        const size_t rest = channels - i;
        const vector gate = vector_gelu(vector_load_part(x + channels + i, rest));
        vector_store_part(y + i, vector_load_part(x + i, rest) * gate, rest);
    }
}

static void clamp(float *y, const float *x, size_t count, float low, float high)
{
#define CLAMP(v)                                                                                   \
    vector_select((vector_bits)((v) < low), vector_set(low),                                       \
                  vector_select((vector_bits)((v) > high), vector_set(high), (v)))
    ELEMENT_LOOP(y, x, count, CLAMP);
#undef CLAMP
}

static void scale(float *y, const float *x, size_t count, float factor, float offset)
{
#define SCALE(v) vector_fma((v), vector_set(factor), vector_set(offset))
    ELEMENT_LOOP(y, x, count, SCALE);
#undef SCALE
}

/* Rounds like a convolution's epilogue with `a` as its residual: a fused convolution gives the same
 * bytes as one that is watched. */
static void combine(float *y, const float *a, float scale_a, const float *b, float scale_b,
                    size_t count)
{
    const vector va = vector_set(scale_a), vb = vector_set(scale_b);
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        vector_store(y + i, vector_fma(vector_load(a + i), va, vector_load(b + i) * vb));
    }
    if (i < count) {
        const size_t rest = count - i;
        const vector sum = vector_load_part(b + i, rest) * vb;
        vector_store_part(y + i, vector_fma(vector_load_part(a + i, rest), va, sum), rest);
    }
}

static void multiply(float *y, const float *a, const float *b, size_t count)
{
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        vector_store(y + i, vector_load(a + i) * vector_load(b + i));
    }
    if (i < count) {
        const size_t rest = count - i;
        vector_store_part(y + i, vector_load_part(a + i, rest) * vector_load_part(b + i, rest),
                          rest);
    }
}

static bool all_finite(const float *x, size_t count)
{
    /* x * 0 is 0 for finite x, else NaN; NaN stays in a sum. */
    vector sums[4] = {{0}};
    size_t i = 0;
    for (; i + 4 * WIDTH <= count; i += 4 * WIDTH) {
        for (size_t part = 0; part < 4; part++) {
            sums[part] = vector_fma(vector_load(x + i + part * WIDTH), vector_set(0), sums[part]);
        }
    }
    for (; i < count; i += WIDTH) {
        const size_t rest = count - i < WIDTH ? count - i : WIDTH;
        sums[0] = vector_fma(vector_load_part(x + i, rest), vector_set(0), sums[0]);
    }
    return vector_sum(sums[0] + sums[1] + (sums[2] + sums[3])) == 0;
}

/* ---- normalisation ----------------------------------------------------------------------------
 */

/* Adds the sums over `pixels` (few, so that their lines stay in the first cache) of one vector of
 * channels. */
ALWAYS_INLINE void channel_sums_vector(float *sums, const float *x, size_t pixels, size_t channels,
                                       size_t count)
{
    vector sum = {0}, square = {0};
    for (size_t p = 0; p < pixels; p++) {
        const float *source = x + p * channels;
        const vector v = count == WIDTH ? vector_load(source) : vector_load_part(source, count);
        sum += v;
        square = vector_fma(v, v, square);
    }
    if (count == WIDTH) {
        vector_store(sums, vector_load(sums) + sum);
        vector_store(sums + channels, vector_load(sums + channels) + square);
    } else {
        vector_store_part(sums, vector_load_part(sums, count) + sum, count);
        vector_store_part(sums + channels, vector_load_part(sums + channels, count) + square,
                          count);
    }
}

static void channel_sums(float *sums, const float *x, size_t pixels, size_t channels)
{
    enum { STRIP = 8 };
    memset(sums, 0, 2 * channels * sizeof *sums);
    for (size_t p = 0; p < pixels; p += STRIP) {
        const size_t strip = pixels - p < STRIP ? pixels - p : STRIP;
        const float *source = x + p * channels;
        size_t c = 0;
        for (; c + WIDTH <= channels; c += WIDTH) {
            channel_sums_vector(sums + c, source + c, strip, channels, WIDTH);
        }
        if (c < channels) {
            channel_sums_vector(sums + c, source + c, strip, channels, channels - c);
        }
    }
}

ALWAYS_INLINE void normalise_pixels(float *y, const float *x, size_t pixels, size_t channels,
                                    const float *factor, const float *shift, const bool swish)
{
    for (size_t p = 0; p < pixels; p++) {
        size_t c = 0;
        for (; c + WIDTH <= channels; c += WIDTH) {
            const vector v =
                vector_fma(vector_load(x + c), vector_load(factor + c), vector_load(shift + c));
            vector_store(y + c, swish ? vector_silu(v) : v);
        }
        if (c < channels) {
            const size_t rest = channels - c;
            const vector v =
                vector_fma(vector_load_part(x + c, rest), vector_load_part(factor + c, rest),
                           vector_load_part(shift + c, rest));
            vector_store_part(y + c, swish ? vector_silu(v) : v, rest);
        }
        x += channels;
        y += channels;
    }
}

static void normalise(float *y, const float *x, size_t pixels, size_t channels, const float *factor,
                      const float *shift, bool swish)
{
    if (swish) {
        normalise_pixels(y, x, pixels, channels, factor, shift, true);
    } else {
        normalise_pixels(y, x, pixels, channels, factor, shift, false);
    }
}

static void layer_norm(float *y, const float *x, size_t channels, const float *gamma,
                       const float *beta, float epsilon)
{
    const size_t whole = channels / WIDTH * WIDTH, rest = channels - whole;
    vector sums = {0};
    for (size_t c = 0; c < whole; c += WIDTH) {
        sums += vector_load(x + c);
    }
    if (rest) {
        sums += vector_load_part(x + whole, rest);
    }
    const float mean = vector_sum(sums) / (float)channels;
    vector squares = {0};
    for (size_t c = 0; c < whole; c += WIDTH) {
        const vector v = vector_load(x + c) - mean;
        squares = vector_fma(v, v, squares);
    }
    float square = vector_sum(squares);
    for (size_t c = whole; c < channels; c++) {
        const float v = x[c] - mean;
        square += v * v;
    }
    const float factor = 1.0f / sqrtf(square / (float)channels + epsilon);
    for (size_t c = 0; c < whole; c += WIDTH) {
        const vector v = (vector_load(x + c) - mean) * factor;
        vector_store(y + c, vector_fma(v, vector_load(gamma + c), vector_load(beta + c)));
    }
    if (rest) {
        const vector v = (vector_load_part(x + whole, rest) - mean) * factor;
        vector_store_part(y + whole,
                          vector_fma(v, vector_load_part(gamma + whole, rest),
                                     vector_load_part(beta + whole, rest)),
                          rest);
    }
}

/* ---- attention --------------------------------------------------------------------------------
 */

ALWAYS_INLINE void store_integers(int16_t *integers, vector weights)
{
    const vector_half half =
        __builtin_convertvector(vector_round(weights * (float)SOFTMAX_INTEGER), vector_half);
    memcpy(integers, &half, sizeof half);
}

/* One row: `keys` scores that count. Returns their sum. */
ALWAYS_INLINE float softmax_row(float *scores, int16_t *integers, size_t keys, size_t padded,
                                float largest)
{
    const vector top = vector_set(largest);
    vector sums[2] = {{0}};
    size_t i = 0;
    for (; i + 2 * WIDTH <= keys; i += 2 * WIDTH) {
        const vector a = vector_exp2(vector_load(scores + i) - top);
        const vector b = vector_exp2(vector_load(scores + i + WIDTH) - top);
        if (integers) {
            store_integers(integers + i, a);
            store_integers(integers + i + WIDTH, b);
        } else {
            vector_store(scores + i, a);
            vector_store(scores + i + WIDTH, b);
        }
        sums[0] += a;
        sums[1] += b;
    }
    float sum = vector_sum(sums[0] + sums[1]);
    const size_t rest = keys - i;
    if (rest) {
        float tail[2 * WIDTH] = {0};
        memcpy(tail, scores + i, rest * sizeof *tail);
        vector_store(tail, vector_exp2(vector_load(tail) - top));
        vector_store(tail + WIDTH, vector_exp2(vector_load(tail + WIDTH) - top));
        memcpy(scores + i, tail, rest * sizeof *tail);
        for (size_t j = 0; j < rest; j++) {
            sum += tail[j];
        }
        if (integers) {
            int16_t rounded[2 * WIDTH];
            store_integers(rounded, vector_load(tail));
            store_integers(rounded + WIDTH, vector_load(tail + WIDTH));
            memcpy(integers + i, rounded, rest * sizeof *rounded);
        }
    }
    memset(scores + keys, 0, (padded - keys) * sizeof *scores);
    if (integers) {
        memset(integers + keys, 0, (padded - keys) * sizeof *integers);
    }
    return sum;
}

ALWAYS_INLINE float largest_of(const float *scores, size_t keys)
{
    float largest = -INFINITY;
    size_t i = 0;
    if (keys >= WIDTH) {
        vector top = vector_load(scores);
        for (i = WIDTH; i + WIDTH <= keys; i += WIDTH) {
            top = vector_max(vector_load(scores + i), top);
        }
        largest = vector_largest(top);
    }
    for (; i < keys; i++) {
        largest = scores[i] > largest ? scores[i] : largest;
    }
    return largest;
}

ALWAYS_INLINE float exp2_of(float v)
{
    float values[WIDTH];
    vector_store(values, vector_exp2(vector_set(v)));
    return values[0];
}

ALWAYS_INLINE void softmax_rows(const softmax_block *block, const bool integers)
{
    for (size_t r = 0; r < block->rows; r++) {
        float *scores = block->scores + r * block->stride;
        int16_t *rounded = integers ? block->integers + r * block->integers_stride : NULL;
        const ptrdiff_t seen = block->visible + (ptrdiff_t)r;
        if (seen <= 0) {
            memset(scores, 0, block->padded * sizeof *scores);
            if (integers) {
                memset(rounded, 0, block->padded * sizeof *rounded);
            }
            block->factor[r] = 1;
            continue;
        }
        const size_t keys = (size_t)seen < block->keys ? (size_t)seen : block->keys;
        const float before = block->first ? -INFINITY : block->largest[r];
        const float here = largest_of(scores, keys);
        const float largest = here > before ? here : before;
        const float factor = block->first ? 0 : exp2_of(before - largest);
        const float sum = softmax_row(scores, rounded, keys, block->padded, largest);
        block->sum[r] = block->first ? sum : block->sum[r] * factor + sum;
        block->largest[r] = largest;
        block->factor[r] = factor;
    }
}

static void softmax(const softmax_block *block)
{
    if (block->integers) {
        softmax_rows(block, true);
    } else {
        softmax_rows(block, false);
    }
}

#define TENSOR_KERNELS_TABLE(suffix, its_level)                                                    \
    const tensor_kernels tensor_kernels_##suffix = {                                               \
        .name = #suffix,                                                                           \
        .level = its_level,                                                                        \
        .silu = silu,                                                                              \
        .gelu = gelu,                                                                              \
        .quick_gelu = quick_gelu,                                                                  \
        .exponential = exponential,                                                                \
        .geglu = geglu,                                                                            \
        .clamp = clamp,                                                                            \
        .scale = scale,                                                                            \
        .combine = combine,                                                                        \
        .multiply = multiply,                                                                      \
        .channel_sums = channel_sums,                                                              \
        .normalise = normalise,                                                                    \
        .layer_norm = layer_norm,                                                                  \
        .softmax = softmax,                                                                        \
        .all_finite = all_finite,                                                                  \
    }

#endif
