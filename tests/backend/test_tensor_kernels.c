/* Every table of tensor kernels against double precision: each length, each place in guarded
 * memory. The AVX-512 table runs on every machine through SIMDe, besides natively where there is
 * AVX-512; not under sanitizers, with which compiling vectors that the CPU lacks takes an hour. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <immintrin.h>

#pragma GCC diagnostic ignored "-Wpsabi"
#define CONV_SIMDE
#include <simde/x86/avx512/fmadd.h>
#include <simde/x86/avx512/max.h>
#include <simde/x86/avx512/packs.h>
#include <simde/x86/avx512/packus.h>
#include <simde/x86/avx512/permutexvar.h>
#define _mm512_fmadd_ps(a, b, c)                                                                   \
    ((__m512)simde_mm512_fmadd_ps((simde__m512)(a), (simde__m512)(b), (simde__m512)(c)))
#define _mm512_max_ps(a, b) ((__m512)simde_mm512_max_ps((simde__m512)(a), (simde__m512)(b)))
#define _mm512_packs_epi32(a, b)                                                                   \
    ((__m512i)simde_mm512_packs_epi32((simde__m512i)(a), (simde__m512i)(b)))
#define _mm512_packus_epi16(a, b)                                                                  \
    ((__m512i)simde_mm512_packus_epi16((simde__m512i)(a), (simde__m512i)(b)))
#define _mm512_permutexvar_epi32(a, b)                                                             \
    ((__m512i)simde_mm512_permutexvar_epi32((simde__m512i)(a), (simde__m512i)(b)))
#include "backend/cpu/tensor_kernels.h"
#define tensor_kernels_avx512 tensor_kernels_emulated
extern const tensor_kernels tensor_kernels_emulated;
#include "backend/cpu/tensor_avx512.c"
#undef tensor_kernels_avx512
#define EMULATED &tensor_kernels_emulated
#else
#define EMULATED NULL
#endif

#include "backend/cpu/tensor_kernels.h"
#include "conv_reference.h"
#include "support.h"

#include <math.h>
#include <string.h>

enum { LENGTHS = 70 };

/* Runs a test for every table that this machine can run. */
static void for_each_table(void (*test)(const tensor_kernels *k))
{
    static const cpu_level levels[] = {
#define TENSOR_KERNELS(name, level, family) level,
#include "backend/cpu/tensor_kernels.def"
#undef TENSOR_KERNELS
    };
    cpu_features features;
    cpu_features_detect(&features);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        const tensor_kernels *k = tensor_kernels_find(levels[i]);
        if (cpu_level_runs(&features, levels[i]) && k->level == levels[i]) {
            test(k);
        }
    }
    const tensor_kernels *emulated = EMULATED;
    if (emulated) {
        test(emulated);
    }
}

static void check_close(const char *name, const tensor_kernels *k, double x, double got,
                        double expected, double relative, double absolute)
{
    if (isnan(expected)
            ? !isnan(got)
            : !(got == expected || fabs(got - expected) <= relative * fabs(expected) + absolute)) {
        fail_msg("%s (%s) of %.9g: %.9g instead of %.9g", name, k->name, x, got, expected);
    }
}

/* ---- functions of one number
 * ---------------------------------------------------------------------- */

static double exact_silu(double x)
{
    return x / (1 + exp(-x));
}

static double exact_gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2));
}

static double exact_quick_gelu(double x)
{
    return x / (1 + exp(-1.702 * x));
}

static double exact_exp(double x)
{
    return (double)(float)exp(x);
}

typedef struct function_case {
    const char *name;
    size_t offset; /* in the table */
    double (*exact)(double);
    float limit;     /* of the numbers tried */
    double relative; /* beside 2e-37: below that float32 loses bits */
} function_case;

static const function_case functions[] = {
    {"silu", offsetof(tensor_kernels, silu), exact_silu, 80, 6e-6},
    {"silu", offsetof(tensor_kernels, silu), exact_silu, 6, 6e-7},
    {"gelu", offsetof(tensor_kernels, gelu), exact_gelu, 12, 8e-6},
    {"gelu", offsetof(tensor_kernels, gelu), exact_gelu, 3, 1.2e-6},
    {"quick_gelu", offsetof(tensor_kernels, quick_gelu), exact_quick_gelu, 30, 3e-6},
    {"exp", offsetof(tensor_kernels, exponential), exact_exp, 88.7f, 4e-7},
};

typedef void (*element_function)(float *, const float *, size_t);

