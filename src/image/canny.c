/* OpenCV's Canny for 8-bit RGB: aperture 3, L1 norm, integer arithmetic throughout.
 *
 * Gradients and thinning run over bands of rows; what a band writes depends on the picture only, so
 * bands may run in any order. Growing the edges from their seeds is one thread's work. */
#include "image/image_private.h"

#include <math.h>
#include <string.h>

/* What the map holds for a pixel. */
enum { MAYBE = 0, NO_EDGE = 1, EDGE = 2 };

enum { BAND_ROWS = 32 };

/* tan(22.5 degrees) with 15 fraction bits. */
enum { SHIFT = 15, TANGENT = 13573 };

/* The gradient of one row; index 0 is a column left of the picture, with magnitude 0. */
typedef struct gradient_row {
    int16_t *dx, *dy;
    int32_t *magnitude;
} gradient_row;

typedef struct canny_job {
    const onestep_image *image;
    int32_t low, high;
    uint8_t *map;       /* (width + 2) x (height + 2) */
    size_t step;        /* bytes a row of the map */
    gradient_row *rows; /* three for each worker */
} canny_job;

static inline int32_t absolute(int32_t value)
{
    return value < 0 ? -value : value;
}

/* The channel with the largest gradient, the first one on a tie. Rows beyond the picture are those
 * at its border, columns too. */
static void gradient_compute(const onestep_image *image, size_t y, const gradient_row *row)
{
    size_t width = image->width;
    const uint8_t *above = image_row(image, y > 0 ? y - 1 : 0);
    const uint8_t *line = image_row(image, y);
    const uint8_t *below = image_row(image, y + 1 < image->height ? y + 1 : y);
    for (size_t x = 0; x < width; x++) {
        size_t left = 3 * (x > 0 ? x - 1 : 0);
        size_t middle = 3 * x;
        size_t right = 3 * (x + 1 < width ? x + 1 : x);
        int32_t best_x = 0, best_y = 0, best = -1;
        for (size_t c = 0; c < 3; c++) {
            int32_t dx = (above[right + c] + 2 * line[right + c] + below[right + c]) -
                         (above[left + c] + 2 * line[left + c] + below[left + c]);
            int32_t dy = (below[left + c] + 2 * below[middle + c] + below[right + c]) -
                         (above[left + c] + 2 * above[middle + c] + above[right + c]);
            int32_t magnitude = absolute(dx) + absolute(dy);
            bool larger = magnitude > best;
            best = larger ? magnitude : best;
            best_x = larger ? dx : best_x;
            best_y = larger ? dy : best_y;
        }
        row->dx[x + 1] = (int16_t)best_x;
        row->dy[x + 1] = (int16_t)best_y;
        row->magnitude[x + 1] = best;
    }
    row->magnitude[0] = 0;
    row->magnitude[width + 1] = 0;
}

static void gradient_outside(const gradient_row *row, size_t width)
{
    memset(row->magnitude, 0, (width + 2) * sizeof *row->magnitude);
}

/* Is the pixel a crest of the gradient, seen across the edge? */
static inline bool is_crest(const gradient_row *above, const gradient_row *row,
                            const gradient_row *below, size_t i)
{
    int32_t magnitude = row->magnitude[i];
    int32_t dx = row->dx[i], dy = row->dy[i];
    int32_t x = absolute(dx), y = absolute(dy) << SHIFT;
    int32_t flat = x * TANGENT;
    if (y < flat) {
        return magnitude > row->magnitude[i - 1] && magnitude >= row->magnitude[i + 1];
    }
    if (y > flat + (x << (SHIFT + 1))) {
        return magnitude > above->magnitude[i] && magnitude >= below->magnitude[i];
    }
    if ((dx ^ dy) < 0) {
        return magnitude > above->magnitude[i + 1] && magnitude > below->magnitude[i - 1];
    }
    return magnitude > above->magnitude[i - 1] && magnitude > below->magnitude[i + 1];
}

static void load_row(const canny_job *job, ptrdiff_t y, const gradient_row *row)
{
    if (y < 0 || y >= (ptrdiff_t)job->image->height) {
        gradient_outside(row, job->image->width);
    } else {
        gradient_compute(job->image, (size_t)y, row);
    }
}

static void band_task(void *context, size_t index, unsigned worker)
{
    const canny_job *job = context;
    size_t width = job->image->width;
    size_t top = index * BAND_ROWS;
    size_t bottom = size_minimum(top + BAND_ROWS, job->image->height);
    const gradient_row *ring = job->rows + 3 * (size_t)worker;
    /* Picture row y is in ring[(y + 1) % 3]. */
    load_row(job, (ptrdiff_t)top - 1, &ring[top % 3]);
    load_row(job, (ptrdiff_t)top, &ring[(top + 1) % 3]);
    for (size_t y = top; y < bottom; y++) {
        load_row(job, (ptrdiff_t)y + 1, &ring[(y + 2) % 3]);
        const gradient_row *above = &ring[y % 3], *row = &ring[(y + 1) % 3],
                           *below = &ring[(y + 2) % 3];
        uint8_t *map = job->map + (y + 1) * job->step;
        for (size_t i = 1; i <= width; i++) {
            int32_t magnitude = row->magnitude[i];
            uint8_t kind = NO_EDGE;
            if (magnitude > job->low && is_crest(above, row, below, i)) {
                kind = magnitude > job->high ? EDGE : MAYBE;
            }
            map[i] = kind;
        }
    }
}

