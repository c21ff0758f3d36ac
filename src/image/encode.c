/* From RGB bytes to a file of any format. */
#include "image/image_private.h"

onestep_status image_encode(uint8_t **bytes, size_t *size, const onestep_image *image,
                            image_format format, int quality, const image_metadata *metadata,
                            onestep_error *error)
{
    *bytes = NULL;
    *size = 0;
    onestep_status status = image_check_bytes(image, "encoding", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (quality < 0 || quality > 100) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "quality %d: expected 1 to 100 (or 0 for the default of 95)", quality);
    }
    quality = quality == 0 ? 95 : quality;
    byte_sink sink = {0};
    switch (format) {
    case IMAGE_FORMAT_PNG:
        status = png_encode(&sink, image, metadata, error);
        break;
    case IMAGE_FORMAT_JPEG:
        status = jpeg_encode(&sink, image, quality, metadata, error);
        break;
    case IMAGE_FORMAT_WEBP:
        status = webp_encode(&sink, image, quality, metadata, error);
        break;
    default:
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "unknown picture format; expected PNG, JPEG or WebP");
    }
    if (status != ONESTEP_OK) {
        byte_sink_free(&sink);
        return status;
    }
    *bytes = sink.data;
    *size = sink.size;
    return ONESTEP_OK;
}

onestep_status image_save(const onestep_image *image, const char *path, int quality,
                          const image_metadata *metadata, onestep_error *error)
{
    image_format format = image_format_of_name(path);
    if (format == IMAGE_FORMAT_UNKNOWN) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s: the suffix tells no picture format; expected .png, .jpg or .webp",
                         path);
    }
    uint8_t *bytes;
    size_t size;
    onestep_status status = image_encode(&bytes, &size, image, format, quality, metadata, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", path);
        return status;
    }
    status = file_write_atomic(path, bytes, size, error);
    memory_free(bytes);
    return status;
}

onestep_status image_metadata_read(image_metadata *metadata, const void *bytes, size_t size,
                                   onestep_error *error)
{
    switch (image_format_of_bytes(bytes, size)) {
    case IMAGE_FORMAT_PNG:
        return png_metadata(metadata, bytes, size, error);
    case IMAGE_FORMAT_JPEG:
        return jpeg_metadata(metadata, bytes, size, error);
    case IMAGE_FORMAT_WEBP:
        return webp_metadata(metadata, bytes, size, error);
    default:
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "not a picture of a known format; expected PNG, JPEG or WebP");
    }
}