static void test_function(const tensor_kernels *k, const function_case *f)
{
    element_function run;
    memcpy(&run, (const char *)k + f->offset, sizeof run);
    for (size_t count = 1; count <= LENGTHS; count++) {
        for (int at_end = 0; at_end < 2; at_end++) {
            guarded_floats x = {0}, y = {0};
            guarded_create(&x, count, at_end);
            guarded_create(&y, count, at_end);
            fill_random(x.values, count, count, f->limit / 3);
            for (size_t i = 0; i < count; i++) {
                x.values[i] = fmaxf(-f->limit, fminf(f->limit, x.values[i]));
            }
            run(y.values, x.values, count);
            for (size_t i = 0; i < count; i++) {
                check_close(f->name, k, (double)x.values[i], (double)y.values[i],
                            f->exact((double)x.values[i]), f->relative, 2e-37);
                float alone;
                run(&alone, &x.values[i], 1);
                assert_memory_equal(&alone, &y.values[i], sizeof alone);
            }
            run(x.values, x.values, count); /* in place */
            assert_memory_equal(x.values, y.values, count * sizeof(float));
            guarded_destroy(&x);
            guarded_destroy(&y);
        }
    }
}

static void test_functions_of(const tensor_kernels *k)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        test_function(k, &functions[i]);
    }
    const float odd[] = {0, NAN, INFINITY, -INFINITY, 100, -120, 88.8f};
    float y[7];
    k->exponential(y, odd, 7);
    const double exact[] = {1, NAN, INFINITY, 0, INFINITY, 0, INFINITY};
    for (size_t i = 0; i < 7; i++) {
        check_close("exp", k, (double)odd[i], (double)y[i], exact[i], 0, 1e-37);
    }
    k->silu(y, odd, 7);
    assert_true(y[0] == 0 && isnan(y[1]) && y[2] == INFINITY && fabsf(y[4] - 100) < 2e-5f);
    k->gelu(y, odd, 7);
    assert_true(y[0] == 0 && isnan(y[1]) && y[2] == INFINITY && y[4] == 100.0f &&
                fabsf(y[5]) < 1e-30f);
    k->clamp(y, odd, 7, -3, 4);
    assert_true(y[0] == 0 && isnan(y[1]) && y[2] == 4 && y[3] == -3 && y[4] == 4 && y[5] == -3);
}

static void test_functions(void **state)
{
    (void)state;
    for_each_table(test_functions_of);
}

/* ---- several inputs
 * ---------------------------------------------------------------------------------- */

static void test_pairs_of(const tensor_kernels *k)
{
    for (size_t count = 1; count <= LENGTHS; count++) {
        guarded_floats a = {0}, b = {0}, y = {0};
        guarded_create(&a, 2 * count, true);
        guarded_create(&b, count, true);
        guarded_create(&y, count, true);
        fill_random(a.values, 2 * count, count, 2);
        fill_random(b.values, count, count + 1, 2);
        k->combine(y.values, a.values, 0.3f, b.values, -1.7f, count);
        for (size_t i = 0; i < count; i++) {
            const double expected =
                (double)(0.3f * a.values[i]) - (double)1.7f * (double)b.values[i];
            check_close("combine", k, (double)a.values[i], (double)y.values[i], expected, 1e-7,
                        5e-7);
        }
        k->multiply(y.values, a.values, b.values, count);
        for (size_t i = 0; i < count; i++) {
            assert_true(y.values[i] == a.values[i] * b.values[i]);
        }
        k->scale(y.values, b.values, count, 0.7f, 0.1f);
        for (size_t i = 0; i < count; i++) {
            check_close("scale", k, (double)b.values[i], (double)y.values[i],
                        (double)0.7f * (double)b.values[i] + (double)0.1f, 1e-7, 3e-7);
        }
        k->geglu(y.values, a.values, count);
        for (size_t i = 0; i < count; i++) {
            check_close("geglu", k, (double)a.values[count + i], (double)y.values[i],
                        (double)a.values[i] * exact_gelu((double)a.values[count + i]), 8e-6, 0);
        }
        guarded_destroy(&a);
        guarded_destroy(&b);
        guarded_destroy(&y);
    }
}

static void test_pairs(void **state)
{
    (void)state;
    for_each_table(test_pairs_of);
}

