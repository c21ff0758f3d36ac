/* The transforms of Winograd's convolution, compiled by each kernel file for its own vectors.
 *
 * F(m,3) computes m outputs of a three-tap filter from m+2 inputs through products at m+2 points:
 * 0, +-a, +-b, (+-c,) infinity. With M(x) = x (x^2-a^2)(x^2-b^2)..., the input transform's row for
 * point p holds the coefficients of M(x)/(x-p) (of M itself for infinity), the weights' row is
 * [1, p, p^2]/M'(p) ([0,0,1]), and output i sums p^i times the product (the last one adds that of
 * infinity). A pair +-p shares its even and odd parts.
 *
 * On a picture that is the nearest x2 upsampling of another, inputs come in equal pairs (e0, e1,
 * e1, e2, e2, ...). Then even and odd parts are equal, so the rows of +-p are (1 +- p) times one
 * value: at -1 it vanishes (1 must be among the points), and for the others one input point serves
 * two products. We choose as those two products the sum and the difference that the outputs of
 * even and odd index need, so that their weights are [2, 2p^2, 2p^2]/M'(p) and
 * [2p, 2p, 2p^3]/M'(p). Of 64 products 49 remain, with 25 input points. */
#ifndef ONESTEP_BACKEND_CPU_WINOGRAD_TRANSFORM_H
#define ONESTEP_BACKEND_CPU_WINOGRAD_TRANSFORM_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

/* The points. */
#define POINT_4A    0.65f /* of all pairs the one that amplifies rounding least */
#define POINT_4B    1.55f
#define POINT_4UP_B 2.0f
#define POINT_6B    2.0f
#define POINT_6C    0.5f

ALWAYS_INLINE vector even_or_odd(vector high, vector middle, vector low, float middle_factor,
                                 float low_factor)
{
    return vector_fma(low, vector_set(low_factor),
                      vector_fma(middle, vector_set(middle_factor), high));
}

ALWAYS_INLINE void input_2(const vector *d, vector *v)
{
    v[0] = d[2] - d[0];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
}

ALWAYS_INLINE void input_4(const vector *d, vector *v)
{
    const float a = POINT_4A;
    const float b = POINT_4B;
    v[0] = even_or_odd(d[4], d[2], d[0], -(a * a + b * b), a * a * b * b);
    v[5] = even_or_odd(d[5], d[3], d[1], -(a * a + b * b), a * a * b * b);
    const vector even_a = vector_fma(d[2], vector_set(-b * b), d[4]);
    const vector odd_a = vector_fma(d[1], vector_set(-b * b), d[3]);
    v[1] = vector_fma(odd_a, vector_set(a), even_a);
    v[2] = vector_fma(odd_a, vector_set(-a), even_a);
    const vector even_b = vector_fma(d[2], vector_set(-a * a), d[4]);
    const vector odd_b = vector_fma(d[1], vector_set(-a * a), d[3]);
    v[3] = vector_fma(odd_b, vector_set(b), even_b);
    v[4] = vector_fma(odd_b, vector_set(-b), even_b);
}

ALWAYS_INLINE void input_6(const vector *d, vector *v)
{
    const float b = POINT_6B;
    const float c = POINT_6C;
    const float sum1 = 1 + b * b + c * c;
    const float sum2 = b * b + c * c + b * b * c * c;
    const float sum3 = b * b * c * c;
    v[0] = vector_fma(d[0], vector_set(-sum3), even_or_odd(d[6], d[4], d[2], -sum1, sum2));
    v[7] = vector_fma(d[1], vector_set(-sum3), even_or_odd(d[7], d[5], d[3], -sum1, sum2));
    const vector even_a = even_or_odd(d[6], d[4], d[2], -(b * b + c * c), b * b * c * c);
    const vector odd_a = even_or_odd(d[5], d[3], d[1], -(b * b + c * c), b * b * c * c);
    v[1] = even_a + odd_a;
    v[2] = even_a - odd_a;
    const vector even_b = even_or_odd(d[6], d[4], d[2], -(1 + c * c), c * c);
    const vector odd_b = even_or_odd(d[5], d[3], d[1], -(1 + c * c), c * c);
    v[3] = vector_fma(odd_b, vector_set(b), even_b);
    v[4] = vector_fma(odd_b, vector_set(-b), even_b);
    const vector even_c = even_or_odd(d[6], d[4], d[2], -(1 + b * b), b * b);
    const vector odd_c = even_or_odd(d[5], d[3], d[1], -(1 + b * b), b * b);
    v[5] = vector_fma(odd_c, vector_set(c), even_c);
    v[6] = vector_fma(odd_c, vector_set(-c), even_c);
}

