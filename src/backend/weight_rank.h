/* The low-rank part of weight expressions: tiles of scale * up * down. */
#ifndef ONESTEP_BACKEND_WEIGHT_RANK_H
#define ONESTEP_BACKEND_WEIGHT_RANK_H

#include <stddef.h>

/* One tile of a product: up to TILE_ROWS rows, TILE_COLUMNS columns, TILE_RANKS of the sum. Small
 * enough that its parts together stay in the first-level cache, or nearly. */
#define TILE_ROWS    48
#define TILE_COLUMNS 64
#define TILE_RANKS   64
#define UP_RANKS     128 /* of `up` at once: those of most files */

/* sum[row][column] = before[row][column] + sum over r of up[row][r] * down[r][column], r ascending,
 * so that a number does not depend on the tile it falls into; then result += scale * sum. */
typedef struct weight_rank_tile {
    size_t rows, columns, ranks;         /* at most the tile's */
    const float (*up)[UP_RANKS];         /* from the first rank of the tile on */
    const float (*down)[TILE_COLUMNS];   /* columns behind `columns` are readable */
    const float (*before)[TILE_COLUMNS]; /* sums of earlier ranks; NULL: none */
    float (*after)[TILE_COLUMNS];        /* NULL, or where sums go instead: more ranks follow */
    float scale;
    float *result;        /* of the tile's first number */
    size_t result_stride; /* between rows */
} weight_rank_tile;

void weight_rank_plain(const weight_rank_tile *tile);
void weight_rank_avx2(const weight_rank_tile *tile);

#endif