/* A NaN or infinity is found wherever it stands. */
static void test_finite_of(const tensor_kernels *k)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t count = 1; count <= 2 * LENGTHS; count += 1 + count / 20) {
        guarded_floats x = {0};
        guarded_create(&x, count, true);
        fill_random(x.values, count, count, 1e30f);
        assert_true(k->all_finite(x.values, count));
        for (size_t i = 0; i < count; i++) {
            const float before = x.values[i];
            x.values[i] = bad[i % 3];
            assert_false(k->all_finite(x.values, count));
            x.values[i] = before;
        }
        guarded_destroy(&x);
    }
}

static void test_finite(void **state)
{
    (void)state;
    for_each_table(test_finite_of);
}

/* ---- normalisation
 * --------------------------------------------------------------------------------- */

static void test_norms_of(const tensor_kernels *k)
{
    for (size_t channels = 1; channels <= LENGTHS; channels++) {
        const size_t pixels = 1 + channels * 7 % 19;
        guarded_floats x = {0}, y = {0}, sums = {0}, gain = {0};
        guarded_create(&x, pixels * channels, true);
        guarded_create(&y, pixels * channels, true);
        guarded_create(&sums, 2 * channels, true);
        guarded_create(&gain, 2 * channels, true);
        const float *shift = gain.values + channels;
        fill_random(x.values, pixels * channels, channels, 2);
        fill_random(gain.values, 2 * channels, channels + 1, 1);
        k->channel_sums(sums.values, x.values, pixels, channels);
        for (size_t c = 0; c < channels; c++) {
            double sum = 0, square = 0;
            for (size_t p = 0; p < pixels; p++) {
                const double v = (double)x.values[p * channels + c];
                sum += v;
                square += v * v;
            }
            check_close("sum", k, 0, (double)sums.values[c], sum, 1e-6, 1e-5);
            check_close("square", k, 0, (double)sums.values[channels + c], square, 1e-6, 1e-5);
        }
        for (int silu = 0; silu < 2; silu++) {
            k->normalise(y.values, x.values, pixels, channels, gain.values, shift, silu);
            for (size_t i = 0; i < pixels * channels; i++) {
                const double v = (double)x.values[i] * (double)gain.values[i % channels] +
                                 (double)shift[i % channels];
                check_close("normalise", k, (double)x.values[i], (double)y.values[i],
                            silu ? exact_silu(v) : v, 1e-6, 1e-6);
            }
        }
        for (size_t p = 0; p < pixels; p++) {
            double mean = 0, variance = 0;
            const float *row = x.values + p * channels;
            k->layer_norm(y.values, row, channels, gain.values, shift, 1e-5f);
            for (size_t c = 0; c < channels; c++) {
                mean += (double)row[c] / (double)channels;
            }
            for (size_t c = 0; c < channels; c++) {
                variance += pow((double)row[c] - mean, 2) / (double)channels;
            }
            for (size_t c = 0; c < channels; c++) {
                const double v = ((double)row[c] - mean) / sqrt(variance + (double)1e-5f);
                check_close("layer_norm", k, (double)row[c], (double)y.values[c],
                            v * (double)gain.values[c] + (double)shift[c], 1e-5, 2e-5);
            }
        }
        guarded_destroy(&x);
        guarded_destroy(&y);
        guarded_destroy(&sums);
        guarded_destroy(&gain);
    }
}

static void test_norms(void **state)
{
    (void)state;
    for_each_table(test_norms_of);
}

/* ---- softmax
 * --------------------------------------------------------------------------------------- */

enum { ROWS = 21 }; /* more than the kernels take at once */

/* What the kernel wrote, as weights: of integers their own, or times their row's scale. */
static void read_weights(const softmax_block *block, size_t row, float *weights)
{
    for (size_t i = 0; i < block->padded; i++) {
        const size_t place = row * block->integers_stride + i;
        switch (block->form) {
        case SOFTMAX_FLOATS:
            weights[i] = block->scores[row * block->stride + i];
            break;
        case SOFTMAX_WORDS:
            weights[i] = (float)((int16_t *)block->integers)[place] * block->scales[row];
            break;
        case SOFTMAX_BYTES:
            weights[i] = (float)((uint8_t *)block->integers)[place] * block->scales[row];
            break;
        }
    }
}

