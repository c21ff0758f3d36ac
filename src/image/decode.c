/* Which format a file has, and the way from a file to upright RGB bytes. */
#include "image/image_private.h"

#include <string.h>
#include <strings.h>

/* The largest file that image_load takes: far beyond any picture within the default limits. */
#define FILE_LIMIT ((size_t)1 << 31)

void image_limits_init(image_limits *limits)
{
    *limits = (image_limits){.max_side = 65500, .max_pixels = 178956970};
}

onestep_status image_limits_check(const image_limits *limits, uint64_t width, uint64_t height,
                                  onestep_error *error)
{
    if (width == 0 || height == 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "the picture has no pixels (%llu x %llu)",
                         (unsigned long long)width, (unsigned long long)height);
    }
    if (width > limits->max_side || height > limits->max_side) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "the picture is %llu x %llu pixels; a side may have at most %u: scale it "
                         "down first",
                         (unsigned long long)width, (unsigned long long)height, limits->max_side);
    }
    if (width * height > limits->max_pixels) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "the picture is %llu x %llu pixels, more than the limit of %llu in all: "
                         "scale it down first",
                         (unsigned long long)width, (unsigned long long)height,
                         (unsigned long long)limits->max_pixels);
    }
    return ONESTEP_OK;
}

/* A signature: `length` bytes at `offset`. */
typedef struct signature {
    size_t offset, length;
    const char *bytes;
    const char *name;
} signature;

static bool signature_matches(const signature *known, const uint8_t *bytes, size_t size)
{
    return size >= known->offset + known->length &&
           memcmp(bytes + known->offset, known->bytes, known->length) == 0;
}

image_format image_format_of_bytes(const void *bytes, size_t size)
{
    const uint8_t *start = bytes;
    if (size >= PNG_SIGNATURE_SIZE && memcmp(start, "\x89PNG\r\n\x1a\n", PNG_SIGNATURE_SIZE) == 0) {
        return IMAGE_FORMAT_PNG;
    }
    if (size >= 3 && memcmp(start, "\xff\xd8\xff", 3) == 0) {
        return IMAGE_FORMAT_JPEG;
    }
    if (size >= 12 && memcmp(start, "RIFF", 4) == 0 && memcmp(start + 8, "WEBP", 4) == 0) {
        return IMAGE_FORMAT_WEBP;
    }
    return IMAGE_FORMAT_UNKNOWN;
}

image_format image_format_of_name(const char *name)
{
    static const struct {
        const char *suffix;
        image_format format;
    } suffixes[] = {
        {"png", IMAGE_FORMAT_PNG},  {"jpg", IMAGE_FORMAT_JPEG},  {"jpeg", IMAGE_FORMAT_JPEG},
        {"jpe", IMAGE_FORMAT_JPEG}, {"jfif", IMAGE_FORMAT_JPEG}, {"webp", IMAGE_FORMAT_WEBP},
    };
    const char *slash = strrchr(name, '/');
    const char *base = slash != NULL ? slash + 1 : name;
    const char *dot = strrchr(base, '.');
    const char *suffix = dot != NULL ? dot + 1 : base;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (strcasecmp(suffix, suffixes[i].suffix) == 0) {
            return suffixes[i].format;
        }
    }
    return IMAGE_FORMAT_UNKNOWN;
}

const char *image_format_name(image_format format)
{
    static const char *const names[] = {"unknown", "PNG", "JPEG", "WebP"};
    return names[format];
}

const char *image_format_suffix(image_format format)
{
    static const char *const suffixes[] = {"", "png", "jpg", "webp"};
    return suffixes[format];
}

