/* The matrix products of every kernel table (through SIMDe where the machine lacks its level). */
#include "conv_tables.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { BYTE_ROWS = 29, BYTE_FOURS = 19, BYTE_COLUMNS = 64, WORD_SHIFT = 7 };

/* Unsigned and signed bytes, what their sums begin with, and the sums. */
typedef struct byte_case {
    uint8_t a[BYTE_ROWS][4 * BYTE_FOURS];
    int8_t b[BYTE_COLUMNS][4 * BYTE_FOURS];
    int8_t packed[BYTE_COLUMNS * BYTE_FOURS * 4];
    int32_t begins[BYTE_COLUMNS], sums[BYTE_ROWS][BYTE_COLUMNS];
} byte_case;

static void byte_case_fill(byte_case *test, size_t columns)
{
    for (size_t r = 0; r < BYTE_ROWS; r++) {
        for (size_t k = 0; k < 4 * BYTE_FOURS; k++) {
            test->a[r][k] = k % 5 == 0 ? 255 : (uint8_t)(r * 37 + k * 101);
        }
    }
    for (size_t j = 0; j < BYTE_COLUMNS; j++) {
        test->begins[j] = (int32_t)j * 1000 - 20000;
        for (size_t k = 0; k < 4 * BYTE_FOURS; k++) {
            test->b[j][k] = (int8_t)(k % 5 == 0 ? (j % 2 == 0 ? -128 : 127)
                                                : (int)((j * 53 + k * 29) % 255) - 127);
            test->packed[((j / columns * BYTE_FOURS + k / 4) * columns + j % columns) * 4 + k % 4] =
                test->b[j][k];
        }
    }
    for (size_t r = 0; r < BYTE_ROWS; r++) {
        for (size_t j = 0; j < BYTE_COLUMNS; j++) {
            test->sums[r][j] = test->begins[j];
            for (size_t k = 0; k < 4 * BYTE_FOURS; k++) {
                test->sums[r][j] += test->a[r][k] * test->b[j][k];
            }
        }
    }
}

static conv_multiply_pairs byte_case_task(const byte_case *test, size_t columns)
{
    return (conv_multiply_pairs){
        .a = (const int16_t *)(const void *)test->a,
        .a_stride = 2 * BYTE_FOURS,
        .rows = BYTE_ROWS,
        .b = (const int16_t *)(const void *)test->packed,
        .b_stride = columns * BYTE_FOURS * 2,
        .panels = BYTE_COLUMNS / columns,
        .pairs = BYTE_FOURS,
        .column_scales_stride = columns,
        .column_begins = test->begins,
        .next_b = (const int16_t *)(const void *)test->packed,
    };
}

/* At every table that multiplies bytes. */
static void check_bytes(const conv_kernels *kernels, bool accumulate)
{
    static byte_case test;
    static float c[BYTE_ROWS][BYTE_COLUMNS], column_scales[BYTE_COLUMNS];
    float row_scales[BYTE_ROWS];
    byte_case_fill(&test, kernels->columns);
    for (size_t r = 0; r < BYTE_ROWS; r++) {
        row_scales[r] = r % 2 == 0 ? 1.0f : 0.5f;
        for (size_t j = 0; j < BYTE_COLUMNS; j++) {
            c[r][j] = 3.0f;
            column_scales[j] = j % 3 == 0 ? 1.0f : 2.0f;
        }
    }
    conv_multiply_pairs task = byte_case_task(&test, kernels->columns);
    task.row_scales = row_scales;
    task.column_scales = column_scales;
    task.c = &c[0][0];
    task.c_stride = BYTE_COLUMNS;
    task.accumulate = accumulate;
    kernels->multiply_int8(&task);
    for (size_t r = 0; r < BYTE_ROWS; r++) {
        for (size_t j = 0; j < BYTE_COLUMNS; j++) {
            const float expected = (float)test.sums[r][j] * column_scales[j] * row_scales[r] +
                                   (accumulate ? 3.0f : 0.0f);
            if (c[r][j] != expected) {
                fail_msg("%s: row %zu, column %zu: %.9g, not %.9g", kernels->name, r, j,
                         (double)c[r][j], (double)expected);
            }
        }
    }
}

