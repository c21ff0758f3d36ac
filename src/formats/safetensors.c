/* safetensors: 8 bytes of header length (little-endian), a JSON header, the data.
 * https://github.com/huggingface/safetensors#format */
#include "formats/json_text.h"
#include "formats/text.h"
#include "formats/weight_file.h"

#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8

typedef struct data_range {
    size_t begin, end;
    size_t tensor; /* index in the file, for messages */
} data_range;

static bool type_from_name(const char *name, element_type *type)
{
    static const struct {
        const char *name;
        element_type type;
    } types[] = {{"F32", ELEMENT_F32},  {"F16", ELEMENT_F16}, {"BF16", ELEMENT_BF16},
                 {"F64", ELEMENT_F64},  {"I64", ELEMENT_I64}, {"I32", ELEMENT_I32},
                 {"I16", ELEMENT_I16},  {"I8", ELEMENT_I8},   {"U8", ELEMENT_U8},
                 {"BOOL", ELEMENT_BOOL}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(name, types[i].name) == 0) {
            *type = types[i].type;
            return true;
        }
    }
    return false;
}

/* A JSON integer >= 0. */
static bool size_from_json(const json_t *value, size_t *size)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *size = (size_t)json_integer_value(value);
    return true;
}

static onestep_status read_shape(const json_t *entry, const char *shown, named_tensor *tensor,
                                 onestep_error *error)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "tensor %s: \"shape\" is missing or no list",
                         shown);
    }
    if (json_array_size(shape) > TENSOR_RANK_LIMIT) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "tensor %s has %zu dimensions: at most %d are read", shown,
                         json_array_size(shape), TENSOR_RANK_LIMIT);
    }
    tensor->rank = (unsigned)json_array_size(shape);
    for (unsigned i = 0; i < tensor->rank; i++) {
        if (!size_from_json(json_array_get(shape, i), &tensor->shape[i])) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "tensor %s: dimension %u is not an integer from 0", shown, i);
        }
    }
    return ONESTEP_OK;
}

static onestep_status read_tensor(const json_t *entry, const char *shown, const uint8_t *data,
                                  size_t data_size, named_tensor *tensor, data_range *range,
                                  onestep_error *error)
{
    if (!json_is_object(entry)) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "tensor %s: an object expected", shown);
    }
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (type == NULL) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "tensor %s: \"dtype\" is missing or no text",
                         shown);
    }
    if (!type_from_name(type, &tensor->type)) {
        char shown_type[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "tensor %s has the type %s: F32, F16, BF16, F64, I64, I32, I16, I8, U8 "
                         "and BOOL are read",
                         shown, text_shown(shown_type, type, strlen(type)));
    }
    onestep_status status = read_shape(entry, shown, tensor, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (!tensor_byte_count(tensor->type, tensor->rank, tensor->shape, &tensor->bytes)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "tensor %s: the shape is larger than any memory", shown);
    }
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (json_array_size(offsets) != 2 ||
        !size_from_json(json_array_get(offsets, 0), &range->begin) ||
        !size_from_json(json_array_get(offsets, 1), &range->end) || range->begin > range->end) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "tensor %s: \"data_offsets\" are not [begin, end]", shown);
    }
    if (range->end > data_size) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "tensor %s ends at byte %zu of the data, which has %zu: the file is cut "
                         "off or damaged",
                         shown, range->end, data_size);
    }
    if (range->end - range->begin != tensor->bytes) {
        char shape[TENSOR_SHAPE_TEXT];
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "tensor %s: %s %s needs %zu bytes, the offsets give %zu", shown,
                         element_name(tensor->type), tensor_shape_text(tensor, shape),
                         tensor->bytes, range->end - range->begin);
    }
    tensor->data = data + range->begin;
    tensor->mapped = true;
    return ONESTEP_OK;
}

static int compare_ranges(const void *a, const void *b)
{
    const data_range *first = a, *second = b;
    if (first->begin != second->begin) {
        return first->begin < second->begin ? -1 : 1;
    }
    return (first->end > second->end) - (first->end < second->end);
}

/* Every byte of the data must belong to exactly one tensor. */
static onestep_status check_ranges(const weight_file *file, data_range *ranges, size_t count,
                                   size_t data_size, onestep_error *error)
{
    qsort(ranges, count, sizeof(*ranges), compare_ranges);
    size_t end = 0;
    char shown[TEXT_SHOWN];
    for (size_t i = 0; i < count; i++) {
        const char *name = file->tensors[ranges[i].tensor].name;
        if (ranges[i].begin < end) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "tensor %s begins at byte %zu, inside the tensor before it (ends at "
                             "%zu)",
                             text_shown(shown, name, strlen(name)), ranges[i].begin, end);
        }
        if (ranges[i].begin > end) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "bytes %zu to %zu before tensor %s belong to no tensor", end,
                             ranges[i].begin, text_shown(shown, name, strlen(name)));
        }
        end = ranges[i].end;
    }
    if (end != data_size) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "the tensors end at byte %zu of the data, which has %zu", end, data_size);
    }
    return ONESTEP_OK;
}

static onestep_status read_metadata(weight_file *file, json_t *pairs, onestep_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(pairs)) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "__metadata__ is no object");
    }
    json_object_foreach(pairs, key, value)
    {
        if (!json_is_string(value)) {
            char shown[TEXT_SHOWN];
            return error_set(error, ONESTEP_ERROR_FORMAT, "__metadata__: %s is no text",
                             text_shown(shown, key, strlen(key)));
        }
        onestep_status status =
            weight_file_add_metadata(file, key, json_string_value(value), error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    return ONESTEP_OK;
}

static onestep_status read_entries(weight_file *file, json_t *header, const uint8_t *data,
                                   size_t data_size, onestep_error *error)
{
    data_range *ranges = memory_allocate(json_object_size(header), sizeof(*ranges), error);
    if (ranges == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = ONESTEP_OK;
    size_t count = 0;
    const char *key;
    json_t *entry;
    json_object_foreach(header, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0) {
            status = read_metadata(file, entry, error);
        } else {
            char shown[TEXT_SHOWN];
            named_tensor tensor = {0};
            status = read_tensor(entry, text_shown(shown, key, strlen(key)), data, data_size,
                                 &tensor, &ranges[count], error);
            if (status == ONESTEP_OK) {
                ranges[count++].tensor = file->count;
                status = weight_file_add(file, &tensor, key, strlen(key), error);
            }
        }
        if (status != ONESTEP_OK) {
            goto done;
        }
    }
    status = check_ranges(file, ranges, count, data_size, error);
done:
    memory_free(ranges);
    return status;
}

onestep_status safetensors_read(weight_file *file, const uint8_t *bytes, size_t size,
                                onestep_error *error)
{
    uint64_t header_size;
    memcpy(&header_size, bytes, LENGTH_BYTES);
    if (header_size > JSON_TEXT_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "a safetensors header of %llu bytes: the limit is %zu",
                         (unsigned long long)header_size, JSON_TEXT_LIMIT);
    }
    if (header_size > size - LENGTH_BYTES) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "the safetensors header has %llu bytes, the rest of the file %zu: it is "
                         "cut off or damaged",
                         (unsigned long long)header_size, size - LENGTH_BYTES);
    }
    json_t *header;
    onestep_status status = json_text_parse(&header, bytes + LENGTH_BYTES, header_size, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "the safetensors header");
        return status;
    }
    status = read_entries(file, header, bytes + LENGTH_BYTES + header_size,
                          size - LENGTH_BYTES - header_size, error);
    json_decref(header);
    return status;
}
