/* The instruction-set dependent parts of convolutions: one table of functions a level. Private to
 * the convolution files, their tests and benchmarks. */
#ifndef ONESTEP_BACKEND_CPU_CONV_KERNELS_H
#define ONESTEP_BACKEND_CPU_CONV_KERNELS_H

#include "backend/cpu/conv.h"

/* C[row][p * columns + j] (+)= sum over k of A[row][k] * B[p][k][j]: `rows` rows, `panels` panels
 * of `columns` (the table's) outputs. Row r of A begins at a + offsets[r]. Each sum is made in the
 * order of k from zero, then stored or added to C, so that a value does not depend on its row. */
typedef struct conv_multiply {
    const float *a;
    const uint32_t *offsets;
    size_t rows;
    const float *b;
    size_t b_stride; /* floats between panels */
    size_t panels, depth;
    float *c;
    size_t c_stride;
    bool accumulate;
} conv_multiply;

/* Copies `pixels` runs of `channels` floats, normalised (scale and shift may be NULL: none) and
 * passed through SiLU when asked. */
typedef struct conv_prologue {
    const float *source;
    size_t source_stride;
    float *destination;
    size_t destination_stride;
    size_t pixels, channels;
    const float *scale, *shift;
    bool silu;
} conv_prologue;

/* The end of a convolution for rows of sums: adds bias and image bias, activates, adds the
 * residual, stores, and adds to the statistics. Every pointer but `sums` points at the first of
 * `channels` output channels of pixel 0. */
typedef struct conv_epilogue {
    const float *sums; /* [rows][sums_stride] */
    size_t sums_stride;
    size_t rows;
    const uint32_t *pixels; /* index of each row's pixel */
    size_t channels;
    bool geglu; /* sums hold panels of values and gates by turns */
    const float *bias, *gate_bias, *image_bias;
    conv_activation activation;
    float output_scale;
    const float *residual;
    size_t residual_stride;
    float residual_scale;
    float *output;
    size_t output_stride;
    float *statistics_sum, *statistics_square; /* added to; NULL: none */
} conv_epilogue;

typedef struct conv_kernels {
    const char *name;
    cpu_level level;
    unsigned rows, columns; /* of the register tile of multiply; columns is a power of two <= 32 */
    void (*multiply)(const conv_multiply *task);
    void (*prologue)(const conv_prologue *task);
    void (*epilogue)(const conv_epilogue *task);
} conv_kernels;

#if defined(__x86_64__) || defined(__i386__)
#define CONV_HAS_X86 1
#else
#define CONV_HAS_X86 0
#endif
#define CONV_HAS_ANY 1

#define CONV_KERNELS(name, level, family) extern const conv_kernels conv_kernels_##name;
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS

/* The table of the highest level that is not above `level`. */
const conv_kernels *conv_kernels_find(cpu_level level);

/* conv_run with a given table in place of the plan's level (which must pack alike): tests run
 * tables of levels that this machine lacks. */
void conv_run_kernels(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                      thread_pool *pool, const conv_kernels *kernels);

#endif
