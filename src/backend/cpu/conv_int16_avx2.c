/* The matrix product of 16-bit integers for AVX2: vpmaddwd and vpaddd.
 *
 * A tile of 6 rows and 16 columns needs 12 accumulators, 2 registers of B, 1 of A and 1 for a
 * product: all 16. Compilers spill some of them, which costs 40 %, so the loop of whole tiles is
 * assembly; the same in intrinsics computes the last rows. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/conv_int16.h"

#define ROWS    6
#define COLUMNS 16

/* C (+)= sums * row scale * column scales, for one row. */
static inline void store_row(const conv_multiply_pairs *task, size_t row,
                             const float *column_scales, float *c, __m256i left, __m256i right)
{
    const __m256 scale = _mm256_set1_ps(task->row_scales[task->scale_offsets[row]]);
    __m256 first = _mm256_mul_ps(_mm256_cvtepi32_ps(left), _mm256_loadu_ps(column_scales));
    __m256 second = _mm256_mul_ps(_mm256_cvtepi32_ps(right), _mm256_loadu_ps(column_scales + 8));
    if (task->accumulate) {
        first = _mm256_fmadd_ps(first, scale, _mm256_loadu_ps(c));
        second = _mm256_fmadd_ps(second, scale, _mm256_loadu_ps(c + 8));
    } else {
        first = _mm256_mul_ps(first, scale);
        second = _mm256_mul_ps(second, scale);
    }
    _mm256_storeu_ps(c, first);
    _mm256_storeu_ps(c + 8, second);
}

static inline __attribute__((always_inline)) void multiply_rows(const conv_multiply_pairs *task,
                                                                size_t row, const int16_t *b,
                                                                const float *column_scales,
                                                                float *c, const size_t rows)
{
    const int16_t *a[ROWS];
    __m256i sums[ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + task->offsets[row + r];
        sums[r][0] = _mm256_setzero_si256();
        sums[r][1] = _mm256_setzero_si256();
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
            sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(value, b0));
            sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(value, b1));
        }
    }
    for (size_t r = 0; r < rows; r++) {
        store_row(task, row + r, column_scales, c + r * task->c_stride, sums[r][0], sums[r][1]);
    }
}

#ifdef __x86_64__
/* Six rows. Their lines of C are prefetched, and every 16 pairs the next lines of the rows after
 * these (`ahead` pairs further on) and two lines of the next panel. */