/* The same sums as words. */
static void check_words(const conv_kernels *kernels)
{
    static byte_case test;
    static int16_t words[BYTE_ROWS][BYTE_COLUMNS], factors[BYTE_COLUMNS];
    const size_t columns = kernels->columns;
    byte_case_fill(&test, columns);
    for (size_t j = 0; j < BYTE_COLUMNS; j++) {
        factors[j] = (int16_t)(j % 3 == 0 ? INT16_MAX : j * 500);
    }
    conv_multiply_pairs task = byte_case_task(&test, columns);
    task.words = &words[0][0];
    task.words_stride = BYTE_COLUMNS;
    task.shift = WORD_SHIFT;
    task.word_factors = factors;
    kernels->multiply_int8_words(&task);
    for (size_t r = 0; r < BYTE_ROWS; r++) {
        for (size_t j = 0; j < BYTE_COLUMNS; j++) {
            const size_t column = j / columns * columns + j % 2 * columns / 2 + j % columns / 2;
            const double divided = floor(ldexp(test.sums[r][column], -WORD_SHIFT));
            const double expected = floor(divided * factors[j] / 32768 + 0.5);
            assert_true(fabs(divided) <= INT16_MAX);
            if (words[r][j] != expected) {
                fail_msg("%s: row %zu, word %zu: %d, not %g", kernels->name, r, j, words[r][j],
                         expected);
            }
        }
    }
}

static void bytes_are_multiplied(void **state)
{
    unsigned tables = 0;
    (void)state;
    for (size_t i = 0; i < conv_table_count(); i++) {
        const conv_kernels *kernels = conv_table(i);
        if (kernels != NULL && kernels->multiply_int8 != NULL) {
            check_bytes(kernels, false);
            check_bytes(kernels, true);
            check_words(kernels);
            tables++;
        }
    }
    if (conv_kernels_find(CPU_LEVEL_AVX512_VNNI)->level == CPU_LEVEL_AVX512_VNNI) {
        assert_true(tables > 0);
    }
}

/* Where the rows of A are must change no bit of a sum: those of ROWS rows (all copies of a tile,
 * and what is left of them), a distance apart or each at its own place. */
enum { ROWS = 27, DEPTH = 38, PANELS = 2, OUTPUTS_MOST = 64 };

typedef enum product { FLOATS, INTEGERS, BFLOATS, BYTES, BYTE_WORDS, PRODUCTS } product;

/* Operands of any product, as it reads them; B and the scales are of a size that serves all. */
typedef struct operands {
    float floats[ROWS][DEPTH], other_floats[OUTPUTS_MOST * DEPTH];
    int16_t numbers[ROWS][2 * DEPTH], other_numbers[OUTPUTS_MOST * 2 * DEPTH];
    float row_scales[ROWS], column_scales[OUTPUTS_MOST];
    int32_t begins[OUTPUTS_MOST];
    int16_t factors[OUTPUTS_MOST];
} operands;

/* The result of a product, of floats or words. */
typedef struct product_result {
    float c[ROWS][OUTPUTS_MOST];
    int16_t words[ROWS][OUTPUTS_MOST];
} product_result;

/* A number that is a small one as bfloat16 too. */
static int16_t pattern(size_t i, product kind)
{
    const float value = (float)(int)(i * 37 % 201) - 100;
    union {
        float value;
        uint32_t bits;
    } pun = {.value = value};
    return kind == BFLOATS ? (int16_t)(pun.bits >> 16) : (int16_t)(value * 50);
}

static void operands_fill(operands *o, product kind)
{
    for (size_t r = 0; r < ROWS; r++) {
        o->row_scales[r] = 1.0f + (float)r / 8;
        for (size_t k = 0; k < 2 * DEPTH; k++) {
            o->numbers[r][k] = pattern(r * 101 + k * 7, kind);
        }
        for (size_t k = 0; k < DEPTH; k++) {
            o->floats[r][k] = sinf((float)(r * DEPTH + k));
        }
    }
    for (size_t i = 0; i < OUTPUTS_MOST * DEPTH; i++) {
        o->other_floats[i] = cosf((float)i);
        o->other_numbers[2 * i] = pattern(i * 3, kind);
        o->other_numbers[2 * i + 1] = pattern(i * 3 + 1, kind);
    }
    for (size_t j = 0; j < OUTPUTS_MOST; j++) {
        o->column_scales[j] = 1.0f - (float)j / 128;
        o->begins[j] = (int32_t)j;
        o->factors[j] = (int16_t)(j * 500);
    }
}

