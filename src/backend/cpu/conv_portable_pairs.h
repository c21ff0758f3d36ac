/* The matrix product of 16-bit integers in portable C, for kernel files with 16 columns and vectors
 * of 4 floats, where no layer chooses it: tests compare with it. */
#ifndef ONESTEP_BACKEND_CPU_CONV_PORTABLE_PAIRS_H
#define ONESTEP_BACKEND_CPU_CONV_PORTABLE_PAIRS_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

/* One row of one panel: the even and odd values of a pair meet in 32-bit integers. */
static void multiply_int16_row(const conv_multiply_pairs *task, size_t row, const int16_t *b,
                               const float *column_scales, float *c)
{
    const int16_t *a = task->a + conv_row_offset(task->offsets, task->a_stride, row);
    vector_bits sums[COLUMNS / 4] = {{0}};
    for (size_t pair = 0; pair < task->pairs; pair++) {
        const int32_t even = a[2 * pair];
        const int32_t odd = a[2 * pair + 1];
#pragma GCC unroll 4
        for (size_t i = 0; i < COLUMNS / 4; i++) {
            vector_bits pairs;
            memcpy(&pairs, b + (pair * COLUMNS + 4 * i) * 2, sizeof pairs);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            sums[i] += ((pairs << 16) >> 16) * even + (pairs >> 16) * odd;
#else
            sums[i] += (pairs >> 16) * even + ((pairs << 16) >> 16) * odd;
#endif
        }
    }
    const float scale = task->row_scales[conv_row_offset(task->scale_offsets, 1, row)];
    for (size_t i = 0; i < COLUMNS / 4; i++) {
        const vector value =
            __builtin_convertvector(sums[i], vector) * vector_load(column_scales + 4 * i) * scale;
        vector_store(c + 4 * i, task->accumulate ? vector_load(c + 4 * i) + value : value);
    }
}

static void multiply_int16(const conv_multiply_pairs *task)
{
    for (size_t panel = 0; panel < task->panels; panel++) {
        for (size_t row = 0; row < task->rows; row++) {
            multiply_int16_row(task, row, task->b + panel * task->b_stride,
                               task->column_scales + panel * task->column_scales_stride,
                               task->c + row * task->c_stride + panel * COLUMNS);
        }
    }
}

#endif
