/* PNG files to RGB bytes.
 *
 * The chunks are walked here, and libpng is given only those that decide about pixels (IHDR, PLTE,
 * IDAT): so ancillary chunks cost nothing, and checksums count exactly where they count for Pillow:
 * in every chunk up to the image data, not in the image data, not behind it. */
#include "image/image_private.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>
#include <zlib.h>

enum {
    COLOR_GREY = 0,
    COLOR_RGB = 2,
    COLOR_PALETTE = 3,
    COLOR_GREY_ALPHA = 4,
    COLOR_RGB_ALPHA = 6
};

bool png_chunk_next(png_chunk *chunk, const uint8_t *bytes, size_t size, size_t *offset,
                    bool verify)
{
    if (*offset > size || size - *offset < 8) {
        return false;
    }
    const uint8_t *start = bytes + *offset;
    uint32_t length = read_be32(start);
    for (int i = 4; i < 8; i++) {
        bool letter = (start[i] >= 'A' && start[i] <= 'Z') || (start[i] >= 'a' && start[i] <= 'z');
        if (!letter) {
            return false;
        }
    }
    size_t behind = size - *offset - 8;
    *chunk = (png_chunk){.start = start,
                         .type = start + 4,
                         .data = start + 8,
                         .length = length,
                         .available = size_minimum(length, behind)};
    bool complete = behind >= 4 && length <= behind - 4;
    if (verify && complete) {
        uLong checksum = crc32_z(crc32_z(0, NULL, 0), chunk->type, 4 + (z_size_t)length);
        chunk->sound = checksum == read_be32(chunk->data + length);
    }
    *offset = complete ? *offset + 12 + length : size;
    return true;
}

bool png_chunk_is(const png_chunk *chunk, const char *type)
{
    return memcmp(chunk->type, type, 4) == 0;
}

typedef struct png_reader {
    png_structp png;
    png_infop info;
    jmp_buf failed;
    onestep_error *error;
    onestep_status status;
    bool out_of_memory;
    /* What libpng reads: the rest of the current piece, and where the next chunk begins. */
    const uint8_t *bytes;
    size_t size, next_chunk;
    const uint8_t *piece;
    size_t piece_left;
    size_t padding; /* checksum bytes that the file lacks behind the piece */
    bool started, in_image_data;
    /* From the header. */
    uint32_t width, height;
    unsigned depth, color;
    uint8_t palette[256][3];
    uint8_t *row;
} png_reader;

static void on_error(png_structp png, png_const_charp message)
{
    png_reader *reader = png_get_error_ptr(png);
    if (reader->out_of_memory) {
        reader->status = error_set(reader->error, ONESTEP_ERROR_MEMORY, "PNG: no memory (libpng)");
    } else if (reader->status == ONESTEP_OK) {
        reader->status =
            error_set(reader->error, ONESTEP_ERROR_FORMAT, "damaged PNG: libpng: %s", message);
    }
    longjmp(reader->failed, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static png_voidp on_allocate(png_structp png, png_alloc_size_t size)
{
    png_reader *reader = png_get_mem_ptr(png);
    void *block = memory_allocate(size, 1, NULL);
    reader->out_of_memory |= block == NULL;
    return block;
}

static void on_free(png_structp png, png_voidp block)
{
    (void)png;
    memory_free(block);
}

/* Moves to the next piece that libpng is to see; false at the end of the image data. */
static bool next_piece(png_reader *reader)
{
    png_chunk chunk;
    if (!reader->started) {
        reader->started = true;
        reader->piece = reader->bytes;
        reader->piece_left = PNG_SIGNATURE_SIZE;
        reader->next_chunk = PNG_SIGNATURE_SIZE;
        return true;
    }
    while (png_chunk_next(&chunk, reader->bytes, reader->size, &reader->next_chunk, false)) {
        bool image_data = png_chunk_is(&chunk, "IDAT");
        if (reader->in_image_data && !image_data) {
            return false;
        }
        if (image_data || png_chunk_is(&chunk, "IHDR") || png_chunk_is(&chunk, "PLTE")) {
            reader->in_image_data = image_data;
            reader->piece = chunk.start;
            size_t wanted = 8 + chunk.length + 4;
            size_t behind = reader->size - (size_t)(chunk.start - reader->bytes);
            reader->piece_left = size_minimum(wanted, behind);
            reader->padding = chunk.available == chunk.length ? wanted - reader->piece_left : 0;
            return true;
        }
    }
    return false;
}

static void on_read(png_structp png, png_bytep target, size_t count)
{
    png_reader *reader = png_get_io_ptr(png);
    while (count > 0) {
        if (reader->piece_left > 0) {
            size_t taken = size_minimum(count, reader->piece_left);
            memcpy(target, reader->piece, taken);
            reader->piece += taken;
            reader->piece_left -= taken;
            target += taken;
            count -= taken;
        } else if (reader->padding > 0) {
            *target++ = 0;
            reader->padding--;
            count--;
        } else if (!next_piece(reader)) {
            reader->status = error_set(reader->error, ONESTEP_ERROR_FORMAT,
                                       "PNG: image file is truncated (the image data ends early)");
            png_error(png, "truncated");
        }
    }
}

/* Reads what comes before the pixels: header, palette, orientation; checks every checksum up to the
 * image data. */
static onestep_status read_header(png_reader *reader, const image_limits *limits,
                                  unsigned *orientation, onestep_error *error)
{
    size_t offset = PNG_SIGNATURE_SIZE;
    png_chunk chunk;
    bool header = false, image_data = false;
    while (png_chunk_next(&chunk, reader->bytes, reader->size, &offset, !image_data)) {
        if (png_chunk_is(&chunk, "IDAT")) {
            image_data = true;
        } else if (!image_data && !chunk.sound) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             offset == reader->size && chunk.available < chunk.length
                                 ? "PNG: image file is truncated (in chunk %.4s)"
                                 : "damaged PNG: wrong checksum of chunk %.4s",
                             (const char *)chunk.type);
        } else if (png_chunk_is(&chunk, "IHDR") && !header && !image_data) {
            if (chunk.length != 13) {
                return error_set(error, ONESTEP_ERROR_FORMAT,
                                 "damaged PNG: header of %zu bytes instead of 13", chunk.length);
            }
            reader->width = read_be32(chunk.data);
            reader->height = read_be32(chunk.data + 4);
            reader->depth = chunk.data[8];
            reader->color = chunk.data[9];
            header = true;
        } else if (png_chunk_is(&chunk, "PLTE") && !image_data) {
            memcpy(reader->palette, chunk.data, size_minimum(chunk.length, sizeof reader->palette));
        } else if (png_chunk_is(&chunk, "eXIf")) {
            *orientation = exif_orientation(chunk.data, chunk.available);
        } else if (png_chunk_is(&chunk, "IEND")) {
            break;
        }
    }
    if (!header) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "PNG: image file is truncated or damaged (no header)");
    }
    if (!image_data) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "PNG: image file is truncated or damaged (no image data)");
    }
    return image_limits_check(limits, reader->width, reader->height, error);
}