ALWAYS_INLINE void input_2_up(const vector *e, vector *v)
{
    v[0] = e[1] - e[0];
    v[1] = e[1];
    v[2] = e[2] - e[1];
}

ALWAYS_INLINE void input_4_up(const vector *e, vector *v)
{
    const float b = POINT_4UP_B;
    v[0] = even_or_odd(e[2], e[1], e[0], -(1 + b * b), b * b);
    v[1] = vector_fma(e[1], vector_set(-b * b), e[2]);
    v[2] = e[2] - e[1];
    v[3] = even_or_odd(e[3], e[2], e[1], -(1 + b * b), b * b);
}

ALWAYS_INLINE void input_6_up(const vector *e, vector *v)
{
    const float b = POINT_6B;
    const float c = POINT_6C;
    const float sum1 = 1 + b * b + c * c;
    const float sum2 = b * b + c * c + b * b * c * c;
    const float sum3 = b * b * c * c;
    v[0] = vector_fma(e[0], vector_set(-sum3), even_or_odd(e[3], e[2], e[1], -sum1, sum2));
    v[1] = even_or_odd(e[3], e[2], e[1], -(b * b + c * c), b * b * c * c);
    v[2] = even_or_odd(e[3], e[2], e[1], -(1 + c * c), c * c);
    v[3] = even_or_odd(e[3], e[2], e[1], -(1 + b * b), b * b);
    v[4] = vector_fma(e[1], vector_set(-sum3), even_or_odd(e[4], e[3], e[2], -sum1, sum2));
}

ALWAYS_INLINE void input_1d(winograd_variant variant, const vector *d, vector *v)
{
    switch (variant) {
    case WINOGRAD_2:
        input_2(d, v);
        break;
    case WINOGRAD_4:
        input_4(d, v);
        break;
    case WINOGRAD_6:
        input_6(d, v);
        break;
    case WINOGRAD_2_UP:
        input_2_up(d, v);
        break;
    case WINOGRAD_4_UP:
        input_4_up(d, v);
        break;
    default:
        input_6_up(d, v);
        break;
    }
}

/* (g0 + p g1 + p^2 g2) / n and (g0 - p g1 + p^2 g2) / n */
ALWAYS_INLINE void weight_pair(const vector *g, float p, float n, vector *plus, vector *minus)
{
    const vector even = vector_fma(g[2], vector_set(p * p / n), g[0] * (1 / n));
    *plus = vector_fma(g[1], vector_set(p / n), even);
    *minus = vector_fma(g[1], vector_set(-p / n), even);
}

/* The two products of one input point +-p of an upsampled picture. */
ALWAYS_INLINE void weight_pair_up(const vector *g, float p, float n, vector *sum,
                                  vector *difference)
{
    const vector upper = (g[1] + g[2]) * (2 * p * p / n);
    const vector lower = (g[0] + g[1]) * (2 * p / n);
    *sum = vector_fma(g[0], vector_set(2 / n), upper);
    *difference = vector_fma(g[2], vector_set(2 * p * p * p / n), lower);
}

