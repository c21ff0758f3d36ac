/* The one-dimensional transforms of Winograd's convolution, compiled by each kernel file for its
 * own vectors.
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
 * 144 products 81 remain. */
#ifndef ONESTEP_BACKEND_CPU_WINOGRAD_SIDES_H
#define ONESTEP_BACKEND_CPU_WINOGRAD_SIDES_H

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

/* ---- inputs ---------------------------------------------------------------------------------- */

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

/* ---- weights --------------------------------------------------------------------------------- */

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

ALWAYS_INLINE void weights_2(const vector *g, vector *u)
{
    u[0] = -g[0];
    weight_pair(g, 1, 2, &u[1], &u[2]);
    u[3] = g[2];
}

ALWAYS_INLINE void weights_4(const vector *g, vector *u)
{
    const float a = POINT_4A * POINT_4A;
    const float b = POINT_4B * POINT_4B;
    u[0] = g[0] * (1 / (a * b));
    weight_pair(g, POINT_4A, 2 * a * (a - b), &u[1], &u[2]);
    weight_pair(g, POINT_4B, 2 * b * (b - a), &u[3], &u[4]);
    u[5] = g[2];
}

/* M' at the points 1, b and c of F(6,3). */
ALWAYS_INLINE void slopes_6(float slopes[3])
{
    const float b = POINT_6B * POINT_6B;
    const float c = POINT_6C * POINT_6C;
    slopes[0] = 2 * (1 - b) * (1 - c);
    slopes[1] = 2 * b * (b - 1) * (b - c);
    slopes[2] = 2 * c * (c - 1) * (c - b);
}

ALWAYS_INLINE void weights_6(const vector *g, vector *u)
{
    float slopes[3];
    slopes_6(slopes);
    u[0] = g[0] * (-1 / (POINT_6B * POINT_6B * POINT_6C * POINT_6C));
    weight_pair(g, 1, slopes[0], &u[1], &u[2]);
    weight_pair(g, POINT_6B, slopes[1], &u[3], &u[4]);
    weight_pair(g, POINT_6C, slopes[2], &u[5], &u[6]);
    u[7] = g[2];
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

ALWAYS_INLINE void weights_2_up(const vector *g, vector *u)
{
    u[0] = -g[0];
    u[1] = g[0] + g[1] + g[2];
    u[2] = g[2];
}

ALWAYS_INLINE void weights_4_up(const vector *g, vector *u)
{
    const float b = POINT_4UP_B * POINT_4UP_B;
    u[0] = g[0] * (1 / b);
    u[1] = (g[0] + g[1] + g[2]) * (1 / (1 - b));
    weight_pair_up(g, POINT_4UP_B, 2 * b * (b - 1), &u[2], &u[3]);
    u[4] = g[2];
}

ALWAYS_INLINE void weights_6_up(const vector *g, vector *u)
{
    float slopes[3];
    slopes_6(slopes);
    u[0] = g[0] * (-1 / (POINT_6B * POINT_6B * POINT_6C * POINT_6C));
    u[1] = (g[0] + g[1] + g[2]) * (2 / slopes[0]);
    weight_pair_up(g, POINT_6B, slopes[1], &u[2], &u[3]);
    weight_pair_up(g, POINT_6C, slopes[2], &u[4], &u[5]);
    u[6] = g[2];
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
    const float a = POINT_4S_A * POINT_4S_A;
    const float b = POINT_4S_B * POINT_4S_B;
    weight_pair_strided(g, POINT_4S_A, 2 * POINT_4S_A * (a - b), &u[0], &u[1]);
    weight_pair_strided(g, POINT_4S_B, 2 * POINT_4S_B * (b - a), &u[2], &u[3]);
    u[4] = g[2];
    u[5] = g[1];
}

/* ---- outputs --------------------------------------------------------------------------------- */

ALWAYS_INLINE void output_2(const vector *r, vector *y)
{
    y[0] = r[0] + r[1] + r[2];
    y[1] = r[1] - r[2] + r[3];
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

ALWAYS_INLINE void output_6(const vector *r, vector *y)
{
    outputs_6(r[0], r[1] + r[2], r[3] + r[4], r[5] + r[6], r[1] - r[2], r[3] - r[4], r[5] - r[6],
              r[7], y);
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

ALWAYS_INLINE void output_2_up(const vector *r, vector *y)
{
    y[0] = r[0] + r[1];
    y[1] = r[1] + r[2];
}

ALWAYS_INLINE void output_4_up(const vector *r, vector *y)
{
    const float b = POINT_4UP_B;
    y[0] = r[0] + r[1] + r[2];
    y[1] = vector_fma(r[3], vector_set(b), r[1]);
    y[2] = vector_fma(r[2], vector_set(b * b), r[1]);
    y[3] = vector_fma(r[3], vector_set(b * b * b), r[1] + r[4]);
}

ALWAYS_INLINE void output_6_up(const vector *r, vector *y)
{
    outputs_6(r[0], r[1], r[2], r[4], r[1], r[3], r[5], r[6], y);
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

/* ---- by side ---------------------------------------------------------------------------------
 *
 * input_1d, weights_1d and output_1d call the function of a side, which is a constant. */

#define WINOGRAD_1D(name)                                                                          \
    ALWAYS_INLINE void name##_1d(winograd_side side, const vector *from, vector *to)               \
    {                                                                                              \
        switch (side) {                                                                            \
        case WINOGRAD_SIDE_2:                                                                      \
            name##_2(from, to);                                                                    \
            break;                                                                                 \
        case WINOGRAD_SIDE_4:                                                                      \
            name##_4(from, to);                                                                    \
            break;                                                                                 \
        case WINOGRAD_SIDE_6:                                                                      \
            name##_6(from, to);                                                                    \
            break;                                                                                 \
        case WINOGRAD_SIDE_8:                                                                      \
            name##_8(from, to);                                                                    \
            break;                                                                                 \
        case WINOGRAD_SIDE_2_UP:                                                                   \
            name##_2_up(from, to);                                                                 \
            break;                                                                                 \
        case WINOGRAD_SIDE_4_UP:                                                                   \
            name##_4_up(from, to);                                                                 \
            break;                                                                                 \
        case WINOGRAD_SIDE_6_UP:                                                                   \
            name##_6_up(from, to);                                                                 \
            break;                                                                                 \
        case WINOGRAD_SIDE_4_STRIDED:                                                              \
            name##_4_strided(from, to);                                                            \
            break;                                                                                 \
        }                                                                                          \
    }

WINOGRAD_1D(input)
WINOGRAD_1D(weights)
WINOGRAD_1D(output)

#endif
