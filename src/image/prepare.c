/* From a loaded picture to what the networks see, and back: the official preparations. */
#include "image/image_private.h"

#include <string.h>

/* The alias beside each name is the official code's, too. */
static const struct {
    const char *name;
    image_prep prep;
} prep_names[] = {
    {"resize_512x512", IMAGE_PREP_RESIZE_512X512},
    {"resize_512", IMAGE_PREP_RESIZE_512X512},
    {"resize_256x256", IMAGE_PREP_RESIZE_256X256},
    {"resize_256", IMAGE_PREP_RESIZE_256X256},
    {"resized_crop_512", IMAGE_PREP_RESIZED_CROP_512},
    {"no_resize", IMAGE_PREP_NO_RESIZE},
    {"resize_286_randomcrop_256x256_hflip", IMAGE_PREP_RANDOM_CROP_256},
};

enum { PREP_NAME_COUNT = sizeof prep_names / sizeof *prep_names };

const char *image_prep_name(size_t index)
{
    return index < PREP_NAME_COUNT ? prep_names[index].name : NULL;
}

bool image_prep_parse(const char *name, image_prep *prep)
{
    for (size_t i = 0; i < PREP_NAME_COUNT; i++) {
        if (strcmp(name, prep_names[i].name) == 0) {
            *prep = prep_names[i].prep;
            return true;
        }
    }
    return false;
}

/* torchvision's centre crop: (n - 512) / 2, a half rounded to the even neighbour. */
static uint32_t center_offset(uint32_t size, uint32_t crop)
{
    uint32_t margin = size - crop;
    uint32_t half = margin / 2;
    return margin % 2 == 1 ? half + half % 2 : half;
}

static onestep_status resized_crop(onestep_image *result, const onestep_image *image, uint32_t size,
                                   thread_pool *pool, onestep_error *error)
{
    bool wide = image->width > image->height;
    uint64_t shorter = wide ? image->height : image->width;
    uint64_t longer = wide ? image->width : image->height;
    uint64_t resized = size * longer / shorter;
    if (resized > UINT32_MAX / 4) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "a picture of %u x %u pixels is too narrow for resized_crop_512",
                         image->width, image->height);
    }
    uint32_t width = wide ? (uint32_t)resized : size;
    uint32_t height = wide ? size : (uint32_t)resized;
    onestep_image scaled;
    onestep_status status = image_resize(&scaled, image, width, height, pool, error);
    if (status == ONESTEP_OK) {
        status = image_crop(result, &scaled, center_offset(width, size),
                            center_offset(height, size), size, size, error);
    }
    image_destroy(&scaled);
    return status;
}

static onestep_status random_crop(onestep_image *result, const onestep_image *image,
                                  random_state *random, thread_pool *pool, onestep_error *error)
{
    enum { RESIZED = 286, CROP = 256, PLACES = RESIZED - CROP + 1, MIRRORED = 2 };
    if (random == NULL) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "resize_286_randomcrop_256x256_hflip needs a random generator");
    }
    onestep_image scaled;
    onestep_status status = image_resize(&scaled, image, RESIZED, RESIZED, pool, error);
    if (status == ONESTEP_OK) {
        uint32_t top = random_mt19937_word(random) % PLACES;
        uint32_t left = random_mt19937_word(random) % PLACES;
        /* torch.rand takes the low 24 bits: below one half is the top one of them clear. */
        bool mirror = (random_mt19937_word(random) & 0x800000) == 0;
        status = image_crop(result, &scaled, left, top, CROP, CROP, error);
        if (status == ONESTEP_OK && mirror) {
            status = image_orient(result, MIRRORED, error);
        }
    }
    image_destroy(&scaled);
    return status;
}

onestep_status image_prepare(onestep_image *result, const onestep_image *image, image_prep prep,
                             random_state *random, thread_pool *pool, onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "preparation", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    switch (prep) {
    case IMAGE_PREP_RESIZE_512X512:
        return image_resize(result, image, 512, 512, pool, error);
    case IMAGE_PREP_RESIZE_256X256:
        return image_resize(result, image, 256, 256, pool, error);
    case IMAGE_PREP_RESIZED_CROP_512:
        return resized_crop(result, image, 512, pool, error);
    case IMAGE_PREP_NO_RESIZE:
        return image_copy(result, image, error);
    case IMAGE_PREP_RANDOM_CROP_256:
        status = random_crop(result, image, random, pool, error);
        if (status != ONESTEP_OK) {
            image_destroy(result);
        }
        return status;
    }
    return error_set(error, ONESTEP_ERROR_ARGUMENT, "unknown preparation %d", (int)prep);
}

