/* What becomes of a convolution's inputs before its products, in every kernel table (through SIMDe
 * where the machine lacks its level). */
#include "conv_tables.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- SiLU ------------------------------------------------------------------------------------ */

/* More than four vectors of channels of any table, whole ones, and a part of one. */
enum { CHANNELS = 151, PIXELS = 40 };

static void check_silu(const conv_kernels *kernels, conv_input_silu silu, double tolerance)
{
    static float source[PIXELS][CHANNELS], found[PIXELS][CHANNELS], scale[CHANNELS],
        shift[CHANNELS];
    for (size_t c = 0; c < CHANNELS; c++) { /* products and sums are exact */
        scale[c] = 1.0f + (float)(c % 7) / 8;
        shift[c] = (float)(c % 5) - 2;
    }
    for (size_t i = 0; i < (size_t)PIXELS * CHANNELS; i++) {
        source[i / CHANNELS][i % CHANNELS] = ((float)(i * 7919 % 3201) - 1600) / 16;
    }
    const conv_prologue task = {
        .source = source,
        .source_stride = CHANNELS,
        .destination = &found[0][0],
        .destination_stride = CHANNELS,
        .pixels = PIXELS,
        .channels = CHANNELS,
        .scale = scale,
        .shift = shift,
        .silu = silu,
    };
    kernels->prologue(&task);
    for (size_t p = 0; p < PIXELS; p++) {
        for (size_t c = 0; c < CHANNELS; c++) {
            const double x = (double)fmaf(source[p][c], scale[c], shift[c]);
            const double expected = silu == CONV_NO_SILU ? x : x / (1 + exp(-x));
            if (!(fabs(found[p][c] - expected) <= tolerance * fabs(expected) + 1e-35)) {
                fail_msg("%s: SiLU %d of %g is %g, not %g", kernels->name, silu, x,
                         (double)found[p][c], expected);
            }
        }
    }
}

static void silu_of_inputs(void **state)
{
    (void)state;
    for (size_t i = 0; i < conv_table_count(); i++) {
        if (conv_table(i) != NULL) {
            check_silu(conv_table(i), CONV_NO_SILU, 0);
            check_silu(conv_table(i), CONV_EXACT_SILU, 5e-6);
            check_silu(conv_table(i), CONV_COARSE_SILU, 1.5e-4);
        }
    }
}

/* ---- 16-bit integers ------------------------------------------------------------------------- */

/* Rows beyond those that are measured side by side; one of zeros, one that is zero but for a
 * channel. */
enum { ROWS = 37, ZEROS = 5, SPIKE = 18, LINE = 16, PADDED_MOST = 320 };

/* As large as the norm and 16 bits allow. */
static double expected_scale(const float *row, size_t channels)
{
    double largest = 0, square = 0;
    for (size_t c = 0; c < channels; c++) {
        largest = fmax(largest, fabs((double)row[c]));
        square += (double)row[c] * (double)row[c];
    }
    return fmax(largest / INT16_MAX, sqrt(square) / CONV_INT16_INPUT_NORM);
}

static void check_integers(const conv_kernels *kernels, size_t channels)
{
    static float source[ROWS][PADDED_MOST];
    static int16_t found[ROWS][PADDED_MOST];
    float scales[ROWS];
    const size_t padded = size_round_up(channels, LINE);
    memset(found, 0x5a, sizeof found);
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t c = 0; c < PADDED_MOST; c++) {
            const bool kept = r != ZEROS && (r != SPIKE || c == channels - 1);
            source[r][c] = kept ? sinf((float)(r * 331 + c * 17)) * (float)(r + 1) : 0;
        }
    }
    const conv_quantise task = {
        .source = &source[0][0],
        .source_stride = PADDED_MOST,
        .rows = ROWS,
        .channels = channels,
        .padded = padded,
        .destination = &found[0][0],
        .destination_stride = PADDED_MOST,
        .scales = scales,
        .scales_stride = 1,
        .ahead = PADDED_MOST,
    };
    kernels->quantise(&task);
    for (size_t r = 0; r < ROWS; r++) {
        const double scale = expected_scale(source[r], channels);
        if (!(fabs(scales[r] - scale) <= 1e-6 * scale)) {
            fail_msg("%s, %zu channels: row %zu has the scale %g, not %g", kernels->name, channels,
                     r, (double)scales[r], scale);
        }
        for (size_t c = 0; c < padded; c++) {
            const double value = c < channels ? (double)source[r][c] : 0;
            if (!(fabs(value - found[r][c] * scale) <= 0.51 * scale)) {
                fail_msg("%s, %zu channels: row %zu, channel %zu: %d of %g for %g", kernels->name,
                         channels, r, c, found[r][c], scale, value);
            }
        }
        for (size_t c = padded; c < PADDED_MOST; c++) {
            assert_int_equal(found[r][c], 0x5a5a);
        }
    }
}

static void rows_become_integers(void **state)
{
    (void)state;
    static const size_t channels[] = {1, 15, 16, 23, 64, 80, 129, 160, 320};
    for (size_t i = 0; i < conv_table_count(); i++) {
        for (size_t c = 0; conv_table(i) != NULL && c < sizeof channels / sizeof *channels; c++) {
            check_integers(conv_table(i), channels[c]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silu_of_inputs),
        cmocka_unit_test(rows_become_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
