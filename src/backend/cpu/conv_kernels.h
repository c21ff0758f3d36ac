/* The instruction-set dependent parts of convolutions: one table of functions a level. Private to
 * the convolution files, their tests and benchmarks. */
#ifndef ONESTEP_BACKEND_CPU_CONV_KERNELS_H
#define ONESTEP_BACKEND_CPU_CONV_KERNELS_H

#include "backend/cpu/conv.h"
#include "backend/cpu/kernel_families.h"

/* C[row][p * columns + j] (+)= sum over k of A[row][k] * B[p][k][j]: `rows` rows, `panels` panels
 * of `columns` (the table's) outputs. Rows of A are a_stride apart, or row r begins at
 * a + offsets[r]. Each sum is made in the order of k from zero, then stored or added to C, so that
 * a value does not depend on its row. */
typedef struct conv_multiply {
    const float *a;
    size_t a_stride;
    const uint32_t *offsets; /* NULL: a_stride, which is faster */
    size_t rows;
    const float *b;
    size_t b_stride; /* floats between panels */
    size_t panels, depth;
    float *c;
    size_t c_stride;
    bool accumulate;
    const float *next_a, *next_b; /* what the next call will read: hints for prefetching */
} conv_multiply;

/* Where row `row` of A begins. */
static inline size_t conv_row_offset(const uint32_t *offsets, size_t stride, size_t row)
{
    return offsets ? offsets[row] : row * stride;
}

/* Most of the Euclidean norm of a step's quantised inputs, and of either half of its quantised
 * weights of one output (conv_half_step), before they are rounded. Both halves together then have a
 * norm of 46330 at most, so that by Cauchy and Schwarz no sum of a step passes 2^31, while a weight
 * alone does not pass 16 bits. Inputs and weights share the range evenly, where their errors
 * together are least. Bounds of the largest input and of the sum of the weights' magnitudes would
 * cost 0.8 bits of each. */
#define CONV_INT16_INPUT_NORM  46250
#define CONV_INT16_WEIGHT_NORM 32760

/* Channels of the first half of a step, the larger one. */
static inline size_t conv_half_step(size_t step)
{
    return (step + 1) / 2;
}

/* The same with 16-bit numbers. Integers: sums of products of pairs are made in 32-bit integers,
 * exactly, then C (+)= float(sum) * row_scales[scale_offsets[row]] * column_scales[column]; without
 * offsets row_scales[row].
 * bfloat16: sums are floats, and there are no scales. Bytes: a "pair" is four of them, unsigned in
 * A and signed in B. */
typedef struct conv_multiply_pairs {
    const int16_t *a;
    size_t a_stride;
    const uint32_t *offsets;
    size_t rows;
    const int16_t *b; /* [panel][pair][column][2] */
    size_t b_stride;  /* values between panels */
    size_t panels, pairs;
    const float *row_scales;
    const uint32_t *scale_offsets;
    const float *column_scales;
    size_t column_scales_stride;  /* between panels; of column_begins too */
    const int32_t *column_begins; /* of bytes only: what the sums of each column begin with */
    float *c;
    size_t c_stride;
    bool accumulate;
    /* Of multiply_int8_words, in place of C and the scales. */
    int16_t *words;
    size_t words_stride;
    unsigned shift;                 /* at most 16 */
    const int16_t *word_factors;    /* [panels * columns] of 0..32767 */
    const int16_t *next_a, *next_b; /* what the next call will read: hints for prefetching */
} conv_multiply_pairs;

/* Rows of floats -> 16-bit integers of a norm of at most CONV_INT16_INPUT_NORM and a scale each, or
 * bfloat16 without scales; `channels` values are read and `padded` (a multiple of 16) written. */
typedef struct conv_quantise {
    const float *source;
    size_t source_stride;
    size_t rows, channels, padded;
    int16_t *destination;
    size_t destination_stride;
    float *scales;
    size_t scales_stride;
    size_t ahead; /* values from a row to the one that is worth prefetching meanwhile; 0: none */
} conv_quantise;

