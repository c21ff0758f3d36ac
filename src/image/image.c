/* Pictures in memory: making, copying, turning, arranging. */
#include "image/image_private.h"

#include <string.h>

static size_t pixel_size(onestep_pixel_type type)
{
    return type == ONESTEP_PIXEL_F32 ? 3 * sizeof(float) : 3;
}

size_t image_row_size(const onestep_image *image)
{
    return (size_t)image->width * pixel_size(image->type);
}

onestep_status image_create(onestep_image *image, uint32_t width, uint32_t height,
                            onestep_pixel_type type, onestep_error *error)
{
    *image = (onestep_image){0};
    if (width == 0 || height == 0) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "picture of %u x %u pixels: both sides must be at least 1", width, height);
    }
    size_t stride = (size_t)width * pixel_size(type);
    void *pixels = memory_allocate(height, stride, error);
    if (pixels == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    *image = (onestep_image){
        .width = width, .height = height, .stride = stride, .type = type, .pixels = pixels};
    return ONESTEP_OK;
}

void image_destroy(onestep_image *image)
{
    if (image != NULL) {
        memory_free(image->pixels);
        *image = (onestep_image){0};
    }
}

onestep_status image_check(const onestep_image *image, const char *what, onestep_error *error)
{
    if (image->pixels == NULL || image->width == 0 || image->height == 0) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s: empty picture (%u x %u pixels%s); both sides must be at least 1",
                         what, image->width, image->height,
                         image->pixels == NULL ? ", no pixels" : "");
    }
    if (image->type != ONESTEP_PIXEL_U8 && image->type != ONESTEP_PIXEL_F32) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s: unknown pixel type %d", what,
                         (int)image->type);
    }
    size_t last_row;
    if (image->stride < image_row_size(image) ||
        !size_multiply(image->stride, image->height, &last_row)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s: stride of %zu bytes for rows of %zu bytes", what, image->stride,
                         image_row_size(image));
    }
    if (image->type == ONESTEP_PIXEL_F32 &&
        (image->stride % sizeof(float) != 0 || (uintptr_t)image->pixels % sizeof(float) != 0)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s: float pixels and their stride must be aligned to 4 bytes", what);
    }
    return ONESTEP_OK;
}

onestep_status image_check_bytes(const onestep_image *image, const char *what, onestep_error *error)
{
    onestep_status status = image_check(image, what, error);
    if (status == ONESTEP_OK && image->type != ONESTEP_PIXEL_U8) {
        status =
            error_set(error, ONESTEP_ERROR_ARGUMENT,
                      "%s: needs 8-bit pixels, not floats (convert with image_to_bytes)", what);
    }
    return status;
}

void image_run(thread_pool *pool, size_t count, thread_pool_task task, void *context)
{
    if (pool != NULL && count > 1) {
        thread_pool_run(pool, count, task, context);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        task(context, i, 0);
    }
}

onestep_status image_crop(onestep_image *result, const onestep_image *image, uint32_t left,
                          uint32_t top, uint32_t width, uint32_t height, onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check(image, "crop", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (left > image->width || width > image->width - left || top > image->height ||
        height > image->height - top) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "crop of %u x %u pixels at (%u, %u) does not lie inside %u x %u", width,
                         height, left, top, image->width, image->height);
    }
    status = image_create(result, width, height, image->type, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    size_t offset = left * pixel_size(image->type);
    for (size_t y = 0; y < height; y++) {
        memcpy(image_row(result, y), image_row(image, top + y) + offset, result->stride);
    }
    return ONESTEP_OK;
}

onestep_status image_copy(onestep_image *result, const onestep_image *image, onestep_error *error)
{
    return image_crop(result, image, 0, 0, image->width, image->height, error);
}

