/* The transforms of Winograd's convolution, compiled by each kernel file for its own vectors.
 *
 * F(m,3) computes m outputs of a three-tap filter from m+2 inputs through products at m+2 points:
 * 0, +-a, +-b, (+-c, +-d,) infinity. With M(x) = x (x^2-a^2)(x^2-b^2)..., the input transform's row
 * for point p holds the coefficients of M(x)/(x-p) (of M itself for infinity), the weights' row is
 * [1, p, p^2]/M'(p) ([0,0,1]), and output i sums p^i times the product (the last one adds that of
 * infinity). A pair +-p shares its even and odd parts.
 *
 * On a picture that is the nearest x2 upsampling of another, inputs come in equal pairs (e0, e1,
 * e1, e2, e2, ...). Then even and odd parts are equal, so the rows of +-p are (1 +- p) times one
 * value: at -1 it vanishes (1 must be among the points), and for the others one input point serves
 * two products. We choose as those two products the sum and the difference that the outputs of
 * even and odd index need, so that their weights are [2, 2p^2, 2p^2]/M'(p) and
 * [2p, 2p, 2p^3]/M'(p). Of 64 products 49 remain, with 25 input points.
 *
 * With stride 2 the outer taps see even inputs only and the middle one odd inputs: F(4,2) at the
 * points +-a, +-b, infinity (M without x, and weights [1, p]) and four products with one weight. Of
 * 144 products 81 remain. A tile of two sides has one side's transform down and the other's across.
 */
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
#define POINT_8A    0.4f /* nearly the least error with F(6,3) across */
#define POINT_8B    0.8f
#define POINT_8C    1.25f
#define POINT_8D    2.5f
#define POINT_4S_A  0.4f /* with stride 2 */
#define POINT_4S_B  1.3f

/* (x^2 - p)(x^2 - q)... at the inputs of x's powers: a row of the input transform is that product
 * for the squares of all pairs, or of all but one, of every second input. */
ALWAYS_INLINE vector two_pairs(vector x4, vector x2, vector x0, float p, float q)
{
    return vector_fma(x0, vector_set(p * q), vector_fma(x2, vector_set(-(p + q)), x4));
}

ALWAYS_INLINE vector three_pairs(vector x6, vector x4, vector x2, vector x0, float p, float q,
                                 float r)
{
    const vector high = vector_fma(x4, vector_set(-(p + q + r)), x6);
    return vector_fma(x0, vector_set(-(p * q * r)),
                      vector_fma(x2, vector_set(p * q + p * r + q * r), high));
}

ALWAYS_INLINE vector four_pairs(vector x8, vector x6, vector x4, vector x2, vector x0, float p,
                                float q, float r, float s)
{
    const float sum2 = p * q + p * r + p * s + q * r + q * s + r * s;
    const float sum3 = p * q * r + p * q * s + p * r * s + q * r * s;
    const vector high =
        vector_fma(x4, vector_set(sum2), vector_fma(x6, vector_set(-(p + q + r + s)), x8));
    return vector_fma(x0, vector_set(p * q * r * s), vector_fma(x2, vector_set(-sum3), high));
}

/* even +- p odd */
ALWAYS_INLINE void input_pair(vector even, vector odd, float p, vector *v)
{
    v[0] = vector_fma(odd, vector_set(p), even);
    v[1] = vector_fma(odd, vector_set(-p), even);
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
    const float a = POINT_4A * POINT_4A;
    const float b = POINT_4B * POINT_4B;
    const vector even_a = vector_fma(d[2], vector_set(-b), d[4]);
    const vector odd_a = vector_fma(d[1], vector_set(-b), d[3]);
    const vector even_b = vector_fma(d[2], vector_set(-a), d[4]);
    const vector odd_b = vector_fma(d[1], vector_set(-a), d[3]);
    v[0] = two_pairs(d[4], d[2], d[0], a, b);
    input_pair(even_a, odd_a, POINT_4A, &v[1]);
    input_pair(even_b, odd_b, POINT_4B, &v[3]);
    v[5] = two_pairs(d[5], d[3], d[1], a, b);
}

