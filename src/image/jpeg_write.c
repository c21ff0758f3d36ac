/* RGB bytes to JPEG files, with the settings of Pillow's save(quality=...): 4:2:0, baseline, the
 * standard Huffman tables. */
#include "image/image_private.h"

#include <setjmp.h>
#include <stdio.h>

#include <jerror.h>
#include <jpeglib.h>

enum { COMMENT_SIZE = 65533, BLOCK_SIZE = 16384 };

typedef struct jpeg_writer {
    struct jpeg_compress_struct compress;
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr destination;
    jmp_buf failed;
    onestep_error *error;
    onestep_status status;
    byte_sink *sink;
    uint8_t block[BLOCK_SIZE];
} jpeg_writer;

static void on_error(j_common_ptr common)
{
    jpeg_writer *writer = common->client_data;
    char message[JMSG_LENGTH_MAX];
    common->err->format_message(common, message);
    if (writer->sink->failed || common->err->msg_code == JERR_OUT_OF_MEMORY) {
        writer->status =
            error_set(writer->error, ONESTEP_ERROR_MEMORY, "no memory to write a JPEG picture");
    } else {
        writer->status = error_set(writer->error, ONESTEP_ERROR_INTERNAL,
                                   "cannot write a JPEG picture: libjpeg: %s", message);
    }
    longjmp(writer->failed, 1);
}

static void on_message(j_common_ptr common, int level)
{
    (void)common;
    (void)level;
}

static void on_output(j_common_ptr common)
{
    (void)common;
}

static void destination_start(j_compress_ptr compress)
{
    jpeg_writer *writer = compress->client_data;
    compress->dest->next_output_byte = writer->block;
    compress->dest->free_in_buffer = BLOCK_SIZE;
}

static void destination_append(j_compress_ptr compress, size_t size)
{
    jpeg_writer *writer = compress->client_data;
    byte_sink_append(writer->sink, writer->block, size);
    if (writer->sink->failed) {
        ERREXIT1(compress, JERR_OUT_OF_MEMORY, 0);
    }
}

static boolean destination_full(j_compress_ptr compress)
{
    destination_append(compress, BLOCK_SIZE);
    destination_start(compress);
    return TRUE;
}

static void destination_end(j_compress_ptr compress)
{
    destination_append(compress, BLOCK_SIZE - compress->dest->free_in_buffer);
}

static onestep_status write_picture(jpeg_writer *writer, const onestep_image *image, int quality,
                                    const byte_sink *comment)
{
    if (setjmp(writer->failed) != 0) {
        return writer->status;
    }
    j_compress_ptr compress = &writer->compress;
    jpeg_create_compress(compress);
    compress->dest = &writer->destination;
    compress->image_width = image->width;
    compress->image_height = image->height;
    compress->input_components = 3;
    compress->in_color_space = JCS_RGB;
    jpeg_set_defaults(compress);
    jpeg_set_quality(compress, quality, TRUE);
    jpeg_start_compress(compress, TRUE);
    for (size_t offset = 0; offset < comment->size; offset += COMMENT_SIZE) {
        size_t length = size_minimum(COMMENT_SIZE, comment->size - offset);
        jpeg_write_marker(compress, JPEG_COM, comment->data + offset, (unsigned)length);
    }
    while (compress->next_scanline < compress->image_height) {
        JSAMPROW row = image_row(image, compress->next_scanline);
        jpeg_write_scanlines(compress, &row, 1);
    }
    jpeg_finish_compress(compress);
    return ONESTEP_OK;
}

onestep_status jpeg_encode(byte_sink *sink, const onestep_image *image, int quality,
                           const image_metadata *metadata, onestep_error *error)
{
    if (image->width > JPEG_MAX_DIMENSION || image->height > JPEG_MAX_DIMENSION) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "%u x %u pixels do not fit into a JPEG (at most %ld a side): write a PNG",
                         image->width, image->height, JPEG_MAX_DIMENSION);
    }
    byte_sink comment = {0};
    onestep_status status = ONESTEP_OK;
    jpeg_writer *writer = memory_allocate(1, sizeof *writer, error);
    if (writer == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    if (metadata != NULL && metadata->count > 0) {
        status = metadata_to_text(&comment, metadata, error);
    }
    if (status == ONESTEP_OK) {
        writer->error = error;
        writer->sink = sink;
        writer->compress.err = jpeg_std_error(&writer->errors);
        writer->compress.client_data = writer;
        writer->errors.error_exit = on_error;
        writer->errors.emit_message = on_message;
        writer->errors.output_message = on_output;
        writer->destination = (struct jpeg_destination_mgr){.init_destination = destination_start,
                                                            .empty_output_buffer = destination_full,
                                                            .term_destination = destination_end};
        status = write_picture(writer, image, quality, &comment);
        jpeg_destroy_compress(&writer->compress);
    }
    byte_sink_free(&comment);
    memory_free(writer);
    return status;
}