onestep_status image_prepare_paired(onestep_image *result, const onestep_image *image,
                                    thread_pool *pool, onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "preparation", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    uint32_t width = image->width - image->width % 8, height = image->height - image->height % 8;
    if (width == 0 || height == 0) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "the picture is %u x %u pixels; both sides must be at least 8",
                         image->width, image->height);
    }
    return image_resize(result, image, width, height, pool, error);
}

/* The index that reflection puts at `position`, which may lie beyond the end. */
static size_t reflect(size_t position, size_t size)
{
    if (size == 1) {
        return 0;
    }
    size_t period = 2 * (size - 1);
    position %= period;
    return position < size ? position : period - position;
}

onestep_status image_pad_reflect(onestep_image *result, const onestep_image *image,
                                 onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "padding", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (image->width > UINT32_MAX - 7 || image->height > UINT32_MAX - 7) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "a picture of %u x %u pixels is too large", image->width, image->height);
    }
    status = image_create(result, (uint32_t)size_round_up(image->width, 8),
                          (uint32_t)size_round_up(image->height, 8), ONESTEP_PIXEL_U8, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    for (size_t y = 0; y < result->height; y++) {
        const uint8_t *from = image_row(image, reflect(y, image->height));
        uint8_t *to = image_row(result, y);
        memcpy(to, from, image_row_size(image));
        for (size_t x = image->width; x < result->width; x++) {
            memcpy(to + 3 * x, from + 3 * reflect(x, image->width), 3);
        }
    }
    return ONESTEP_OK;
}

onestep_status image_limit_side(onestep_image *result, const onestep_image *image,
                                uint32_t max_side, thread_pool *pool, onestep_error *error)
{
    *result = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "scaling", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    uint64_t width = image->width, height = image->height;
    uint64_t longer = width > height ? width : height;
    if (max_side == 0 || longer <= max_side) {
        return image_copy(result, image, error);
    }
    /* Rounded to nearest; the longer side comes out as max_side. */
    width = (2 * width * max_side + longer) / (2 * longer);
    height = (2 * height * max_side + longer) / (2 * longer);
    return image_resize(result, image, width > 0 ? (uint32_t)width : 1,
                        height > 0 ? (uint32_t)height : 1, pool, error);
}

onestep_status image_sketch(onestep_image *control, const onestep_image *image,
                            onestep_error *error)
{
    *control = (onestep_image){0};
    onestep_status status = image_check_bytes(image, "sketch", error);
    if (status == ONESTEP_OK) {
        status = image_copy(control, image, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    uint8_t *bytes = control->pixels;
    size_t count = control->stride * control->height;
    for (size_t i = 0; i < count; i++) {
        bytes[i] = bytes[i] <= 127 ? 255 : 0;
    }
    return ONESTEP_OK;
}

static inline float to_range(float value, image_range range)
{
    return range == IMAGE_RANGE_SIGNED ? (value - 0.5f) / 0.5f : value;
}

void image_to_floats(float *values, const onestep_image *image, image_range range)
{
    size_t count = 3 * (size_t)image->width;
    float of_byte[256];
    for (int i = 0; i < 256; i++) {
        of_byte[i] = to_range((float)i / 255.0f, range);
    }
    for (size_t y = 0; y < image->height; y++, values += count) {
        if (image->type == ONESTEP_PIXEL_U8) {
            const uint8_t *row = image_row(image, y);
            for (size_t x = 0; x < count; x++) {
                values[x] = of_byte[row[x]];
            }
        } else {
            const float *row = (const float *)(const void *)image_row(image, y);
            for (size_t x = 0; x < count; x++) {
                values[x] = to_range(row[x], range);
            }
        }
    }
}

onestep_status image_from_floats(onestep_image *image, const float *values, uint32_t width,
                                 uint32_t height, onestep_error *error)
{
    onestep_status status = image_create(image, width, height, ONESTEP_PIXEL_U8, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    uint8_t *bytes = image->pixels;
    size_t count = image->stride * height;
    for (size_t i = 0; i < count; i++) {
        float value = values[i] * 0.5f + 0.5f;
        /* Written so that NaN fails the first comparison. */
        value = value > 0.0f ? value : 0.0f;
        value = value < 1.0f ? value : 1.0f;
        bytes[i] = (uint8_t)(value * 255.0f);
    }
    return ONESTEP_OK;
}
