/* Convolution kernels for AVX2 with FMA. */
#include <immintrin.h>

#define CONV_VECTOR_FLOATS 8
#include "backend/cpu/conv_elements.h"
#include "backend/cpu/winograd_transform.h"

#define ROWS    6
#define COLUMNS 16

/* 12 accumulators, 2 of B and 1 broadcast of A fill the 16 registers. `rows` is a constant in every
 * copy of this function. */
ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 const size_t rows)
{
    const float *a[ROWS];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + task->offsets[row + r];
    }
    __m256 sums[ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = _mm256_setzero_ps();
        sums[r][1] = _mm256_setzero_ps();
    }
    const size_t depth = task->depth;
    for (size_t k = 0; k < depth; k++) {
        const __m256 b0 = _mm256_loadu_ps(b + k * COLUMNS);
        const __m256 b1 = _mm256_loadu_ps(b + k * COLUMNS + 8);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            const __m256 value = _mm256_broadcast_ss(a[r] + k);
            sums[r][0] = _mm256_fmadd_ps(value, b0, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(value, b1, sums[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        float *out = c + r * task->c_stride;
        if (task->accumulate) {
            sums[r][0] = _mm256_add_ps(_mm256_loadu_ps(out), sums[r][0]);
            sums[r][1] = _mm256_add_ps(_mm256_loadu_ps(out + 8), sums[r][1]);
        }
        _mm256_storeu_ps(out, sums[r][0]);
        _mm256_storeu_ps(out + 8, sums[r][1]);
    }
}

static void multiply(const conv_multiply *task)
{
    for (size_t panel = 0; panel < task->panels; panel++) {
        const float *b = task->b + panel * task->b_stride;
        float *c = task->c + panel * COLUMNS;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            multiply_tile(task, row, b, c + row * task->c_stride, ROWS);
        }
        float *last = c + row * task->c_stride;
        switch (task->rows - row) {
        case 1:
            multiply_tile(task, row, b, last, 1);
            break;
        case 2:
            multiply_tile(task, row, b, last, 2);
            break;
        case 3:
            multiply_tile(task, row, b, last, 3);
            break;
        case 4:
            multiply_tile(task, row, b, last, 4);
            break;
        case 5:
            multiply_tile(task, row, b, last, 5);
            break;
        default:
            break;
        }
    }
}

static void epilogue_run(const conv_epilogue *task)
{
    epilogue_run_columns(task, COLUMNS);
}

const conv_kernels conv_kernels_avx2 = {
    .name = "avx2",
    .level = CPU_LEVEL_AVX2,
    .rows = ROWS,
    .columns = COLUMNS,
    .multiply = multiply,
    .prologue = prologue_run,
    .epilogue = epilogue_run,
    .winograd_input = winograd_input_run,
    .winograd_weights = winograd_weights_run,
    .winograd_output = winograd_output_run,
};