ALWAYS_INLINE void input_pair_6(const vector *d, float point, float p, float q, vector *v)
{
    input_pair(two_pairs(d[6], d[4], d[2], p, q), two_pairs(d[5], d[3], d[1], p, q), point, v);
}

ALWAYS_INLINE void input_6(const vector *d, vector *v)
{
    const float b = POINT_6B * POINT_6B;
    const float c = POINT_6C * POINT_6C;
    v[0] = three_pairs(d[6], d[4], d[2], d[0], 1, b, c);
    input_pair_6(d, 1, b, c, &v[1]);
    input_pair_6(d, POINT_6B, 1, c, &v[3]);
    input_pair_6(d, POINT_6C, 1, b, &v[5]);
    v[7] = three_pairs(d[7], d[5], d[3], d[1], 1, b, c);
}

ALWAYS_INLINE void input_pair_8(const vector *d, float point, float p, float q, float r, vector *v)
{
    input_pair(three_pairs(d[8], d[6], d[4], d[2], p, q, r),
               three_pairs(d[7], d[5], d[3], d[1], p, q, r), point, v);
}

ALWAYS_INLINE void input_8(const vector *inputs, vector *v)
{
    const float a = POINT_8A * POINT_8A;
    const float b = POINT_8B * POINT_8B;
    const float c = POINT_8C * POINT_8C;
    const float d = POINT_8D * POINT_8D;
    v[0] = four_pairs(inputs[8], inputs[6], inputs[4], inputs[2], inputs[0], a, b, c, d);
    input_pair_8(inputs, POINT_8A, b, c, d, &v[1]);
    input_pair_8(inputs, POINT_8B, a, c, d, &v[3]);
    input_pair_8(inputs, POINT_8C, a, b, d, &v[5]);
    input_pair_8(inputs, POINT_8D, a, b, c, &v[7]);
    v[9] = four_pairs(inputs[9], inputs[7], inputs[5], inputs[3], inputs[1], a, b, c, d);
}

/* Even inputs at the points; odd ones as they are. */
ALWAYS_INLINE void input_4_strided(const vector *d, vector *v)
{
    const float a = POINT_4S_A * POINT_4S_A;
    const float b = POINT_4S_B * POINT_4S_B;
    const vector even_a = vector_fma(d[2], vector_set(-b), d[6]);
    const vector odd_a = vector_fma(d[0], vector_set(-b), d[4]);
    const vector even_b = vector_fma(d[2], vector_set(-a), d[6]);
    const vector odd_b = vector_fma(d[0], vector_set(-a), d[4]);
    input_pair(even_a, odd_a, POINT_4S_A, &v[0]);
    input_pair(even_b, odd_b, POINT_4S_B, &v[2]);
    v[4] = two_pairs(d[8], d[4], d[0], a, b);
    for (size_t i = 0; i < 4; i++) {
        v[5 + i] = d[2 * i + 1];
    }
}

ALWAYS_INLINE void input_2_up(const vector *e, vector *v)
{
    v[0] = e[1] - e[0];
    v[1] = e[1];
    v[2] = e[2] - e[1];
}

ALWAYS_INLINE void input_4_up(const vector *e, vector *v)
{
    const float b = POINT_4UP_B * POINT_4UP_B;
    v[0] = two_pairs(e[2], e[1], e[0], 1, b);
    v[1] = vector_fma(e[1], vector_set(-b), e[2]);
    v[2] = e[2] - e[1];
    v[3] = two_pairs(e[3], e[2], e[1], 1, b);
}

ALWAYS_INLINE void input_6_up(const vector *e, vector *v)
{
    const float b = POINT_6B * POINT_6B;
    const float c = POINT_6C * POINT_6C;
    v[0] = three_pairs(e[3], e[2], e[1], e[0], 1, b, c);
    v[1] = two_pairs(e[3], e[2], e[1], b, c);
    v[2] = two_pairs(e[3], e[2], e[1], 1, c);
    v[3] = two_pairs(e[3], e[2], e[1], 1, b);
    v[4] = three_pairs(e[4], e[3], e[2], e[1], 1, b, c);
}

