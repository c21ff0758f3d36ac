/* The matrix products of integers in 256-bit vectors: vpmaddwd and vpaddd, or with CONV_AVX_VNNI
 * vpdpwssd, and vpdpbusd for bytes.
 *
 * A tile of 6 rows and 16 columns needs 12 accumulators, 2 registers of B, 1 of A and 1 for a
 * product: all 16. Compilers spill some of them, which costs 40 %, so the loop of whole tiles is
 * assembly; the same in intrinsics computes the last rows. */
#ifndef ONESTEP_BACKEND_CPU_CONV_AVX2_PAIRS_H
#define ONESTEP_BACKEND_CPU_CONV_AVX2_PAIRS_H

#include "backend/cpu/conv_tile.h"

#if defined(__x86_64__) && !defined(CONV_NO_ASSEMBLY)
#define CONV_ASSEMBLY 1
#else
#define CONV_ASSEMBLY 0
#endif

/* AVX-VNNI has instructions of AVX-512 VNNI in the older encoding. Tests run the other one on
 * machines that have only that. */
#ifndef CONV_ENCODING
#define CONV_ENCODING "%{vex%} "
#endif

/* INT8_WORDS: bytes whose sums leave as 16-bit integers. */
typedef enum number_type { INT16, INT8, INT8_WORDS } number_type;

/* The low 16 bits of two vectors of sums, once they are shifted, by turns one of either: times
 * their factors. */
ALWAYS_INLINE void store_words(const conv_multiply_pairs *task, size_t row, size_t panel,
                               const __m256i *sums, const size_t rows)
{
    const int16_t *factors = task->word_factors + panel * COLUMNS;
    const __m256i factor = _mm256_loadu_si256((const __m256i *)(const void *)factors);
    const __m256i right = _mm256_set1_epi32((int)task->shift);
    const __m256i left = _mm256_set1_epi32(16 - (int)task->shift);
    const size_t stride = task->words_stride;
    int16_t *words = task->words + row * stride + panel * COLUMNS;
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        const __m256i even = _mm256_srlv_epi32(sums[2 * r], right);
        const __m256i odd = _mm256_sllv_epi32(sums[2 * r + 1], left);
        const __m256i result = _mm256_mulhrs_epi16(_mm256_blend_epi16(even, odd, 0xaa), factor);
        _mm256_storeu_si256((__m256i *)(void *)(words + r * stride), result);
    }
}

/* C (+)= sums * row scale * column scales, or words, for the rows of a tile. What the task says is
 * read before: for all a compiler knows C could overwrite it. */
ALWAYS_INLINE void store_rows(const conv_multiply_pairs *task, size_t row, size_t panel,
                              const number_type type, const __m256i *sums, const size_t rows)
{
    if (type == INT8_WORDS) {
        store_words(task, row, panel, sums, rows);
        return;
    }
    const float *column_scales = task->column_scales + panel * task->column_scales_stride;
    const __m256 scales[2] = {_mm256_loadu_ps(column_scales), _mm256_loadu_ps(column_scales + 8)};
    const float *row_scales = task->row_scales;
    const uint32_t *scale_offsets = task->scale_offsets;
    const size_t stride = task->c_stride;
    const bool accumulate = task->accumulate;
    float *c = task->c + row * stride + panel * COLUMNS;
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++, c += stride) {
        const __m256 scale = _mm256_set1_ps(row_scales[conv_row_offset(scale_offsets, 1, row + r)]);
        __m256 first = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[2 * r]), scales[0]);
        __m256 second = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[2 * r + 1]), scales[1]);
        if (accumulate) {
            first = _mm256_fmadd_ps(first, scale, _mm256_loadu_ps(c));
            second = _mm256_fmadd_ps(second, scale, _mm256_loadu_ps(c + 8));
        } else {
            first = _mm256_mul_ps(first, scale);
            second = _mm256_mul_ps(second, scale);
        }
        _mm256_storeu_ps(c, first);
        _mm256_storeu_ps(c + 8, second);
    }
}

/* Sums of products of two signed words, or of four unsigned and signed bytes. */
ALWAYS_INLINE __m256i add_products(__m256i sum, __m256i a, __m256i b, const number_type type)
{
    if (type == INT16) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }
    const __m256i even_a = _mm256_and_si256(a, _mm256_set1_epi16(0xff));
    const __m256i even_b = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8);
    const __m256i odd_a = _mm256_srli_epi16(a, 8), odd_b = _mm256_srai_epi16(b, 8);
    return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(even_a, even_b)),
                            _mm256_madd_epi16(odd_a, odd_b));
}

