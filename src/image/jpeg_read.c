/* JPEG files to RGB bytes, with libjpeg-turbo. */
#include "image/image_private.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

/* Real progressive files have about ten scans; each costs a pass over all coefficients. */
#define SCAN_LIMIT 500

typedef struct jpeg_reader {
    struct jpeg_decompress_struct decompress;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    onestep_error *error;
    onestep_status status;
    uint8_t *row; /* of grey or CMYK samples */
} jpeg_reader;

static void on_error(j_common_ptr common)
{
    jpeg_reader *reader = common->client_data;
    if (reader->status == ONESTEP_OK) {
        char message[JMSG_LENGTH_MAX];
        common->err->format_message(common, message);
        if (common->err->msg_code == JERR_OUT_OF_MEMORY) {
            reader->status = error_set(reader->error, ONESTEP_ERROR_MEMORY,
                                       "JPEG: no memory: libjpeg: %s", message);
        } else {
            reader->status = error_set(reader->error, ONESTEP_ERROR_FORMAT,
                                       "damaged JPEG: libjpeg: %s", message);
        }
    }
    longjmp(reader->failed, 1);
}

/* Like Pillow, warnings about damaged data are ignored: the picture is shown as far as it goes. */
static void on_message(j_common_ptr common, int level)
{
    (void)common;
    (void)level;
}

static void on_output(j_common_ptr common)
{
    (void)common;
}

static void on_progress(j_common_ptr common)
{
    jpeg_reader *reader = common->client_data;
    if (reader->decompress.input_scan_number > SCAN_LIMIT) {
        reader->status = error_set(reader->error, ONESTEP_ERROR_FORMAT,
                                   "damaged JPEG: more than %d scans", SCAN_LIMIT);
        on_error(common);
    }
}

static void source_nothing(j_decompress_ptr decompress)
{
    (void)decompress;
}

/* Suspends: what the library then cannot finish is a truncated file. */
static boolean source_fill(j_decompress_ptr decompress)
{
    (void)decompress;
    return FALSE;
}

static void source_skip(j_decompress_ptr decompress, long count)
{
    struct jpeg_source_mgr *source = decompress->src;
    if (count > 0) {
        size_t skipped = size_minimum((size_t)count, source->bytes_in_buffer);
        source->next_input_byte += skipped;
        source->bytes_in_buffer -= skipped;
    }
}

static void reader_open(jpeg_reader *reader, const uint8_t *bytes, size_t size,
                        onestep_error *error)
{
    reader->error = error;
    reader->decompress.err = jpeg_std_error(&reader->errors);
    reader->decompress.client_data = reader;
    reader->errors.error_exit = on_error;
    reader->errors.emit_message = on_message;
    reader->errors.output_message = on_output;
    reader->source = (struct jpeg_source_mgr){.next_input_byte = bytes,
                                              .bytes_in_buffer = size,
                                              .init_source = source_nothing,
                                              .fill_input_buffer = source_fill,
                                              .skip_input_data = source_skip,
                                              .resync_to_restart = jpeg_resync_to_restart,
                                              .term_source = source_nothing};
}

/* Creates the decoder and reads up to the first scan, keeping comments and EXIF. Jumps on errors.
 */
static void read_header(jpeg_reader *reader)
{
    j_decompress_ptr decompress = &reader->decompress;
    jpeg_create_decompress(decompress);
    decompress->src = &reader->source;
    reader->progress.progress_monitor = on_progress;
    decompress->progress = &reader->progress;
    jpeg_save_markers(decompress, JPEG_COM, 0xffff);
    jpeg_save_markers(decompress, JPEG_APP0 + 1, 0xffff);
    int result;
    do {
        result = jpeg_read_header(decompress, FALSE);
    } while (result == JPEG_HEADER_TABLES_ONLY);
    if (result != JPEG_HEADER_OK) {
        reader->status = error_set(reader->error, ONESTEP_ERROR_FORMAT,
                                   "JPEG: image file is truncated (in the header)");
        on_error((j_common_ptr)decompress);
    }
}

static unsigned find_orientation(const jpeg_reader *reader)
{
    jpeg_saved_marker_ptr marker = reader->decompress.marker_list;
    for (; marker != NULL; marker = marker->next) {
        if (marker->marker == JPEG_APP0 + 1 && marker->data_length >= 6 &&
            memcmp(marker->data, "Exif\0\0", 6) == 0) {
            return exif_orientation(marker->data, marker->data_length);
        }
    }
    return 1;
}

