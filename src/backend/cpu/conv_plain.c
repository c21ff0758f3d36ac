/* Convolution kernels in portable C with the compiler's vectors. */
#define CONV_VECTOR_FLOATS 4
#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

#define ROWS    4
#define COLUMNS 16
#define WIDTH   8 /* outputs at a time: 8 accumulators, 2 of B and 1 of A fit 16 registers */

#include "backend/cpu/conv_portable_pairs.h"
#include "backend/cpu/conv_table.h"

ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 const size_t rows)
{
    const float *a[ROWS];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + conv_row_offset(task->offsets, task->a_stride, row + r);
    }
    vector sums[ROWS][2] = {{{0}}};
    const size_t depth = task->depth;
    for (size_t k = 0; k < depth; k++) {
        const vector b0 = vector_load(b + k * COLUMNS);
        const vector b1 = vector_load(b + k * COLUMNS + 4);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            const vector value = vector_set(a[r][k]);
            sums[r][0] = vector_fma(value, b0, sums[r][0]);
            sums[r][1] = vector_fma(value, b1, sums[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        float *out = c + r * task->c_stride;
        if (task->accumulate) {
            sums[r][0] = vector_load(out) + sums[r][0];
            sums[r][1] = vector_load(out + 4) + sums[r][1];
        }
        vector_store(out, sums[r][0]);
        vector_store(out + 4, sums[r][1]);
    }
}

static void multiply(const conv_multiply *task)
{
    for (size_t part = 0; part < task->panels * (COLUMNS / WIDTH); part++) {
        const size_t panel = part / (COLUMNS / WIDTH);
        const size_t half = part % (COLUMNS / WIDTH) * WIDTH;
        const float *b = task->b + panel * task->b_stride + half;
        float *c = task->c + panel * COLUMNS + half;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            multiply_tile(task, row, b, c + row * task->c_stride, ROWS);
        }
        for (; row < task->rows; row++) {
            multiply_tile(task, row, b, c + row * task->c_stride, 1);
        }
    }
}

const conv_kernels conv_kernels_plain = CONV_TABLE("plain", CPU_LEVEL_PLAIN, );
