/* image: pixels in and out.
 *
 * Picture files to RGB bytes and back, Pillow's Lanczos resize, OpenCV's Canny edges and the
 * preparations of the official code (behaviour.md section 5), each bit for bit.
 *
 * Rules that hold for every function here:
 *  - Pictures are onestep_image (onestep.h): interleaved RGB, `stride` bytes between rows. A
 * picture that a function makes has tight rows, belongs to the caller and is released by
 * image_destroy.
 *  - The first argument receives the result; on failure it is emptied (no pixels). It must not be
 *    the input picture.
 *  - `pool` may be NULL: the caller's thread does the work. Results never depend on it. */
#ifndef ONESTEP_IMAGE_H
#define ONESTEP_IMAGE_H

#include "base/base.h"

/* ---- pictures in memory --------------------------------------------------------------------- */

/* Makes a black picture. Sides of 0 are ONESTEP_ERROR_ARGUMENT. */
onestep_status image_create(onestep_image *image, uint32_t width, uint32_t height,
                            onestep_pixel_type type, onestep_error *error) MUST_USE;

/* Releases the pixels of a picture made here and empties it; accepts NULL and empty pictures. */
void image_destroy(onestep_image *image);

/* Checks a picture that came from outside: sides, type, stride (at least one row; a multiple of 4
 * for floats) and pixels. `what` names it in the error message. */
onestep_status image_check(const onestep_image *image, const char *what,
                           onestep_error *error) MUST_USE;

onestep_status image_copy(onestep_image *result, const onestep_image *image,
                          onestep_error *error) MUST_USE;

/* A copy of the rectangle that starts at (left, top); it must lie inside the picture. */
onestep_status image_crop(onestep_image *result, const onestep_image *image, uint32_t left,
                          uint32_t top, uint32_t width, uint32_t height,
                          onestep_error *error) MUST_USE;

/* A copy as bytes. Floats (0..1) are clamped, scaled by 255 and rounded to nearest (half up); NaN
 * becomes 0. */
onestep_status image_to_bytes(onestep_image *result, const onestep_image *image,
                              onestep_error *error) MUST_USE;

/* Turns and mirrors in place as EXIF orientation 1..8 asks (other values change nothing), so that
 * the picture stands upright: Pillow's ImageOps.exif_transpose. Bytes only. */
onestep_status image_orient(onestep_image *image, unsigned orientation,
                            onestep_error *error) MUST_USE;

/* A contact sheet: `count` byte pictures in reading order in rows of `columns` (0: all in one row),
 * white ground, `gap` pixels between the cells and around them. A column is as wide as its widest
 * picture, a row as high as its highest; smaller ones are centred. */
onestep_status image_grid(onestep_image *grid, const onestep_image *const *pictures, size_t count,
                          size_t columns, uint32_t gap, onestep_error *error) MUST_USE;

/* ---- files ---------------------------------------------------------------------------------- */

typedef enum image_format {
    IMAGE_FORMAT_UNKNOWN,
    IMAGE_FORMAT_PNG,
    IMAGE_FORMAT_JPEG,
    IMAGE_FORMAT_WEBP
} image_format;

/* By the first bytes. */
image_format image_format_of_bytes(const void *bytes, size_t size);
/* By the suffix of a name, in any case of letters: .png, .jpg .jpeg .jpe .jfif, .webp. A name
 * without a dot is taken as the suffix itself ("png"). */
image_format image_format_of_name(const char *name);
/* "PNG", "JPEG", "WebP"; the usual suffix without the dot: "png", "jpg", "webp". */
const char *image_format_name(image_format format);
const char *image_format_suffix(image_format format);

/* What a file may ask for before anything of that size is allocated. */
typedef struct image_limits {
    uint32_t max_side;   /* default 65,500: JPEG's largest */
    uint64_t max_pixels; /* default 178,956,970: where Pillow refuses a "decompression bomb" */
} image_limits;

void image_limits_init(image_limits *limits);

/* Decodes a PNG, JPEG or WebP file to 8-bit RGB, to the bytes that Pillow's
 * ImageOps.exif_transpose(Image.open(...)).convert("RGB") gives: alpha dropped, palettes looked up,
 * grey repeated, 16-bit grey clipped at 255, other 16-bit samples cut to their high byte, CMYK
 * JPEGs taken as Adobe's inverted ones, gamma and colour profiles ignored, the first frame of an
 * animation. `limits` NULL: the defaults.
 * Errors: ONESTEP_ERROR_FORMAT (damaged, truncated, or no picture at all),
 * ONESTEP_ERROR_UNSUPPORTED (another picture format, named; a picture beyond the limits),
 * ONESTEP_ERROR_MEMORY. The message does not know the file's name: see error_prefix. */
onestep_status image_decode(onestep_image *image, const void *bytes, size_t size,
                            const image_limits *limits, onestep_error *error) MUST_USE;

/* Reads a file and decodes it; messages name the file. */
onestep_status image_load(onestep_image *image, const char *path, const image_limits *limits,
                          onestep_error *error) MUST_USE;

/* Texts that travel with a picture, in order. Zero-initialise; image_metadata_free releases. */
typedef struct image_metadata {
    struct image_metadata_entry {
        char *key, *value; /* UTF-8, without NUL inside */
    } * entries;
    size_t count, capacity;
} image_metadata;

/* Appends copies. A key has 1 to 79 bytes of printable ASCII without leading, trailing or double
 * spaces and without ':' (what all three formats can hold); a value is any UTF-8 text. */
onestep_status image_metadata_add(image_metadata *metadata, const char *key, const char *value,
                                  onestep_error *error) MUST_USE;
/* The first value of that key, or NULL. */
const char *image_metadata_find(const image_metadata *metadata, const char *key);
void image_metadata_free(image_metadata *metadata);

