/* Convolution kernels for AVX-512, compiled twice: with VNNI's vpdpwssd (CONV_AVX512_VNNI) and
 * without. Tests compile them through SIMDe (CONV_SIMDE) on machines that lack AVX-512. */
#ifndef ONESTEP_BACKEND_CPU_CONV_AVX512_H
#define ONESTEP_BACKEND_CPU_CONV_AVX512_H

#ifdef CONV_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#undef _mm512_madd_epi16 /* SIMDe 0.7.4 gives this name to another function's arguments */
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#else
#include <immintrin.h>
#endif

#define CONV_VECTOR_FLOATS 16
#include "backend/cpu/conv_elements.h"
#include "backend/cpu/winograd_transform.h"

/* 24 accumulators, 2 registers of B and the broadcast value; 12 row pointers, B and the counter are
 * as many general registers as there are. */
#define ROWS    12
#define COLUMNS 32

/* `rows` is a constant in every copy of the two functions below. */
ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 const float *next_b, size_t next_lines, const size_t rows)
{
    const float *a[ROWS];
    __m512 sums[ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + task->offsets[row + r];
        sums[r][0] = _mm512_setzero_ps();
        sums[r][1] = _mm512_setzero_ps();
    }
    const size_t depth = task->depth;
    size_t k = 0;
    while (k < depth) {
        const size_t end = k + LINE_FLOATS <= depth ? k + LINE_FLOATS : depth;
        for (size_t i = 0; i < next_lines; i++) {
            __builtin_prefetch(next_b, 0, 2);
            next_b += LINE_FLOATS;
        }
        for (; k < end; k++) {
            const __m512 b0 = _mm512_loadu_ps(b + k * COLUMNS);
            const __m512 b1 = _mm512_loadu_ps(b + k * COLUMNS + 16);
#pragma GCC unroll 12
            for (size_t r = 0; r < rows; r++) {
                const __m512 value = _mm512_set1_ps(a[r][k]);
                sums[r][0] = _mm512_fmadd_ps(value, b0, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(value, b1, sums[r][1]);
            }
        }
    }
    for (size_t r = 0; r < rows; r++) {
        float *out = c + r * task->c_stride;
        if (task->accumulate) {
            sums[r][0] = _mm512_add_ps(_mm512_loadu_ps(out), sums[r][0]);
            sums[r][1] = _mm512_add_ps(_mm512_loadu_ps(out + 16), sums[r][1]);
        }
        _mm512_storeu_ps(out, sums[r][0]);
        _mm512_storeu_ps(out + 16, sums[r][1]);
    }
}

ALWAYS_INLINE __m512i add_products(__m512i sum, __m512i a, __m512i b)
{
#ifdef CONV_AVX512_VNNI
    return _mm512_dpwssd_epi32(sum, a, b);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}

ALWAYS_INLINE void multiply_tile_int16(const conv_multiply_int16 *task, size_t row,
                                       const int16_t *b, const float *column_scales, float *c,
                                       const int16_t *next_b, size_t next_lines, const size_t rows)
{
    const int16_t *a[ROWS];
    __m512i sums[ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + task->offsets[row + r];
        sums[r][0] = _mm512_setzero_si512();
        sums[r][1] = _mm512_setzero_si512();
    }
    const size_t pairs = task->pairs;
    size_t pair = 0;
    while (pair < pairs) {
        const size_t end = pair + LINE_FLOATS <= pairs ? pair + LINE_FLOATS : pairs;
        for (size_t i = 0; i < next_lines; i++) {
            __builtin_prefetch(next_b, 0, 2);
            next_b += 2 * LINE_FLOATS;
        }
        for (; pair < end; pair++) {
            const __m512i b0 = _mm512_loadu_si512(b + pair * COLUMNS * 2);
            const __m512i b1 = _mm512_loadu_si512(b + pair * COLUMNS * 2 + 32);
#pragma GCC unroll 12
            for (size_t r = 0; r < rows; r++) {
                int32_t both;
                memcpy(&both, a[r] + 2 * pair, sizeof both);
                const __m512i value = _mm512_set1_epi32(both);
                sums[r][0] = add_products(sums[r][0], value, b0);
                sums[r][1] = add_products(sums[r][1], value, b1);
            }
        }
    }
    for (size_t r = 0; r < rows; r++) {
        const __m512 scale = _mm512_set1_ps(task->row_scales[task->scale_offsets[row + r]]);
        float *out = c + r * task->c_stride;
        for (size_t half = 0; half < 2; half++) {
            const __m512 value =
                _mm512_mul_ps((__m512) __builtin_convertvector((vector_bits)sums[r][half], vector),
                              _mm512_loadu_ps(column_scales + 16 * half));
            const __m512 before =
                task->accumulate ? _mm512_loadu_ps(out + 16 * half) : _mm512_setzero_ps();
            _mm512_storeu_ps(out + 16 * half, _mm512_fmadd_ps(value, scale, before));
        }
    }
}

static void multiply(const conv_multiply *task)
{
    const size_t groups = (task->rows + ROWS - 1) / ROWS;
    const size_t lines = 2 * ((LINE_FLOATS + groups - 1) / groups);
    for (size_t panel = 0; panel < task->panels; panel++) {
        const float *b = task->b + panel * task->b_stride;
        const float *next_b = panel + 1 == task->panels ? task->next_b : b + task->b_stride;
        float *c = task->c + panel * COLUMNS;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            multiply_tile(task, row, b, c + row * task->c_stride, next_b, lines, ROWS);
            next_b += task->depth / LINE_FLOATS * lines * LINE_FLOATS;
        }
        if (row + 8 <= task->rows) {
            multiply_tile(task, row, b, c + row * task->c_stride, next_b, lines, 8);
            row += 8;
        }
        if (row + 4 <= task->rows) {
            multiply_tile(task, row, b, c + row * task->c_stride, next_b, lines, 4);
            row += 4;
        }
        for (; row < task->rows; row++) {
            multiply_tile(task, row, b, c + row * task->c_stride, next_b, lines, 1);
        }
    }
}

