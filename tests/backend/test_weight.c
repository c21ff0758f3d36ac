/* Evaluating weight expressions: sums of full terms and low-rank products. */
#include "support.h"

#include "backend/weight_rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIMS(...) ((const size_t[4]){__VA_ARGS__})

static const float no_scalars[SCALAR_COUNT];

static float *evaluate(const test_weight *w, const float *scalars)
{
    float *result = malloc(weight_element_count(&w->expression) * sizeof *result);
    assert_non_null(result);
    weight_evaluate(&w->expression, scalars, 0, w->expression.dims[0], result);
    return result;
}

/* Number i of a tensor, exactly. */
static double number(const named_tensor *t, size_t i)
{
    if (t->type == ELEMENT_F64) {
        double value;
        memcpy(&value, (const uint8_t *)t->data + 8 * i, sizeof value);
        return value;
    }
    float value;
    convert_to_float(&value, (const uint8_t *)t->data + i * element_size(t->type), t->type, 1);
    return (double)value;
}

/* The definition, in double; numbers of type f64 pass through float as the evaluation's do. */
static double defined(const weight_expression *e, const float *scalars, size_t i)
{
    size_t length = e->dims[1] * e->dims[2] * e->dims[3], row = i / length, column = i % length;
    double sum = 0;
    for (unsigned t = 0; t < e->term_count; t++) {
        const weight_term *term = &e->terms[t];
        double scale = coefficient_value(term->scale, scalars), product = 0;
        if (term->full) {
            product = (float)number(term->full, i);
        } else {
            size_t rank = term->down->shape[0];
            for (size_t r = 0; r < rank; r++) {
                product += (double)(float)number(term->up, row * rank + r) *
                           (float)number(term->down, r * length + column);
            }
        }
        sum += scale * product;
    }
    return sum;
}

static void check_definition(const test_weight *w, const float *scalars)
{
    size_t count = weight_element_count(&w->expression);
    float *result = evaluate(w, scalars);
    double largest = 0, worst = 0;
    for (size_t i = 0; i < count; i++) {
        double expected = defined(&w->expression, scalars, i);
        largest = fmax(largest, fabs(expected));
        double difference = fabs(result[i] - expected);
        worst = difference <= worst ? worst : difference; /* NaN counts */
    }
    assert_true(worst <= 2e-6 * largest);
    free(result);
}

static void test_one_term_is_exact(void **state)
{
    (void)state;
    const element_type types[] = {ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16, ELEMENT_F64};
    for (size_t k = 0; k < 4; k++) {
        test_weight *w = test_weight_create(DIMS(7, 5, 3, 3), 1, 1.0f);
        test_weight_add_full(w, types[k], coefficient_constant(1), 2, 1.0f);
        /* Only the second term. */
        w->expression.terms[0] = w->expression.terms[1];
        w->expression.term_count = 1;
        float *result = evaluate(w, no_scalars);
        for (size_t i = 0; i < weight_element_count(&w->expression); i++) {
            assert_true(result[i] == (float)number(w->expression.terms[0].full, i));
        }
        free(result);
        test_weight_destroy(w);
    }
}

static void test_unaligned_data(void **state)
{
    (void)state;
    test_weight *w = test_weight_create(DIMS(3, 67, 1, 1), 1, 1.0f);
    test_weight_add_low_rank(w, ELEMENT_F32, coefficient_constant(0.5f), 5, 3, 1.0f);
    float *expected = evaluate(w, no_scalars);
    for (size_t slot = 0; slot < 3 * 2; slot++) {
        if (w->data[slot]) {
            uint8_t *moved = malloc(w->tensors[slot].bytes + 1);
            assert_non_null(moved);
            memcpy(moved + 1, w->data[slot], w->tensors[slot].bytes);
            free(w->data[slot]);
            w->data[slot] = moved;
            w->tensors[slot].data = moved + 1;
        }
    }
    float *result = evaluate(w, no_scalars);
    assert_memory_equal(result, expected, 3 * 67 * sizeof *result);
    free(result);
    free(expected);
    test_weight_destroy(w);
}