/* What a file that is none of ours looks like. */
static const char *foreign_format(const uint8_t *bytes, size_t size)
{
    static const signature foreign[] = {
        {0, 6, "GIF87a", "a GIF"},
        {0, 6, "GIF89a", "a GIF"},
        {0, 4, "II*\0", "a TIFF or camera raw file"},
        {0, 4, "MM\0*", "a TIFF or camera raw file"},
        {0, 4, "II+\0", "a BigTIFF"},
        {4, 8, "ftypavif", "an AVIF"},
        {4, 8, "ftypavis", "an AVIF"},
        {4, 7, "ftyphei", "a HEIC"},
        {4, 7, "ftyphev", "a HEIC"},
        {4, 8, "ftypmif1", "a HEIC"},
        {4, 4, "ftyp", "an MP4 or similar video"},
        {0, 12, "\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"},
        {0, 4, "\xff\x4f\xff\x51", "a JPEG 2000"},
        {0, 2, "\xff\x0a", "a JPEG XL"},
        {0, 12, "\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"},
        {0, 5, "%PDF-", "a PDF"},
        {0, 4, "8BPS", "a Photoshop file"},
        {0, 4, "\x76\x2f\x31\x01", "an OpenEXR"},
        {0, 10, "#?RADIANCE", "a Radiance HDR"},
        {0, 4, "\0\0\1\0", "an icon (ICO)"},
        {0, 4, "qoif", "a QOI"},
        {0, 4, "DDS ", "a DDS texture"},
        {0, 9, "gimp xcf ", "a GIMP file"},
        {0, 4, "RIFF", "a RIFF file (AVI or WAV?)"},
        {0, 4, "PK\3\4", "a zip archive"},
        {0, 2, "\x1f\x8b", "gzip data"},
        {0, 6, "\x93NUMPY", "a NumPy array"},
        {0, 4, "\x89PNG", "a damaged PNG (its line ends were changed, as by a text transfer)"},
        {0, 2, "BM", "a BMP"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if (signature_matches(&foreign[i], bytes, size)) {
            return foreign[i].name;
        }
    }
    if (size >= 3 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '7' &&
        (bytes[2] == '\n' || bytes[2] == ' ' || bytes[2] == '\r')) {
        return "a PNM";
    }
    return NULL;
}

/* Text: no control characters but white space. Enough is judged to tell text from data. */
static bool looks_like_text(const uint8_t *bytes, size_t size)
{
    size_t judged = size_minimum(size, 512);
    for (size_t i = 0; i < judged; i++) {
        if ((bytes[i] < 32 && (bytes[i] < 9 || bytes[i] > 13)) || bytes[i] == 127) {
            return false;
        }
    }
    return true;
}

static bool begins_with_markup(const uint8_t *bytes, size_t size)
{
    size_t i = 0;
    while (i < size && (bytes[i] == ' ' || (bytes[i] >= 9 && bytes[i] <= 13))) {
        i++;
    }
    return i < size && bytes[i] == '<';
}

static onestep_status refuse_foreign(const uint8_t *bytes, size_t size, onestep_error *error)
{
    if (size == 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "not a picture: no bytes at all; expected PNG, JPEG or WebP");
    }
    const char *name = foreign_format(bytes, size);
    if (name != NULL) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "looks like %s; expected PNG, JPEG or WebP: convert it first", name);
    }
    if (looks_like_text(bytes, size)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "not a picture: looks like %s; expected PNG, JPEG or WebP",
                         begins_with_markup(bytes, size) ? "a web page, XML or SVG" : "text");
    }
    return error_set(error, ONESTEP_ERROR_FORMAT,
                     "not a picture of a known format; expected PNG, JPEG or WebP");
}

onestep_status image_decode(onestep_image *image, const void *bytes, size_t size,
                            const image_limits *limits, onestep_error *error)
{
    *image = (onestep_image){0};
    image_limits defaults;
    image_limits_init(&defaults);
    if (limits == NULL) {
        limits = &defaults;
    }
    unsigned orientation = 1;
    onestep_status status;
    switch (image_format_of_bytes(bytes, size)) {
    case IMAGE_FORMAT_PNG:
        status = png_decode(image, bytes, size, limits, &orientation, error);
        break;
    case IMAGE_FORMAT_JPEG:
        status = jpeg_decode(image, bytes, size, limits, &orientation, error);
        break;
    case IMAGE_FORMAT_WEBP:
        status = webp_decode(image, bytes, size, limits, &orientation, error);
        break;
    default:
        return refuse_foreign(bytes, size, error);
    }
    if (status == ONESTEP_OK) {
        status = image_orient(image, orientation, error);
    }
    if (status != ONESTEP_OK) {
        image_destroy(image);
    }
    return status;
}

onestep_status image_load(onestep_image *image, const char *path, const image_limits *limits,
                          onestep_error *error)
{
    *image = (onestep_image){0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    onestep_status status = file_read(path, FILE_LIMIT, &bytes, &size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    status = image_decode(image, bytes, size, limits, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", path);
    }
    memory_free(bytes);
    return status;
}
