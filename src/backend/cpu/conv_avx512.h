/* Convolution kernels for AVX-512, compiled three times: as it is, with VNNI's vpdpwssd
 * (CONV_AVX512_VNNI), and with vdpbf16ps too (CONV_AVX512_BF16). Tests compile them through SIMDe
 * (CONV_SIMDE) on machines that lack AVX-512. */
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

/* 24 accumulators, 2 registers of B and the broadcast value. */
#define ROWS    12
#define COLUMNS 32

#include "backend/cpu/conv_table.h"

/* Where the rows of a tile of A begin. Even ones, `stride` bytes apart, are reached from every
 * third one: 12 pointers and what else a loop needs are more than the general registers, and moving
 * them there and back delays the next tile's first products. */
typedef struct tile_rows {
    const char *begin[ROWS];
    size_t stride;
} tile_rows;

ALWAYS_INLINE tile_rows place_rows(const void *a, const uint32_t *offsets, size_t stride,
                                   size_t value_bytes, size_t row, const size_t rows)
{
    tile_rows result = {.stride = stride * value_bytes};
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        result.begin[r] = (const char *)a + conv_row_offset(offsets, stride, row + r) * value_bytes;
    }
    return result;
}

/* Where value or pair `k`, of 4 bytes, of a row begins: to fetch it. */
ALWAYS_INLINE const char *row_position(const tile_rows *a, size_t r, size_t k, const bool even)
{
    return (even ? a->begin[0] + r * a->stride : a->begin[r]) + 4 * k;
}

/* The same value in all lanes. The instruction is written out because gcc makes a pointer for every
 * row otherwise; it reads memory somewhere behind `third`. */
ALWAYS_INLINE __m512i broadcast(const tile_rows *a, size_t r, size_t k, const bool even)
{
#ifndef CONV_SIMDE
    if (even) {
        __m512i lanes;
        const char *third = a->begin[r / 3 * 3] + 4 * k;
#define BROADCAST(address)                                                                         \
    __asm__("vpbroadcastd " address ", %0"                                                         \
            : "=v"(lanes)                                                                          \
            : "r"(third), "r"(a->stride), "m"(*(const char(*)[INT32_MAX])third))
        if (r % 3 == 0) {
            BROADCAST("(%1)");
        } else if (r % 3 == 1) {
            BROADCAST("(%1, %2)");
        } else {
            BROADCAST("(%1, %2, 2)");
        }
#undef BROADCAST
        return lanes;
    }
#endif
    int32_t value;
    memcpy(&value, row_position(a, r, k, even), sizeof value);
    return _mm512_set1_epi32(value);
}

/* What to fetch while a tile is computed: a line of each of the next rows of A (into L1) and
 * `lines` lines of the next panel of B (into L2) every 16 steps; and until its end the tile's own
 * rows of C, which lie in L2 while the products of a Winograd task take turns. */
typedef struct prefetch {
    const void *a;
    size_t row; /* of A, the first of those */
    const char *b;
    size_t lines;
    const float *c;
    size_t c_stride, c_rows; /* rows every 16 steps */
} prefetch;

ALWAYS_INLINE void prefetch_lines(prefetch *next, const tile_rows *a, size_t k, const size_t rows,
                                  const bool even)
{
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        _mm_prefetch(row_position(a, r, k, even), _MM_HINT_T0);
    }
    for (size_t i = 0; i < next->lines; i++) {
        _mm_prefetch(next->b, _MM_HINT_T1);
        next->b += LINE_BYTES;
    }
    for (size_t r = 0; r < next->c_rows; r++) {
        __builtin_prefetch(next->c, 1);
        __builtin_prefetch(next->c + LINE_FLOATS, 1);
        next->c += next->c_stride;
    }
}