ALWAYS_INLINE void weight_1d(winograd_variant variant, const vector *g, vector *u)
{
    const float a4 = POINT_4A;
    const float b4 = POINT_4B;
    const float b4up = POINT_4UP_B;
    const float b = POINT_6B;
    const float c = POINT_6C;
    const float n6a = 2 * (1 - b * b) * (1 - c * c);
    const float n6b = 2 * b * b * (b * b - 1) * (b * b - c * c);
    const float n6c = 2 * c * c * (c * c - 1) * (c * c - b * b);
    switch (variant) {
    case WINOGRAD_2:
        u[0] = -g[0];
        weight_pair(g, 1, 2, &u[1], &u[2]);
        u[3] = g[2];
        break;
    case WINOGRAD_4:
        u[0] = g[0] * (1 / (a4 * a4 * b4 * b4));
        weight_pair(g, a4, 2 * a4 * a4 * (a4 * a4 - b4 * b4), &u[1], &u[2]);
        weight_pair(g, b4, 2 * b4 * b4 * (b4 * b4 - a4 * a4), &u[3], &u[4]);
        u[5] = g[2];
        break;
    case WINOGRAD_6:
        u[0] = g[0] * (-1 / (b * b * c * c));
        weight_pair(g, 1, n6a, &u[1], &u[2]);
        weight_pair(g, b, n6b, &u[3], &u[4]);
        weight_pair(g, c, n6c, &u[5], &u[6]);
        u[7] = g[2];
        break;
    case WINOGRAD_2_UP:
        u[0] = -g[0];
        u[1] = g[0] + g[1] + g[2];
        u[2] = g[2];
        break;
    case WINOGRAD_4_UP:
        u[0] = g[0] * (1 / (b4up * b4up));
        u[1] = (g[0] + g[1] + g[2]) * (1 / (1 - b4up * b4up));
        weight_pair_up(g, b4up, 2 * b4up * b4up * (b4up * b4up - 1), &u[2], &u[3]);
        u[4] = g[2];
        break;
    default:
        u[0] = g[0] * (-1 / (b * b * c * c));
        u[1] = (g[0] + g[1] + g[2]) * (2 / n6a);
        weight_pair_up(g, b, n6b, &u[2], &u[3]);
        weight_pair_up(g, c, n6c, &u[4], &u[5]);
        u[6] = g[2];
        break;
    }
}

ALWAYS_INLINE void output_4(const vector *r, vector *y)
{
    const float a = POINT_4A;
    const float b = POINT_4B;
    const vector sum_a = r[1] + r[2];
    const vector sum_b = r[3] + r[4];
    const vector difference_a = r[1] - r[2];
    const vector difference_b = r[3] - r[4];
    y[0] = r[0] + sum_a + sum_b;
    y[1] = vector_fma(difference_b, vector_set(b), difference_a * a);
    y[2] = vector_fma(sum_b, vector_set(b * b), sum_a * (a * a));
    y[3] = vector_fma(difference_b, vector_set(b * b * b),
                      vector_fma(difference_a, vector_set(a * a * a), r[5]));
}

/* first + second * b^power + third * c^power of the F(6,3) points */
ALWAYS_INLINE vector powers_6(vector first, vector second, vector third, float b, float c)
{
    return vector_fma(third, vector_set(c), vector_fma(second, vector_set(b), first));
}

/* Outputs from the sums and differences of the products of +-1, +-b, +-c. */
ALWAYS_INLINE void outputs_6(vector zero, vector sum_a, vector sum_b, vector sum_c,
                             vector difference_a, vector difference_b, vector difference_c,
                             vector infinity, vector *y)
{
    const float b = POINT_6B;
    const float c = POINT_6C;
    y[0] = (zero + sum_a) + (sum_b + sum_c);
    y[1] = powers_6(difference_a, difference_b, difference_c, b, c);
    y[2] = powers_6(sum_a, sum_b, sum_c, b * b, c * c);
    y[3] = powers_6(difference_a, difference_b, difference_c, b * b * b, c * c * c);
    y[4] = powers_6(sum_a, sum_b, sum_c, b * b * b * b, c * c * c * c);
    y[5] = powers_6(difference_a + infinity, difference_b, difference_c, b * b * b * b * b,
                    c * c * c * c * c);
}

