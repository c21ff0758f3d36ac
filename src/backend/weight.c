/* Evaluating weight expressions: full terms, then low-rank products, row by row.
 *
 * In float32 this gives what peft's merge gives: W + (B A) * scale, up to the order of the sum
 * inside B A. */
#include "backend/backend.h"
#include "backend/weight_rank.h"

#include <string.h>

static size_t row_length(const weight_expression *weight)
{
    return weight->dims[1] * weight->dims[2] * weight->dims[3];
}

/* Rows of a matrix with `length` numbers a row, from a file's tensor. */
static const void *tensor_at(const named_tensor *t, size_t row, size_t length, size_t column)
{
    return (const uint8_t *)t->data + (row * length + column) * element_size(t->type);
}

/* result = scale * full, or result += scale * full */
static void add_full(const named_tensor *full, float scale, size_t first_number, size_t count,
                     bool is_first, float *result)
{
    const uint8_t *source = (const uint8_t *)full->data + first_number * element_size(full->type);
    if (is_first) {
        convert_to_float(result, source, full->type, count);
        for (size_t i = 0; i < count && scale != 1.0f; i++) {
            result[i] *= scale;
        }
        return;
    }
    float piece[1024];
    for (size_t done = 0; done < count; done += sizeof piece / sizeof *piece) {
        size_t length = size_minimum(count - done, sizeof piece / sizeof *piece);
        convert_to_float(piece, source + done * element_size(full->type), full->type, length);
        for (size_t i = 0; i < length; i++) {
            result[done + i] += scale * piece[i];
        }
    }
}

void weight_rank_plain(const weight_rank_tile *tile)
{
    for (size_t row = 0; row < tile->rows; row++) {
        float sums[TILE_COLUMNS] = {0};
        if (tile->before) {
            memcpy(sums, tile->before[row], tile->columns * sizeof *sums);
        }
        for (size_t r = 0; r < tile->ranks; r++) {
            const float factor = tile->up[row][r];
            for (size_t c = 0; c < tile->columns; c++) {
                sums[c] += factor * tile->down[r][c];
            }
        }
        if (tile->after) {
            memcpy(tile->after[row], sums, tile->columns * sizeof *sums);
            continue;
        }
        float *result = tile->result + row * tile->result_stride;
        for (size_t c = 0; c < tile->columns; c++) {
            result[c] += tile->scale * sums[c];
        }
    }
}

typedef void (*tile_function)(const weight_rank_tile *tile);

static tile_function choose_tile(void)
{
#if defined(__x86_64__) || defined(__i386__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return weight_rank_avx2;
    }
#endif
    return weight_rank_plain;
}

/* Ranks r..r+UP_RANKS-1, as far as there are so many, of rows first..first+rows-1. */
static void convert_up(const named_tensor *source, size_t first, size_t rows, size_t r,
                       float (*up)[UP_RANKS])
{
    const size_t rank = source->shape[1];
    for (size_t row = 0; row < rows; row++) {
        convert_to_float(up[row], tensor_at(source, first + row, rank, r), source->type,
                         size_minimum(UP_RANKS, rank - r));
    }
}

/* result += scale * up * down for rows first..first+rows-1, at most TILE_ROWS. `down` is converted
 * once for all of them. */
static void add_low_rank(const weight_term *term, float scale, size_t first, size_t rows,
                         size_t length, tile_function run, float *result)
{
    _Alignas(64) float up[TILE_ROWS][UP_RANKS], down[TILE_RANKS][TILE_COLUMNS],
        sums[TILE_ROWS][TILE_COLUMNS];
    const size_t rank = term->down->shape[0];
    memset(down, 0, sizeof down);
    for (size_t column = 0; column < length; column += TILE_COLUMNS) {
        weight_rank_tile tile = {
            .rows = rows,
            .columns = size_minimum(TILE_COLUMNS, length - column),
            .down = (const float(*)[TILE_COLUMNS])down,
            .scale = scale,
            .result = result + column,
            .result_stride = length,
        };
        for (size_t r = 0; r < rank; r += TILE_RANKS) {
            tile.ranks = size_minimum(TILE_RANKS, rank - r);
            for (size_t i = 0; i < tile.ranks; i++) {
                convert_to_float(down[i], tensor_at(term->down, r + i, length, column),
                                 term->down->type, tile.columns);
            }
            /* With few ranks `up` stays the same for all columns. */
            if (r % UP_RANKS == 0 && (column == 0 || rank > UP_RANKS)) {
                convert_up(term->up, first, rows, r, up);
            }
            tile.up = (const float(*)[UP_RANKS])(&up[0][0] + r % UP_RANKS);
            tile.before = r > 0 ? (const float(*)[TILE_COLUMNS])sums : NULL;
            tile.after = r + TILE_RANKS < rank ? sums : NULL;
            run(&tile);
        }
    }
}

/* At most TILE_ROWS rows, so that they stay in the second-level cache between the terms. */
static void evaluate_rows(const weight_expression *weight, const float *scalars, size_t first,
                          size_t rows, tile_function tile, float *result)
{
    const size_t length = row_length(weight);
    bool is_first = true;
    for (unsigned t = 0; t < weight->term_count; t++) {
        const weight_term *term = &weight->terms[t];
        const float scale = coefficient_value(term->scale, scalars);
        if (term->full && scale != 0.0f) {
            add_full(term->full, scale, first * length, rows * length, is_first, result);
            is_first = false;
        }
    }
    if (is_first) {
        memset(result, 0, rows * length * sizeof *result);
    }
    for (unsigned t = 0; t < weight->term_count; t++) {
        const weight_term *term = &weight->terms[t];
        const float scale = coefficient_value(term->scale, scalars);
        if (!term->full && scale != 0.0f) {
            add_low_rank(term, scale, first, rows, length, tile, result);
        }
    }
}

void weight_evaluate(const weight_expression *weight, const float *scalars, size_t first,
                     size_t count, float *result)
{
    const tile_function tile = choose_tile();
    for (size_t row = 0; row < count; row += TILE_ROWS) {
        evaluate_rows(weight, scalars, first + row, size_minimum(TILE_ROWS, count - row), tile,
                      result + row * row_length(weight));
    }
}