/* False where the table has no such product. */
static bool multiply(const conv_kernels *kernels, product kind, const operands *o,
                     const uint32_t *offsets, const uint32_t *scale_offsets, product_result *result)
{
    const size_t columns = kernels->columns;
    void (*const functions[])(const conv_multiply_pairs *) = {
        [INTEGERS] = kernels->multiply_int16,
        [BFLOATS] = kernels->multiply_bf16,
        [BYTES] = kernels->multiply_int8,
        [BYTE_WORDS] = kernels->multiply_int8_words,
    };
    memset(result, 0, sizeof *result);
    if (kind == FLOATS) {
        const conv_multiply task = {
            .a = &o->floats[0][0],
            .a_stride = DEPTH,
            .offsets = offsets,
            .rows = ROWS,
            .b = o->other_floats,
            .b_stride = columns * DEPTH,
            .panels = PANELS,
            .depth = DEPTH,
            .c = &result->c[0][0],
            .c_stride = OUTPUTS_MOST,
        };
        kernels->multiply(&task);
        return true;
    }
    if (functions[kind] == NULL) {
        return false;
    }
    const conv_multiply_pairs task = {
        .a = &o->numbers[0][0],
        .a_stride = (size_t)2 * DEPTH,
        .offsets = offsets,
        .rows = ROWS,
        .b = o->other_numbers,
        .b_stride = columns * DEPTH * 2,
        .panels = PANELS,
        .pairs = DEPTH,
        .row_scales = o->row_scales,
        .scale_offsets = scale_offsets,
        .column_scales = o->column_scales,
        .column_scales_stride = columns,
        .column_begins = o->begins,
        .c = &result->c[0][0],
        .c_stride = OUTPUTS_MOST,
        .words = &result->words[0][0],
        .words_stride = OUTPUTS_MOST,
        .shift = 9,
        .word_factors = o->factors,
        .next_b = o->other_numbers,
    };
    functions[kind](&task);
    return true;
}

static void check_rows(const conv_kernels *kernels, product kind)
{
    static operands o;
    static product_result even, placed, turned;
    uint32_t offsets[ROWS], numbers[ROWS], turned_offsets[ROWS], turned_numbers[ROWS];
    const uint32_t stride = kind == FLOATS ? DEPTH : 2 * DEPTH;
    for (uint32_t r = 0; r < ROWS; r++) {
        offsets[r] = r * stride;
        numbers[r] = r;
        turned_offsets[r] = (ROWS - 1 - r) * stride;
        turned_numbers[r] = ROWS - 1 - r;
    }
    operands_fill(&o, kind);
    if (!multiply(kernels, kind, &o, NULL, NULL, &even)) {
        return;
    }
    multiply(kernels, kind, &o, offsets, numbers, &placed);
    multiply(kernels, kind, &o, turned_offsets, turned_numbers, &turned);
    for (size_t r = 0; r < ROWS; r++) {
        const size_t other = ROWS - 1 - r;
        if (memcmp(even.c[r], placed.c[r], sizeof even.c[r]) != 0 ||
            memcmp(even.words[r], placed.words[r], sizeof even.words[r]) != 0 ||
            memcmp(even.c[r], turned.c[other], sizeof even.c[r]) != 0 ||
            memcmp(even.words[r], turned.words[other], sizeof even.words[r]) != 0) {
            fail_msg("%s, product %d: row %zu depends on where it is", kernels->name, kind, r);
        }
    }
    /* Different numbers have been multiplied. */
    const bool words = kind == BYTE_WORDS;
    assert_memory_not_equal(words ? (const void *)even.words[0] : even.c[0],
                            words ? (const void *)even.words[1] : even.c[1],
                            words ? sizeof even.words[0] : sizeof even.c[0]);
}

static void rows_may_be_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < conv_table_count(); i++) {
        const conv_kernels *kernels = conv_table(i);
        for (product kind = FLOATS; kernels != NULL && kind < PRODUCTS; kind++) {
            check_rows(kernels, kind);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_multiplied),
        cmocka_unit_test(rows_may_be_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