/* The SiLU of inputs: within 5e-6 of it, or coarse, within 1.5e-4, which is little beside the
 * errors of 16-bit integers. */
typedef enum conv_input_silu { CONV_NO_SILU, CONV_EXACT_SILU, CONV_COARSE_SILU } conv_input_silu;

static inline conv_input_silu conv_input_silu_of(const conv_plan *plan,
                                                 const conv_arguments *arguments)
{
    const bool coarse = plan->precision == CONV_INT16;
    return !arguments->input_silu ? CONV_NO_SILU : coarse ? CONV_COARSE_SILU : CONV_EXACT_SILU;
}

/* Copies `pixels` runs of `channels` values as floats, normalised (scale and shift may be NULL:
 * none) and passed through SiLU when asked. */
typedef struct conv_prologue {
    const void *source;
    conv_storage storage; /* of the source */
    size_t source_stride;
    float *destination;
    size_t destination_stride;
    size_t pixels, channels;
    const float *scale, *shift;
    conv_input_silu silu;
    size_t ahead; /* values from a pixel to the one that is worth prefetching meanwhile */
} conv_prologue;

/* The end of a convolution for rows of sums: adds bias and image bias, activates, adds the
 * residual, stores, and adds to the statistics. Every pointer but `sums` points at the first of
 * `channels` output channels of pixel 0. */
typedef struct conv_epilogue {
    const float *sums; /* [rows][sums_stride] */
    size_t sums_stride;
    size_t rows;
    const uint32_t *pixels; /* index of each row's pixel */
    size_t ahead;           /* pixels from a row's to the one that is worth prefetching meanwhile */
    size_t channels;
    bool geglu; /* sums hold panels of values and gates by turns */
    const float *bias, *gate_bias, *image_bias;
    conv_activation activation;
    float output_scale;
    const void *residual;
    conv_storage residual_storage;
    size_t residual_stride;
    float residual_scale;
    void *output;
    conv_storage output_storage;
    size_t output_stride;
    float *statistics_sum, *statistics_square; /* added to; NULL: none */
} conv_epilogue;

/* ---- Winograd (winograd_sides.h says what the transforms are) ------------------------------- */

/* One side of a tile. */
typedef enum winograd_side {
    WINOGRAD_SIDE_2, /* F(2,3) */
    WINOGRAD_SIDE_4,
    WINOGRAD_SIDE_6,
    WINOGRAD_SIDE_8,
    WINOGRAD_SIDE_2_UP, /* the input is the nearest x2 upsampling of the tensor that is read */
    WINOGRAD_SIDE_4_UP,
    WINOGRAD_SIDE_6_UP,
    WINOGRAD_SIDE_4_STRIDED /* stride 2: F(4,2) of even inputs, and odd ones as they are */
} winograd_side;

/* The most that a side has. */
enum { WINOGRAD_SIDE_INPUTS = 10, WINOGRAD_SIDE_PRODUCTS = 10, WINOGRAD_SIDE_OUTPUTS = 8 };

typedef struct winograd_sizes {
    size_t outputs, inputs, step; /* the last: inputs from one tile to the next */
    size_t points;                /* transformed inputs */
    size_t weights;               /* transformed weights */
    size_t products;              /* each of one of those and one of these */
    uint8_t point_of_product[WINOGRAD_SIDE_PRODUCTS], weight_of_product[WINOGRAD_SIDE_PRODUCTS];
} winograd_sizes;

