/* The instruction-set dependent parts of everything that is no product with weights: one table of
 * functions a level. Private to the cpu backend, its tests and benchmarks.
 *
 * `y` may be `x` (or `a`) where element i of the result depends on element i only. Every function
 * gives an element the same bytes wherever it stands in a vector or a tail. */
#ifndef ONESTEP_BACKEND_CPU_TENSOR_KERNELS_H
#define ONESTEP_BACKEND_CPU_TENSOR_KERNELS_H

#include "backend/cpu/kernel_families.h"
#include "base/base.h"

/* Scores of `rows` queries with the `keys` keys of one block, for an online softmax. */
typedef struct softmax_block {
    float *scores; /* [rows][stride]: logits times log2(e); become 2^(score - largest) */
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
    /* NULL, or [rows][integers_stride]: the weights times SOFTMAX_INTEGER, rounded, go there and
     * `scores` are left in any state. */
    int16_t *integers;
    size_t integers_stride;
} softmax_block;

/* Stands for a weight of one. */
#define SOFTMAX_INTEGER 8191

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
    /* False when one is infinite or NaN. */
    bool (*all_finite)(const float *x, size_t count);
} tensor_kernels;

#define TENSOR_KERNELS(name, level, family) extern const tensor_kernels tensor_kernels_##name;
#include "backend/cpu/tensor_kernels.def"
#undef TENSOR_KERNELS

/* The table of the highest level that is not above `level`. */
const tensor_kernels *tensor_kernels_find(cpu_level level);

#endif
