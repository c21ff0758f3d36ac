/* The instruction-set dependent parts of everything that is no product with weights: one table of
 * functions a level. Private to the cpu backend, its tests and benchmarks.
 *
 * `y` may be `x` (or `a`) where element i of the result depends on element i only. Every function
 * gives an element the same bytes wherever it stands in a vector or a tail. */
#ifndef ONESTEP_BACKEND_CPU_TENSOR_KERNELS_H
#define ONESTEP_BACKEND_CPU_TENSOR_KERNELS_H

#include "backend/cpu/kernel_families.h"
#include "base/base.h"

/* What the weights of a softmax are handed on as. Integers of a row count the largest weight of its
 * block as SOFTMAX_INT16 or SOFTMAX_BYTE, so that they are as exact in every block. */
typedef enum softmax_form {
    SOFTMAX_FLOATS, /* 2^(score - largest) */
    SOFTMAX_WORDS,  /* int16_t */
    SOFTMAX_BYTES,  /* uint8_t */
} softmax_form;

/* Stand for the largest weight. */
#define SOFTMAX_INT16 8191
#define SOFTMAX_BYTE  255

/* Scores of `rows` queries with the `keys` keys of one block, for an online softmax. */
typedef struct softmax_block {
    float *scores; /* [rows][stride]: logits times log2(e); become the weights */
    size_t stride;
    size_t rows, keys;
    size_t padded; /* >= keys: what lies beyond becomes zero */
    /* Row r sees the first visible + r keys of the block (negative: none); `keys` or more: all.
     * Every row sees a key in the first block. */
    ptrdiff_t visible;
    bool first;     /* no block came before: largest and sum need not be set */
    float *largest; /* [rows] of all blocks so far */
    float *sum;     /* [rows] of 2^(score - largest) so far */
    float *factor;  /* [rows]: what earlier sums must be multiplied by */
    softmax_form form;
    /* For bytes the scores may be 16-bit integers, factors[r] times those of row r; the difference
     * of two of a row is one too. Their weights may be off by 1.1 %. NULL: floats. */
    const int16_t *words; /* [rows][words_stride] */
    size_t words_stride;
    const float *factors;
    /* With integers: they go to [rows][integers_stride], what 1 of a row stands for to scales
     * [rows], and `scores` are left in any state. Sums are then those of the rounded bytes. */
    void *integers;
    size_t integers_stride;
    float *scales;
} softmax_block;

typedef struct tensor_kernels {
    const char *name;
    cpu_level level;
    void (*silu)(float *y, const float *x, size_t count);
    void (*gelu)(float *y, const float *x, size_t count);
    void (*quick_gelu)(float *y, const float *x, size_t count);
    /* Infinite above 88.72; zero (or below 2e-38) under -87. */
    void (*exponential)(float *y, const float *x, size_t count);
    /* One pixel: x [2 channels] -> first half * gelu(second half) */
    void (*geglu)(float *y, const float *x, size_t channels);
    /* NaN stays NaN. */
    void (*clamp)(float *y, const float *x, size_t count, float low, float high);
    void (*scale)(float *y, const float *x, size_t count, float scale, float offset);
    void (*combine)(float *y, const float *a, float scale_a, const float *b, float scale_b,
                    size_t count);
    void (*multiply)(float *y, const float *a, const float *b, size_t count);

    /* Sums and sums of squares of every channel over some pixels: sums [2][channels]. */
    void (*channel_sums)(float *sums, const float *x, size_t pixels, size_t channels);
    /* y = x * scale[c] + shift[c], then SiLU when asked. */
    void (*normalise)(float *y, const float *x, size_t pixels, size_t channels, const float *scale,
                      const float *shift, bool silu);
    /* One pixel, normalised over its channels. */
    void (*layer_norm)(float *y, const float *x, size_t channels, const float *gamma,
                       const float *beta, float epsilon);

    void (*softmax)(const softmax_block *block);
    /* Multiplies each run of n = hadamard_run(count) values by the Hadamard matrix, whose elements
     * are 1 and -1: a rotation, but for a factor of sqrt(n). */
    void (*hadamard)(float *x, size_t count);
    /* False when one is infinite or NaN. */
    bool (*all_finite)(const float *x, size_t count);

    /* Rounds of independent multiply-adds in registers, to measure the machine's peak: returns the
     * operations done and adds to `*sink` what depends on all of them. */
    double (*multiply_adds)(size_t rounds, float *sink);
} tensor_kernels;

/* The largest power of two that divides `count`. */
static inline size_t hadamard_run(size_t count)
{
    return count & (~count + 1);
}

#define TENSOR_KERNELS(name, level, family) extern const tensor_kernels tensor_kernels_##name;
#include "backend/cpu/tensor_kernels.def"
#undef TENSOR_KERNELS

/* The table of the highest level that is not above `level`. */
const tensor_kernels *tensor_kernels_find(cpu_level level);

#endif