/* `rows` and `even` are constants in every copy of the two functions below. */
ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 prefetch *next, const size_t rows, const bool even)
{
    const tile_rows a =
        place_rows(task->a, even ? NULL : task->offsets, task->a_stride, sizeof(float), row, rows);
    const tile_rows ahead = place_rows(next->a, even ? NULL : task->offsets, task->a_stride,
                                       sizeof(float), next->row, rows);
    __m512 sums[ROWS][2];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = _mm512_setzero_ps();
        sums[r][1] = _mm512_setzero_ps();
    }
    const size_t depth = task->depth;
    next->c = c;
    size_t k = 0;
    while (k < depth) {
        const size_t end = k + LINE_FLOATS <= depth ? k + LINE_FLOATS : depth;
        prefetch_lines(next, &ahead, k, rows, even);
        for (; k < end; k++) {
            const __m512 b0 = _mm512_loadu_ps(b + k * COLUMNS);
            const __m512 b1 = _mm512_loadu_ps(b + k * COLUMNS + 16);
#pragma GCC unroll 12
            for (size_t r = 0; r < rows; r++) {
                const __m512 value = (__m512)broadcast(&a, r, k, even);
                sums[r][0] = _mm512_fmadd_ps(value, b0, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(value, b1, sums[r][1]);
            }
        }
    }
    /* Read before C is written: for all a compiler knows the task lies there. */
    const size_t c_stride = task->c_stride;
    const bool accumulate = task->accumulate;
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        float *out = c + r * c_stride;
        if (accumulate) {
            sums[r][0] = _mm512_add_ps(_mm512_loadu_ps(out), sums[r][0]);
            sums[r][1] = _mm512_add_ps(_mm512_loadu_ps(out + 16), sums[r][1]);
        }
        _mm512_storeu_ps(out, sums[r][0]);
        _mm512_storeu_ps(out + 16, sums[r][1]);
    }
}

/* INT8_WORDS: bytes whose sums leave as 16-bit integers. */
typedef enum number_type { INT16, INT8, INT8_WORDS, BFLOAT16 } number_type;

/* Sums of integers, or the bits of sums of bfloat16. The instructions are written out where they
 * run natively: they add in place, and gcc 12 surrounds their intrinsics with copies of registers,
 * which halves the rate. */
ALWAYS_INLINE __m512i add_products(__m512i sum, __m512i a, __m512i b, number_type type)
{
#ifdef CONV_AVX512_VNNI
    if (type == INT8 || type == INT8_WORDS) {
#ifdef CONV_SIMDE
        return _mm512_dpbusd_epi32(sum, a, b);
#else
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
#endif
    }
#endif
#ifdef CONV_AVX512_BF16
    if (type == BFLOAT16) {
#ifdef CONV_SIMDE
        return (__m512i)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
#endif
    }
#endif
    (void)type;
#ifndef CONV_AVX512_VNNI
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#elif defined(CONV_SIMDE)
    return _mm512_dpwssd_epi32(sum, a, b);
#else
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#endif
}

/* Stores or adds half a row of sums. */
ALWAYS_INLINE void store_sums(float *out, __m512i sums, __m512 row_scale, __m512 column_scale,
                              bool accumulate, number_type type)
{
    const __m512 before = accumulate ? _mm512_loadu_ps(out) : _mm512_setzero_ps();
    if (type == BFLOAT16) {
        _mm512_storeu_ps(out, _mm512_add_ps(before, (__m512)sums));
        return;
    }
    const __m512 values =
        (__m512) __builtin_convertvector((vector_bits)sums, vector) * column_scale;
    _mm512_storeu_ps(out, _mm512_fmadd_ps(values, row_scale, before));
}

/* The low 16 bits of two vectors of sums, once they are shifted, by turns one of either: times
 * their factors. */
ALWAYS_INLINE void store_words(const conv_multiply_pairs *task, size_t row, size_t panel,
                               __m512i sums[][2], const size_t rows)
{
    const __m512i factors = _mm512_loadu_si512(task->word_factors + panel * COLUMNS);
    const __m512i right = _mm512_set1_epi32((int)task->shift);
    const __m512i left = _mm512_set1_epi32(16 - (int)task->shift);
    const size_t stride = task->words_stride;
    int16_t *words = task->words + row * stride + panel * COLUMNS;
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        const __m512i even = _mm512_srlv_epi32(sums[r][0], right);
        const __m512i odd = _mm512_sllv_epi32(sums[r][1], left);
        const __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, even, odd);
        _mm512_storeu_si512(words + r * stride, _mm512_mulhrs_epi16(both, factors));
    }
}