onestep_status image_to_bytes(onestep_image *result, const onestep_image *image,
                              onestep_error *error)
{
    if (image->type != ONESTEP_PIXEL_F32) {
        return image_copy(result, image, error);
    }
    *result = (onestep_image){0};
    onestep_status status = image_check(image, "picture", error);
    if (status == ONESTEP_OK) {
        status = image_create(result, image->width, image->height, ONESTEP_PIXEL_U8, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    for (size_t y = 0; y < image->height; y++) {
        const float *from = (const float *)(const void *)image_row(image, y);
        uint8_t *to = image_row(result, y);
        for (size_t x = 0; x < result->stride; x++) {
            float value = from[x];
            /* Written so that NaN fails the first comparison. */
            value = value > 0.0f ? value : 0.0f;
            value = value < 1.0f ? value : 1.0f;
            to[x] = (uint8_t)(value * 255.0f + 0.5f);
        }
    }
    return ONESTEP_OK;
}

onestep_status image_invert(onestep_image *result, const onestep_image *image, onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "invert", error);
    if (status == ONESTEP_OK) {
        status = image_copy(result, image, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    uint8_t *bytes = result->pixels;
    size_t count = result->stride * result->height;
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(255 - bytes[i]);
    }
    return ONESTEP_OK;
}

/* ---- orientation ---------------------------------------------------------------------------- */

static inline void copy_pixel(uint8_t *to, const uint8_t *from)
{
    to[0] = from[0];
    to[1] = from[1];
    to[2] = from[2];
}

/* Row `y` of the result is a row of the source, mirrored or not. */
static void orient_rows(const onestep_image *to, const onestep_image *from, bool mirror_x,
                        bool mirror_y)
{
    for (size_t y = 0; y < to->height; y++) {
        const uint8_t *source = image_row(from, mirror_y ? from->height - 1 - y : y);
        uint8_t *target = image_row(to, y);
        if (!mirror_x) {
            memcpy(target, source, image_row_size(to));
            continue;
        }
        for (size_t x = 0; x < to->width; x++) {
            copy_pixel(target + 3 * x, source + 3 * (from->width - 1 - x));
        }
    }
}

/* Row `y` of the result is a column of the source. In blocks, so that both stay in the cache. */
static void orient_columns(const onestep_image *to, const onestep_image *from, bool mirror_x,
                           bool mirror_y)
{
    enum { BLOCK = 64 };
    for (size_t top = 0; top < to->height; top += BLOCK) {
        size_t bottom = size_minimum(top + BLOCK, to->height);
        for (size_t left = 0; left < to->width; left += BLOCK) {
            size_t right = size_minimum(left + BLOCK, to->width);
            for (size_t y = top; y < bottom; y++) {
                size_t column = mirror_x ? from->width - 1 - y : y;
                uint8_t *target = image_row(to, y);
                for (size_t x = left; x < right; x++) {
                    size_t row = mirror_y ? from->height - 1 - x : x;
                    copy_pixel(target + 3 * x, image_row(from, row) + 3 * column);
                }
            }
        }
    }
}

onestep_status image_orient(onestep_image *image, unsigned orientation, onestep_error *error)
{
    if (orientation < 2 || orientation > 8) {
        return ONESTEP_OK;
    }
    onestep_status status = image_check_bytes(image, "orientation", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    bool swapped = orientation >= 5;
    onestep_image turned;
    status = image_create(&turned, swapped ? image->height : image->width,
                          swapped ? image->width : image->height, ONESTEP_PIXEL_U8, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    /* Which of the source's axes run backwards. */
    bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    if (swapped) {
        orient_columns(&turned, image, mirror_x, mirror_y);
    } else {
        orient_rows(&turned, image, mirror_x, mirror_y);
    }
    image_destroy(image);
    *image = turned;
    return ONESTEP_OK;
}

/* ---- contact sheets ------------------------------------------------------------------------- */

/* Sizes of the sheet's columns and rows: `extents` holds the columns, then the rows. */
static void grid_measure(uint32_t *extents, const onestep_image *const *pictures, size_t count,
                         size_t columns)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t *width = &extents[i % columns];
        uint32_t *height = &extents[columns + i / columns];
        *width = pictures[i]->width > *width ? pictures[i]->width : *width;
        *height = pictures[i]->height > *height ? pictures[i]->height : *height;
    }
}

/* The length of `count` extents with gaps; false when it does not fit. */
static bool grid_length(const uint32_t *extents, size_t count, uint32_t gap, uint32_t *length)
{
    uint64_t total = gap;
    for (size_t i = 0; i < count; i++) {
        total += (uint64_t)extents[i] + gap;
        if (total > UINT32_MAX) {
            return false;
        }
    }
    *length = (uint32_t)total;
    return true;
}

onestep_status image_grid(onestep_image *grid, const onestep_image *const *pictures, size_t count,
                          size_t columns, uint32_t gap, onestep_error *error)
{
    *grid = (onestep_image){0};
    if (count == 0) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "contact sheet of no pictures");
    }
    for (size_t i = 0; i < count; i++) {
        onestep_status status = image_check_bytes(pictures[i], "contact sheet", error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    columns = columns == 0 ? count : size_minimum(columns, count);
    size_t rows = (count + columns - 1) / columns;
    uint32_t *extents = memory_allocate(columns + rows, sizeof *extents, error);
    if (extents == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status;
    uint32_t width, height;
    grid_measure(extents, pictures, count, columns);
    if (!grid_length(extents, columns, gap, &width) ||
        !grid_length(extents + columns, rows, gap, &height)) {
        status = error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                           "contact sheet of %zu pictures would be too large", count);
        goto done;
    }
    status = image_create(grid, width, height, ONESTEP_PIXEL_U8, error);
    if (status != ONESTEP_OK) {
        goto done;
    }
    memset(grid->pixels, 255, grid->stride * grid->height);
    size_t top = gap;
    for (size_t row = 0; row < rows; row++) {
        size_t left = gap;
        for (size_t column = 0; column < columns && row * columns + column < count; column++) {
            const onestep_image *picture = pictures[row * columns + column];
            size_t x = left + (extents[column] - picture->width) / 2;
            size_t y = top + (extents[columns + row] - picture->height) / 2;
            for (size_t line = 0; line < picture->height; line++) {
                memcpy(image_row(grid, y + line) + 3 * x, image_row(picture, line),
                       image_row_size(picture));
            }
            left += (size_t)extents[column] + gap;
        }
        top += (size_t)extents[columns + row] + gap;
    }
done:
    memory_free(extents);
    return status;
}