/* Blocks of one row of logits, put together, are its softmax. */
static void check_softmax(const tensor_kernels *k, size_t keys, size_t block_keys, bool causal,
                          softmax_form form, float deviation, double tolerance)
{
    const size_t stride = size_round_up(block_keys, 16);
    const size_t first_query = causal ? keys / 3 : 0;
    float logits[ROWS][200], weights[ROWS][200 + 16] = {{0}};
    float largest[ROWS], sum[ROWS], factor[ROWS], scales[ROWS];
    fill_random(&logits[0][0], ROWS * 200, keys * 7 + block_keys, deviation);
    for (size_t first = 0; first < keys; first += block_keys) {
        const size_t count = size_minimum(block_keys, keys - first);
        guarded_floats scores = {0};
        guarded_halves integers = {0};
        guarded_create(&scores, ROWS * stride, true);
        /* As many bytes as the form needs, at the end of their page. */
        guarded_halves_create(&integers, ROWS * stride / (form == SOFTMAX_BYTES ? 2 : 1), true);
        for (size_t r = 0; r < ROWS; r++) {
            memcpy(scores.values + r * stride, logits[r] + first, count * sizeof(float));
        }
        const softmax_block block = {
            .scores = scores.values,
            .stride = stride,
            .rows = ROWS,
            .keys = count,
            .padded = size_round_up(count, 16),
            .visible = causal ? (ptrdiff_t)first_query + 1 - (ptrdiff_t)first : (ptrdiff_t)count,
            .first = first == 0,
            .largest = largest,
            .sum = sum,
            .factor = factor,
            .form = form,
            .integers = integers.values,
            .integers_stride = stride,
            .scales = scales,
        };
        k->softmax(&block);
        for (size_t r = 0; r < ROWS; r++) {
            for (size_t i = 0; i < first; i++) {
                weights[r][i] *= factor[r];
            }
            read_weights(&block, r, weights[r] + first);
            for (size_t i = count; i < block.padded; i++) {
                assert_true(weights[r][first + i] == 0);
            }
        }
        guarded_destroy(&scores);
        guarded_halves_destroy(&integers);
    }
    const double unit = form == SOFTMAX_FLOATS  ? 0
                        : form == SOFTMAX_WORDS ? 1.0 / SOFTMAX_INT16
                                                : 1.0 / SOFTMAX_BYTE;
    /* AVX-512's bytes come from a rougher power of two: within 8e-5 of at most 255 units. */
    const bool rough = form == SOFTMAX_BYTES && k->level >= CPU_LEVEL_AVX512;
    const double rounding = (rough ? 0.52 : 0.505) * unit;
    for (size_t r = 0; r < ROWS; r++) {
        const size_t seen = causal ? size_minimum(keys, first_query + r + 1) : keys;
        double top = -INFINITY, total = 0;
        for (size_t i = 0; i < seen; i++) {
            const double logit = (double)logits[r][i];
            top = logit > top ? logit : top;
        }
        for (size_t i = 0; i < keys; i++) {
            const double expected = i < seen ? exp2((double)logits[r][i] - top) : 0;
            check_close("softmax", k, (double)logits[r][i], (double)weights[r][i], expected,
                        tolerance, rounding + 1e-30);
            /* That of the rounded bytes, so that the result is a mean of the values. */
            total += form == SOFTMAX_BYTES ? (double)weights[r][i] : expected;
        }
        check_close("softmax's sum", k, (double)keys, (double)sum[r], total, tolerance, 0);
    }
}

static void test_softmax_of(const tensor_kernels *k)
{
    for (size_t keys = 1; keys < 200; keys += 1 + keys / 12) {
        for (size_t block = 16; block <= 64; block += 24) {
            /* The difference of two large logits is rounded before it is a power of two. */
            check_softmax(k, keys, block, false, SOFTMAX_FLOATS, 30, 1e-5);
            check_softmax(k, keys, block, true, SOFTMAX_FLOATS, 30, 1e-5);
            check_softmax(k, keys, block, false, SOFTMAX_FLOATS, 0.5f, 6e-7);
            for (int form = SOFTMAX_WORDS; form <= SOFTMAX_BYTES; form++) {
                check_softmax(k, keys, block, false, (softmax_form)form, 30, 1e-5);
                check_softmax(k, keys, block, true, (softmax_form)form, 3, 1e-5);
                check_softmax(k, keys, block, false, (softmax_form)form, 0.5f, 1e-5);
            }
        }
    }
}

enum { WORD_KEYS = 300, WORD_GROUP = 16, WORD_MOST = INT16_MAX / 2 };

/* Rows whose words are of `factor` powers of two each, in one block: weights, their sum, and what
 * stands behind the last key. */