static const winograd_sizes winograd_sides[] = {
    [WINOGRAD_SIDE_2] = {2, 4, 2, 4, 4, 4, {0, 1, 2, 3}, {0, 1, 2, 3}},
    [WINOGRAD_SIDE_4] = {4, 6, 4, 6, 6, 6, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}},
    [WINOGRAD_SIDE_6] = {6, 8, 6, 8, 8, 8, {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7}},
    [WINOGRAD_SIDE_8] =
        {8, 10, 8, 10, 10, 10, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
    [WINOGRAD_SIDE_2_UP] = {2, 3, 1, 3, 3, 3, {0, 1, 2}, {0, 1, 2}},
    [WINOGRAD_SIDE_4_UP] = {4, 4, 2, 4, 5, 5, {0, 1, 2, 2, 3}, {0, 1, 2, 3, 4}},
    [WINOGRAD_SIDE_6_UP] = {6, 5, 3, 5, 7, 7, {0, 1, 2, 2, 3, 3, 4}, {0, 1, 2, 3, 4, 5, 6}},
    [WINOGRAD_SIDE_4_STRIDED] =
        {4, 9, 8, 9, 6, 9, {0, 1, 2, 3, 4, 5, 6, 7, 8}, {0, 1, 2, 3, 4, 5, 5, 5, 5}},
};

/* The two sides of a tile: LIST(name, down, across, function, task) for each. */
#define WINOGRAD_VARIANTS(LIST, function, task)                                                    \
    LIST(WINOGRAD_2, WINOGRAD_SIDE_2, WINOGRAD_SIDE_2, function, task)                             \
    LIST(WINOGRAD_4, WINOGRAD_SIDE_4, WINOGRAD_SIDE_4, function, task)                             \
    LIST(WINOGRAD_6, WINOGRAD_SIDE_6, WINOGRAD_SIDE_6, function, task)                             \
    LIST(WINOGRAD_8X6, WINOGRAD_SIDE_8, WINOGRAD_SIDE_6, function, task)                           \
    LIST(WINOGRAD_8, WINOGRAD_SIDE_8, WINOGRAD_SIDE_8, function, task)                             \
    LIST(WINOGRAD_2_UP, WINOGRAD_SIDE_2_UP, WINOGRAD_SIDE_2_UP, function, task)                    \
    LIST(WINOGRAD_4_UP, WINOGRAD_SIDE_4_UP, WINOGRAD_SIDE_4_UP, function, task)                    \
    LIST(WINOGRAD_6_UP, WINOGRAD_SIDE_6_UP, WINOGRAD_SIDE_6_UP, function, task)                    \
    LIST(WINOGRAD_4_STRIDED, WINOGRAD_SIDE_4_STRIDED, WINOGRAD_SIDE_4_STRIDED, function, task)

#define WINOGRAD_VARIANT_NAME(name, down, across, function, task) name,
typedef enum winograd_variant { WINOGRAD_VARIANTS(WINOGRAD_VARIANT_NAME, , ) } winograd_variant;
#undef WINOGRAD_VARIANT_NAME

/* Transforms `tiles` neighbouring tiles, `channels` (a multiple of 16) floats deep. The inputs of a
 * tile are the side's pixels from tile_step * tile on in each of the side's rows; the value of
 * point p of a tile goes to output + p * output_point_stride + tile * output_tile_stride. */
typedef struct winograd_input {
    winograd_variant variant;
    const float *rows[WINOGRAD_SIDE_INPUTS];
    size_t pixel_stride, tile_step, tiles, channels;
    float *output;
    size_t output_tile_stride, output_point_stride;
} winograd_input;

/* Transforms one panel [channel][tap][column]; transformed weight w of channel c goes to
 * output + w * output_weight_stride + c * columns. */
typedef struct winograd_weights {
    winograd_variant variant;
    const float *weights;
    size_t channels, columns;
    float *output;
    size_t output_weight_stride;
} winograd_weights;

/* The same for one panel of int16 weights [channel][tap][column], whose real values are
 * output_scales[column] times as large: pairs of channels go to output +
 * w * output_weight_stride + (c / 2 * columns + column) * 2 + c % 2. Channels are padded to
 * pairs. winograd_scales_int16 writes the scales that sums of `step` channels allow, of a whole
 * panel; winograd_weights_int16 reads them, for any of its channels. */