/* Appends what a picture file carries: PNG tEXt, zTXt and iTXt chunks (Latin-1 as UTF-8, at most
 * 16 MiB together); what image_encode wrote into JPEG comments and WebP EXIF. A JPEG comment of
 * others is one entry "Comment". Damaged texts are skipped: a picture is still a picture. */
onestep_status image_metadata_read(image_metadata *metadata, const void *bytes, size_t size,
                                   onestep_error *error) MUST_USE;

/* Encodes a byte picture. `quality` 1..100 counts for JPEG (4:2:0, like Pillow's save) and WebP
 * (lossy); 0 means 95. `metadata` may be NULL. `*bytes` is released with memory_free. JPEG takes
 * sides up to 65,500, WebP up to 16,383. */
onestep_status image_encode(uint8_t **bytes, size_t *size, const onestep_image *image,
                            image_format format, int quality, const image_metadata *metadata,
                            onestep_error *error) MUST_USE;

/* Encodes in the format of the suffix and writes the file whole or not at all. */
onestep_status image_save(const onestep_image *image, const char *path, int quality,
                          const image_metadata *metadata, onestep_error *error) MUST_USE;

/* ---- resizing and edges --------------------------------------------------------------------- */

/* Pillow's 8-bit Lanczos resize, Image.resize(size, LANCZOS), bit for bit: the horizontal pass
 * first, always. (Newer Pillows, 12.3 for one, shrink the height first where it is more than 100
 * times the width, with other rounding.) */
onestep_status image_resize(onestep_image *result, const onestep_image *image, uint32_t width,
                            uint32_t height, thread_pool *pool, onestep_error *error) MUST_USE;

/* OpenCV's Canny(image, low, high) on a byte picture (aperture 3, L1 norm), bit for bit: white
 * edges on black, three equal channels. Thresholds must be finite and not negative (otherwise
 * ONESTEP_ERROR_ARGUMENT); they are swapped when low > high. */
onestep_status image_canny(onestep_image *edges, const onestep_image *image, double low,
                           double high, thread_pool *pool, onestep_error *error) MUST_USE;

/* ---- preparation ---------------------------------------------------------------------------- */

/* The official --image_prep variants (unpaired family). */
typedef enum image_prep {
    IMAGE_PREP_RESIZE_512X512,   /* "resize_512x512", "resize_512": aspect not kept */
    IMAGE_PREP_RESIZE_256X256,   /* "resize_256x256", "resize_256" */
    IMAGE_PREP_RESIZED_CROP_512, /* shorter side to 512, centre crop of 512x512 */
    IMAGE_PREP_NO_RESIZE,
    IMAGE_PREP_RANDOM_CROP_256 /* "resize_286_randomcrop_256x256_hflip", for training */
} image_prep;

/* Official names of index 0.. for help and suggestions; NULL beyond the last. */
const char *image_prep_name(size_t index);
/* False when there is no such name. */
bool image_prep_parse(const char *name, image_prep *prep);

/* Prepares a byte picture. `random` (an MT19937 state, random_seed with RANDOM_CPU) is used by
 * IMAGE_PREP_RANDOM_CROP_256 only, which takes three words from it as torchvision does: the crop's
 * top and left (0..30 each, torch.randint), then the mirror (torch.rand(1) < 0.5). */
onestep_status image_prepare(onestep_image *result, const onestep_image *image, image_prep prep,
                             random_state *random, thread_pool *pool,
                             onestep_error *error) MUST_USE;

/* The paired family: both sides down to multiples of 8 by a Lanczos resize. A side under 8 is
 * ONESTEP_ERROR_UNSUPPORTED. */
onestep_status image_prepare_paired(onestep_image *result, const onestep_image *image,
                                    thread_pool *pool, onestep_error *error) MUST_USE;

/* --fit exact: right and bottom padded to multiples of 8 by reflection (the edge itself is not
 * repeated; as often as needed on small pictures; a side of 1 is repeated). */
onestep_status image_pad_reflect(onestep_image *result, const onestep_image *image,
                                 onestep_error *error) MUST_USE;

/* --max-side: a Lanczos resize so that the longer side is `max_side`, the shorter one rounded to
 * nearest and at least 1; a copy when the picture is not larger or `max_side` is 0. */
onestep_status image_limit_side(onestep_image *result, const onestep_image *image,
                                uint32_t max_side, thread_pool *pool,
                                onestep_error *error) MUST_USE;

/* The sketch family's control: a channel is 255 where the byte is at most 127, else 0 (black lines
 * become white). */
onestep_status image_sketch(onestep_image *control, const onestep_image *image,
                            onestep_error *error) MUST_USE;

/* 255 minus every byte (the edge map that is written beside the output). */
onestep_status image_invert(onestep_image *result, const onestep_image *image,
                            onestep_error *error) MUST_USE;

typedef enum image_range {
    IMAGE_RANGE_UNIT,  /* [0,1]: torchvision's to_tensor */
    IMAGE_RANGE_SIGNED /* [-1,1]: to_tensor, then Normalize(0.5, 0.5) */
} image_range;

/* Writes height x width x 3 floats (NHWC of one picture) of a byte picture or, taken as they are
 * (0..1), a float picture. The values of bytes are exactly torchvision's. */
void image_to_floats(float *values, const onestep_image *image, image_range range);

/* The network's output (height x width x 3 floats, nominally [-1,1]) as bytes: x*0.5+0.5 clamped to
 * [0,1], times 255, truncated (torchvision's ToPILImage). NaN becomes 0. */
onestep_status image_from_floats(onestep_image *image, const float *values, uint32_t width,
                                 uint32_t height, onestep_error *error) MUST_USE;

#endif