/* The twin convolution (1-r)*Wp + r*Wc; at the ends it is one of the two, bit for bit. */
static void test_twin(void **state)
{
    (void)state;
    test_weight *w = test_weight_create(DIMS(40, 31, 3, 3), 1, 1.0f);
    test_weight_add_full(w, ELEMENT_F32, (coefficient){0, 1, SCALAR_GAMMA}, 9, 1.0f);
    w->expression.terms[0].scale = (coefficient){1, -1, SCALAR_GAMMA};
    size_t bytes = weight_element_count(&w->expression) * sizeof(float);
    for (int k = 0; k < 2; k++) {
        float gamma[SCALAR_COUNT] = {(float)k};
        float *result = evaluate(w, gamma);
        assert_memory_equal(result, w->expression.terms[k].full->data, bytes);
        free(result);
    }
    float gamma[SCALAR_COUNT] = {0.4f};
    check_definition(w, gamma);
    test_weight_destroy(w);
}

static void test_low_rank(void **state)
{
    (void)state;
    const size_t shapes[][4] = {{1, 1, 1, 1},  {5, 3, 1, 1},   {6, 16, 1, 1},   {7, 17, 3, 3},
                                {49, 5, 5, 3}, {96, 64, 1, 1}, {101, 130, 1, 1}};
    const size_t ranks[] = {1, 3, 8, 64, 65, 200};
    const element_type types[] = {ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16, ELEMENT_F64};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++) {
            test_weight *w = test_weight_create(shapes[s], 1, 1.0f);
            test_weight_add_low_rank(w, types[(s + r) % 4], coefficient_constant(0.0625f), ranks[r],
                                     5, 1.0f);
            check_definition(w, no_scalars);
            test_weight_destroy(w);
        }
    }
}

/* Full terms come first, whatever their place: (W + W2) + s*BA, and two products add up. */
static void test_four_terms(void **state)
{
    (void)state;
    test_weight *w = test_weight_create(DIMS(50, 9, 3, 3), 1, 1.0f);
    coefficient gamma = {0.25f, 0.5f, SCALAR_GAMMA};
    test_weight_add_low_rank(w, ELEMENT_BF16, gamma, 4, 5, 1.0f);
    test_weight_add_full(w, ELEMENT_F16, gamma, 7, 1.0f);
    test_weight_add_low_rank(w, ELEMENT_F32, coefficient_constant(-2), 12, 8, 1.0f);
    float scalars[SCALAR_COUNT] = {0.3f};
    check_definition(w, scalars);
    test_weight_destroy(w);
}

static void test_no_full_term(void **state)
{
    (void)state;
    test_weight *w = test_weight_create(DIMS(20, 30, 1, 1), 1, 1.0f);
    test_weight_add_low_rank(w, ELEMENT_F32, coefficient_constant(1), 4, 5, 1.0f);
    w->expression.terms[0] = w->expression.terms[1];
    w->expression.term_count = 1;
    check_definition(w, no_scalars);
    w->expression.term_count = 0;
    float *result = evaluate(w, no_scalars);
    for (size_t i = 0; i < 600; i++) {
        assert_true(result[i] == 0.0f);
    }
    free(result);
    test_weight_destroy(w);
}

/* A term whose coefficient is 0 is not looked at: it may hold anything. */
static void test_zero_coefficients_are_skipped(void **state)
{
    (void)state;
    test_weight *w = test_weight_create(DIMS(4, 5, 1, 1), 1, 1.0f);
    coefficient gamma = {0, 1, SCALAR_GAMMA};
    test_weight_add_low_rank(w, ELEMENT_F32, gamma, 2, 5, NAN);
    test_weight_add_full(w, ELEMENT_F32, gamma, 6, INFINITY);
    float *result = evaluate(w, no_scalars);
    assert_memory_equal(result, test_weight_values(w), 20 * sizeof *result);
    free(result);
    test_weight_destroy(w);
}

