/* What the files of this folder share; not for other folders. */
#ifndef ONESTEP_IMAGE_PRIVATE_H
#define ONESTEP_IMAGE_PRIVATE_H

#include "image/image.h"

static inline uint8_t *image_row(const onestep_image *image, size_t y)
{
    return (uint8_t *)image->pixels + y * image->stride;
}

/* image_check, and bytes. */
onestep_status image_check_bytes(const onestep_image *image, const char *what,
                                 onestep_error *error) MUST_USE;

/* Bytes of one tight row. */
size_t image_row_size(const onestep_image *image);

/* A file's sides against the limits, before anything is allocated. */
onestep_status image_limits_check(const image_limits *limits, uint64_t width, uint64_t height,
                                  onestep_error *error) MUST_USE;

/* Runs task(context, i, worker) for 0 <= i < count; on the caller's thread when pool is NULL. */
void image_run(thread_pool *pool, size_t count, thread_pool_task task, void *context);

static inline uint32_t read_be32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline uint32_t read_le32(const uint8_t *bytes)
{
    return (uint32_t)bytes[3] << 24 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[1] << 8 | bytes[0];
}

/* A growing block of encoded bytes. Appending after a failure does nothing. */
typedef struct byte_sink {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} byte_sink;

void byte_sink_append(byte_sink *sink, const void *bytes, size_t size);
void byte_sink_free(byte_sink *sink);

/* ---- PNG ---- */

/* Walks the chunks of a PNG file. */
typedef struct png_chunk {
    const uint8_t *start; /* of the length field */
    const uint8_t *type;  /* four letters */
    const uint8_t *data;
    size_t length;    /* as the chunk says */
    size_t available; /* of those, how many are in the file */
    bool sound;       /* all bytes and the right checksum */
} png_chunk;

/* The chunk at *offset; moves *offset behind it. False at the end of the file or when no chunk can
 * start there. `verify` computes the checksum (else `sound` is false). */
bool png_chunk_next(png_chunk *chunk, const uint8_t *bytes, size_t size, size_t *offset,
                    bool verify);
bool png_chunk_is(const png_chunk *chunk, const char *type);
#define PNG_SIGNATURE_SIZE 8

onestep_status png_decode(onestep_image *image, const uint8_t *bytes, size_t size,
                          const image_limits *limits, unsigned *orientation, onestep_error *error);
onestep_status png_encode(byte_sink *sink, const onestep_image *image,
                          const image_metadata *metadata, onestep_error *error);
onestep_status png_metadata(image_metadata *metadata, const uint8_t *bytes, size_t size,
                            onestep_error *error);

/* ---- JPEG ---- */

onestep_status jpeg_decode(onestep_image *image, const uint8_t *bytes, size_t size,
                           const image_limits *limits, unsigned *orientation, onestep_error *error);
onestep_status jpeg_encode(byte_sink *sink, const onestep_image *image, int quality,
                           const image_metadata *metadata, onestep_error *error);
onestep_status jpeg_metadata(image_metadata *metadata, const uint8_t *bytes, size_t size,
                             onestep_error *error);

/* ---- WebP ---- */

onestep_status webp_decode(onestep_image *image, const uint8_t *bytes, size_t size,
                           const image_limits *limits, unsigned *orientation, onestep_error *error);
onestep_status webp_encode(byte_sink *sink, const onestep_image *image, int quality,
                           const image_metadata *metadata, onestep_error *error);
onestep_status webp_metadata(image_metadata *metadata, const uint8_t *bytes, size_t size,
                             onestep_error *error);

/* ---- EXIF and texts ---- */

/* The orientation in a TIFF block (with or without "Exif\0\0" in front): 1..8, or 1 when there is
 * none or the block is damaged. */
unsigned exif_orientation(const uint8_t *bytes, size_t size);
/* The UserComment in a TIFF block; false when there is none. */
bool exif_user_comment(const uint8_t *bytes, size_t size, const uint8_t **text, size_t *length);
/* A TIFF block that holds just a UserComment. */
void exif_write_user_comment(byte_sink *sink, const char *text, size_t length);

/* All entries as one text and back, for formats with room for one comment only: "onestep\n", then a
 * line "key: value" each, with \ and line breaks in values escaped. */
#define METADATA_TEXT_PREFIX "onestep\n"
onestep_status metadata_to_text(byte_sink *text, const image_metadata *metadata,
                                onestep_error *error);
/* Texts without the prefix become one entry with the key `other_key`. */
onestep_status metadata_from_text(image_metadata *metadata, const char *text, size_t length,
                                  const char *other_key, onestep_error *error);
/* Appends without the rules for keys that image_metadata_add enforces; takes lengths. Text that is
 * not UTF-8 is taken as Latin-1; NUL ends it. */
onestep_status metadata_append(image_metadata *metadata, const void *key, size_t key_length,
                               const void *value, size_t value_length, onestep_error *error);

#endif
