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

void weight_rank_tile_plain(float (*product)[TILE_COLUMNS], const float (*up)[TILE_RANKS],
                            const float (*down)[TILE_COLUMNS], size_t rows, size_t columns,
                            size_t ranks)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t r = 0; r < ranks; r++) {
            float factor = up[row][r];
            for (size_t c = 0; c < columns; c++) {
                product[row][c] += factor * down[r][c];
            }
        }
    }
}

static weight_rank_tile choose_tile(void)
{
#if defined(__x86_64__) || defined(__i386__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return weight_rank_tile_avx2;
    }
#endif
    return weight_rank_tile_plain;
}

/* result += scale * up * down for rows first..first+rows-1, at most TILE_ROWS. `down` is converted
 * once for all of them. */
static void add_low_rank(const weight_term *term, float scale, size_t first, size_t rows,
                         size_t length, weight_rank_tile tile, float *result)
{
    _Alignas(64) float up[TILE_ROWS][TILE_RANKS], down[TILE_RANKS][TILE_COLUMNS],
        product[TILE_ROWS][TILE_COLUMNS];
    size_t rank = term->down->shape[0];
    memset(down, 0, sizeof down);
    for (size_t column = 0; column < length; column += TILE_COLUMNS) {
        size_t columns = size_minimum(TILE_COLUMNS, length - column);
        memset(product, 0, rows * sizeof *product);
        for (size_t r = 0; r < rank; r += TILE_RANKS) {
            size_t ranks = size_minimum(TILE_RANKS, rank - r);
            for (size_t i = 0; i < ranks; i++) {
                convert_to_float(down[i], tensor_at(term->down, r + i, length, column),
                                 term->down->type, columns);
            }
            /* With one tile of ranks, `up` stays the same for all columns. */
            for (size_t row = 0; row < rows && (column == 0 || rank > TILE_RANKS); row++) {
                convert_to_float(up[row], tensor_at(term->up, first + row, rank, r), term->up->type,
                                 ranks);
            }
            tile(product, (const float(*)[TILE_RANKS])up, (const float(*)[TILE_COLUMNS])down, rows,
                 columns, ranks);
        }
        for (size_t row = 0; row < rows; row++) {
            float *to = result + row * length + column;
            for (size_t c = 0; c < columns; c++) {
                to[c] += scale * product[row][c];
            }
        }
    }
}

void weight_evaluate(const weight_expression *weight, const float *scalars, size_t first,
                     size_t count, float *result)
{
    size_t length = row_length(weight);
    bool is_first = true;
    for (unsigned t = 0; t < weight->term_count; t++) {
        const weight_term *term = &weight->terms[t];
        float scale = coefficient_value(term->scale, scalars);
        if (term->full && scale != 0.0f) {
            add_full(term->full, scale, first * length, count * length, is_first, result);
            is_first = false;
        }
    }
    if (is_first) {
        memset(result, 0, count * length * sizeof *result);
    }
    weight_rank_tile tile = choose_tile();
    for (unsigned t = 0; t < weight->term_count; t++) {
        const weight_term *term = &weight->terms[t];
        float scale = coefficient_value(term->scale, scalars);
        for (size_t row = 0; row < count && !term->full && scale != 0.0f; row += TILE_ROWS) {
            add_low_rank(term, scale, first + row, size_minimum(TILE_ROWS, count - row), length,
                         tile, result + row * length);
        }
    }
}
