/* The matrix product of floats in tiles of 6 rows and 16 columns, for vectors of 8 or 4 floats:
 * included by conv_avx2.h and conv_neon.c. */
#ifndef ONESTEP_BACKEND_CPU_CONV_TILE_H
#define ONESTEP_BACKEND_CPU_CONV_TILE_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/conv_vector.h"

#define ROWS    6
#define COLUMNS 16
#define LINE    16 /* floats of a cache line */
#define PARTS   (COLUMNS / CONV_VECTOR_FLOATS)

/* Calls tile(..., rows) with a constant for what is left of a tile; nothing for no rows. */
#define LAST_ROWS(rows, tile, ...)                                                                 \
    switch (rows) {                                                                                \
    case 1:                                                                                        \
        tile(__VA_ARGS__, 1);                                                                      \
        break;                                                                                     \
    case 2:                                                                                        \
        tile(__VA_ARGS__, 2);                                                                      \
        break;                                                                                     \
    case 3:                                                                                        \
        tile(__VA_ARGS__, 3);                                                                      \
        break;                                                                                     \
    case 4:                                                                                        \
        tile(__VA_ARGS__, 4);                                                                      \
        break;                                                                                     \
    case 5:                                                                                        \
        tile(__VA_ARGS__, 5);                                                                      \
        break;                                                                                     \
    default:                                                                                       \
        break;                                                                                     \
    }

/* What to fetch while a tile is computed: a line of each of the next rows of A (at a, into L1) and
 * `lines` lines of the next panel of B (at b, into L2) every LINE steps. */
typedef struct prefetch {
    const float *a;
    size_t row; /* the first of them */
    const float *b;
    size_t lines;
} prefetch;

/* With AVX2 12 accumulators, 2 of B and 1 broadcast of A fill the 16 registers, with NEON 24, 4 and
 * 1 the 32. `rows` is a constant in every copy of this function. */
ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 const prefetch *next, const size_t rows)
{
    const float *a[ROWS], *ahead[ROWS];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + conv_row_offset(task->offsets, task->a_stride, row + r);
        ahead[r] = next->a + conv_row_offset(task->offsets, task->a_stride, next->row + r);
        __builtin_prefetch(c + r * task->c_stride, 1);
    }
    vector sums[ROWS][PARTS];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t part = 0; part < PARTS; part++) {
            sums[r][part] = (vector){0};
        }
    }
    const size_t depth = task->depth;
    const float *next_b = next->b;
    size_t k = 0;
    while (k < depth) {
        const size_t end = k + LINE <= depth ? k + LINE : depth;
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            __builtin_prefetch(ahead[r] + k, 0, 3);
        }
        for (size_t i = 0; i < next->lines; i++) {
            __builtin_prefetch(next_b, 0, 2);
            next_b += LINE;
        }
        for (; k < end; k++) {
            vector columns[PARTS];
#pragma GCC unroll 4
            for (size_t part = 0; part < PARTS; part++) {
                columns[part] = vector_load(b + k * COLUMNS + part * CONV_VECTOR_FLOATS);
            }
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) {
                const vector value = vector_set(a[r][k]);
#pragma GCC unroll 4
                for (size_t part = 0; part < PARTS; part++) {
                    sums[r][part] = vector_fma(value, columns[part], sums[r][part]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        float *out = c + r * task->c_stride;
#pragma GCC unroll 4
        for (size_t part = 0; part < PARTS; part++) {
            float *to = out + part * CONV_VECTOR_FLOATS;
            vector_store(to, task->accumulate ? vector_load(to) + sums[r][part] : sums[r][part]);
        }
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
            const bool onward = !last && row + (size_t)2 * ROWS <= task->rows;
            next.a = last ? next_a : task->a;
            next.row = onward ? row + ROWS : last ? row : 0;
            multiply_tile(task, row, b, c + row * task->c_stride, &next, ROWS);
            next.b += next.lines * task->depth;
        }
        next.a = last ? next_a : task->a;
        next.row = last ? row : 0;
        float *rest = c + row * task->c_stride;
        LAST_ROWS(task->rows - row, multiply_tile, task, row, b, rest, &next)
    }
}

#endif