static inline void put_grey(uint8_t *pixel, uint8_t value)
{
    pixel[0] = value;
    pixel[1] = value;
    pixel[2] = value;
}

/* Pixels as libpng unpacks them (one byte, or two of a 16-bit sample, a channel) to RGB; the
 * result's pixels are `step` pixels apart. */
static void convert_row(const png_reader *reader, uint8_t *rgb, size_t step, const uint8_t *row,
                        size_t count)
{
    size_t sample = reader->depth == 16 ? 2 : 1;
    step *= 3;
    switch (reader->color) {
    case COLOR_GREY: {
        /* 1, 2, 4 bits: the largest value becomes 255. */
        unsigned scale = reader->depth < 8 ? 255u / ((1u << reader->depth) - 1) : 1;
        for (size_t i = 0; i < count; i++, rgb += step) {
            uint8_t value =
                sample == 2 ? (row[2 * i] == 0 ? row[2 * i + 1] : 255) : (uint8_t)(row[i] * scale);
            put_grey(rgb, value);
        }
        break;
    }
    case COLOR_GREY_ALPHA:
        for (size_t i = 0; i < count; i++, rgb += step) {
            put_grey(rgb, row[2 * sample * i]);
        }
        break;
    case COLOR_PALETTE:
        for (size_t i = 0; i < count; i++, rgb += step) {
            memcpy(rgb, reader->palette[row[i]], 3);
        }
        break;
    default: {
        size_t pixel = sample * (reader->color == COLOR_RGB ? 3 : 4);
        for (size_t i = 0; i < count; i++, rgb += step) {
            rgb[0] = row[pixel * i];
            rgb[1] = row[pixel * i + sample];
            rgb[2] = row[pixel * i + 2 * sample];
        }
    }
    }
}

/* Everything that may jump out of libpng; what it allocates hangs on the reader. */
static onestep_status read_pixels(png_reader *reader, onestep_image *image)
{
    if (setjmp(reader->failed) != 0) {
        return reader->status;
    }
    png_structp png = reader->png;
    png_set_read_fn(png, reader, on_read);
    png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_read_info(png, reader->info);
    png_set_packing(png);
    png_read_update_info(png, reader->info);
    reader->row = memory_allocate(png_get_rowbytes(png, reader->info), 1, reader->error);
    if (reader->row == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    if (png_get_interlace_type(png, reader->info) == PNG_INTERLACE_NONE) {
        for (size_t y = 0; y < reader->height; y++) {
            png_read_row(png, reader->row, NULL);
            convert_row(reader, image_row(image, y), 1, reader->row, reader->width);
        }
        return ONESTEP_OK;
    }
    for (int pass = 0; pass < PNG_INTERLACE_ADAM7_PASSES; pass++) {
        size_t columns = PNG_PASS_COLS(reader->width, pass);
        size_t rows = PNG_PASS_ROWS(reader->height, pass);
        for (size_t y = 0; y < rows && columns > 0; y++) {
            png_read_row(png, reader->row, NULL);
            uint8_t *target = image_row(image, PNG_ROW_FROM_PASS_ROW(y, pass)) +
                              3 * (size_t)PNG_PASS_START_COL(pass);
            convert_row(reader, target, (size_t)1 << PNG_PASS_COL_SHIFT(pass), reader->row,
                        columns);
        }
    }
    return ONESTEP_OK;
}

onestep_status png_decode(onestep_image *image, const uint8_t *bytes, size_t size,
                          const image_limits *limits, unsigned *orientation, onestep_error *error)
{
    png_reader *reader = memory_allocate(1, sizeof *reader, error);
    if (reader == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    reader->bytes = bytes;
    reader->size = size;
    reader->error = error;
    onestep_status status = read_header(reader, limits, orientation, error);
    if (status != ONESTEP_OK) {
        goto done;
    }
    reader->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, reader, on_error, on_warning,
                                           reader, on_allocate, on_free);
    if (reader->png != NULL) {
        reader->info = png_create_info_struct(reader->png);
    }
    if (reader->info == NULL) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "PNG: no memory (libpng)");
        goto done;
    }
    status = image_create(image, reader->width, reader->height, ONESTEP_PIXEL_U8, error);
    if (status == ONESTEP_OK) {
        status = read_pixels(reader, image);
    }
done:
    png_destroy_read_struct(&reader->png, &reader->info, NULL);
    memory_free(reader->row);
    memory_free(reader);
    return status;
}
