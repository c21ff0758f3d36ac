/* The low-rank part of weight expressions: tiles of scale * up * down. */
#ifndef ONESTEP_BACKEND_WEIGHT_RANK_H
#define ONESTEP_BACKEND_WEIGHT_RANK_H

#include <stddef.h>

/* One tile of a product: up to TILE_ROWS rows, TILE_COLUMNS columns, TILE_RANKS of the sum. Small
 * enough that all three parts together stay in the first-level cache, or nearly. */
#define TILE_ROWS    48
#define TILE_COLUMNS 64
#define TILE_RANKS   64

/* product[row][column] += sum over r of up[row][r] * down[r][column], r ascending, so that a number
 * does not depend on the tile it falls into. `columns` and `rows` may be less than the tile's; the
 * arrays always have the tile's row lengths, and down's unused columns are readable. */
typedef void (*weight_rank_tile)(float (*product)[TILE_COLUMNS], const float (*up)[TILE_RANKS],
                                 const float (*down)[TILE_COLUMNS], size_t rows, size_t columns,
                                 size_t ranks);

void weight_rank_tile_plain(float (*product)[TILE_COLUMNS], const float (*up)[TILE_RANKS],
                            const float (*down)[TILE_COLUMNS], size_t rows, size_t columns,
                            size_t ranks);
void weight_rank_tile_avx2(float (*product)[TILE_COLUMNS], const float (*up)[TILE_RANKS],
                           const float (*down)[TILE_COLUMNS], size_t rows, size_t columns,
                           size_t ranks);

#endif