static void multiply_int16(const conv_multiply_int16 *task)
{
    const size_t groups = (task->rows + ROWS - 1) / ROWS;
    const size_t lines = 2 * ((LINE_FLOATS + groups - 1) / groups);
    for (size_t panel = 0; panel < task->panels; panel++) {
        const int16_t *b = task->b + panel * task->b_stride;
        const int16_t *next_b = panel + 1 == task->panels ? task->next_b : b + task->b_stride;
        const float *scales = task->column_scales + panel * task->column_scales_stride;
        float *c = task->c + panel * COLUMNS;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            multiply_tile_int16(task, row, b, scales, c + row * task->c_stride, next_b, lines,
                                ROWS);
            next_b += task->pairs / LINE_FLOATS * lines * 2 * LINE_FLOATS;
        }
        if (row + 8 <= task->rows) {
            multiply_tile_int16(task, row, b, scales, c + row * task->c_stride, next_b, lines, 8);
            row += 8;
        }
        if (row + 4 <= task->rows) {
            multiply_tile_int16(task, row, b, scales, c + row * task->c_stride, next_b, lines, 4);
            row += 4;
        }
        for (; row < task->rows; row++) {
            multiply_tile_int16(task, row, b, scales, c + row * task->c_stride, next_b, lines, 1);
        }
    }
}

static void epilogue_run(const conv_epilogue *task)
{
    epilogue_run_columns(task, COLUMNS);
}

/* The table of this file. */
#define CONV_AVX512_TABLE(table_name, table_level)                                                 \
    {                                                                                              \
        .name = table_name, .level = table_level, .rows = ROWS, .columns = COLUMNS,                \
        .multiply = multiply, .prologue = prologue_run, .epilogue = epilogue_run,                  \
        .winograd_input = winograd_input_run, .winograd_weights = winograd_weights_run,            \
        .winograd_output = winograd_output_run, .multiply_int16 = multiply_int16,                  \
        .quantise = quantise_run, .winograd_weights_int16 = winograd_weights_int16_run,            \
    }

#endif
