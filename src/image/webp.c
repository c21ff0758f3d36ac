/* WebP files to RGB bytes and back, with libwebp; the RIFF container is walked here. */
#include "image/image_private.h"

#include <string.h>

#include <webp/decode.h>
#include <webp/encode.h>

enum {
    RIFF_HEADER_SIZE = 12,
    CHUNK_HEADER_SIZE = 8,
    FRAME_HEADER_SIZE = 16,
    FEATURES_SIZE = 10, /* the payload of a VP8X chunk */
    FEATURE_EXIF = 0x08
};

typedef struct riff_chunk {
    const uint8_t *start; /* of its header */
    const uint8_t *data;
    size_t length;
} riff_chunk;

/* The chunk at *offset, which must lie within `size`; moves *offset behind it. */
static bool riff_next(riff_chunk *chunk, const uint8_t *bytes, size_t size, size_t *offset)
{
    if (*offset > size || size - *offset < CHUNK_HEADER_SIZE) {
        return false;
    }
    const uint8_t *start = bytes + *offset;
    size_t length = read_le32(start + 4);
    if (length > size - *offset - CHUNK_HEADER_SIZE) {
        return false;
    }
    *chunk = (riff_chunk){.start = start, .data = start + CHUNK_HEADER_SIZE, .length = length};
    *offset = size_minimum(*offset + CHUNK_HEADER_SIZE + length + (length & 1), size);
    return true;
}

static bool riff_find(riff_chunk *chunk, const uint8_t *bytes, size_t size, const char *name)
{
    size_t offset = RIFF_HEADER_SIZE;
    while (riff_next(chunk, bytes, size, &offset)) {
        if (memcmp(chunk->start, name, 4) == 0) {
            return true;
        }
    }
    return false;
}

/* Cuts off what lies behind the container; refuses a file that ends before it, and chunks that do
 * not fill it. */
static onestep_status riff_check(size_t *size, const uint8_t *bytes, onestep_error *error)
{
    size_t stated = (size_t)read_le32(bytes + 4) + 8;
    if (stated > *size) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "WebP: image file is truncated (%zu of %zu bytes)", *size, stated);
    }
    *size = size_maximum(stated, RIFF_HEADER_SIZE);
    riff_chunk chunk;
    size_t offset = RIFF_HEADER_SIZE;
    while (riff_next(&chunk, bytes, *size, &offset)) {
    }
    if (offset != *size) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "damaged WebP: the chunk at byte %zu does not fit into the file", offset);
    }
    return ONESTEP_OK;
}

static onestep_status webp_error(VP8StatusCode code, onestep_error *error)
{
    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY:
    case VP8_STATUS_USER_ABORT: /* nobody aborts here: the set-up had no memory */
        return error_set(error, ONESTEP_ERROR_MEMORY, "WebP: no memory (libwebp)");
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
        return error_set(error, ONESTEP_ERROR_FORMAT, "WebP: image file is truncated");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "WebP: uses a feature that libwebp does not know");
    default:
        return error_set(error, ONESTEP_ERROR_FORMAT, "damaged WebP: libwebp: error %d", (int)code);
    }
}

/* The first frame of an animation and its place on the canvas. */
typedef struct first_frame {
    const uint8_t *bytes;
    size_t size;
    uint32_t left, top, width, height;
} first_frame;

static uint32_t read_le24(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16;
}

static onestep_status find_first_frame(first_frame *frame, const uint8_t *bytes, size_t size,
                                       const WebPBitstreamFeatures *canvas, onestep_error *error)
{
    riff_chunk chunk;
    if (!riff_find(&chunk, bytes, size, "ANMF") || chunk.length < FRAME_HEADER_SIZE) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "damaged WebP: an animation without frames");
    }
    *frame = (first_frame){.bytes = chunk.data + FRAME_HEADER_SIZE,
                           .size = chunk.length - FRAME_HEADER_SIZE,
                           .left = 2 * read_le24(chunk.data),
                           .top = 2 * read_le24(chunk.data + 3),
                           .width = 1 + read_le24(chunk.data + 6),
                           .height = 1 + read_le24(chunk.data + 9)};
    WebPBitstreamFeatures features;
    VP8StatusCode code = WebPGetFeatures(frame->bytes, frame->size, &features);
    if (code != VP8_STATUS_OK) {
        return webp_error(code, error);
    }
    if ((uint32_t)features.width != frame->width || (uint32_t)features.height != frame->height ||
        (uint64_t)frame->left + frame->width > (uint32_t)canvas->width ||
        (uint64_t)frame->top + frame->height > (uint32_t)canvas->height) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "damaged WebP: the first frame does not fit the animation's canvas");
    }
    return ONESTEP_OK;
}

static onestep_status decode_into(const onestep_image *image, const first_frame *frame,
                                  onestep_error *error)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return error_set(error, ONESTEP_ERROR_INTERNAL, "WebP: libwebp has another version");
    }
    size_t offset = frame->top * image->stride + 3 * (size_t)frame->left;
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = (uint8_t *)image->pixels + offset;
    config.output.u.RGBA.stride = (int)image->stride;
    config.output.u.RGBA.size = image->stride * image->height - offset;
    VP8StatusCode code = WebPDecode(frame->bytes, frame->size, &config);
    WebPFreeDecBuffer(&config.output);
    return code == VP8_STATUS_OK ? ONESTEP_OK : webp_error(code, error);
}