/* What the sums of a panel's columns begin with. */
ALWAYS_INLINE void begin_sums(const conv_multiply_pairs *task, size_t panel, const number_type type,
                              __m256i *sums, const size_t rows)
{
    __m256i left = _mm256_setzero_si256(), right = left;
    if (type != INT16) {
        const __m256i *begins = (const __m256i *)(const void *)(task->column_begins +
                                                                panel * task->column_scales_stride);
        left = _mm256_loadu_si256(begins);
        right = _mm256_loadu_si256(begins + 1);
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        sums[2 * r] = left;
        sums[2 * r + 1] = right;
    }
}

/* `rows` is a constant in every copy of this function. */
ALWAYS_INLINE void multiply_rows(const conv_multiply_pairs *task, size_t row, size_t panel,
                                 const number_type type, const size_t rows)
{
    const int16_t *a[ROWS];
    const int16_t *b = task->b + panel * task->b_stride;
    __m256i sums[2 * ROWS];
    begin_sums(task, panel, type, sums, rows);
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + conv_row_offset(task->offsets, task->a_stride, row + r);
    }
    for (size_t pair = 0; pair < task->pairs; pair++) {
        const __m256i *columns = (const __m256i *)(const void *)(b + pair * COLUMNS * 2);
        const __m256i b0 = _mm256_loadu_si256(columns);
        const __m256i b1 = _mm256_loadu_si256(columns + 1);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            int32_t both;
            memcpy(&both, a[r] + 2 * pair, sizeof both);
            const __m256i value = _mm256_set1_epi32(both);
            sums[2 * r] = add_products(sums[2 * r], value, b0, type);
            sums[2 * r + 1] = add_products(sums[2 * r + 1], value, b1, type);
        }
    }
    store_rows(task, row, panel, type, sums, rows);
}

#if CONV_ASSEMBLY
#define CLEAR(left, right)                                                                         \
    " vpxor %[s" #left "], %[s" #left "], %[s" #left "]\n"                                         \
    " vpxor %[s" #right "], %[s" #right "], %[s" #right "]\n"
#ifdef CONV_AVX_VNNI
#define BEGIN(left, right)                                                                         \
    " vmovdqu (%[stop]), %[s" #left "]\n"                                                          \
    " vmovdqu 32(%[stop]), %[s" #right "]\n"
#define ADD_ROW(instruction, r, left, right)                                                       \
    " vpbroadcastd (%[a" #r "], %[pair], 4), %%ymm15\n"                                            \
    " " CONV_ENCODING instruction " %%ymm12, %%ymm15, %[s" #left "]\n"                             \
    " " CONV_ENCODING instruction " %%ymm13, %%ymm15, %[s" #right "]\n"
#define WORDS_ROW(r, left, right) ADD_ROW("vpdpwssd", r, left, right)
#define BYTES_ROW(r, left, right) ADD_ROW("vpdpbusd", r, left, right)
#else
#define WORDS_ROW(r, left, right)                                                                  \
    " vpbroadcastd (%[a" #r "], %[pair], 4), %%ymm15\n"                                            \
    " vpmaddwd %%ymm12, %%ymm15, %%ymm14\n"                                                        \
    " vpmaddwd %%ymm13, %%ymm15, %%ymm15\n"                                                        \
    " vpaddd %%ymm14, %[s" #left "], %[s" #left "]\n"                                              \
    " vpaddd %%ymm15, %[s" #right "], %[s" #right "]\n"
#endif
#define FETCH(r)          " prefetcht0 (%[a" #r "], %[ahead], 4)\n"
#define EACH_FETCH        FETCH(0) FETCH(1) FETCH(2) FETCH(3) FETCH(4) FETCH(5)
#define EACH_BEGIN(begin) begin(0, 1) begin(2, 3) begin(4, 5) begin(6, 7) begin(8, 9) begin(10, 11)
#define EACH_ROW(row)                                                                              \
    row(0, 0, 1) row(1, 2, 3) row(2, 4, 5) row(3, 6, 7) row(4, 8, 9) row(5, 10, 11)
