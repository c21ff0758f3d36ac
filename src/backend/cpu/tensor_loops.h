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
ALWAYS_INLINE void vectors_exp2(vector *v, const size_t count)
{
    const vector rounder = vector_set(12582912.0f); /* 1.5 * 2^23, as in vector_exp */
    vector shifted[VECTORS_MOST];
    EACH_VECTOR (i, count) {
        v[i] = vector_max(vector_set(-126.0f), v[i]); /* in this order NaN stays */
        shifted[i] = v[i] + rounder;
        v[i] -= shifted[i] - rounder;
    }
    vectors_power_of_two(shifted, v, count, false);
}

ALWAYS_INLINE vector vector_exp2(vector v)
{
    vectors_exp2(&v, 1);
    return v;
}

/* The same within 1e-4: enough where the result becomes a byte. */
ALWAYS_INLINE void vectors_exp2_for_bytes(vector *v, const size_t count)
{
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    EACH_VECTOR (i, count) {
        /* no subnormal numbers, which some CPUs are slow at */
        v[i] = vector_max(vector_set(-126.0f), v[i]);
        const vector rest = (vector)_mm512_reduce_ps((__m512)v[i], _MM_FROUND_TO_NEG_INF);
        vector sum = vector_set(0.07802427503726149f);
        sum = vector_fma(sum, rest, vector_set(0.22606726686182926f));
        sum = vector_fma(sum, rest, vector_set(0.6958336265348416f));
        sum = vector_fma(sum, rest, vector_set(0.9999251946412023f));
        v[i] = (vector)_mm512_scalef_ps((__m512)sum, (__m512)v[i]); /* by 2^floor(v) */
    }
#else
    vectors_exp2(v, count);
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

enum { GROUP = VECTORS_MOST * WIDTH }; /* weights that are rounded and stored together */

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

/* The scores of a row, and what is taken off them before they become powers of two: floats, or
 * 16-bit integers of a number of floats. */
typedef struct score_row {
    const float *scores;
    float top;
    const int16_t *words;
    int16_t top_word; /* becomes `whole` */
    float factor, whole;
} score_row;

ALWAYS_INLINE float score_power(const score_row *row, size_t i)
{
    return row->words ? (float)(row->words[i] - row->top_word) * row->factor + row->whole
                      : row->scores[i] - row->top;
}

ALWAYS_INLINE vector score_powers(const score_row *row, size_t i)
{
    if (row->words) {
        const vector below = vector_load_half(row->words + i) - (float)row->top_word;
        return vector_fma(below, vector_set(row->factor), vector_set(row->whole));
    }
    return vector_load(row->scores + i) - row->top;
}

/* A group of scores -> weights in the given form; gives their sum, of bytes that of the rounded
 * ones. */
ALWAYS_INLINE vector weigh_group(const score_row *row, size_t first, void *weights,
                                 softmax_form form)
{
    vector w[VECTORS_MOST];
    vector_bits integers[VECTORS_MOST];
    EACH_VECTOR (i, VECTORS_MOST) {
        w[i] = score_powers(row, first + i * WIDTH);
    }
    (form == SOFTMAX_BYTES ? vectors_exp2_for_bytes : vectors_exp2)(w, VECTORS_MOST);
    EACH_VECTOR (i, VECTORS_MOST) {
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

/* One row: of `keys` scores that count the weights, at `weights` (which may be the scores). Returns
 * the sum of these weights. */
ALWAYS_INLINE float softmax_row(const score_row *row, void *weights, softmax_form form, size_t keys,
                                size_t padded)
{
    const size_t bytes = weight_bytes(form);
    uint8_t *out = weights;
    vector sums = {0};
    size_t i = 0;
    for (; i + GROUP <= keys; i += GROUP) {
        sums += weigh_group(row, i, out + i * bytes, form);
    }
    const size_t rest = keys - i;
    if (rest) {
        float last[GROUP];
        for (size_t j = 0; j < GROUP; j++) {
            last[j] = j < rest ? score_power(row, i + j) : -INFINITY; /* 2^-126 changes no sum */
        }
        const score_row powers = {.scores = last};
        sums += weigh_group(&powers, 0, last, form);
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

#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)

/* 255 * 128 * 2^(-i / 64) */
static const int16_t word_powers[64] = {
    32640, 32288, 31941, 31597, 31256, 30919, 30586, 30257, 29931, 29609, 29290, 28974, 28662,
    28353, 28048, 27746, 27447, 27151, 26859, 26569, 26283, 26000, 25720, 25443, 25169, 24898,
    24630, 24364, 24102, 23842, 23585, 23331, 23080, 22831, 22585, 22342, 22101, 21863, 21628,
    21395, 21164, 20936, 20711, 20488, 20267, 20049, 19833, 19619, 19408, 19199, 18992, 18787,
    18585, 18385, 18187, 17991, 17797, 17605, 17416, 17228, 17043, 16859, 16677, 16498,
};

ALWAYS_INLINE int16_t largest_word(const int16_t *words, size_t keys)
{
    enum { WORDS = 32 };
    const __m512i none = _mm512_set1_epi16(INT16_MIN);
    __m512i top = none;
    size_t i = 0;
    for (; i + WORDS <= keys; i += WORDS) {
        top = _mm512_max_epi16(top, _mm512_loadu_si512(words + i));
    }
    if (i < keys) {
        const __mmask32 rest = (__mmask32)((1u << (keys - i)) - 1);
        top = _mm512_max_epi16(top, _mm512_mask_loadu_epi16(none, rest, words + i));
    }
    const __m256i half =
        _mm256_max_epi16(_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64(top, 1));
    const __m128i eight =
        _mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* The instruction finds the least of unsigned words. */
    const __m128i turned = _mm_xor_si128(eight, _mm_set1_epi16(INT16_MAX));
    return (int16_t)(_mm_cvtsi128_si32(_mm_minpos_epu16(turned)) ^ INT16_MAX);
}

/* How far a word is below the top, in 64ths of a power of two: as the product with `factor`,
 * divided by 2^15, where needed after the word is shifted. */
typedef struct word_steps {
    __m512i top, factor, most;
    __m128i shift;
} word_steps;

/* Weights, of which 255 stands for one, of 32 words: 2^-n of a whole number n of powers is a shift,
 * the rest comes from a table. */
ALWAYS_INLINE __m512i word_weights(__m512i words, const word_steps *steps, const bool shifted)
{
    __m512i below = _mm512_subs_epi16(steps->top, words);
    if (shifted) {
        below = _mm512_sll_epi16(_mm512_min_epi16(below, steps->most), steps->shift);
    }
    below = _mm512_mulhrs_epi16(below, steps->factor);
    const __m512i fraction = _mm512_permutex2var_epi16(_mm512_loadu_si512(word_powers), below,
                                                       _mm512_loadu_si512(word_powers + 32));
    const __m512i weights = _mm512_srlv_epi16(fraction, _mm512_srli_epi16(below, 6));
    return _mm512_mulhrs_epi16(weights, _mm512_set1_epi16(256)); /* divided by 128, rounded */
}

/* 64 words -> bytes; gives them, for their sum. */
ALWAYS_INLINE __m512i word_bytes(__m512i first, __m512i second, const word_steps *steps,
                                 const bool shifted)
{
    const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    return _mm512_permutexvar_epi64(order,
                                    _mm512_packus_epi16(word_weights(first, steps, shifted),
                                                        word_weights(second, steps, shifted)));
}

ALWAYS_INLINE float softmax_words(const int16_t *words, uint8_t *weights, size_t keys,
                                  const word_steps *steps, const bool shifted)
{
    enum { BYTES = 64, WORDS = 32 };
    const __m512i zero = _mm512_setzero_si512();
    __m512i sums = zero;
    size_t i = 0;
    for (; i + BYTES <= keys; i += BYTES) {
        const __m512i bytes = word_bytes(_mm512_loadu_si512(words + i),
                                         _mm512_loadu_si512(words + i + WORDS), steps, shifted);
        _mm512_storeu_si512(weights + i, bytes);
        sums = _mm512_add_epi64(sums, _mm512_sad_epu8(bytes, zero));
    }
    if (i < keys) {
        const __mmask64 rest = ((__mmask64)1 << (keys - i)) - 1;
        const __m512i first = _mm512_maskz_loadu_epi16((__mmask32)rest, words + i);
        const __m512i second =
            _mm512_maskz_loadu_epi16((__mmask32)(rest >> WORDS), words + i + WORDS);
        const __m512i bytes = word_bytes(first, second, steps, shifted);
        _mm512_mask_storeu_epi8(weights + i, rest, bytes);
        sums = _mm512_add_epi64(sums, _mm512_sad_epu8(_mm512_maskz_mov_epi8(rest, bytes), zero));
    }
    return (float)_mm512_reduce_add_epi64(sums);
}

/* softmax_row of words, with integers alone: the power is known to one or half a 64th, each weight
 * to 1.1 or 0.55 % and half a unit. */
ALWAYS_INLINE float softmax_word_row(const score_row *row, uint8_t *weights, size_t keys,
                                     size_t padded)
{
    /* Where a word makes 16 powers of two, those below the top vanish, and more would too. */
    float factor = row->factor * (64 * 32768.0f);
    factor = factor < 16 * 64 * 32768.0f ? factor : 16 * 64 * 32768.0f;
    int shift = 0;
    for (; factor > INT16_MAX; factor /= 2) {
        shift++;
    }
    const word_steps steps = {
        .top = _mm512_set1_epi16(row->top_word),
        .factor = _mm512_set1_epi16((int16_t)(factor + 0.5f)),
        .most = _mm512_set1_epi16((int16_t)(INT16_MAX >> shift)),
        .shift = _mm_cvtsi32_si128(shift),
    };
    if (padded > keys) {
        memset(weights + keys, 0, padded - keys);
    }
    return shift ? softmax_words(row->words, weights, keys, &steps, true)
                 : softmax_words(row->words, weights, keys, &steps, false);
}

#else

ALWAYS_INLINE int16_t largest_word(const int16_t *words, size_t keys)
{
    enum { LANES = 2 * WIDTH };
    int16_t lanes[LANES], largest = INT16_MIN;
    for (size_t lane = 0; lane < LANES; lane++) {
        lanes[lane] = INT16_MIN;
    }
    size_t i = 0;
    for (; i + LANES <= keys; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            lanes[lane] = words[i + lane] > lanes[lane] ? words[i + lane] : lanes[lane];
        }
    }
    for (size_t lane = 0; lane < LANES; lane++) {
        largest = lanes[lane] > largest ? lanes[lane] : largest;
    }
    for (; i < keys; i++) {
        largest = words[i] > largest ? words[i] : largest;
    }
    return largest;
}

ALWAYS_INLINE float softmax_word_row(const score_row *row, uint8_t *weights, size_t keys,
                                     size_t padded)
{
    return softmax_row(row, weights, SOFTMAX_BYTES, keys, padded);
}

#endif

enum { SOFTMAX_ROWS = 16 }; /* whose factors are computed side by side */

/* Rows of one block: what each sees, its largest score here and of all blocks so far. */
typedef struct softmax_group {
    size_t keys[SOFTMAX_ROWS];
    score_row scores[SOFTMAX_ROWS];
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

/* Row `row` of the block; gives its largest score here. */
ALWAYS_INLINE float row_of_scores(const softmax_block *block, size_t row, size_t keys,
                                  score_row *scores)
{
    if (block->words) {
        scores->words = block->words + row * block->words_stride;
        scores->factor = block->factors[row];
        scores->whole = log2f(SOFTMAX_BYTE);
        scores->top_word = largest_word(scores->words, keys);
        return keys ? (float)scores->top_word * scores->factor : -INFINITY;
    }
    scores->scores = block->scores + row * block->stride;
    return largest_of(scores->scores, keys);
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
        group.here[r] = row_of_scores(block, first + r, group.keys[r], &group.scores[r]);
    }
    softmax_factors(block, first, rows, &group);
    for (size_t r = 0; r < rows; r++) {
        const size_t row = first + r;
        score_row *scores = &group.scores[r];
        float sum;
        if (form == SOFTMAX_FLOATS) {
            scores->top = group.largest[r];
            sum = softmax_row(scores, block->scores + row * block->stride, form, group.keys[r],
                              block->padded);
        } else {
            uint8_t *weights =
                (uint8_t *)block->integers + row * block->integers_stride * weight_bytes(form);
            const float scale = group.scale[r] * (1 / whole);
            scores->top = group.here[r] - log2f(whole);
            sum = scale * (block->words
                               ? softmax_word_row(scores, weights, group.keys[r], block->padded)
                               : softmax_row(scores, weights, form, group.keys[r], block->padded));
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

/* Lane i gets what lane i ^ step held. */
#ifndef __clang__
#define PARTNERS(x, step) __builtin_shuffle(x, lane ^ (step))
#elif CONV_VECTOR_FLOATS == 16
#define PARTNERS(x, step)                                                                          \
    __builtin_shufflevector(x, x, 0 ^ (step), 1 ^ (step), 2 ^ (step), 3 ^ (step), 4 ^ (step),      \
                            5 ^ (step), 6 ^ (step), 7 ^ (step), 8 ^ (step), 9 ^ (step),            \
                            10 ^ (step), 11 ^ (step), 12 ^ (step), 13 ^ (step), 14 ^ (step),       \
                            15 ^ (step))
#elif CONV_VECTOR_FLOATS == 8
#define PARTNERS(x, step)                                                                          \
    __builtin_shufflevector(x, x, 0 ^ (step), 1 ^ (step), 2 ^ (step), 3 ^ (step), 4 ^ (step),      \
                            5 ^ (step), 6 ^ (step), 7 ^ (step))
#else
#define PARTNERS(x, step)                                                                          \
    __builtin_shufflevector(x, x, 0 ^ (step), 1 ^ (step), 2 ^ (step), 3 ^ (step))
#endif

/* The sums and differences of neighbours within a vector. */
ALWAYS_INLINE vector hadamard_lanes(vector x)
{
    vector_bits lane;
    for (int i = 0; i < WIDTH; i++) {
        lane[i] = i;
    }
#define LANE_STEP(step)                                                                            \
    PARTNERS(x, step) + (vector)((vector_bits)x ^ (((lane & (step)) != 0) & INT32_MIN))
    x = LANE_STEP(1);
    x = LANE_STEP(2);
#if CONV_VECTOR_FLOATS >= 8
    x = LANE_STEP(4);
#endif
#if CONV_VECTOR_FLOATS == 16
    x = LANE_STEP(8);
#endif
#undef LANE_STEP
    return x;
}

/* Sums and differences of values that are at least `width` apart, so many at once: a constant in
 * both copies. */
ALWAYS_INLINE void hadamard_steps(float *x, size_t count, const size_t width)
{
    for (size_t step = width; step < hadamard_run(count); step *= 2) {
        for (size_t i = 0; i < count; i += 2 * step) {
            for (size_t j = i; j < i + step; j += width) {
                const vector left = vector_load_part(x + j, width);
                const vector right = vector_load_part(x + j + step, width);
                vector_store_part(x + j, left + right, width);
                vector_store_part(x + j + step, left - right, width);
            }
        }
    }
}

static void hadamard(float *x, size_t count)
{
    if (hadamard_run(count) < WIDTH) {
        hadamard_steps(x, count, 1);
        return;
    }
    for (size_t i = 0; i < count; i += WIDTH) {
        vector_store(x + i, hadamard_lanes(vector_load(x + i)));
    }
    hadamard_steps(x, count, WIDTH);
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
        .hadamard = hadamard,                                                                      \
        .all_finite = all_finite,                                                                  \
        .multiply_adds = multiply_adds,                                                            \
    }

#endif