onestep_status webp_decode(onestep_image *image, const uint8_t *bytes, size_t size,
                           const image_limits *limits, unsigned *orientation, onestep_error *error)
{
    onestep_status status = riff_check(&size, bytes, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    WebPBitstreamFeatures features;
    VP8StatusCode code = WebPGetFeatures(bytes, size, &features);
    if (code != VP8_STATUS_OK) {
        return webp_error(code, error);
    }
    status = image_limits_check(limits, (uint64_t)features.width, (uint64_t)features.height, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    first_frame frame = {.bytes = bytes, .size = size};
    if (features.has_animation) {
        status = find_first_frame(&frame, bytes, size, &features, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    riff_chunk chunk;
    if (riff_find(&chunk, bytes, size, "EXIF")) {
        *orientation = exif_orientation(chunk.data, chunk.length);
    }
    status = image_create(image, (uint32_t)features.width, (uint32_t)features.height,
                          ONESTEP_PIXEL_U8, error);
    if (status == ONESTEP_OK) {
        status = decode_into(image, &frame, error);
    }
    return status;
}

onestep_status webp_metadata(image_metadata *metadata, const uint8_t *bytes, size_t size,
                             onestep_error *error)
{
    riff_chunk chunk;
    const uint8_t *text;
    size_t length;
    if (!riff_find(&chunk, bytes, size, "EXIF") ||
        !exif_user_comment(chunk.data, chunk.length, &text, &length)) {
        return ONESTEP_OK;
    }
    return metadata_from_text(metadata, (const char *)text, length, "UserComment", error);
}

/* ---- encoding ------------------------------------------------------------------------------- */

static int on_write(const uint8_t *bytes, size_t size, const WebPPicture *picture)
{
    byte_sink *sink = picture->custom_ptr;
    byte_sink_append(sink, bytes, size);
    return !sink->failed;
}

static void append_le32(byte_sink *sink, size_t value)
{
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                        (uint8_t)(value >> 24)};
    byte_sink_append(sink, bytes, sizeof bytes);
}

static void append_chunk(byte_sink *sink, const char *name, const uint8_t *data, size_t length)
{
    byte_sink_append(sink, name, 4);
    append_le32(sink, length);
    byte_sink_append(sink, data, length);
    byte_sink_append(sink, "", length & 1);
}

/* Wraps a simple file (one bitstream chunk) into an extended one with an EXIF chunk. */
static void append_extended(byte_sink *sink, const byte_sink *simple, const byte_sink *exif,
                            uint32_t width, uint32_t height)
{
    width--;
    height--;
    uint8_t features[FEATURES_SIZE] = {FEATURE_EXIF,
                                       0,
                                       0,
                                       0,
                                       (uint8_t)width,
                                       (uint8_t)(width >> 8),
                                       (uint8_t)(width >> 16),
                                       (uint8_t)height,
                                       (uint8_t)(height >> 8),
                                       (uint8_t)(height >> 16)};
    size_t bitstream = simple->size - RIFF_HEADER_SIZE;
    byte_sink_append(sink, "RIFF", 4);
    append_le32(sink, 4 + CHUNK_HEADER_SIZE + FEATURES_SIZE + bitstream + CHUNK_HEADER_SIZE +
                          exif->size + (exif->size & 1));
    byte_sink_append(sink, "WEBP", 4);
    append_chunk(sink, "VP8X", features, sizeof features);
    byte_sink_append(sink, simple->data + RIFF_HEADER_SIZE, bitstream);
    append_chunk(sink, "EXIF", exif->data, exif->size);
}

static onestep_status encode_simple(byte_sink *sink, const onestep_image *image, int quality,
                                    onestep_error *error)
{
    WebPConfig config;
    WebPPicture picture;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture)) {
        return error_set(error, ONESTEP_ERROR_INTERNAL, "WebP: libwebp has another version");
    }
    config.quality = (float)quality;
    picture.width = (int)image->width;
    picture.height = (int)image->height;
    picture.writer = on_write;
    picture.custom_ptr = sink;
    onestep_status status = ONESTEP_OK;
    if (!WebPPictureImportRGB(&picture, image->pixels, (int)image->stride) ||
        !WebPEncode(&config, &picture)) {
        WebPEncodingError code = picture.error_code;
        if (sink->failed || code == VP8_ENC_ERROR_OUT_OF_MEMORY ||
            code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY || code == VP8_ENC_OK) {
            status = error_set(error, ONESTEP_ERROR_MEMORY, "no memory to write a WebP picture");
        } else {
            status = error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                               "cannot write a WebP picture: libwebp: error %d", (int)code);
        }
    }
    WebPPictureFree(&picture);
    return status;
}

onestep_status webp_encode(byte_sink *sink, const onestep_image *image, int quality,
                           const image_metadata *metadata, onestep_error *error)
{
    if (image->width > WEBP_MAX_DIMENSION || image->height > WEBP_MAX_DIMENSION ||
        image->stride > INT32_MAX) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "%u x %u pixels do not fit into a WebP (at most %d a side): write a PNG",
                         image->width, image->height, WEBP_MAX_DIMENSION);
    }
    if (metadata == NULL || metadata->count == 0) {
        return encode_simple(sink, image, quality, error);
    }
    byte_sink simple = {0}, text = {0}, exif = {0};
    onestep_status status = metadata_to_text(&text, metadata, error);
    if (status == ONESTEP_OK) {
        status = encode_simple(&simple, image, quality, error);
    }
    if (status == ONESTEP_OK && text.size > INT32_MAX) {
        status = error_set(error, ONESTEP_ERROR_ARGUMENT,
                           "the metadata (%zu bytes) does not fit into a WebP", text.size);
    }
    if (status == ONESTEP_OK) {
        exif_write_user_comment(&exif, (const char *)text.data, text.size);
        append_extended(sink, &simple, &exif, image->width, image->height);
        if (exif.failed || sink->failed) {
            status = error_set(error, ONESTEP_ERROR_MEMORY, "no memory to write a WebP picture");
        }
    }
    byte_sink_free(&simple);
    byte_sink_free(&text);
    byte_sink_free(&exif);
    return status;
}