/* The bytes do not depend on how rows are split into calls. */
static void test_splits(void **state)
{
    (void)state;
    test_weight *w = test_weight_create(DIMS(107, 13, 3, 3), 1, 1.0f);
    test_weight_add_low_rank(w, ELEMENT_F16, coefficient_constant(0.5f), 70, 5, 1.0f);
    test_weight_add_full(w, ELEMENT_F16, coefficient_constant(0.3f), 8, 1.0f);
    float *whole = evaluate(w, no_scalars);
    size_t length = 13 * 9;
    float *part = malloc(107 * length * sizeof *part);
    assert_non_null(part);
    for (size_t rows = 1; rows < 107; rows += 1 + rows / 3) {
        for (size_t first = 0; first < 107; first += rows) {
            size_t count = size_minimum(rows, 107 - first);
            weight_evaluate(&w->expression, no_scalars, first, count, part + first * length);
        }
        assert_memory_equal(part, whole, 107 * length * sizeof *part);
    }
    free(part);
    free(whole);
    test_weight_destroy(w);
}

#if defined(__x86_64__)
enum { STRIDE = TILE_COLUMNS + 3 };

static float up[TILE_ROWS][UP_RANKS], down[TILE_RANKS][TILE_COLUMNS], sums[TILE_ROWS][TILE_COLUMNS],
    starts[TILE_ROWS][STRIDE];

/* The fast tile against the plain one, with sums from before or after; nothing beside the tile is
 * touched. */
static void check_tile(size_t rows, size_t columns, size_t ranks, bool before, bool after)
{
    static float kept[2][TILE_ROWS][TILE_COLUMNS], results[2][TILE_ROWS][STRIDE];
    for (size_t fast = 0; fast < 2; fast++) {
        memcpy(results[fast], starts, sizeof starts);
        memcpy(kept[fast], sums, sizeof sums);
        const weight_rank_tile tile = {
            .rows = rows,
            .columns = columns,
            .ranks = ranks,
            .up = (const float(*)[UP_RANKS])up,
            .down = (const float(*)[TILE_COLUMNS])down,
            .before = before ? (const float(*)[TILE_COLUMNS])sums : NULL,
            .after = after ? kept[fast] : NULL,
            .scale = 0.7f,
            .result = &results[fast][0][0],
            .result_stride = STRIDE,
        };
        (fast ? weight_rank_avx2 : weight_rank_plain)(&tile);
    }
    for (size_t row = 0; row < TILE_ROWS; row++) {
        for (size_t c = 0; c < STRIDE; c++) {
            const bool inside = row < rows && c < columns;
            assert_true(fabsf(results[1][row][c] - results[0][row][c]) < 2e-5f);
            assert_int_equal(results[1][row][c] != starts[row][c], inside && !after);
            if (c < TILE_COLUMNS && inside) {
                assert_true(fabsf(kept[1][row][c] - kept[0][row][c]) < 2e-5f);
                assert_int_equal(kept[1][row][c] != sums[row][c], after);
            } else if (c < TILE_COLUMNS && row >= rows) {
                assert_true(kept[1][row][c] == sums[row][c]);
            }
        }
    }
}
#endif

static void test_tiles(void **state)
{
    (void)state;
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        skip();
    }
    fill_random(&up[0][0], sizeof up / sizeof(float), 1, 1.0f);
    fill_random(&down[0][0], sizeof down / sizeof(float), 2, 1.0f);
    fill_random(&sums[0][0], sizeof sums / sizeof(float), 3, 1.0f);
    fill_random(&starts[0][0], sizeof starts / sizeof(float), 4, 1.0f);
    /* Every number of rows, many of columns and ranks. */
    for (size_t rows = 1; rows <= TILE_ROWS; rows++) {
        for (size_t columns = 1; columns <= TILE_COLUMNS; columns += 7) {
            for (size_t ranks = 1; ranks <= TILE_RANKS; ranks += 9) {
                for (int kind = 0; kind < 4; kind++) {
                    check_tile(rows, columns, ranks, (kind & 1) != 0, (kind & 2) != 0);
                }
            }
        }
    }
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_term_is_exact),
        cmocka_unit_test(test_unaligned_data),
        cmocka_unit_test(test_twin),
        cmocka_unit_test(test_low_rank),
        cmocka_unit_test(test_four_terms),
        cmocka_unit_test(test_no_full_term),
        cmocka_unit_test(test_zero_coefficients_are_skipped),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
