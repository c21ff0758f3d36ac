/* Pillow's 8-bit Lanczos resize: weights in double, rounded to 22 fraction bits; a horizontal pass,
 * then a vertical one, each rounded to bytes. */
#include "image/image_private.h"

#include "image/lanczos_rows.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* Which input pixels an output pixel of one axis is made of. */
typedef struct lanczos_axis {
    uint32_t in_size, out_size;
    size_t taps;      /* weights kept for each output pixel; unused ones are 0 */
    uint32_t *first;  /* out_size: the first input pixel */
    uint32_t *count;  /* out_size: how many input pixels */
    int32_t *weights; /* out_size x taps */
} lanczos_axis;

static double sinc(double x)
{
    if (x == 0.0) {
        return 1.0;
    }
    x *= PI;
    return sin(x) / x;
}

static double lanczos_filter(double x)
{
    if (-LANCZOS_SUPPORT <= x && x < LANCZOS_SUPPORT) {
        return sinc(x) * sinc(x / LANCZOS_SUPPORT);
    }
    return 0.0;
}

static void axis_free(lanczos_axis *axis)
{
    memory_free(axis->first);
    memory_free(axis->count);
    memory_free(axis->weights);
    *axis = (lanczos_axis){0};
}

/* Weights of the output pixel `out`; the order of operations is Pillow's, since it decides about
 * the last bit. `exact` has room for `taps` values. */
static void axis_weigh(lanczos_axis *axis, uint32_t out, double *exact)
{
    double scale = (double)axis->in_size / axis->out_size;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = LANCZOS_SUPPORT * filter_scale;
    double inverse = 1.0 / filter_scale;
    double center = (out + 0.5) * scale;
    double low = center - support + 0.5, high = center + support + 0.5;
    uint32_t first = low > 0.0 ? (uint32_t)low : 0;
    uint32_t end = high < axis->in_size ? (uint32_t)high : axis->in_size;
    uint32_t count = end - first;
    double total = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        exact[i] = lanczos_filter((i + (double)first - center + 0.5) * inverse);
        total += exact[i];
    }
    int32_t *weights = axis->weights + out * axis->taps;
    for (uint32_t i = 0; i < count; i++) {
        double weight = total != 0.0 ? exact[i] / total : exact[i];
        double scaled = weight * (1 << LANCZOS_BITS);
        weights[i] = (int32_t)(weight < 0.0 ? scaled - 0.5 : scaled + 0.5);
    }
    axis->first[out] = first;
    axis->count[out] = count;
}

static onestep_status axis_create(lanczos_axis *axis, uint32_t in_size, uint32_t out_size,
                                  onestep_error *error)
{
    double scale = (double)in_size / out_size;
    double support = LANCZOS_SUPPORT * (scale < 1.0 ? 1.0 : scale);
    *axis = (lanczos_axis){
        .in_size = in_size, .out_size = out_size, .taps = (size_t)ceil(support) * 2 + 1};
    size_t weight_bytes;
    if (!size_multiply(axis->taps, sizeof *axis->weights, &weight_bytes)) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED, "resize from %u to %u pixels", in_size,
                         out_size);
    }
    double *exact = memory_allocate(axis->taps, sizeof *exact, error);
    axis->first = memory_allocate(out_size, sizeof *axis->first, error);
    axis->count = memory_allocate(out_size, sizeof *axis->count, error);
    axis->weights = memory_allocate(out_size, weight_bytes, error);
    if (exact == NULL || axis->first == NULL || axis->count == NULL || axis->weights == NULL) {
        memory_free(exact);
        axis_free(axis);
        return ONESTEP_ERROR_MEMORY;
    }
    for (uint32_t out = 0; out < out_size; out++) {
        axis_weigh(axis, out, exact);
    }
    memory_free(exact);
    return ONESTEP_OK;
}

/* One pass over a picture; a task does ROWS_A_TASK rows of the result. */
enum { ROWS_A_TASK = 8 };

typedef struct lanczos_pass {
    const lanczos_axis *axis;
    const onestep_image *from, *to;
    size_t first_row; /* of `from`, that row 0 of `to` is made of (horizontal pass) */
} lanczos_pass;

static void horizontal_task(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const lanczos_pass *pass = context;
    const lanczos_axis *axis = pass->axis;
    size_t end = size_minimum((index + 1) * ROWS_A_TASK, pass->to->height);
    for (size_t y = index * ROWS_A_TASK; y < end; y++) {
        lanczos_row_horizontal(image_row(pass->to, y), image_row(pass->from, pass->first_row + y),
                               axis->first, axis->count, axis->weights, axis->taps, axis->out_size);
    }
}

static void vertical_task(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const lanczos_pass *pass = context;
    const lanczos_axis *axis = pass->axis;
    size_t end = size_minimum((index + 1) * ROWS_A_TASK, pass->to->height);
    for (size_t y = index * ROWS_A_TASK; y < end; y++) {
        lanczos_row_vertical(image_row(pass->to, y),
                             image_row(pass->from, axis->first[y] - pass->first_row),
                             pass->from->stride, axis->weights + y * axis->taps, axis->count[y],
                             3 * (size_t)pass->to->width);
    }
}

static void run_pass(const lanczos_pass *pass, thread_pool_task task, thread_pool *pool)
{
    size_t tasks = ((size_t)pass->to->height + ROWS_A_TASK - 1) / ROWS_A_TASK;
    image_run(pool, tasks, task, (void *)(uintptr_t)pass);
}

onestep_status image_resize(onestep_image *result, const onestep_image *image, uint32_t width,
                            uint32_t height, thread_pool *pool, onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "resize", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (width == 0 || height == 0) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "resize to %u x %u pixels: both sides must be at least 1", width, height);
    }
    if (width == image->width && height == image->height) {
        return image_copy(result, image, error);
    }
    lanczos_axis columns = {0}, rows = {0};
    onestep_image narrowed = {0};
    /* The rows that the vertical pass will read: the horizontal pass makes only these. */
    size_t first_row = 0, last_row = image->height;
    if (height != image->height) {
        status = axis_create(&rows, image->height, height, error);
        if (status != ONESTEP_OK) {
            goto done;
        }
        first_row = rows.first[0];
        last_row = (size_t)rows.first[height - 1] + rows.count[height - 1];
    }
    const onestep_image *source = image;
    if (width != image->width) {
        onestep_image *target = height != image->height ? &narrowed : result;
        status = axis_create(&columns, image->width, width, error);
        if (status == ONESTEP_OK) {
            status = image_create(target, width, (uint32_t)(last_row - first_row), ONESTEP_PIXEL_U8,
                                  error);
        }
        if (status != ONESTEP_OK) {
            goto done;
        }
        run_pass(&(lanczos_pass){&columns, image, target, first_row}, horizontal_task, pool);
        source = target;
    } else {
        first_row = 0;
    }
    if (height != image->height) {
        status = image_create(result, width, height, ONESTEP_PIXEL_U8, error);
        if (status != ONESTEP_OK) {
            goto done;
        }
        run_pass(&(lanczos_pass){&rows, source, result, first_row}, vertical_task, pool);
    }
done:
    axis_free(&columns);
    axis_free(&rows);
    image_destroy(&narrowed);
    return status;
}