ALWAYS_INLINE void input_1d(winograd_side side, const vector *d, vector *v)
{
    switch (side) {
    case WINOGRAD_SIDE_2:
        input_2(d, v);
        break;
    case WINOGRAD_SIDE_4:
        input_4(d, v);
        break;
    case WINOGRAD_SIDE_6:
        input_6(d, v);
        break;
    case WINOGRAD_SIDE_8:
        input_8(d, v);
        break;
    case WINOGRAD_SIDE_2_UP:
        input_2_up(d, v);
        break;
    case WINOGRAD_SIDE_4_UP:
        input_4_up(d, v);
        break;
    case WINOGRAD_SIDE_6_UP:
        input_6_up(d, v);
        break;
    case WINOGRAD_SIDE_4_STRIDED:
        input_4_strided(d, v);
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

ALWAYS_INLINE void weights_8(const vector *g, vector *u)
{
    const float a = POINT_8A * POINT_8A;
    const float b = POINT_8B * POINT_8B;
    const float c = POINT_8C * POINT_8C;
    const float d = POINT_8D * POINT_8D;
    u[0] = g[0] * (1 / (a * b * c * d));
    weight_pair(g, POINT_8A, 2 * a * (a - b) * (a - c) * (a - d), &u[1], &u[2]);
    weight_pair(g, POINT_8B, 2 * b * (b - a) * (b - c) * (b - d), &u[3], &u[4]);
    weight_pair(g, POINT_8C, 2 * c * (c - a) * (c - b) * (c - d), &u[5], &u[6]);
    weight_pair(g, POINT_8D, 2 * d * (d - a) * (d - b) * (d - c), &u[7], &u[8]);
    u[9] = g[2];
}

/* (g0 + p g2) / n and (g0 - p g2) / -n */
ALWAYS_INLINE void weight_pair_strided(const vector *g, float p, float n, vector *plus,
                                       vector *minus)
{
    *plus = vector_fma(g[2], vector_set(p / n), g[0] * (1 / n));
    *minus = vector_fma(g[2], vector_set(p / n), g[0] * (-1 / n));
}

ALWAYS_INLINE void weights_4_strided(const vector *g, vector *u)
{
    const float a = POINT_4S_A;
    const float b = POINT_4S_B;
    weight_pair_strided(g, a, 2 * a * (a * a - b * b), &u[0], &u[1]);
    weight_pair_strided(g, b, 2 * b * (b * b - a * a), &u[2], &u[3]);
    u[4] = g[2];
    u[5] = g[1];
}

ALWAYS_INLINE void weight_1d(winograd_side side, const vector *g, vector *u)
{
    const float a4 = POINT_4A;
    const float b4 = POINT_4B;
    const float b4up = POINT_4UP_B;
    const float b = POINT_6B;
    const float c = POINT_6C;
    const float n6a = 2 * (1 - b * b) * (1 - c * c);
    const float n6b = 2 * b * b * (b * b - 1) * (b * b - c * c);
    const float n6c = 2 * c * c * (c * c - 1) * (c * c - b * b);
    switch (side) {
    case WINOGRAD_SIDE_2:
        u[0] = -g[0];
        weight_pair(g, 1, 2, &u[1], &u[2]);
        u[3] = g[2];
        break;
    case WINOGRAD_SIDE_4:
        u[0] = g[0] * (1 / (a4 * a4 * b4 * b4));
        weight_pair(g, a4, 2 * a4 * a4 * (a4 * a4 - b4 * b4), &u[1], &u[2]);
        weight_pair(g, b4, 2 * b4 * b4 * (b4 * b4 - a4 * a4), &u[3], &u[4]);
        u[5] = g[2];
        break;
    case WINOGRAD_SIDE_8:
        weights_8(g, u);
        break;
    case WINOGRAD_SIDE_4_STRIDED:
        weights_4_strided(g, u);
        break;
    case WINOGRAD_SIDE_6:
        u[0] = g[0] * (-1 / (b * b * c * c));
        weight_pair(g, 1, n6a, &u[1], &u[2]);
        weight_pair(g, b, n6b, &u[3], &u[4]);
        weight_pair(g, c, n6c, &u[5], &u[6]);
        u[7] = g[2];
        break;
    case WINOGRAD_SIDE_2_UP:
        u[0] = -g[0];
        u[1] = g[0] + g[1] + g[2];
        u[2] = g[2];
        break;
    case WINOGRAD_SIDE_4_UP:
        u[0] = g[0] * (1 / (b4up * b4up));
        u[1] = (g[0] + g[1] + g[2]) * (1 / (1 - b4up * b4up));
        weight_pair_up(g, b4up, 2 * b4up * b4up * (b4up * b4up - 1), &u[2], &u[3]);
        u[4] = g[2];
        break;
    case WINOGRAD_SIDE_6_UP:
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

ALWAYS_INLINE void output_8(const vector *r, vector *y)
{
    const float a = POINT_8A;
    const float b = POINT_8B;
    const float c = POINT_8C;
    const float d = POINT_8D;
    vector sums[4];
    vector differences[4];
    for (size_t i = 0; i < 4; i++) {
        sums[i] = r[2 * i + 1] + r[2 * i + 2];
        differences[i] = r[2 * i + 1] - r[2 * i + 2];
    }
    y[0] = (r[0] + sums[0]) + (sums[1] + (sums[2] + sums[3]));
    float pa = a;
    float pb = b;
    float pc = c;
    float pd = d;
#pragma GCC unroll 8
    for (size_t i = 1; i < 8; i++) {
        const vector *pairs = i % 2 == 0 ? sums : differences;
        const vector low = vector_fma(pairs[1], vector_set(pb), pairs[0] * pa);
        y[i] = vector_fma(pairs[3], vector_set(pd), vector_fma(pairs[2], vector_set(pc), low));
        pa *= a;
        pb *= b;
        pc *= c;
        pd *= d;
    }
    y[7] += r[9];
}

ALWAYS_INLINE void output_4_strided(const vector *r, vector *y)
{
    const float a = POINT_4S_A;
    const float b = POINT_4S_B;
    const vector sum_a = r[0] + r[1];
    const vector sum_b = r[2] + r[3];
    const vector difference_a = r[0] - r[1];
    const vector difference_b = r[2] - r[3];
    y[0] = sum_a + sum_b + r[5];
    y[1] = vector_fma(difference_b, vector_set(b), vector_fma(difference_a, vector_set(a), r[6]));
    y[2] = vector_fma(sum_b, vector_set(b * b), vector_fma(sum_a, vector_set(a * a), r[7]));
    y[3] = vector_fma(difference_b, vector_set(b * b * b),
                      vector_fma(difference_a, vector_set(a * a * a), r[4] + r[8]));
}

ALWAYS_INLINE void output_1d(winograd_side side, const vector *r, vector *y)
{
    const float b4up = POINT_4UP_B;
    switch (side) {
    case WINOGRAD_SIDE_2:
        y[0] = r[0] + r[1] + r[2];
        y[1] = r[1] - r[2] + r[3];
        break;
    case WINOGRAD_SIDE_4:
        output_4(r, y);
        break;
    case WINOGRAD_SIDE_8:
        output_8(r, y);
        break;
    case WINOGRAD_SIDE_4_STRIDED:
        output_4_strided(r, y);
        break;
    case WINOGRAD_SIDE_6:
        outputs_6(r[0], r[1] + r[2], r[3] + r[4], r[5] + r[6], r[1] - r[2], r[3] - r[4],
                  r[5] - r[6], r[7], y);
        break;
    case WINOGRAD_SIDE_2_UP:
        y[0] = r[0] + r[1];
        y[1] = r[1] + r[2];
        break;
    case WINOGRAD_SIDE_4_UP:
        y[0] = r[0] + r[1] + r[2];
        y[1] = vector_fma(r[3], vector_set(b4up), r[1]);
        y[2] = vector_fma(r[2], vector_set(b4up * b4up), r[1]);
        y[3] = vector_fma(r[3], vector_set(b4up * b4up * b4up), r[1] + r[4]);
        break;
    case WINOGRAD_SIDE_6_UP:
        outputs_6(r[0], r[1], r[2], r[4], r[1], r[3], r[5], r[6], y);
        break;
    }
}

/* ---- two dimensions --------------------------------------------------------------------------
 *
 * Strides are copied, and pointers moved on, since a store could change the task for all that the
 * compiler knows: it would read and multiply them again for every value. */

#define WINOGRAD_CASE(name, down, across, function, task)                                          \
    case name:                                                                                     \
        function(task, down, across);                                                              \
        break;

/* Calls function(task, down, across) with the constant sides of the task's variant. */
#define WITH_SIDES(function, task)                                                                 \
    switch ((task)->variant) {                                                                     \
        WINOGRAD_VARIANTS(WINOGRAD_CASE, function, task)                                           \
    case WINOGRAD_VARIANT_COUNT:                                                                   \
        break;                                                                                     \
    }

ALWAYS_INLINE void transform_inputs(const winograd_input *task, winograd_side down,
                                    winograd_side across)
{
    const size_t points_down = winograd_sides[down].points;
    const size_t points_across = winograd_sides[across].points;
    const size_t inputs_down = winograd_sides[down].inputs;
    const size_t inputs_across = winograd_sides[across].inputs;
    const size_t pixel_stride = task->pixel_stride;
    const size_t point_stride = task->output_point_stride;
    const size_t tile_stride = task->output_tile_stride;
    const bool next_lines = tile_stride > 0; /* another place for each tile */
    const size_t channels = task->channels;
    for (size_t tile = 0; tile < task->tiles; tile++) {
        const float *rows[WINOGRAD_SIDE_INPUTS];
        for (size_t y = 0; y < inputs_down; y++) {
            rows[y] = task->rows[y] + tile * task->tile_step;
        }
        for (size_t c = 0; c < channels; c += CONV_VECTOR_FLOATS) {
            vector columns[WINOGRAD_SIDE_INPUTS][WINOGRAD_SIDE_INPUTS];
            for (size_t x = 0; x < inputs_across; x++) {
                vector d[WINOGRAD_SIDE_INPUTS];
                vector v[WINOGRAD_SIDE_INPUTS];
                for (size_t y = 0; y < inputs_down; y++) {
                    d[y] = vector_load(rows[y] + x * pixel_stride + c);
                }
                input_1d(down, d, v);
                for (size_t i = 0; i < points_down; i++) {
                    columns[i][x] = v[i];
                }
            }
            float *point = task->output + tile * tile_stride + c;
            for (size_t i = 0; i < points_down; i++) {
                vector v[WINOGRAD_SIDE_INPUTS];
                input_1d(across, columns[i], v);
                for (size_t j = 0; j < points_across; j++, point += point_stride) {
                    vector_store(point, v[j]);
                    if (next_lines && c % LINE_FLOATS == 0) { /* the next tile's */
                        __builtin_prefetch(point + tile_stride, 1);
                    }
                }
            }
        }
    }
}

static void winograd_input_run(const winograd_input *task){WITH_SIDES(transform_inputs, task)}

/* The first of the two one-dimensional transforms, of one channel and a vector of columns; weights
 * are floats or 16-bit integers. */
ALWAYS_INLINE void weight_rows(winograd_side side, const void *weights, const bool integers,
                               size_t columns, vector rows[WINOGRAD_SIDE_PRODUCTS][3])
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
        vector column[WINOGRAD_SIDE_PRODUCTS];
        weight_1d(side, g, column);
#pragma GCC unroll 10
        for (size_t i = 0; i < winograd_sides[side].weights; i++) {
            rows[i][x] = column[i];
        }
    }
}

ALWAYS_INLINE void transform_weights(const winograd_weights *task, winograd_side down,
                                     winograd_side across)
{
    const size_t weights_down = winograd_sides[down].weights;
    const size_t weights_across = winograd_sides[across].weights;
    const size_t columns = task->columns;
    const size_t channels = task->channels;
    const size_t weight_stride = task->output_weight_stride;
    for (size_t c = 0; c < channels; c++) {
        for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
            const float *weights = task->weights + c * 9 * columns + column;
            vector rows[WINOGRAD_SIDE_PRODUCTS][3];
            weight_rows(down, weights, false, columns, rows);
            float *output = task->output + c * columns + column;
            for (size_t i = 0; i < weights_down; i++) {
                vector u[WINOGRAD_SIDE_PRODUCTS];
                weight_1d(across, rows[i], u);
                for (size_t j = 0; j < weights_across; j++, output += weight_stride) {
                    vector_store(output, u[j]);
                    if (column % LINE_FLOATS == 0) { /* some channels ahead */
                        __builtin_prefetch(output + 4 * columns, 1);
                    }
                }
            }
        }
    }
}

static void winograd_weights_run(const winograd_weights *task){WITH_SIDES(transform_weights, task)}

/* The norm of each transformed weight's integers in a step must not pass CONV_INT16_WEIGHT_NORM:
 * that of the step with the largest decides. */
ALWAYS_INLINE void find_scales_of_columns(const winograd_weights_int16 *task, winograd_side down,
                                          winograd_side across, size_t column)
{
    const size_t weights_down = winograd_sides[down].weights;
    const size_t weights_across = winograd_sides[across].weights;
    const size_t columns = task->columns;
    vector largest[WINOGRAD_SIDE_PRODUCTS][WINOGRAD_SIDE_PRODUCTS] = {{{0}}};
    for (size_t first = 0; first < task->channels; first += task->step) {
        const size_t left = task->channels - first;
        const size_t count = left < task->step ? left : task->step;
        vector squares[WINOGRAD_SIDE_PRODUCTS][WINOGRAD_SIDE_PRODUCTS] = {{{0}}};
        for (size_t c = first; c < first + count; c++) {
            vector rows[WINOGRAD_SIDE_PRODUCTS][3];
            weight_rows(down, task->weights + c * 9 * columns + column, true, columns, rows);
            for (size_t i = 0; i < weights_down; i++) {
                vector u[WINOGRAD_SIDE_PRODUCTS];
                weight_1d(across, rows[i], u);
#pragma GCC unroll 10
                for (size_t j = 0; j < weights_across; j++) {
                    squares[i][j] = vector_fma(u[j], u[j], squares[i][j]);
                }
            }
        }
        for (size_t i = 0; i < weights_down; i++) {
            for (size_t j = 0; j < weights_across; j++) {
                largest[i][j] = vector_max(largest[i][j], squares[i][j]);
            }
        }
    }
    const vector unit = vector_load(task->output_scales + column) * (1.0f / CONV_INT16_WEIGHT_NORM);
    for (size_t i = 0; i < weights_down; i++) {
        for (size_t j = 0; j < weights_across; j++) {
            /* The least norm of integers that are not all zero is no hindrance. */
            const vector norm = vector_max(vector_root(largest[i][j]), vector_set(1e-3f));
            vector_store(task->scales + (i * weights_across + j) * columns + column, norm * unit);
        }
    }
}

ALWAYS_INLINE void find_scales_int16(const winograd_weights_int16 *task, winograd_side down,
                                     winograd_side across)
{
    for (size_t column = 0; column < task->columns; column += CONV_VECTOR_FLOATS) {
        find_scales_of_columns(task, down, across, column);
    }
}

static void winograd_scales_int16_run(const winograd_weights_int16 *task){
    WITH_SIDES(find_scales_int16, task)}

/* All columns of two channels come before the next two: together they fill lines. */
ALWAYS_INLINE void transform_weights_int16(const winograd_weights_int16 *task, winograd_side down,
                                           winograd_side across)
{
    const size_t weights_down = winograd_sides[down].weights;
    const size_t weights_across = winograd_sides[across].weights;
    enum { COLUMNS_MOST = 32 };
    const size_t columns = task->columns;
    const size_t channels = task->channels;
    const size_t weight_stride = task->output_weight_stride;
    vector factors[COLUMNS_MOST / CONV_VECTOR_FLOATS][WINOGRAD_SIDE_PRODUCTS]
                  [WINOGRAD_SIDE_PRODUCTS];
    for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
        const vector output_scale = vector_load(task->output_scales + column);
        for (size_t i = 0; i < weights_down; i++) {
            for (size_t j = 0; j < weights_across; j++) {
                const float *scale = task->scales + (i * weights_across + j) * columns + column;
                /* Outputs without weights have scales of zero. */
                factors[column / CONV_VECTOR_FLOATS][i][j] =
                    output_scale / vector_max(vector_load(scale), vector_set(1e-37f));
            }
        }
    }
    for (size_t c = 0; c < channels; c += 2) {
        for (size_t column = 0; column < columns; column += CONV_VECTOR_FLOATS) {
            const int16_t *weights = task->weights + c * 9 * columns + column;
            vector even[WINOGRAD_SIDE_PRODUCTS][3];
            vector odd[WINOGRAD_SIDE_PRODUCTS][3];
            weight_rows(down, weights, true, columns, even);
            if (c + 1 < channels) {
                weight_rows(down, weights + 9 * columns, true, columns, odd);
            } else {
                memset(odd, 0, sizeof odd);
            }
            int16_t *pair = task->output + c * columns + column * 2;
            for (size_t i = 0; i < weights_down; i++) {
                const vector *factor = factors[column / CONV_VECTOR_FLOATS][i];
                vector u[WINOGRAD_SIDE_PRODUCTS];
                vector v[WINOGRAD_SIDE_PRODUCTS];
                weight_1d(across, even[i], u);
                weight_1d(across, odd[i], v);
#pragma GCC unroll 10
                for (size_t j = 0; j < weights_across; j++, pair += weight_stride) {
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

static void winograd_weights_int16_run(const winograd_weights_int16 *task){
    WITH_SIDES(transform_weights_int16, task)}

ALWAYS_INLINE
    void transform_outputs(const winograd_output *task, winograd_side down, winograd_side across)
{
    const size_t products_down = winograd_sides[down].products;
    const size_t products_across = winograd_sides[across].products;
    const size_t outputs_down = winograd_sides[down].outputs;
    const size_t outputs_across = winograd_sides[across].outputs;
    const size_t product_stride = task->sums_product_stride;
    const size_t output_stride = task->output_stride;
    const size_t channels = task->channels;
    for (size_t c = 0; c < channels; c += CONV_VECTOR_FLOATS) {
        const float *sums = task->sums + c;
        vector rows[WINOGRAD_SIDE_OUTPUTS][WINOGRAD_SIDE_PRODUCTS];
        for (size_t j = 0; j < products_across; j++) {
            vector r[WINOGRAD_SIDE_PRODUCTS];
            vector y[WINOGRAD_SIDE_OUTPUTS];
            for (size_t i = 0; i < products_down; i++) {
                r[i] = vector_load(sums + (i * products_across + j) * product_stride);
            }
            output_1d(down, r, y);
            for (size_t i = 0; i < outputs_down; i++) {
                rows[i][j] = y[i];
            }
        }
        float *pixel = task->output + c;
        for (size_t i = 0; i < outputs_down; i++) {
            vector y[WINOGRAD_SIDE_OUTPUTS];
            output_1d(across, rows[i], y);
            for (size_t j = 0; j < outputs_across; j++, pixel += output_stride) {
                vector_store(pixel, y[j]);
            }
        }
    }
}

static void winograd_output_run(const winograd_output *task)
{
    WITH_SIDES(transform_outputs, task)
}

#endif