ALWAYS_INLINE void multiply_tile_pairs(const conv_multiply_pairs *task, size_t row, size_t panel,
                                       prefetch *next, const number_type type, const size_t rows,
                                       const bool even)
{
    const tile_rows a = place_rows(task->a, even ? NULL : task->offsets, task->a_stride,
                                   sizeof(int16_t), row, rows);
    const tile_rows ahead = place_rows(next->a, even ? NULL : task->offsets, task->a_stride,
                                       sizeof(int16_t), next->row, rows);
    const int16_t *b = task->b + panel * task->b_stride;
    const size_t column = panel * task->column_scales_stride;
    const bool bytes = type == INT8 || type == INT8_WORDS;
    __m512i begins[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (bytes) {
        begins[0] = _mm512_loadu_si512(task->column_begins + column);
        begins[1] = _mm512_loadu_si512(task->column_begins + column + 16);
    }
    __m512i sums[ROWS][2];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = begins[0];
        sums[r][1] = begins[1];
    }
    const size_t pairs = task->pairs;
    float *c = NULL;
    if (type != INT8_WORDS) {
        c = task->c + row * task->c_stride + panel * COLUMNS;
    }
    next->c = c;
    size_t pair = 0;
    while (pair < pairs) {
        const size_t end = pair + LINE_FLOATS <= pairs ? pair + LINE_FLOATS : pairs;
        prefetch_lines(next, &ahead, pair, rows, even);
        for (; pair < end; pair++) {
            const __m512i b0 = _mm512_loadu_si512(b + pair * COLUMNS * 2);
            const __m512i b1 = _mm512_loadu_si512(b + pair * COLUMNS * 2 + 32);
#pragma GCC unroll 12
            for (size_t r = 0; r < rows; r++) {
                const __m512i value = broadcast(&a, r, pair, even);
                sums[r][0] = add_products(sums[r][0], value, b0, type);
                sums[r][1] = add_products(sums[r][1], value, b1, type);
            }
        }
    }
    if (type == INT8_WORDS) {
        store_words(task, row, panel, sums, rows);
        return;
    }
    __m512 row_scale = _mm512_setzero_ps();
    __m512 scales[2] = {row_scale, row_scale};
    if (type != BFLOAT16) {
        scales[0] = _mm512_loadu_ps(task->column_scales + column);
        scales[1] = _mm512_loadu_ps(task->column_scales + column + 16);
    }
    const float *row_scales = task->row_scales;
    const uint32_t *scale_offsets = task->scale_offsets;
    const size_t c_stride = task->c_stride;
    const bool accumulate = task->accumulate;
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        if (type != BFLOAT16) {
            row_scale = _mm512_set1_ps(row_scales[conv_row_offset(scale_offsets, 1, row + r)]);
        }
        float *out = c + r * c_stride;
        store_sums(out, sums[r][0], row_scale, scales[0], accumulate, type);
        store_sums(out + 16, sums[r][1], row_scale, scales[1], accumulate, type);
    }
}

/* Calls tile(..., rows, even) with constants: as many of `rows` as there is a copy for. Gives how
 * many. */
#define MULTIPLY_ROWS(done, rows, even, tile, ...)                                                 \
    if (even) {                                                                                    \
        MULTIPLY_SOME(done, rows, true, tile, __VA_ARGS__)                                         \
    } else {                                                                                       \
        MULTIPLY_SOME(done, rows, false, tile, __VA_ARGS__)                                        \
    }

#define MULTIPLY_SOME(done, rows, even, tile, ...)                                                 \
    if ((rows) >= ROWS) {                                                                          \
        tile(__VA_ARGS__, ROWS, even);                                                             \
        (done) = ROWS;                                                                             \
    } else if ((rows) >= 8) {                                                                      \
        tile(__VA_ARGS__, 8, even);                                                                \
        (done) = 8;                                                                                \
    } else if ((rows) >= 4) {                                                                      \
        tile(__VA_ARGS__, 4, even);                                                                \
        (done) = 4;                                                                                \
    } else if ((rows) >= 2) {                                                                      \
        tile(__VA_ARGS__, 2, even);                                                                \
        (done) = 2;                                                                                \
    } else {                                                                                       \
        tile(__VA_ARGS__, 1, even);                                                                \
        (done) = 1;                                                                                \
    }