/* Positions in the map that are still to be looked around. */
typedef struct position_stack {
    size_t *positions;
    size_t count, capacity;
} position_stack;

static onestep_status stack_reserve(position_stack *stack, size_t more, onestep_error *error)
{
    if (stack->capacity - stack->count >= more) {
        return ONESTEP_OK;
    }
    size_t capacity = stack->capacity + stack->capacity / 2 + 1024;
    size_t *grown = memory_resize(stack->positions, capacity, sizeof *grown, error);
    if (grown == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    stack->positions = grown;
    stack->capacity = capacity;
    return ONESTEP_OK;
}

/* Follows candidates that touch an edge (eight neighbours), from one seed until nothing is left. */
static onestep_status grow_from(const canny_job *job, size_t seed, position_stack *stack,
                                onestep_error *error)
{
    size_t step = job->step;
    const size_t neighbours[8] = {seed - step - 1, seed - step, seed - step + 1, seed - 1, seed + 1,
                                  seed + step - 1, seed + step, seed + step + 1};
    onestep_status status = stack_reserve(stack, 8, error);
    for (size_t i = 0; i < 8 && status == ONESTEP_OK; i++) {
        if (job->map[neighbours[i]] == MAYBE) {
            job->map[neighbours[i]] = EDGE;
            stack->positions[stack->count++] = neighbours[i];
        }
    }
    return status;
}

static onestep_status grow_edges(const canny_job *job, onestep_error *error)
{
    position_stack stack = {0};
    onestep_status status = ONESTEP_OK;
    size_t last = (size_t)job->image->height * job->step;
    for (size_t seed = job->step; seed <= last + job->step - 1 && status == ONESTEP_OK; seed++) {
        if (job->map[seed] != EDGE) {
            continue;
        }
        status = grow_from(job, seed, &stack, error);
        while (stack.count > 0 && status == ONESTEP_OK) {
            status = grow_from(job, stack.positions[--stack.count], &stack, error);
        }
    }
    memory_free(stack.positions);
    return status;
}

/* Three gradient rows for each worker, in one block that *rows points into. */
static onestep_status rows_create(gradient_row **rows, void **block, size_t width, unsigned workers,
                                  onestep_error *error)
{
    size_t count = 3 * (size_t)workers, padded = width + 2;
    size_t row_size = padded * (2 * sizeof(int16_t) + sizeof(int32_t));
    *rows = memory_allocate(count, sizeof **rows, error);
    *block = memory_allocate(count, row_size, error);
    if (*rows == NULL || *block == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        int32_t *magnitude = (int32_t *)(void *)((uint8_t *)*block + i * row_size);
        int16_t *dx = (int16_t *)(void *)(magnitude + padded);
        (*rows)[i] = (gradient_row){.magnitude = magnitude, .dx = dx, .dy = dx + padded};
    }
    return ONESTEP_OK;
}

static onestep_status threshold_check(const char *name, double value, onestep_error *error)
{
    if (!isfinite(value) || value < 0.0) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "Canny's %s threshold is %g; expected a number of at least 0", name,
                         value);
    }
    return ONESTEP_OK;
}

static void write_edges(const onestep_image *edges, const canny_job *job)
{
    for (size_t y = 0; y < edges->height; y++) {
        const uint8_t *map = job->map + (y + 1) * job->step + 1;
        uint8_t *row = image_row(edges, y);
        for (size_t x = 0; x < edges->width; x++) {
            uint8_t value = map[x] == EDGE ? 255 : 0;
            row[3 * x] = value;
            row[3 * x + 1] = value;
            row[3 * x + 2] = value;
        }
    }
}

onestep_status image_canny(onestep_image *edges, const onestep_image *image, double low,
                           double high, thread_pool *pool, onestep_error *error)
{
    *edges = (onestep_image){0};
    void *block = NULL;
    canny_job job = {.image = image};
    onestep_status status = image_check_bytes(image, "Canny", error);
    if (status == ONESTEP_OK) {
        status = threshold_check("low", low, error);
    }
    if (status == ONESTEP_OK) {
        status = threshold_check("high", high, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    /* No magnitude exceeds 2040, so large thresholds need not fit an integer. */
    job.low = (int32_t)floor(fmin(fmin(low, high), 4096.0));
    job.high = (int32_t)floor(fmin(fmax(low, high), 4096.0));
    job.step = (size_t)image->width + 2;
    job.map = memory_allocate((size_t)image->height + 2, job.step, error);
    if (job.map == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    status = rows_create(&job.rows, &block, image->width, pool != NULL ? thread_pool_size(pool) : 1,
                         error);
    if (status != ONESTEP_OK) {
        goto done;
    }
    memset(job.map, NO_EDGE, ((size_t)image->height + 2) * job.step);
    image_run(pool, ((size_t)image->height + BAND_ROWS - 1) / BAND_ROWS, band_task, &job);
    status = grow_edges(&job, error);
    if (status == ONESTEP_OK) {
        status = image_create(edges, image->width, image->height, ONESTEP_PIXEL_U8, error);
    }
    if (status == ONESTEP_OK) {
        write_edges(edges, &job);
    }
done:
    memory_free(job.map);
    memory_free(job.rows);
    memory_free(block);
    return status;
}
