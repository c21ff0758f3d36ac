/* Low-rank tiles with AVX2 and FMA: 6 rows by 16 columns in registers. */
#include "backend/weight_rank.h"

#include <immintrin.h>

#define STRIP 16

/* `rows` is a constant in every call, so that the sums live in registers. */
static inline __attribute__((always_inline)) void strip(float (*product)[TILE_COLUMNS],
                                                        const float (*up)[TILE_RANKS],
                                                        const float (*down)[TILE_COLUMNS],
                                                        size_t rows, size_t column, size_t ranks)
{
    __m256 left[6], right[6];
    for (size_t row = 0; row < rows; row++) {
        left[row] = _mm256_loadu_ps(product[row] + column);
        right[row] = _mm256_loadu_ps(product[row] + column + 8);
    }
    for (size_t r = 0; r < ranks; r++) {
        __m256 a = _mm256_loadu_ps(down[r] + column), b = _mm256_loadu_ps(down[r] + column + 8);
        for (size_t row = 0; row < rows; row++) {
            __m256 factor = _mm256_broadcast_ss(&up[row][r]);
            left[row] = _mm256_fmadd_ps(factor, a, left[row]);
            right[row] = _mm256_fmadd_ps(factor, b, right[row]);
        }
    }
    for (size_t row = 0; row < rows; row++) {
        _mm256_storeu_ps(product[row] + column, left[row]);
        _mm256_storeu_ps(product[row] + column + 8, right[row]);
    }
}

void weight_rank_tile_avx2(float (*product)[TILE_COLUMNS], const float (*up)[TILE_RANKS],
                           const float (*down)[TILE_COLUMNS], size_t rows, size_t columns,
                           size_t ranks)
{
    /* Columns beyond `columns` are computed too: the tile has room for them. */
    for (size_t column = 0; column < columns; column += STRIP) {
        size_t row = 0;
        for (; row + 6 <= rows; row += 6) {
            strip(product + row, up + row, down, 6, column, ranks);
        }
        for (; row + 2 <= rows; row += 2) {
            strip(product + row, up + row, down, 2, column, ranks);
        }
        if (row < rows) {
            strip(product + row, up + row, down, 1, column, ranks);
        }
    }
}