ALWAYS_INLINE void output_1d(winograd_variant variant, const vector *r, vector *y)
{
    const float b4up = POINT_4UP_B;
    switch (variant) {
    case WINOGRAD_2:
        y[0] = r[0] + r[1] + r[2];
        y[1] = r[1] - r[2] + r[3];
        break;
    case WINOGRAD_4:
        output_4(r, y);
        break;
    case WINOGRAD_6:
        outputs_6(r[0], r[1] + r[2], r[3] + r[4], r[5] + r[6], r[1] - r[2], r[3] - r[4],
                  r[5] - r[6], r[7], y);
        break;
    case WINOGRAD_2_UP:
        y[0] = r[0] + r[1];
        y[1] = r[1] + r[2];
        break;
    case WINOGRAD_4_UP:
        y[0] = r[0] + r[1] + r[2];
        y[1] = vector_fma(r[3], vector_set(b4up), r[1]);
        y[2] = vector_fma(r[2], vector_set(b4up * b4up), r[1]);
        y[3] = vector_fma(r[3], vector_set(b4up * b4up * b4up), r[1] + r[4]);
        break;
    default:
        outputs_6(r[0], r[1], r[2], r[4], r[1], r[3], r[5], r[6], y);
        break;
    }
}

/* ---- two dimensions --------------------------------------------------------------------------
 *
 * Strides are copied, and pointers moved on, since a store could change the task for all that the
 * compiler knows: it would read and multiply them again for every value. */

ALWAYS_INLINE void transform_inputs(const winograd_input *task, winograd_variant variant,
                                    size_t inputs, size_t points)
{
    const size_t pixel_stride = task->pixel_stride;
    const size_t point_stride = task->output_point_stride;
    const size_t tile_stride = task->output_tile_stride;
    const bool next_lines = tile_stride > 0; /* another place for each tile */
    const size_t channels = task->channels;
    for (size_t tile = 0; tile < task->tiles; tile++) {
        const float *rows[8];
        for (size_t y = 0; y < inputs; y++) {
            rows[y] = task->rows[y] + tile * task->tile_step;
        }
        for (size_t c = 0; c < channels; c += CONV_VECTOR_FLOATS) {
            vector columns[8][8];
            for (size_t x = 0; x < inputs; x++) {
                vector d[8];
                vector v[8];
                for (size_t y = 0; y < inputs; y++) {
                    d[y] = vector_load(rows[y] + x * pixel_stride + c);
                }
                input_1d(variant, d, v);
                for (size_t i = 0; i < points; i++) {
                    columns[i][x] = v[i];
                }
            }
            float *point = task->output + tile * tile_stride + c;
            for (size_t i = 0; i < points; i++) {
                vector v[8];
                input_1d(variant, columns[i], v);
                for (size_t j = 0; j < points; j++, point += point_stride) {
                    vector_store(point, v[j]);
                    if (next_lines && c % LINE_FLOATS == 0) { /* the next tile's */
                        __builtin_prefetch(point + tile_stride, 1);
                    }
                }
            }
        }
    }
}

static void winograd_input_run(const winograd_input *task)
{
    switch (task->variant) {
    case WINOGRAD_2:
        transform_inputs(task, WINOGRAD_2, 4, 4);
        break;
    case WINOGRAD_4:
        transform_inputs(task, WINOGRAD_4, 6, 6);
        break;
    case WINOGRAD_6:
        transform_inputs(task, WINOGRAD_6, 8, 8);
        break;
    case WINOGRAD_2_UP:
        transform_inputs(task, WINOGRAD_2_UP, 3, 3);
        break;
    case WINOGRAD_4_UP:
        transform_inputs(task, WINOGRAD_4_UP, 4, 4);
        break;
    case WINOGRAD_6_UP:
        transform_inputs(task, WINOGRAD_6_UP, 5, 5);
        break;
    }
}

/* Calls function(task, variant, products), whose products a side are a constant of the
 * variant. */
#define WITH_PRODUCTS(function, task)                                                              \
    switch ((task)->variant) {                                                                     \
    case WINOGRAD_2:                                                                               \
        function(task, WINOGRAD_2, 4);                                                             \
        break;                                                                                     \
    case WINOGRAD_4:                                                                               \
        function(task, WINOGRAD_4, 6);                                                             \
        break;                                                                                     \
    case WINOGRAD_6:                                                                               \
        function(task, WINOGRAD_6, 8);                                                             \
        break;                                                                                     \
    case WINOGRAD_2_UP:                                                                            \
        function(task, WINOGRAD_2_UP, 3);                                                          \
        break;                                                                                     \
    case WINOGRAD_4_UP:                                                                            \
        function(task, WINOGRAD_4_UP, 5);                                                          \
        break;                                                                                     \
    case WINOGRAD_6_UP:                                                                            \
        function(task, WINOGRAD_6_UP, 7);                                                          \
        break;                                                                                     \
    }

