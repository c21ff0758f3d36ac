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

/* The same within 1e-4: enough where the result becomes a byte. */
ALWAYS_INLINE vector vector_exp2_for_bytes(vector v)
{
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    v = vector_max(vector_set(-126.0f), v); /* no subnormal numbers, which some CPUs are slow at */
    const vector rest = (vector)_mm512_reduce_ps((__m512)v, _MM_FROUND_TO_NEG_INF);
    vector sum = vector_set(0.07802427503726149f);
    sum = vector_fma(sum, rest, vector_set(0.22606726686182926f));
    sum = vector_fma(sum, rest, vector_set(0.6958336265348416f));
    sum = vector_fma(sum, rest, vector_set(0.9999251946412023f));
    return (vector)_mm512_scalef_ps((__m512)sum, (__m512)v); /* by 2^floor(v) */
#else
    return vector_exp2(v);
#endif
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

enum { GROUP = 4 * WIDTH }; /* weights that are rounded and stored together */

/* Weights from 0 to 32767 -> the nearest integers. */
ALWAYS_INLINE vector_bits round_weights(vector weights)
{
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    return (vector_bits)_mm512_cvtps_epi32((__m512)weights);
#elif CONV_VECTOR_FLOATS == 8
    return (vector_bits)_mm256_cvtps_epi32((__m256)weights);
#else
    return vector_round(weights) & 0xffff;
#endif
}

/* AVX's conversions to less than a vector work on 128 bits each: the permutations put their results
 * in order. */
ALWAYS_INLINE void store_words(int16_t *words, const vector_bits x[4])
{
    for (size_t i = 0; i < 4; i += 2) {
#if CONV_VECTOR_FLOATS == 16
        const vector_bits order = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
        const __m512i both = _mm512_packs_epi32((__m512i)x[i], (__m512i)x[i + 1]);
        const __m512i result = _mm512_permutexvar_epi32((__m512i)order, both);
#elif CONV_VECTOR_FLOATS == 8
        const __m256i both = _mm256_packs_epi32((__m256i)x[i], (__m256i)x[i + 1]);
        const __m256i result = _mm256_permute4x64_epi64(both, 0xd8);
#else
        const vector_half result[2] = {__builtin_convertvector(x[i], vector_half),
                                       __builtin_convertvector(x[i + 1], vector_half)};
#endif
        memcpy(words + i * WIDTH, &result, sizeof result);
    }
}

ALWAYS_INLINE void store_bytes(uint8_t *bytes, const vector_bits x[4])
{
#if CONV_VECTOR_FLOATS == 16
    const vector_bits order = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const __m512i low = _mm512_packs_epi32((__m512i)x[0], (__m512i)x[1]);
    const __m512i high = _mm512_packs_epi32((__m512i)x[2], (__m512i)x[3]);
    const __m512i result = _mm512_permutexvar_epi32((__m512i)order, _mm512_packus_epi16(low, high));
#elif CONV_VECTOR_FLOATS == 8
    const vector_bits order = {0, 4, 1, 5, 2, 6, 3, 7};
    const __m256i low = _mm256_packs_epi32((__m256i)x[0], (__m256i)x[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)x[2], (__m256i)x[3]);
    const __m256i result =
        _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), (__m256i)order);
#else
    uint8_t result[GROUP];
    for (size_t i = 0; i < GROUP; i++) {
        result[i] = (uint8_t)x[i / WIDTH][i % WIDTH];
    }
#endif
    memcpy(bytes, &result, sizeof result);
}

/* A group of scores -> weights in the given form; gives their sum, of bytes that of the rounded
 * ones. */
ALWAYS_INLINE vector weigh_group(const float *scores, void *weights, softmax_form form, vector top)
{
    vector w[4];
    vector_bits integers[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const vector power = vector_load(scores + i * WIDTH) - top;
        w[i] = form == SOFTMAX_BYTES ? vector_exp2_for_bytes(power) : vector_exp2(power);
        if (form == SOFTMAX_FLOATS) {
            vector_store((float *)weights + i * WIDTH, w[i]);
        } else {
            integers[i] = round_weights(w[i]);
        }
    }
    if (form == SOFTMAX_WORDS) {
        store_words(weights, integers);
    } else if (form == SOFTMAX_BYTES) {
        store_bytes(weights, integers);
        const vector_bits sum = (integers[0] + integers[1]) + (integers[2] + integers[3]);
        return __builtin_convertvector(sum, vector);
    }
    return (w[0] + w[1]) + (w[2] + w[3]);
}

ALWAYS_INLINE size_t weight_bytes(softmax_form form)
{
    return form == SOFTMAX_FLOATS  ? sizeof(float)
           : form == SOFTMAX_WORDS ? sizeof(int16_t)
                                   : sizeof(uint8_t);
}

/* One row: `keys` scores that count, 2^(score - top) at `weights` (which may be `scores`). Returns
 * the sum of these weights. */
ALWAYS_INLINE float softmax_row(const float *scores, void *weights, softmax_form form, size_t keys,
                                size_t padded, float largest)
{
    const size_t bytes = weight_bytes(form);
    const vector top = vector_set(largest);
    uint8_t *out = weights;
    vector sums = {0};
    size_t i = 0;
    for (; i + GROUP <= keys; i += GROUP) {
        sums += weigh_group(scores + i, out + i * bytes, form, top);
    }
    const size_t rest = keys - i;
    if (rest) {
        float last[GROUP];
        for (size_t j = 0; j < GROUP; j++) {
            last[j] = -INFINITY; /* 2^-126, which changes no sum */
        }
        memcpy(last, scores + i, rest * sizeof *last);
        sums += weigh_group(last, last, form, top);
        memcpy(out + i * bytes, last, rest * bytes);
    }
    memset(out + keys * bytes, 0, (padded - keys) * bytes);
    return vector_sum(sums);
}

