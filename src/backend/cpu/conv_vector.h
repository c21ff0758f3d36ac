/* The widest float vector of the instruction set that the including file is compiled for, and the
 * few functions of it that convolutions need. Private to the kernel files (conv_plain.c,
 * conv_avx2.c, ...), each of which compiles its own copy under its own flags.
 *
 * CONV_VECTOR_FLOATS is set by the including file: 4 (any machine), 8 (AVX2+FMA) or 16 (AVX-512);
 * the file has also included its intrinsics header. CONV_NEON 1: the 4 are NEON's. */
#ifndef ONESTEP_BACKEND_CPU_CONV_VECTOR_H
#define ONESTEP_BACKEND_CPU_CONV_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef CONV_NEON
#define CONV_NEON 0
#endif

typedef float vector __attribute__((vector_size(4 * CONV_VECTOR_FLOATS)));
typedef int32_t vector_bits __attribute__((vector_size(4 * CONV_VECTOR_FLOATS)));

typedef uint32_t vector_words __attribute__((vector_size(4 * CONV_VECTOR_FLOATS)));
typedef int16_t vector_half __attribute__((vector_size(2 * CONV_VECTOR_FLOATS)));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vector vector_load(const float *source)
{
    vector value;
    memcpy(&value, source, sizeof value);
    return value;
}

ALWAYS_INLINE void vector_store(float *destination, vector value)
{
    memcpy(destination, &value, sizeof value);
}

/* The first `count` floats, the rest zero. */
ALWAYS_INLINE vector vector_load_part(const float *source, size_t count)
{
    vector value = {0};
    memcpy(&value, source, count * sizeof(float));
    return value;
}

ALWAYS_INLINE void vector_store_part(float *destination, vector value, size_t count)
{
    memcpy(destination, &value, count * sizeof(float));
}

ALWAYS_INLINE vector vector_set(float value)
{
    return value - (vector){0}; /* x - 0 is x for every x, -0 too */
}

