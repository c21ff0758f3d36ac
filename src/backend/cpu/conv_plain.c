/* Convolution kernels in portable C with the compiler's vectors. */
#define CONV_VECTOR_FLOATS 4
#include "backend/cpu/conv_elements.h"
#include "backend/cpu/conv_pack.h"
#include "backend/cpu/winograd_transform.h"

#define ROWS    4
#define COLUMNS 16
#define WIDTH   8 /* outputs at a time: 8 accumulators, 2 of B and 1 of A fit 16 registers */

ALWAYS_INLINE void multiply_tile(const conv_multiply *task, size_t row, const float *b, float *c,
                                 const size_t rows)
{
    const float *a[ROWS];
    for (size_t r = 0; r < rows; r++) {
        a[r] = task->a + task->offsets[row + r];
    }
    vector sums[ROWS][2] = {{{0}}};
    const size_t depth = task->depth;
    for (size_t k = 0; k < depth; k++) {
        const vector b0 = vector_load(b + k * COLUMNS);
        const vector b1 = vector_load(b + k * COLUMNS + 4);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            const vector value = vector_set(a[r][k]);
            sums[r][0] = vector_fma(value, b0, sums[r][0]);
            sums[r][1] = vector_fma(value, b1, sums[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        float *out = c + r * task->c_stride;
        if (task->accumulate) {
            sums[r][0] = vector_load(out) + sums[r][0];
            sums[r][1] = vector_load(out + 4) + sums[r][1];
        }
        vector_store(out, sums[r][0]);
        vector_store(out + 4, sums[r][1]);
    }
}

static void multiply(const conv_multiply *task)
{
    for (size_t part = 0; part < task->panels * (COLUMNS / WIDTH); part++) {
        const size_t panel = part / (COLUMNS / WIDTH);
        const size_t half = part % (COLUMNS / WIDTH) * WIDTH;
        const float *b = task->b + panel * task->b_stride + half;
        float *c = task->c + panel * COLUMNS + half;
        size_t row = 0;
        for (; row + ROWS <= task->rows; row += ROWS) {
            multiply_tile(task, row, b, c + row * task->c_stride, ROWS);
        }
        for (; row < task->rows; row++) {
            multiply_tile(task, row, b, c + row * task->c_stride, 1);
        }
    }
}

/* One row of one panel: the even and odd values of a pair meet in 32-bit integers. */
static void multiply_int16_row(const conv_multiply_pairs *task, size_t row, const int16_t *b,
                               const float *column_scales, float *c)
{
    const int16_t *a = task->a + task->offsets[row];
    vector_bits sums[COLUMNS / 4] = {{0}};
    for (size_t pair = 0; pair < task->pairs; pair++) {
        const int32_t even = a[2 * pair];
        const int32_t odd = a[2 * pair + 1];
#pragma GCC unroll 4
        for (size_t i = 0; i < COLUMNS / 4; i++) {
            vector_bits pairs;
            memcpy(&pairs, b + (pair * COLUMNS + 4 * i) * 2, sizeof pairs);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            sums[i] += ((pairs << 16) >> 16) * even + (pairs >> 16) * odd;
#else
            sums[i] += (pairs >> 16) * even + ((pairs << 16) >> 16) * odd;
#endif
        }
    }
    const float scale = task->row_scales[task->scale_offsets[row]];
    for (size_t i = 0; i < COLUMNS / 4; i++) {
        const vector value =
            __builtin_convertvector(sums[i], vector) * vector_load(column_scales + 4 * i) * scale;
        vector_store(c + 4 * i, task->accumulate ? vector_load(c + 4 * i) + value : value);
    }
}

static void multiply_int16(const conv_multiply_pairs *task)
{
    for (size_t panel = 0; panel < task->panels; panel++) {
        for (size_t row = 0; row < task->rows; row++) {
            multiply_int16_row(task, row, task->b + panel * task->b_stride,
                               task->column_scales + panel * task->column_scales_stride,
                               task->c + row * task->c_stride + panel * COLUMNS);
        }
    }
}

static void epilogue_run(const conv_epilogue *task)
{
    epilogue_run_columns(task, COLUMNS);
}

const conv_kernels conv_kernels_plain = {
    .name = "plain",
    .level = CPU_LEVEL_PLAIN,
    .rows = ROWS,
    .columns = COLUMNS,
    .multiply = multiply,
    .prologue = prologue_run,
    .epilogue = epilogue_run,
    .winograd_input = winograd_input_run,
    .winograd_weights = winograd_weights_run,
    .winograd_output = winograd_output_run,
    .multiply_int16 = multiply_int16,
    .quantise = quantise_run,
    .winograd_weights_int16 = winograd_weights_int16_run,
    .pack = pack_run,
};
