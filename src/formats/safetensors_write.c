/* Writing safetensors. */
#include "formats/json_text.h"
#include "formats/tensor.h"
#include "formats/text.h"
#include "formats/weight_file.h"

#include <stdlib.h>
#include <string.h>

static const char *const type_names[ELEMENT_TYPE_COUNT] = {
    [ELEMENT_F32] = "F32", [ELEMENT_F16] = "F16",  [ELEMENT_BF16] = "BF16", [ELEMENT_F64] = "F64",
    [ELEMENT_I64] = "I64", [ELEMENT_I32] = "I32",  [ELEMENT_I16] = "I16",   [ELEMENT_I8] = "I8",
    [ELEMENT_U8] = "U8",   [ELEMENT_BOOL] = "BOOL"};

static onestep_status check_tensors(const named_tensor *tensors, size_t count, onestep_error *error)
{
    name_map *names = NULL;
    onestep_status status = name_map_create(&names, error);
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        const char *name = tensors[i].name;
        size_t length = strlen(name), bytes;
        uint32_t known;
        char shown[TEXT_SHOWN];
        text_shown(shown, name, length);
        if (!text_is_utf8(name, length) || strcmp(name, "__metadata__") == 0) {
            status = error_set(error, ONESTEP_ERROR_ARGUMENT, "%s cannot be the name of a tensor",
                               shown);
        } else if (name_map_get(names, name, length, &known)) {
            status = error_set(error, ONESTEP_ERROR_ARGUMENT, "tensor %s is there twice", shown);
        } else if (tensors[i].rank > TENSOR_RANK_LIMIT ||
                   !tensor_byte_count(tensors[i].type, tensors[i].rank, tensors[i].shape, &bytes) ||
                   bytes != tensors[i].bytes) {
            status = error_set(error, ONESTEP_ERROR_ARGUMENT,
                               "tensor %s has %zu bytes, which its shape does not give", shown,
                               tensors[i].bytes);
        } else {
            status = name_map_put(names, name, length, 0, error);
        }
    }
    name_map_destroy(&names);
    return status;
}

/* A JSON string; what is not UTF-8 has been refused. */
static void append_string(text_buffer *text, const char *string)
{
    text_buffer_append(text, "\"", 1);
    for (; *string != '\0'; string++) {
        if (*string == '"' || *string == '\\') {
            text_buffer_append(text, "\\", 1);
        }
        if ((uint8_t)*string < 0x20) {
            text_buffer_print(text, "\\u%04x", (unsigned)*string);
        } else {
            text_buffer_append(text, string, 1);
        }
    }
    text_buffer_append(text, "\"", 1);
}

static onestep_status append_metadata(text_buffer *text, const char *const (*metadata)[2],
                                      size_t count, onestep_error *error)
{
    text_buffer_print(text, "\"__metadata__\":{");
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (strcmp(metadata[i][0], metadata[j][0]) == 0) {
                return error_set(error, ONESTEP_ERROR_ARGUMENT, "metadata %s is there twice",
                                 metadata[i][0]);
            }
        }
        if (!text_is_utf8(metadata[i][0], strlen(metadata[i][0])) ||
            !text_is_utf8(metadata[i][1], strlen(metadata[i][1]))) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT, "metadata that is not UTF-8");
        }
        text_buffer_print(text, i == 0 ? "" : ",");
        append_string(text, metadata[i][0]);
        text_buffer_append(text, ":", 1);
        append_string(text, metadata[i][1]);
    }
    text_buffer_append(text, "}", 1);
    return ONESTEP_OK;
}

static void append_tensor(text_buffer *text, const named_tensor *tensor, size_t begin)
{
    append_string(text, tensor->name);
    text_buffer_print(text, ":{\"dtype\":\"%s\",\"shape\":[", type_names[tensor->type]);
    for (unsigned i = 0; i < tensor->rank; i++) {
        text_buffer_print(text, "%s%zu", i == 0 ? "" : ",", tensor->shape[i]);
    }
    text_buffer_print(text, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor->bytes);
}

/* The header into `text` and the data into parts[1..count], larger elements first. */
static onestep_status lay_out(text_buffer *text, file_part *parts, const named_tensor *tensors,
                              size_t count, const char *const (*metadata)[2], size_t metadata_count,
                              onestep_error *error)
{
    uint64_t header_size = 0;
    text_buffer_append(text, &header_size, sizeof(header_size));
    text_buffer_append(text, "{", 1);
    if (metadata_count > 0) {
        onestep_status status = append_metadata(text, metadata, metadata_count, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    size_t offset = 0, placed = 0;
    for (size_t size = 8; size > 0; size /= 2) {
        for (size_t i = 0; i < count; i++) {
            if (element_size(tensors[i].type) != size) {
                continue;
            }
            text_buffer_print(text, placed + metadata_count == 0 ? "" : ",");
            append_tensor(text, &tensors[i], offset);
            parts[1 + placed] = (file_part){tensors[i].data, tensors[i].bytes};
            placed++;
            if (!size_add(offset, tensors[i].bytes, &offset)) {
                return error_set(error, ONESTEP_ERROR_ARGUMENT,
                                 "the tensors are larger than any file");
            }
        }
    }
    text_buffer_append(text, "}", 1);
    /* The data begins at a multiple of eight. */
    while (!text->failed && text->length % 8 != 0) {
        text_buffer_append(text, " ", 1);
    }
    if (text->failed) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "no memory for the header of %zu tensors",
                         count);
    }
    header_size = text->length - sizeof(header_size);
    if (header_size > JSON_TEXT_LIMIT) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "a safetensors header of %zu bytes: the limit is %zu", (size_t)header_size,
                         JSON_TEXT_LIMIT);
    }
    memcpy(text->data, &header_size, sizeof(header_size));
    parts[0] = (file_part){text->data, text->length};
    return ONESTEP_OK;
}

onestep_status safetensors_write(const char *path, const named_tensor *tensors, size_t count,
                                 const char *const (*metadata)[2], size_t metadata_count,
                                 onestep_error *error)
{
    text_buffer text = {0};
    file_part *parts = NULL;
    onestep_status status = check_tensors(tensors, count, error);
    if (status == ONESTEP_OK) {
        parts = memory_allocate(count + 1, sizeof(*parts), error);
        status = parts == NULL
                     ? ONESTEP_ERROR_MEMORY
                     : lay_out(&text, parts, tensors, count, metadata, metadata_count, error);
    }
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", path);
    } else {
        status = file_write_parts(path, parts, count + 1, error);
    }
    memory_free(parts);
    text_buffer_free(&text);
    return status;
}