typedef struct winograd_weights_int16 {
    winograd_variant variant;
    const int16_t *weights;
    const float *output_scales;
    size_t channels, step, columns;
    int16_t *output;
    size_t output_weight_stride;
    float *scales; /* [transformed weight][column] */
} winograd_weights_int16;

/* Transforms the sums of one tile back: its pixel p, in rows, goes to output + p * output_stride.
 * `channels` is a multiple of 16. */
typedef struct winograd_output {
    winograd_variant variant;
    const float *sums;
    size_t sums_product_stride, channels;
    float *output;
    size_t output_stride;
} winograd_output;

/* ---- packing (conv_pack.h) ------------------------------------------------------------------- */

typedef enum conv_pack_type {
    CONV_PACK_F32,         /* [block of channels][tap][channel][column] */
    CONV_PACK_INT16,       /* the same */
    CONV_PACK_INT16_PAIRS, /* [block of channels][tap][pair of channels][column][2] */
    CONV_PACK_BF16_PAIRS   /* the same */
} conv_pack_type;

/* Packs the weights [output][channel][tap] of one panel. Columns beyond the last output and the
 * second half of an odd pair become zero. */
typedef struct conv_pack_panel {
    conv_pack_type type;
    const float *weights;
    size_t output_stride, outputs; /* floats between outputs; 1..columns of them */
    size_t channels, taps, columns;
    size_t block_channels; /* a multiple of 16, 1, or all channels */
    void *panel;
    float *scales; /* of integers: of every column; those of pairs respect CONV_INT16_WEIGHT_NORM */
} conv_pack_panel;

typedef struct conv_kernels {
    const char *name;
    cpu_level level;
    unsigned rows, columns; /* of the register tile of multiply; columns is a power of two <= 32 */
    void (*multiply)(const conv_multiply *task);
    void (*prologue)(const conv_prologue *task);
    void (*epilogue)(const conv_epilogue *task);
    void (*winograd_input)(const winograd_input *task);
    void (*winograd_weights)(const winograd_weights *task);
    void (*winograd_output)(const winograd_output *task);
    void (*multiply_int16)(const conv_multiply_pairs *task);
    void (*quantise)(const conv_quantise *task);
    void (*multiply_bf16)(const conv_multiply_pairs *task); /* NULL: has no such numbers */
    void (*round_bf16)(const conv_quantise *task);          /* the same */
    void (*multiply_int8)(const conv_multiply_pairs *task); /* the same */
    /* The sums of bytes as 16-bit integers, which they fit into once they are divided by 2^shift
     * and rounded down: word 2j + i of a panel is column i * columns / 2 + j's, times its own of
     * the word_factors / 2^15. With every table that has multiply_int8. */
    void (*multiply_int8_words)(const conv_multiply_pairs *task);
    void (*winograd_scales_int16)(const winograd_weights_int16 *task);
    void (*winograd_weights_int16)(const winograd_weights_int16 *task);
    void (*pack)(const conv_pack_panel *task);
} conv_kernels;

#define CONV_KERNELS(name, level, family) extern const conv_kernels conv_kernels_##name;
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS

/* How many of `channels` input channels a step of the summation takes, where `most` let a panel of
 * B stay in L1. The order of summation follows from it, so it depends on the channels only. */
size_t conv_step_channels(size_t channels, size_t most);

/* The table of the highest level that is not above `level`. */
const conv_kernels *conv_kernels_find(cpu_level level);

/* conv_pack and conv_run with a given table in place of the plan's level: tests run tables of
 * levels that this machine lacks. */
void conv_pack_kernels(const conv_plan *plan, void *packed, const float *weights, size_t first,
                       size_t count, const conv_kernels *kernels);
void conv_run_kernels(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                      thread_pool *pool, const conv_kernels *kernels);

#endif