/* Adobe's CMYK is stored inverted, and Pillow takes every CMYK JPEG so. */
static void convert_cmyk(uint8_t *rgb, const uint8_t *cmyk, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        unsigned light = cmyk[4 * i + 3];
        for (size_t channel = 0; channel < 3; channel++) {
            unsigned ink = 255u - cmyk[4 * i + channel];
            unsigned product = ink * light + 128;
            rgb[3 * i + channel] = (uint8_t)(light - ((product + (product >> 8)) >> 8));
        }
    }
}

static void convert_grey(uint8_t *rgb, const uint8_t *grey, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        rgb[3 * i] = grey[i];
        rgb[3 * i + 1] = grey[i];
        rgb[3 * i + 2] = grey[i];
    }
}

static onestep_status truncated(onestep_error *error, unsigned row, unsigned height)
{
    return error_set(error, ONESTEP_ERROR_FORMAT, "JPEG: image file is truncated (at row %u of %u)",
                     row, height);
}

/* All that may jump out of libjpeg; what is allocated hangs on `reader` and `image`. */
static onestep_status read_picture(jpeg_reader *reader, onestep_image *image,
                                   const image_limits *limits, unsigned *orientation)
{
    if (setjmp(reader->failed) != 0) {
        return reader->status;
    }
    read_header(reader);
    j_decompress_ptr decompress = &reader->decompress;
    onestep_error *error = reader->error;
    unsigned width = decompress->image_width, height = decompress->image_height;
    onestep_status status = image_limits_check(limits, width, height, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    *orientation = find_orientation(reader);
    switch (decompress->num_components) {
    case 1:
        decompress->out_color_space = JCS_GRAYSCALE;
        break;
    case 3:
        decompress->out_color_space = JCS_RGB;
        break;
    case 4:
        decompress->out_color_space = JCS_CMYK;
        break;
    default:
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "JPEG with %d colour components; expected 1, 3 or 4",
                         decompress->num_components);
    }
    if (!jpeg_start_decompress(decompress)) {
        return truncated(error, 0, height);
    }
    status = image_create(image, width, height, ONESTEP_PIXEL_U8, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (decompress->output_components != 3) {
        reader->row = memory_allocate(width, (size_t)decompress->output_components, error);
        if (reader->row == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
    }
    while (decompress->output_scanline < height) {
        uint8_t *rgb = image_row(image, decompress->output_scanline);
        JSAMPROW row = reader->row != NULL ? reader->row : rgb;
        if (jpeg_read_scanlines(decompress, &row, 1) != 1) {
            return truncated(error, decompress->output_scanline, height);
        }
        if (decompress->output_components == 1) {
            convert_grey(rgb, row, width);
        } else if (decompress->output_components == 4) {
            convert_cmyk(rgb, row, width);
        }
    }
    /* Suspends where the end marker is missing, which harms nobody; but finds damage behind. */
    (void)jpeg_finish_decompress(decompress);
    return ONESTEP_OK;
}

onestep_status jpeg_decode(onestep_image *image, const uint8_t *bytes, size_t size,
                           const image_limits *limits, unsigned *orientation, onestep_error *error)
{
    jpeg_reader *reader = memory_allocate(1, sizeof *reader, error);
    if (reader == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    reader_open(reader, bytes, size, error);
    onestep_status status = read_picture(reader, image, limits, orientation);
    jpeg_destroy_decompress(&reader->decompress);
    memory_free(reader->row);
    memory_free(reader);
    return status;
}

/* ---- comments ------------------------------------------------------------------------------- */

static onestep_status read_comments(jpeg_reader *reader, byte_sink *text)
{
    if (setjmp(reader->failed) != 0) {
        return reader->status;
    }
    read_header(reader);
    jpeg_saved_marker_ptr marker = reader->decompress.marker_list;
    for (; marker != NULL; marker = marker->next) {
        if (marker->marker == JPEG_COM) {
            byte_sink_append(text, marker->data, marker->data_length);
        }
    }
    if (text->failed) {
        return error_set(reader->error, ONESTEP_ERROR_MEMORY, "JPEG: no memory for its comments");
    }
    return ONESTEP_OK;
}

onestep_status jpeg_metadata(image_metadata *metadata, const uint8_t *bytes, size_t size,
                             onestep_error *error)
{
    jpeg_reader *reader = memory_allocate(1, sizeof *reader, error);
    if (reader == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    byte_sink text = {0};
    reader_open(reader, bytes, size, error);
    onestep_status status = read_comments(reader, &text);
    if (status == ONESTEP_OK && text.size > 0) {
        status = metadata_from_text(metadata, (const char *)text.data, text.size, "Comment", error);
    }
    jpeg_destroy_decompress(&reader->decompress);
    byte_sink_free(&text);
    memory_free(reader);
    return status;
}