static void multiply_whole(const conv_multiply_pairs *task, size_t row, const int16_t *b,
                           const float *column_scales, float *c, size_t ahead,
                           const int16_t *next_b)
{
    const int16_t *a0 = task->a + task->offsets[row];
    const int16_t *a1 = task->a + task->offsets[row + 1];
    const int16_t *a2 = task->a + task->offsets[row + 2];
    const int16_t *a3 = task->a + task->offsets[row + 3];
    const int16_t *a4 = task->a + task->offsets[row + 4];
    const int16_t *a5 = task->a + task->offsets[row + 5];
    const int16_t *end = b + task->pairs * COLUMNS * 2;
    const int16_t *stop;
    for (size_t r = 0; r < ROWS; r++) {
        __builtin_prefetch(c + r * task->c_stride, 1);
    }
    size_t pair = 0;
    __m256i sums[12];
#define CLEAR(i) " vpxor %[s" #i "], %[s" #i "], %[s" #i "]\n"
#define FETCH(r) " prefetcht0 (%[a" #r "], %[ahead], 4)\n"
#define ROW(r, left, right)                                                                        \
    " vpbroadcastd (%[a" #r "], %[pair], 4), %%ymm15\n"                                            \
    " vpmaddwd %%ymm12, %%ymm15, %%ymm14\n"                                                        \
    " vpmaddwd %%ymm13, %%ymm15, %%ymm15\n"                                                        \
    " vpaddd %%ymm14, %[s" #left "], %[s" #left "]\n"                                              \
    " vpaddd %%ymm15, %[s" #right "], %[s" #right "]\n"
    __asm__ volatile(
        CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5) CLEAR(6) CLEAR(7) CLEAR(8) CLEAR(9)
            CLEAR(10)
                CLEAR(11) "2:\n"
                          " lea 1024(%[b]), %[stop]\n"
                          " cmp %[end], %[stop]\n"
                          " cmova %[end], %[stop]\n" FETCH(0) FETCH(1) FETCH(2) FETCH(3) FETCH(4)
                              FETCH(5) " prefetcht1 (%[next_b])\n"
                                       " prefetcht1 64(%[next_b])\n"
                                       " add $128, %[next_b]\n"
                                       " add $16, %[ahead]\n"
                                       " .p2align 4\n"
                                       "1:\n"
                                       " vmovdqu (%[b]), %%ymm12\n"
                                       " vmovdqu 32(%[b]), %%ymm13\n" ROW(0, 0, 1) ROW(1, 2, 3)
                                           ROW(2, 4, 5) ROW(3, 6, 7) ROW(4, 8, 9)
                                               ROW(5, 10, 11) " add $64, %[b]\n"
                                                              " inc %[pair]\n"
                                                              " cmp %[stop], %[b]\n"
                                                              " jne 1b\n"
                                                              " cmp %[end], %[b]\n"
                                                              " jne 2b\n"
        : [s0] "=&x"(sums[0]), [s1] "=&x"(sums[1]), [s2] "=&x"(sums[2]), [s3] "=&x"(sums[3]),
          [s4] "=&x"(sums[4]), [s5] "=&x"(sums[5]), [s6] "=&x"(sums[6]), [s7] "=&x"(sums[7]),
          [s8] "=&x"(sums[8]), [s9] "=&x"(sums[9]), [s10] "=&x"(sums[10]), [s11] "=&x"(sums[11]),
          [b] "+r"(b), [pair] "+r"(pair), [ahead] "+r"(ahead), [next_b] "+r"(next_b),
          [stop] "=&r"(stop)
        : [a0] "r"(a0), [a1] "r"(a1), [a2] "r"(a2), [a3] "r"(a3), [a4] "r"(a4), [a5] "r"(a5),
          [end] "r"(end)
        : "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
#undef CLEAR
#undef FETCH
#undef ROW
    for (size_t r = 0; r < ROWS; r++) {
        store_row(task, row + r, column_scales, c + r * task->c_stride, sums[2 * r],
                  sums[2 * r + 1]);
    }
}
#else
static void multiply_whole(const conv_multiply_pairs *task, size_t row, const int16_t *b,
                           const float *column_scales, float *c, size_t ahead,
                           const int16_t *next_b)
{
    (void)ahead;
    (void)next_b;
    multiply_rows(task, row, b, column_scales, c, ROWS);
}
#endif

void conv_multiply_int16_avx2(const conv_multiply_pairs *task)
{
    /* In pairs, as the assembly counts; a hint may point anywhere. */
    const size_t next_matrix =
        task->next_a ? ((uintptr_t)task->next_a - (uintptr_t)task->a) / (2 * sizeof(int16_t)) : 0;
    for (size_t panel = 0; panel < task->panels; panel++) {
        const int16_t *b = task->b + panel * task->b_stride;
        const bool last = panel + 1 == task->panels;
        const int16_t *next_b = last ? task->next_b : b + task->b_stride;
        const float *scales = task->column_scales + panel * task->column_scales_stride;
        float *c = task->c + panel * COLUMNS;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            /* The rows after these, or in the last panel these rows of the next matrix. */
            const bool onward = !last && row + 2 * ROWS <= task->rows;
            const size_t ahead = onward ? (task->offsets[row + ROWS] - task->offsets[row]) / 2
                                 : last ? next_matrix
                                        : 0;
            multiply_whole(task, row, b, scales, c + row * task->c_stride, ahead, next_b);
            next_b += task->pairs / 16 * 64;
        }
        float *rest = c + row * task->c_stride;
        switch (task->rows - row) {
        case 1:
            multiply_rows(task, row, b, scales, rest, 1);
            break;
        case 2:
            multiply_rows(task, row, b, scales, rest, 2);
            break;
        case 3:
            multiply_rows(task, row, b, scales, rest, 3);
            break;
        case 4:
            multiply_rows(task, row, b, scales, rest, 4);
            break;
        case 5:
            multiply_rows(task, row, b, scales, rest, 5);
            break;
        default:
            break;
        }
    }
}