/* The first of the two one-dimensional transforms, of one channel and a vector of columns; weights
 * are floats or 16-bit integers. */
ALWAYS_INLINE void weight_rows(winograd_variant variant, size_t products, const void *weights,
                               const bool integers, size_t columns, vector rows[8][3])
{
#pragma GCC unroll 3
    for (size_t x = 0; x < 3; x++) {
        vector g[3];
#pragma GCC unroll 3
        for (size_t y = 0; y < 3; y++) {
            const size_t value = (3 * y + x) * columns;
            g[y] = integers ? vector_load_half((const int16_t *)weights + value)
                            : vector_load((const float *)weights + value);
        }
        vector column[8];
        weight_1d(variant, g, column);
#pragma GCC unroll 8
        for (size_t i = 0; i < products; i++) {
            rows[i][x] = column[i];
        }
    }
}

ALWAYS_INLINE void transform_weights(const winograd_weights *task, winograd_variant variant,
                                     size_t products)
{
    const size_t columns = task->columns;
    const size_t channels = task->channels;
    const size_t product_stride = task->output_product_stride;
    for (size_t c = 0; c < channels; c++) {
        for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
            const float *weights = task->weights + c * 9 * columns + column;
            vector rows[8][3];
            weight_rows(variant, products, weights, false, columns, rows);
            float *product = task->output + c * columns + column;
            for (size_t i = 0; i < products; i++) {
                vector u[8];
                weight_1d(variant, rows[i], u);
                for (size_t j = 0; j < products; j++, product += product_stride) {
                    vector_store(product, u[j]);
                    if (column % LINE_FLOATS == 0) { /* some channels ahead */
                        __builtin_prefetch(product + 4 * columns, 1);
                    }
                }
            }
        }
    }
}

static void winograd_weights_run(const winograd_weights *task)
{
    WITH_PRODUCTS(transform_weights, task);
}

/* The norm of each product's integers in a step must not pass CONV_INT16_WEIGHT_NORM: that of the
 * step with the largest decides. */
ALWAYS_INLINE void find_scales_of_columns(const winograd_weights_int16 *task,
                                          winograd_variant variant, size_t products, size_t column)
{
    const size_t columns = task->columns;
    vector largest[8][8] = {{{0}}};
    for (size_t first = 0; first < task->channels; first += task->step) {
        const size_t left = task->channels - first;
        const size_t count = left < task->step ? left : task->step;
        vector squares[8][8] = {{{0}}};
        for (size_t c = first; c < first + count; c++) {
            vector rows[8][3];
            weight_rows(variant, products, task->weights + c * 9 * columns + column, true, columns,
                        rows);
            for (size_t i = 0; i < products; i++) {
                vector u[8];
                weight_1d(variant, rows[i], u);
#pragma GCC unroll 8
                for (size_t j = 0; j < products; j++) {
                    squares[i][j] = vector_fma(u[j], u[j], squares[i][j]);
                }
            }
        }
        for (size_t i = 0; i < products; i++) {
            for (size_t j = 0; j < products; j++) {
                largest[i][j] = vector_max(largest[i][j], squares[i][j]);
            }
        }
    }
    const vector unit = vector_load(task->output_scales + column) * (1.0f / CONV_INT16_WEIGHT_NORM);
    for (size_t i = 0; i < products; i++) {
        for (size_t j = 0; j < products; j++) {
            /* The least norm of integers that are not all zero is no hindrance. */
            const vector norm = vector_max(vector_root(largest[i][j]), vector_set(1e-3f));
            vector_store(task->scales + (i * products + j) * columns + column, norm * unit);
        }
    }
}

ALWAYS_INLINE void find_scales_int16(const winograd_weights_int16 *task, winograd_variant variant,
                                     size_t products)
{
    for (size_t column = 0; column < task->columns; column += CONV_VECTOR_FLOATS) {
        find_scales_of_columns(task, variant, products, column);
    }
}

static void winograd_scales_int16_run(const winograd_weights_int16 *task)
{
    WITH_PRODUCTS(find_scales_int16, task);
}