/* a * b + c, rounded once where the instruction set can. */
ALWAYS_INLINE vector vector_fma(vector a, vector b, vector c)
{
#if CONV_VECTOR_FLOATS == 16
    return (vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif CONV_VECTOR_FLOATS == 8
    return (vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif CONV_NEON
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

ALWAYS_INLINE vector vector_max(vector a, vector b)
{
#if CONV_VECTOR_FLOATS == 16
    return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif CONV_VECTOR_FLOATS == 8
    return (vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    const vector_bits larger = a > b;
    return (vector)(((vector_bits)a & larger) | ((vector_bits)b & ~larger));
#endif
}

ALWAYS_INLINE vector vector_min(vector a, vector b)
{
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    return (vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif CONV_VECTOR_FLOATS == 8
    return (vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
    const vector_bits smaller = a < b;
    return (vector)(((vector_bits)a & smaller) | ((vector_bits)b & ~smaller));
#endif
}

ALWAYS_INLINE vector vector_root(vector x)
{
#if CONV_VECTOR_FLOATS == 16
    return (vector)_mm512_sqrt_ps((__m512)x);
#elif CONV_VECTOR_FLOATS == 8
    return (vector)_mm256_sqrt_ps((__m256)x);
#elif CONV_NEON
    return vsqrtq_f32(x);
#else
    return (vector){sqrtf(x[0]), sqrtf(x[1]), sqrtf(x[2]), sqrtf(x[3])};
#endif
}

/* Rounds |x| < 2^22 to the nearest integer; its two's complement stands in the low 16 bits. */
ALWAYS_INLINE vector_bits vector_round(vector x)
{
    return (vector_bits)(x + 12582912.0f);
}

/* first * factor and second * factor, of magnitudes below 2^15, as 16-bit integers side by side;
 * the first in the low half. */
ALWAYS_INLINE vector_words vector_round_pairs(vector first, vector second, vector factor)
{
    const vector rounder = vector_set(12582912.0f); /* as above */
    const vector_bits low = (vector_bits)vector_fma(first, factor, rounder);
    const vector_bits high = (vector_bits)vector_fma(second, factor, rounder) << 16;
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    return (vector_words)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)low, (__m512i)high);
#elif CONV_VECTOR_FLOATS == 8
    return (vector_words)_mm256_blend_epi16((__m256i)low, (__m256i)high, 0xaa);
#else
    return (vector_words)((low & 0xffff) | high);
#endif
}

/* Rounded to bfloat16, ties to even; in the high half of each word. */
ALWAYS_INLINE vector_words vector_bfloat16(vector x)
{
    const vector_words bits = (vector_words)x;
    return (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
}

ALWAYS_INLINE vector vector_load_half(const int16_t *source)
{
    vector_half half;
    memcpy(&half, source, sizeof half);
    return __builtin_convertvector(half, vector);
}

/* Stored activations in 16 bits are IEEE halves of 1/64 of the value: they reach to 4 million in
 * place of 65504, which activations of some models exceed; beyond are infinities. Below 0.004,
 * where such halves lose precision, values do not count beside the rest of a layer's. */
#define F16_UNIT 64.0f

ALWAYS_INLINE vector vector_load_f16(const uint16_t *source)
{
    vector_half halves;
    memcpy(&halves, source, sizeof halves);
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    return (vector)_mm512_cvtph_ps((__m256i)halves) * F16_UNIT;
#elif CONV_VECTOR_FLOATS == 8
    return (vector)_mm256_cvtph_ps((__m128i)halves) * F16_UNIT;
#else
    /* Shifted into a float's place the exponent is 112 too small. */
    const vector_words bits = (vector_words) __builtin_convertvector(halves, vector_bits);
    const vector_words magnitude = (bits & 0x7fff) << 13;
    const vector_words infinite = (vector_words)(magnitude >= 0x0f800000) & 0x7f800000;
    const vector value = (vector)magnitude * 0x1p112f;
    return (vector)((vector_words)value | infinite | (bits & 0x8000) << 16) * F16_UNIT;
#endif
}

ALWAYS_INLINE void vector_store_f16(uint16_t *destination, vector value)
{
    const vector scaled = value * (1.0f / F16_UNIT);
#if CONV_VECTOR_FLOATS == 16 && !defined(CONV_SIMDE)
    const __m256i halves = _mm512_cvtps_ph((__m512)scaled, _MM_FROUND_TO_NEAREST_INT);
#elif CONV_VECTOR_FLOATS == 8
    const __m128i halves = _mm256_cvtps_ph((__m256)scaled, _MM_FROUND_TO_NEAREST_INT);
#else
    const vector_words sign = (vector_words)scaled & 0x80000000;
    const vector_words bits = (vector_words)scaled ^ sign;
    /* Subnormal halves are rounded by an addition whose sum has them in its low bits. */
    const vector_words small = (vector_words)((vector)bits + 0.5f) - 0x3f000000;
    const vector_words normal = (bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13;
    const vector_words not_a_number = (vector_words)(bits > 0x7f800000);
    const vector_words large = 0x7c00 | (not_a_number & 0x0200);
    const vector_words is_small = (vector_words)(bits < 0x38800000);
    const vector_words is_large = (vector_words)(bits >= 0x47800000);
    const vector_words result =
        sign >> 16 | (small & is_small) | (large & is_large) | (normal & ~(is_small | is_large));
    const vector_half halves = __builtin_convertvector(result, vector_half);
#endif
    memcpy(destination, &halves, sizeof halves);
}

/* The lanes of a vector against each other, by halves, until four are left: a chain of one
 * operation a lane would take longer than most of what waits for the result. */
typedef float vector_four __attribute__((vector_size(16)));

#define FOLD(x, all)                                                                               \
    vector_four parts[CONV_VECTOR_FLOATS / 4];                                                     \
    memcpy(parts, &(x), sizeof parts);                                                             \
    for (size_t half = CONV_VECTOR_FLOATS / 8; half > 0; half /= 2) {                              \
        for (size_t i = 0; i < half; i++) {                                                        \
            parts[i] = all(parts[i], parts[i + half]);                                             \
        }                                                                                          \
    }                                                                                              \
    return parts[0]

ALWAYS_INLINE vector_four four_larger(vector_four a, vector_four b)
{
#if CONV_VECTOR_FLOATS > 4
    return (vector_four)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vector_max(a, b);
#endif
}

ALWAYS_INLINE vector_four four_added(vector_four a, vector_four b)
{
    return a + b;
}

ALWAYS_INLINE vector_four vector_fold_largest(vector x)
{
    FOLD(x, four_larger);
}

ALWAYS_INLINE vector_four vector_fold_sum(vector x)
{
    FOLD(x, four_added);
}

ALWAYS_INLINE float vector_largest(vector x)
{
    const vector_four four = vector_fold_largest(x);
    const float left = four[0] > four[2] ? four[0] : four[2];
    const float right = four[1] > four[3] ? four[1] : four[3];
    return left > right ? left : right;
}

ALWAYS_INLINE float vector_sum(vector x)
{
    const vector_four four = vector_fold_sum(x);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* Lane r is what vector_largest or vector_sum would make of the vector that was folded to x[r]. */
#define REDUCE_FOUR(x, all)                                                                        \
    const vector_four left = all(__builtin_shufflevector((x)[0], (x)[1], 0, 4, 1, 5),              \
                                 __builtin_shufflevector((x)[0], (x)[1], 2, 6, 3, 7));             \
    const vector_four right = all(__builtin_shufflevector((x)[2], (x)[3], 0, 4, 1, 5),             \
                                  __builtin_shufflevector((x)[2], (x)[3], 2, 6, 3, 7));            \
    return all(__builtin_shufflevector(left, right, 0, 1, 4, 5),                                   \
               __builtin_shufflevector(left, right, 2, 3, 6, 7))

ALWAYS_INLINE vector_four four_largest(const vector_four *x)
{
    REDUCE_FOUR(x, four_larger);
}

ALWAYS_INLINE vector_four four_sums(const vector_four *x)
{
    REDUCE_FOUR(x, four_added);
}

ALWAYS_INLINE vector vector_absolute(vector a)
{
    return (vector)((vector_bits)a & 0x7fffffff);
}

/* exp within 2 ulp for x <= 87; below -87 it stays at exp(-87), about 1e-38. */
ALWAYS_INLINE vector vector_exp(vector x)
{
    x = vector_max(x, vector_set(-87.0f));
    /* Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits. */
    const vector rounder = vector_set(12582912.0f);
    const vector shifted = vector_fma(x, vector_set(1.44269504f), rounder);
    const vector power = shifted - rounder;
    vector rest = vector_fma(power, vector_set(-0.693145751953125f), x);
    rest = vector_fma(power, vector_set(-1.42860677e-6f), rest);
    vector sum = vector_set(0.0013829420579393892f);
    sum = vector_fma(sum, rest, vector_set(0.008374771519668922f));
    sum = vector_fma(sum, rest, vector_set(0.041668358033253194f));
    sum = vector_fma(sum, rest, vector_set(0.16666420832124923f));
    sum = vector_fma(sum, rest, vector_set(0.49999991493035945f));
    sum = vector_fma(sum, rest, vector_set(1.0f));
    sum = vector_fma(sum, rest, vector_set(1.0f));
    return (vector)((vector_bits)sum + ((vector_bits)shifted << 23));
}

/* Functions of several vectors go through all of them at every step: the steps of one wait for each
 * other, and a core's scheduler does not see far enough ahead to find the next vector's. */
#define EACH_VECTOR(i, count) _Pragma("GCC unroll 4") for (size_t i = 0; i < (count); i++)
enum { VECTORS_MOST = 4 };

/* 2^(n + rest) for |rest| <= 1/2, where n stands in the low bits of `shifted`, in place of `rest`;
 * relative error below 2e-7, or a coarse one below 8e-5. */
ALWAYS_INLINE void vectors_power_of_two(const vector *shifted, vector *rest, const size_t count,
                                        const bool coarse)
{
    static const float exact_terms[] = {1.3264726298895732e-3f, 9.671513009987722e-3f,
                                        5.5507337490926956e-2f, 2.402224207918457e-1f,
                                        6.931469775938077e-1f,  1.0f};
    static const float coarse_terms[] = {0.05517166975134217f, 0.24261112828132247f,
                                         0.6932609858592573f, 0.9999280731779534f};
    const float *terms = coarse ? coarse_terms : exact_terms;
    const size_t degree = coarse ? 3 : 5;
    vector sum[VECTORS_MOST];
    EACH_VECTOR (i, count) {
        sum[i] = vector_set(terms[0]);
    }
#pragma GCC unroll 5
    for (size_t term = 1; term <= degree; term++) {
        EACH_VECTOR (i, count) {
            sum[i] = vector_fma(sum[i], rest[i], vector_set(terms[term]));
        }
    }
    EACH_VECTOR (i, count) {
        rest[i] = (vector)((vector_bits)sum[i] + ((vector_bits)shifted[i] << 23));
    }
}

/* 1 / x within 2 ulp for x from 1 to 1e38: an estimate and a step of Newton's take a third of the
 * time of a division. Coarse: an estimate of 14 bits as it is, where there is one. */
ALWAYS_INLINE vector vector_reciprocal(vector x, const bool coarse)
{
    (void)coarse;
#if CONV_NEON
    /* 8 bits, 16 and 32; a division takes as long as ten multiplications. */
    vector estimate = vrecpeq_f32(x);
    estimate *= vrecpsq_f32(x, estimate);
    return estimate * vrecpsq_f32(x, estimate);
#elif CONV_VECTOR_FLOATS == 4 || defined(CONV_SIMDE)
    return 1.0f / x;
#else
#if CONV_VECTOR_FLOATS == 16
    const vector estimate = (vector)_mm512_rcp14_ps((__m512)x);
    if (coarse) {
        return estimate;
    }
#else
    const vector estimate = (vector)_mm256_rcp_ps((__m256)x);
#endif
    const vector error = vector_fma(-x, estimate, vector_set(1.0f));
    return vector_fma(estimate, error, estimate);
#endif
}

/* x / (1 + exp(-factor * x)). What is beyond 87 in the exponent is as good as 87. Relative error
 * below 5e-6, most of it where the exponential is large and its exponent was rounded; a coarse one
 * below 1.5e-4. */
ALWAYS_INLINE void vectors_swish(vector *x, const size_t count, float factor, const bool coarse)
{
    const vector base = vector_set(-1.44269504f * factor);
    const vector rounder = vector_set(12582912.0f);
    vector shifted[VECTORS_MOST], power[VECTORS_MOST];
    EACH_VECTOR (i, count) {
        vector bounded = vector_max(x[i], vector_set(-87.0f / factor));
        bounded = vector_min(bounded, vector_set(87.0f / factor));
        shifted[i] = vector_fma(bounded, base, rounder);
        power[i] = vector_fma(bounded, base, rounder - shifted[i]);
    }
    vectors_power_of_two(shifted, power, count, coarse);
    EACH_VECTOR (i, count) {
        x[i] *= vector_reciprocal(1.0f + power[i], coarse);
    }
}

/* x / (1 + exp(-x)) */
ALWAYS_INLINE void vectors_silu(vector *x, const size_t count, const bool coarse)
{
    vectors_swish(x, count, 1.0f, coarse);
}

ALWAYS_INLINE vector vector_silu(vector x)
{
    vectors_silu(&x, 1, false);
    return x;
}

/* x / (1 + exp(-1.702 x)) */
ALWAYS_INLINE vector vector_quick_gelu(vector x)
{
    vectors_swish(&x, 1, 1.702f, false);
    return x;
}

/* x/2 * (1 + erf(x / sqrt 2)). The complementary error function of z = |x| / sqrt 2 is
 * exp(-z*z) times a polynomial in 1 / (1 + 0.3 z), fitted to a relative error of 2e-8 on [0, 10.3];
 * so the negative tail keeps its relative accuracy. */
ALWAYS_INLINE vector vector_gelu(vector x)
{
    const vector z = 0.70710678f * vector_absolute(x);
    const vector t = 1.0f / vector_fma(z, vector_set(0.3f), vector_set(1.0f));
    vector sum = vector_set(-0.12722280496638688f);
    sum = vector_fma(sum, t, vector_set(0.47278081987149706f));
    sum = vector_fma(sum, t, vector_set(-0.48141699996112863f));
    sum = vector_fma(sum, t, vector_set(0.505297309570559f));
    sum = vector_fma(sum, t, vector_set(-0.05811419788880662f));
    sum = vector_fma(sum, t, vector_set(0.19451008205384893f));
    sum = vector_fma(sum, t, vector_set(0.15573107488740362f));
    sum = vector_fma(sum, t, vector_set(0.16904488442910626f));
    sum = vector_fma(sum, t, vector_set(0.16940158247705162f));
    sum = vector_fma(sum, t, vector_set(-1.1767789806624418e-05f));
    const vector half_tail = 0.5f * sum * vector_exp(-z * z); /* erfc(z) / 2 */
    const vector_bits negative = x < 0.0f;
    const vector upper = 1.0f - half_tail;
    const vector weight =
        (vector)(((vector_bits)half_tail & negative) | ((vector_bits)upper & ~negative));
    return x * weight;
}

#endif