/* `stop` is where the sums' beginnings are at first. */
/* clang-format off */
#define TILE_LOOP(begin, row)                                                                      \
    __asm__ volatile(                                                                              \
        EACH_BEGIN(begin)                                                                          \
        "2:\n"                                                                                     \
        " lea 1024(%[b]), %[stop]\n"                                                               \
        " cmp %[end], %[stop]\n"                                                                   \
        " cmova %[end], %[stop]\n"                                                                 \
        EACH_FETCH                                                                                 \
        " prefetcht1 (%[next_b])\n"                                                                \
        " prefetcht1 64(%[next_b])\n"                                                              \
        " add $128, %[next_b]\n"                                                                   \
        " add $16, %[ahead]\n"                                                                     \
        " .p2align 4\n"                                                                            \
        "1:\n"                                                                                     \
        " vmovdqu (%[b]), %%ymm12\n"                                                               \
        " vmovdqu 32(%[b]), %%ymm13\n"                                                             \
        EACH_ROW(row)                                                                              \
        " add $64, %[b]\n"                                                                         \
        " inc %[pair]\n"                                                                           \
        " cmp %[stop], %[b]\n"                                                                     \
        " jne 1b\n"                                                                                \
        " cmp %[end], %[b]\n"                                                                      \
        " jne 2b\n"                                                                                \
        : [s0] "=&x"(sums[0]), [s1] "=&x"(sums[1]), [s2] "=&x"(sums[2]), [s3] "=&x"(sums[3]),      \
          [s4] "=&x"(sums[4]), [s5] "=&x"(sums[5]), [s6] "=&x"(sums[6]), [s7] "=&x"(sums[7]),      \
          [s8] "=&x"(sums[8]), [s9] "=&x"(sums[9]), [s10] "=&x"(sums[10]), [s11] "=&x"(sums[11]),  \
          [b] "+r"(b), [pair] "+r"(pair), [ahead] "+r"(ahead), [next_b] "+r"(next_b),              \
          [stop] "+r"(stop)                                                                        \
        : [a0] "r"(a[0]), [a1] "r"(a[1]), [a2] "r"(a[2]), [a3] "r"(a[3]), [a4] "r"(a[4]),          \
          [a5] "r"(a[5]), [end] "r"(end)                                                           \
        : "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc")
/* clang-format on */

/* Six rows. Their lines of C are prefetched, and every 16 pairs the next lines of the rows after
 * these (`ahead` pairs further on) and two lines of the next panel. */
ALWAYS_INLINE void multiply_whole(const conv_multiply_pairs *task, size_t row, size_t panel,
                                  size_t ahead, const int16_t *next_b, const number_type type)
{
    const int16_t *a[ROWS];
    const int16_t *b = task->b + panel * task->b_stride;
    const int16_t *end = b + task->pairs * COLUMNS * 2;
    const void *stop =
        type == INT16 ? NULL : task->column_begins + panel * task->column_scales_stride;
    __m256i sums[2 * ROWS];
    for (size_t r = 0; r < ROWS; r++) {
        a[r] = task->a + conv_row_offset(task->offsets, task->a_stride, row + r);
        if (type != INT8_WORDS) {
            __builtin_prefetch(task->c + (row + r) * task->c_stride + panel * COLUMNS, 1);
        }
    }
    size_t pair = 0;
#ifdef CONV_AVX_VNNI
    if (type == INT16) {
        TILE_LOOP(CLEAR, WORDS_ROW);
    } else {
        TILE_LOOP(BEGIN, BYTES_ROW);
    }
#else
    TILE_LOOP(CLEAR, WORDS_ROW);
#endif
    store_rows(task, row, panel, type, sums, ROWS);
}
#else
ALWAYS_INLINE void multiply_whole(const conv_multiply_pairs *task, size_t row, size_t panel,
                                  size_t ahead, const int16_t *next_b, const number_type type)
{
    (void)ahead;
    (void)next_b;
    multiply_rows(task, row, panel, type, ROWS);
}
#endif

/* From one row of A to another. */
ALWAYS_INLINE size_t distance(const conv_multiply_pairs *task, size_t from, size_t to)
{
    return conv_row_offset(task->offsets, task->a_stride, to) -
           conv_row_offset(task->offsets, task->a_stride, from);
}

ALWAYS_INLINE void multiply_pairs(const conv_multiply_pairs *task, const number_type type)
{
    /* In pairs, as the assembly counts; a hint may point anywhere. */
    const size_t next_matrix =
        task->next_a ? ((uintptr_t)task->next_a - (uintptr_t)task->a) / (2 * sizeof(int16_t)) : 0;
    for (size_t panel = 0; panel < task->panels; panel++) {
        const bool last = panel + 1 == task->panels;
        const int16_t *next_b = last ? task->next_b : task->b + (panel + 1) * task->b_stride;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            /* The rows after these, or in the last panel these rows of the next matrix. */
            const bool onward = !last && row + (size_t)2 * ROWS <= task->rows;
            const size_t ahead = onward ? distance(task, row, row + ROWS) / 2
                                 : last ? next_matrix
                                        : 0;
            multiply_whole(task, row, panel, ahead, next_b, type);
            next_b += task->pairs / 16 * 64;
        }
        LAST_ROWS(task->rows - row, multiply_rows, task, row, panel, type)
    }
}

static void multiply_int16(const conv_multiply_pairs *task)
{
    multiply_pairs(task, INT16);
}

#ifdef CONV_AVX_VNNI
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

#endif
