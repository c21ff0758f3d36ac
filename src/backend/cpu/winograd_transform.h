/* The transforms of Winograd's tiles, compiled by each kernel file for its own vectors: that of one
 * side down, then that of the other across (winograd_sides.h).
 *
 * Strides are copied, and pointers moved on, since a store could change the task for all that the
 * compiler knows: it would read and multiply them again for every value. */
#ifndef ONESTEP_BACKEND_CPU_WINOGRAD_TRANSFORM_H
#define ONESTEP_BACKEND_CPU_WINOGRAD_TRANSFORM_H

#include "backend/cpu/winograd_sides.h"

#define WINOGRAD_CASE(name, down, across, function, task)                                          \
    case name:                                                                                     \
        function(task, down, across);                                                              \
        break;

/* Calls function(task, down, across) with the constant sides of the task's variant. */
#define WITH_SIDES(function, task)                                                                 \
    switch ((task)->variant) {                                                                     \
        WINOGRAD_VARIANTS(WINOGRAD_CASE, function, task)                                           \
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

static void winograd_input_run(const winograd_input *task)
{
    WITH_SIDES(transform_inputs, task);
}

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
        weights_1d(side, g, column);
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
                weights_1d(across, rows[i], u);
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

static void winograd_weights_run(const winograd_weights *task)
{
    WITH_SIDES(transform_weights, task);
}

/* The norm of each transformed weight's integers in half a step must not pass
 * CONV_INT16_WEIGHT_NORM: that of the half with the largest decides. */
ALWAYS_INLINE void find_scales_of_columns(const winograd_weights_int16 *task, winograd_side down,
                                          winograd_side across, size_t column)
{
    const size_t weights_down = winograd_sides[down].weights;
    const size_t weights_across = winograd_sides[across].weights;
    const size_t columns = task->columns;
    const size_t half = conv_half_step(task->step);
    vector largest[WINOGRAD_SIDE_PRODUCTS][WINOGRAD_SIDE_PRODUCTS] = {{{0}}};
    for (size_t first = 0; first < task->channels; first += half) {
        const size_t left = task->channels - first;
        const size_t count = left < half ? left : half;
        vector squares[WINOGRAD_SIDE_PRODUCTS][WINOGRAD_SIDE_PRODUCTS] = {{{0}}};
        for (size_t c = first; c < first + count; c++) {
            vector rows[WINOGRAD_SIDE_PRODUCTS][3];
            weight_rows(down, task->weights + c * 9 * columns + column, true, columns, rows);
            for (size_t i = 0; i < weights_down; i++) {
                vector u[WINOGRAD_SIDE_PRODUCTS];
                weights_1d(across, rows[i], u);
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

static void winograd_scales_int16_run(const winograd_weights_int16 *task)
{
    WITH_SIDES(find_scales_int16, task);
}

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
                weights_1d(across, even[i], u);
                weights_1d(across, odd[i], v);
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

static void winograd_weights_int16_run(const winograd_weights_int16 *task)
{
    WITH_SIDES(transform_weights_int16, task);
}

ALWAYS_INLINE void transform_outputs(const winograd_output *task, winograd_side down,
                                     winograd_side across)
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
    WITH_SIDES(transform_outputs, task);
}

#endif