/* All columns of two channels come before the next two: together they fill lines. */
ALWAYS_INLINE void transform_weights_int16(const winograd_weights_int16 *task,
                                           winograd_variant variant, size_t products)
{
    enum { COLUMNS_MOST = 32 };
    const size_t columns = task->columns;
    const size_t channels = task->channels;
    const size_t product_stride = task->output_product_stride;
    vector factors[COLUMNS_MOST / CONV_VECTOR_FLOATS][8][8];
    for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
        const vector output_scale = vector_load(task->output_scales + column);
        for (size_t i = 0; i < products; i++) {
            for (size_t j = 0; j < products; j++) {
                const float *scale = task->scales + (i * products + j) * columns + column;
                /* Outputs without weights have scales of zero. */
                factors[column / CONV_VECTOR_FLOATS][i][j] =
                    output_scale / vector_max(vector_load(scale), vector_set(1e-37f));
            }
        }
    }
    for (size_t c = 0; c < channels; c += 2) {
        for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
            const int16_t *weights = task->weights + c * 9 * columns + column;
            vector even[8][3];
            vector odd[8][3];
            weight_rows(variant, products, weights, true, columns, even);
            if (c + 1 < channels) {
                weight_rows(variant, products, weights + 9 * columns, true, columns, odd);
            } else {
                memset(odd, 0, sizeof odd);
            }
            int16_t *pair = task->output + c * columns + column * 2;
            for (size_t i = 0; i < products; i++) {
                const vector *factor = factors[column / CONV_VECTOR_FLOATS][i];
                vector u[8];
                vector v[8];
                weight_1d(variant, even[i], u);
                weight_1d(variant, odd[i], v);
#pragma GCC unroll 8
                for (size_t j = 0; j < products; j++, pair += product_stride) {
                    const vector_words pairs = vector_round_pairs(u[j], v[j], factor[j]);
                    memcpy(pair, &pairs, sizeof pairs);
                    if (column % LINE_FLOATS == 0) { /* some channels ahead */
                        __builtin_prefetch(pair + 8 * columns, 1);
                    }
                }
            }
        }
    }
}

static void winograd_weights_int16_run(const winograd_weights_int16 *task)
{
    WITH_PRODUCTS(transform_weights_int16, task);
}

ALWAYS_INLINE void transform_outputs(const winograd_output *task, winograd_variant variant,
                                     size_t products, size_t outputs)
{
    const size_t product_stride = task->sums_product_stride;
    const size_t output_stride = task->output_stride;
    const size_t channels = task->channels;
    for (size_t c = 0; c < channels; c += CONV_VECTOR_FLOATS) {
        const float *sums = task->sums + c;
        vector rows[6][8];
        for (size_t j = 0; j < products; j++) {
            vector r[8];
            vector y[6];
            for (size_t i = 0; i < products; i++) {
                r[i] = vector_load(sums + (i * products + j) * product_stride);
            }
            output_1d(variant, r, y);
            for (size_t i = 0; i < outputs; i++) {
                rows[i][j] = y[i];
            }
        }
        float *pixel = task->output + c;
        for (size_t i = 0; i < outputs; i++) {
            vector y[6];
            output_1d(variant, rows[i], y);
            for (size_t j = 0; j < outputs; j++, pixel += output_stride) {
                vector_store(pixel, y[j]);
            }
        }
    }
}

static void winograd_output_run(const winograd_output *task)
{
    switch (task->variant) {
    case WINOGRAD_2:
        transform_outputs(task, WINOGRAD_2, 4, 2);
        break;
    case WINOGRAD_4:
        transform_outputs(task, WINOGRAD_4, 6, 4);
        break;
    case WINOGRAD_6:
        transform_outputs(task, WINOGRAD_6, 8, 6);
        break;
    case WINOGRAD_2_UP:
        transform_outputs(task, WINOGRAD_2_UP, 3, 2);
        break;
    case WINOGRAD_4_UP:
        transform_outputs(task, WINOGRAD_4_UP, 5, 4);
        break;
    case WINOGRAD_6_UP:
        transform_outputs(task, WINOGRAD_6_UP, 7, 6);
        break;
    }
}

#endif
