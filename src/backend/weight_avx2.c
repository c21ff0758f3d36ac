/* Low-rank tiles with AVX2 and FMA: 6 rows by 16 columns in registers. */
#include "backend/weight_rank.h"

#include <immintrin.h>

#define STRIP 16
#define ROWS  6

/* y += scale * sums, for the first `count` of a row of 16. */
static inline void add_row(float *y, __m256 left, __m256 right, float scale, size_t count)
{
    const __m256 factor = _mm256_set1_ps(scale);
    left = _mm256_mul_ps(factor, left);
    right = _mm256_mul_ps(factor, right);
    if (count >= STRIP) {
        _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), left));
        _mm256_storeu_ps(y + 8, _mm256_add_ps(_mm256_loadu_ps(y + 8), right));
        return;
    }
    float sums[STRIP];
    _mm256_storeu_ps(sums, left);
    _mm256_storeu_ps(sums + 8, right);
    for (size_t c = 0; c < count; c++) {
        y[c] += sums[c];
    }
}

/* `rows` is a constant in every call, so that the sums live in registers. */
static inline __attribute__((always_inline)) void strip(const weight_rank_tile *tile, size_t first,
                                                        size_t column, const size_t rows)
{
    const float(*up)[UP_RANKS] = tile->up + first;
    const float(*down)[TILE_COLUMNS] = tile->down;
    const size_t ranks = tile->ranks;
    __m256 left[ROWS], right[ROWS];
#pragma GCC unroll 6
    for (size_t row = 0; row < rows; row++) {
        left[row] = _mm256_setzero_ps();
        right[row] = _mm256_setzero_ps();
    }
    if (tile->before) {
#pragma GCC unroll 6
        for (size_t row = 0; row < rows; row++) {
            left[row] = _mm256_loadu_ps(tile->before[first + row] + column);
            right[row] = _mm256_loadu_ps(tile->before[first + row] + column + 8);
        }
    }
    for (size_t r = 0; r < ranks; r++) {
        const __m256 a = _mm256_loadu_ps(down[r] + column);
        const __m256 b = _mm256_loadu_ps(down[r] + column + 8);
#pragma GCC unroll 6
        for (size_t row = 0; row < rows; row++) {
            const __m256 factor = _mm256_broadcast_ss(&up[row][r]);
            left[row] = _mm256_fmadd_ps(factor, a, left[row]);
            right[row] = _mm256_fmadd_ps(factor, b, right[row]);
        }
    }
    if (tile->after) {
#pragma GCC unroll 6
        for (size_t row = 0; row < rows; row++) {
            _mm256_storeu_ps(tile->after[first + row] + column, left[row]);
            _mm256_storeu_ps(tile->after[first + row] + column + 8, right[row]);
        }
        return;
    }
#pragma GCC unroll 6
    for (size_t row = 0; row < rows; row++) {
        add_row(tile->result + (first + row) * tile->result_stride + column, left[row], right[row],
                tile->scale, tile->columns - column);
    }
}

/* Columns beyond the last are computed too: `down`, `before` and `after` have room for them. */
static inline __attribute__((always_inline)) void strips(const weight_rank_tile *tile, size_t first,
                                                         const size_t rows)
{
    for (size_t column = 0; column < tile->columns; column += STRIP) {
        strip(tile, first, column, rows);
    }
}

void weight_rank_avx2(const weight_rank_tile *tile)
{
    /* Few rows at a time: those of a result often share their cache sets. */
    size_t row = 0;
    for (; row + ROWS <= tile->rows; row += ROWS) {
        strips(tile, row, ROWS);
    }
    for (; row + 2 <= tile->rows; row += 2) {
        strips(tile, row, 2);
    }
    if (row < tile->rows) {
        strips(tile, row, 1);
    }
}