ALWAYS_INLINE float largest_of(const float *scores, size_t keys)
{
    float largest = -INFINITY;
    size_t i = 0;
    if (keys >= WIDTH) {
        vector top[2] = {vector_load(scores), vector_load(scores)}; /* a chain each */
        for (; i + 2 * WIDTH <= keys; i += 2 * WIDTH) {
            top[0] = vector_max(vector_load(scores + i), top[0]);
            top[1] = vector_max(vector_load(scores + i + WIDTH), top[1]);
        }
        largest = vector_largest(vector_max(top[0], top[1]));
    }
    for (; i < keys; i++) {
        largest = scores[i] > largest ? scores[i] : largest;
    }
    return largest;
}

enum { SOFTMAX_ROWS = 16 }; /* whose factors are computed side by side */

/* Rows of one block: what each sees, its largest score here and of all blocks so far. */
typedef struct softmax_group {
    size_t keys[SOFTMAX_ROWS];
    float here[SOFTMAX_ROWS], largest[SOFTMAX_ROWS];
    float factor[SOFTMAX_ROWS]; /* of earlier sums */
    float scale[SOFTMAX_ROWS];  /* of the block's largest weight */
} softmax_group;

ALWAYS_INLINE void softmax_factors(const softmax_block *block, size_t first, size_t rows,
                                   softmax_group *group)
{
    float before[SOFTMAX_ROWS];
    for (size_t r = 0; r < SOFTMAX_ROWS; r++) {
        before[r] = block->first || r >= rows ? -INFINITY : block->largest[first + r];
    }
    for (size_t r = 0; r < SOFTMAX_ROWS; r += WIDTH) {
        const vector here = vector_load(group->here + r);
        const vector earlier = vector_load(before + r);
        const vector largest = vector_max(here, earlier);
        vector_store(group->largest + r, largest);
        vector_store(group->factor + r, vector_exp2(earlier - largest));
        vector_store(group->scale + r, vector_exp2(here - largest));
    }
}

/* Rows first..first+rows-1, at most SOFTMAX_ROWS. */
ALWAYS_INLINE void softmax_rows(const softmax_block *block, size_t first, size_t rows,
                                const softmax_form form)
{
    const float whole = form == SOFTMAX_BYTES ? SOFTMAX_BYTE : SOFTMAX_INT16;
    softmax_group group = {0};
    for (size_t r = 0; r < rows; r++) {
        const ptrdiff_t seen = block->visible + (ptrdiff_t)(first + r);
        group.keys[r] = seen <= 0 ? 0 : (size_t)seen < block->keys ? (size_t)seen : block->keys;
        group.here[r] = largest_of(block->scores + (first + r) * block->stride, group.keys[r]);
    }
    softmax_factors(block, first, rows, &group);
    for (size_t r = 0; r < rows; r++) {
        const size_t row = first + r;
        float *scores = block->scores + row * block->stride;
        float sum;
        if (form == SOFTMAX_FLOATS) {
            sum = softmax_row(scores, scores, form, group.keys[r], block->padded, group.largest[r]);
        } else {
            uint8_t *weights =
                (uint8_t *)block->integers + row * block->integers_stride * weight_bytes(form);
            const float scale = group.scale[r] * (1 / whole);
            sum = scale * softmax_row(scores, weights, form, group.keys[r], block->padded,
                                      group.here[r] - log2f(whole));
            block->scales[row] = scale;
        }
        block->sum[row] = block->first ? sum : block->sum[row] * group.factor[r] + sum;
        block->largest[row] = group.largest[r];
        block->factor[row] = group.factor[r];
    }
}

ALWAYS_INLINE void softmax_all(const softmax_block *block, const softmax_form form)
{
    for (size_t row = 0; row < block->rows; row += SOFTMAX_ROWS) {
        const size_t left = block->rows - row;
        softmax_rows(block, row, left < SOFTMAX_ROWS ? left : SOFTMAX_ROWS, form);
    }
}

static void softmax(const softmax_block *block)
{
    switch (block->form) {
    case SOFTMAX_FLOATS:
        softmax_all(block, SOFTMAX_FLOATS);
        break;
    case SOFTMAX_WORDS:
        softmax_all(block, SOFTMAX_WORDS);
        break;
    case SOFTMAX_BYTES:
        softmax_all(block, SOFTMAX_BYTES);
        break;
    }
}

/* ---- the machine's peak -----------------------------------------------------------------------
 */

/* As many chains as hide the latency of a multiply-add on two units, on Arm on four. */
enum { CHAINS = CONV_NEON ? 24 : 12 };

static double multiply_adds(size_t rounds, float *sink)
{
    const vector factor = vector_set(0.999f);
    vector sums[CHAINS];
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = vector_set((float)c);
    }
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = vector_fma(sums[c], factor, factor);
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        *sink += sums[c][0];
    }
    return 2.0 * CHAINS * WIDTH * (double)rounds;
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
        .multiply_adds = multiply_adds,                                                            \
    }

#endif