static void check_words(const tensor_kernels *k, size_t keys, float factor)
{
    static int16_t words[ROWS][WORD_KEYS];
    static float values[ROWS * WORD_KEYS];
    const size_t padded = size_round_up(keys, WORD_GROUP);
    float largest[ROWS], sum[ROWS], unused[ROWS], scales[ROWS], factors[ROWS];
    guarded_halves bytes = {0};
    /* The last row ends at its page's end. */
    guarded_halves_create(&bytes, (ROWS - 1) * WORD_KEYS / 2 + padded / 2, true);
    fill_random(values, ROWS * WORD_KEYS, keys, 5000);
    for (size_t r = 0; r < ROWS; r++) {
        factors[r] = r == 2 ? 0 : factor * (float)(r + 1);
        for (size_t i = 0; i < WORD_KEYS; i++) {
            const float value = values[r * WORD_KEYS + i];
            words[r][i] = (int16_t)fmaxf(-WORD_MOST, fminf(value, WORD_MOST));
        }
        for (size_t i = keys; i < WORD_KEYS; i++) {
            words[r][i] = INT16_MAX; /* not to be looked at */
        }
    }
    const softmax_block block = {
        .rows = ROWS,
        .keys = keys,
        .padded = padded,
        .visible = (ptrdiff_t)keys,
        .first = true,
        .largest = largest,
        .sum = sum,
        .factor = unused,
        .form = SOFTMAX_BYTES,
        .words = &words[0][0],
        .words_stride = WORD_KEYS,
        .factors = factors,
        .integers = bytes.values,
        .integers_stride = WORD_KEYS,
        .scales = scales,
    };
    k->softmax(&block);
    for (size_t r = 0; r < ROWS; r++) {
        const uint8_t *weights = (const uint8_t *)bytes.values + r * WORD_KEYS;
        int top = INT16_MIN;
        double total = 0;
        for (size_t i = 0; i < keys; i++) {
            top = words[r][i] > top ? words[r][i] : top;
        }
        for (size_t i = 0; i < keys; i++) {
            const double below = (double)(top - words[r][i]) * (double)factors[r];
            check_close("word's weight", k, below, weights[i], SOFTMAX_BYTE * exp2(-below),
                        k->level >= CPU_LEVEL_AVX512 ? 1.1e-2 : 1e-5, 0.51);
            total += weights[i];
        }
        for (size_t i = keys; i < padded; i++) {
            assert_int_equal(weights[i], 0);
        }
        check_close("words' largest", k, top, (double)largest[r], (double)top * (double)factors[r],
                    1e-6, 0);
        check_close("words' sum", k, (double)keys, (double)sum[r], total / SOFTMAX_BYTE, 1e-6, 0);
        assert_true(fabsf(scales[r] * SOFTMAX_BYTE - 1) < 1e-6f);
    }
    guarded_halves_destroy(&bytes);
}

/* From logits that differ by less than a word knows to words of more than 16 powers of two. */
static void test_words_of(const tensor_kernels *k)
{
    for (size_t keys = 1; keys < WORD_KEYS; keys += 1 + keys / 5) {
        for (float factor = 1e-8f; factor < 1e4f; factor *= 9) {
            check_words(k, keys, factor);
        }
    }
}

static void test_words(void **state)
{
    (void)state;
    for_each_table(test_words_of);
}

/* Against sums with the signs of the matrix: element (i, j) is -1 where i & j has an odd number of
 * bits. */
static void test_hadamard_of(const tensor_kernels *k)
{
    float x[192], y[192];
    for (size_t count = 1; count <= 192; count += count < 70 ? 1 : 61) {
        const size_t run = hadamard_run(count);
        guarded_floats values = {0};
        guarded_create(&values, count, true);
        fill_random(x, count, count, 1);
        memcpy(values.values, x, count * sizeof *x);
        k->hadamard(values.values, count);
        memcpy(y, values.values, count * sizeof *y);
        guarded_destroy(&values);
        for (size_t i = 0; i < count; i++) {
            double sum = 0;
            for (size_t j = 0; j < run; j++) {
                const bool negative = __builtin_parityll(i % run & j);
                const double value = (double)x[i / run * run + j];
                sum += negative ? -value : value;
            }
            check_close("hadamard", k, (double)count, (double)y[i], sum, 0, 1e-5);
        }
    }
}

static void test_hadamard(void **state)
{
    (void)state;
    for_each_table(test_hadamard_of);
}

static void test_softmax(void **state)
{
    (void)state;
    for_each_table(test_softmax_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions), cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_finite),    cmocka_unit_test(test_norms),
        cmocka_unit_test(test_softmax),   cmocka_unit_test(test_words),
        cmocka_unit_test(test_hadamard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
