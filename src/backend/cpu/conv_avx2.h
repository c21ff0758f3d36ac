/* Convolution kernels for AVX2 with FMA, compiled twice: as it is, and with AVX-VNNI's vpdpwssd and
 * vpdpbusd (CONV_AVX_VNNI). Tests compile the second without assembly (CONV_NO_ASSEMBLY), which any
 * machine with AVX2 runs. */
#ifndef ONESTEP_BACKEND_CPU_CONV_AVX2_H
#define ONESTEP_BACKEND_CPU_CONV_AVX2_H

#include <immintrin.h>

#define CONV_VECTOR_FLOATS 8
#include "backend/cpu/conv_elements.h"
#include "backend/cpu/conv_pack.h"
#include "backend/cpu/winograd_transform.h"

#define ROWS    6
#define COLUMNS 16
#define LINE    16 /* floats of a cache line */

#include "backend/cpu/conv_avx2_pairs.h"

/* What to fetch while a tile is computed: a line of each of the next rows of A (at a, into L1) and
 * `lines` lines of the next panel of B (at b, into L2) every LINE steps. */
typedef struct prefetch {
    const float *a;
    const uint32_t *offsets;
    const float *b;
    size_t lines;
} prefetch;

/* 12 accumulators, 2 of B and 1 broadcast of A fill the 16 registers. `rows` is a constant in every
 * copy of this function. */
ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 const prefetch *next, const size_t rows)
{
    const float *a[ROWS];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + task->offsets[row + r];
        __builtin_prefetch(c + r * task->c_stride, 1);
    }
    __m256 sums[ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = _mm256_setzero_ps();
        sums[r][1] = _mm256_setzero_ps();
    }
    const size_t depth = task->depth;
    const float *next_b = next->b;
    size_t k = 0;
    while (k < depth) {
        const size_t end = k + LINE <= depth ? k + LINE : depth;
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            _mm_prefetch((const char *)(next->a + next->offsets[r] + k), _MM_HINT_T0);
        }
        for (size_t i = 0; i < next->lines; i++) {
            _mm_prefetch((const char *)next_b, _MM_HINT_T1);
            next_b += LINE;
        }
        for (; k < end; k++) {
            const __m256 b0 = _mm256_loadu_ps(b + k * COLUMNS);
            const __m256 b1 = _mm256_loadu_ps(b + k * COLUMNS + 8);
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) {
                const __m256 value = _mm256_broadcast_ss(a[r] + k);
                sums[r][0] = _mm256_fmadd_ps(value, b0, sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(value, b1, sums[r][1]);
            }
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
    const size_t groups = (task->rows + ROWS - 1) / ROWS;
    const size_t whole = task->rows / ROWS;
    /* Without a next call the hints stay inside this one's operands. */
    const float *next_a = task->next_a ? task->next_a : task->a;
    const float *next_b = task->next_b ? task->next_b : task->b;
    prefetch next = {.lines = (LINE + groups - 1) / groups};
    for (size_t panel = 0; panel < task->panels; panel++) {
        const float *b = task->b + panel * task->b_stride;
        float *c = task->c + panel * COLUMNS;
        const bool last = panel + 1 == task->panels;
        next.b = last ? next_b : b + task->b_stride;
        size_t row = 0;
        for (size_t group = 0; group < whole; group++, row += ROWS) {
            /* The rows after these, or in the last panel these rows of the next matrix. */
            const bool onward = !last && row + 2 * ROWS <= task->rows;
            next.a = last ? next_a : task->a;
            next.offsets = task->offsets + (onward ? row + ROWS : last ? row : 0);
            multiply_tile(task, row, b, c + row * task->c_stride, &next, ROWS);
            next.b += next.lines * task->depth;
        }
        next.a = last ? next_a : task->a;
        next.offsets = task->offsets + (last ? row : 0);
        float *rest = c + row * task->c_stride;
        switch (task->rows - row) {
        case 1:
            multiply_tile(task, row, b, rest, &next, 1);
            break;
        case 2:
            multiply_tile(task, row, b, rest, &next, 2);
            break;
        case 3:
            multiply_tile(task, row, b, rest, &next, 3);
            break;
        case 4:
            multiply_tile(task, row, b, rest, &next, 4);
            break;
        case 5:
            multiply_tile(task, row, b, rest, &next, 5);
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

/* The table of this file. */
#define CONV_AVX2_TABLE(table_name, table_level)                                                   \
    {                                                                                              \
        .name = table_name, .level = table_level, .rows = ROWS, .columns = COLUMNS,                \
        .multiply = multiply, .prologue = prologue_run, .epilogue = epilogue_run,                  \
        .winograd_input = winograd_input_run, .winograd_weights = winograd_weights_run,            \
        .winograd_output = winograd_output_run, .multiply_int16 = multiply_int16,                  \
        .quantise = quantise_run, .winograd_weights_int16 = winograd_weights_int16_run,            \
        .pack = pack_run, INT8_KERNELS                                                             \
    }

#endif