/* The first row to fetch: of those after `row`, or of the first ones for the next panel. */
ALWAYS_INLINE size_t next_row(size_t row, size_t rows, bool last)
{
    const bool onward = !last && row + 2 * ROWS <= rows;
    return onward ? row + ROWS : last ? row : 0;
}

/* Rows of C to fetch every 16 of `depth` steps. */
ALWAYS_INLINE size_t rows_a_step(size_t depth)
{
    const size_t steps = (depth + LINE_FLOATS - 1) / LINE_FLOATS;
    return (ROWS + steps - 1) / steps;
}

static void multiply(const conv_multiply *task)
{
    const size_t groups = (task->rows + ROWS - 1) / ROWS;
    /* Without a next call the hints stay inside this one's operands. */
    const float *next_a = task->next_a ? task->next_a : task->a;
    const float *next_b = task->next_b ? task->next_b : task->b;
    prefetch next = {.lines = (2 * LINE_FLOATS + groups - 1) / groups,
                     .c_stride = task->c_stride,
                     .c_rows = rows_a_step(task->depth)};
    for (size_t panel = 0; panel < task->panels; panel++) {
        const float *b = task->b + panel * task->b_stride;
        float *c = task->c + panel * COLUMNS;
        const bool last = panel + 1 == task->panels;
        next.a = last ? next_a : task->a;
        next.b = (const char *)(last ? next_b : b + task->b_stride);
        for (size_t row = 0, done; row < task->rows; row += done) {
            next.row = next_row(row, task->rows, last);
            MULTIPLY_ROWS(done, task->rows - row, !task->offsets, multiply_tile, task, row, b,
                          c + row * task->c_stride, &next)
        }
    }
}

ALWAYS_INLINE void multiply_pairs(const conv_multiply_pairs *task, const number_type type)
{
    const size_t groups = (task->rows + ROWS - 1) / ROWS;
    const int16_t *next_a = task->next_a ? task->next_a : task->a;
    prefetch next = {.lines = (2 * LINE_FLOATS + groups - 1) / groups,
                     .c_stride = task->c_stride,
                     .c_rows = type == INT8_WORDS ? 0 : rows_a_step(task->pairs)};
    for (size_t panel = 0; panel < task->panels; panel++) {
        const bool last = panel + 1 == task->panels;
        next.a = last ? next_a : task->a;
        next.b = (const char *)(last ? task->next_b : task->b + (panel + 1) * task->b_stride);
        for (size_t row = 0, done; row < task->rows; row += done) {
            next.row = next_row(row, task->rows, last);
            MULTIPLY_ROWS(done, task->rows - row, !task->offsets, multiply_tile_pairs, task, row,
                          panel, &next, type)
        }
    }
}

static void multiply_int16(const conv_multiply_pairs *task)
{
    multiply_pairs(task, INT16);
}

#ifdef CONV_AVX512_VNNI
static void multiply_int8(const conv_multiply_pairs *task)
{
    multiply_pairs(task, INT8);
}

static void multiply_int8_words(const conv_multiply_pairs *task)
{
    multiply_pairs(task, INT8_WORDS);
}
#define INT8_KERNELS .multiply_int8 = multiply_int8, .multiply_int8_words = multiply_int8_words,
#else
#define INT8_KERNELS
#endif

#ifdef CONV_AVX512_BF16
static void multiply_bf16(const conv_multiply_pairs *task)
{
    multiply_pairs(task, BFLOAT16);
}

static void round_bf16(const conv_quantise *task)
{
    for (size_t row = 0; row < task->rows; row++) {
        const float *source = task->source + row * task->source_stride;
        int16_t *destination = task->destination + row * task->destination_stride;
        for (size_t c = 0; c < task->padded; c += LINE_FLOATS) {
            const size_t left = c < task->channels ? task->channels - c : 0;
            const vector x =
                left >= LINE_FLOATS ? vector_load(source + c) : vector_load_part(source + c, left);
            const vector_half half = __builtin_convertvector(vector_bfloat16(x) >> 16, vector_half);
            memcpy(destination + c, &half, sizeof half);
        }
    }
}
#define BF16_KERNELS .multiply_bf16 = multiply_bf16, .round_bf16 = round_bf16,
#else
#define BF16_KERNELS
#endif
#define AVX512_KERNELS INT8_KERNELS BF16_KERNELS

#endif
