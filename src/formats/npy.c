/* .npy arrays (NEP 1): magic, version, header length, a Python dict as text, the data. */
#include "formats/tensor.h"
#include "formats/text.h"

#include <string.h>

#define MAGIC        "\x93NUMPY"
#define MAGIC_LENGTH 6
#define HEADER_LIMIT ((size_t)64 * 1024)
#define FILE_LIMIT   ((size_t)1024 * 1024 * 1024)
#define DATA_ALIGN   ((size_t)64)

/* The header, read from left to right. */
typedef struct npy_cursor {
    const char *text;
    size_t length, position;
} npy_cursor;

static char peek(npy_cursor *cursor)
{
    while (cursor->position < cursor->length &&
           strchr(" \t\r\n", cursor->text[cursor->position]) != NULL &&
           cursor->text[cursor->position] != '\0') {
        cursor->position++;
    }
    return cursor->position < cursor->length ? cursor->text[cursor->position] : '\0';
}

static bool accept(npy_cursor *cursor, char expected)
{
    if (expected == '\0' || peek(cursor) != expected) {
        return false;
    }
    cursor->position++;
    return true;
}

static bool accept_word(npy_cursor *cursor, const char *word)
{
    size_t length = strlen(word);
    (void)peek(cursor);
    if (cursor->length - cursor->position < length ||
        memcmp(cursor->text + cursor->position, word, length) != 0) {
        return false;
    }
    cursor->position += length;
    return true;
}

/* 'text' or "text" without escapes. */
static bool accept_string(npy_cursor *cursor, const char **text, size_t *length)
{
    char quote = peek(cursor);
    if (quote != '\'' && quote != '"') {
        return false;
    }
    const char *begin = cursor->text + cursor->position + 1;
    const char *end = memchr(begin, quote, cursor->length - cursor->position - 1);
    if (end == NULL) {
        return false;
    }
    *text = begin;
    *length = (size_t)(end - begin);
    cursor->position += *length + 2;
    return true;
}

static bool accept_size(npy_cursor *cursor, size_t *size)
{
    char digit = peek(cursor);
    if (digit < '0' || digit > '9') {
        return false;
    }
    *size = 0;
    while (cursor->position < cursor->length) {
        digit = cursor->text[cursor->position];
        if (digit < '0' || digit > '9') {
            break;
        }
        if (!size_multiply(*size, 10, size) || !size_add(*size, (size_t)(digit - '0'), size)) {
            return false;
        }
        cursor->position++;
    }
    return true;
}

static bool is_text(const char *text, size_t length, const char *expected)
{
    return strlen(expected) == length && memcmp(text, expected, length) == 0;
}

static onestep_status read_type(npy_cursor *cursor, named_tensor *tensor, onestep_error *error)
{
    static const struct {
        const char *name;
        element_type type;
    } types[] = {{"<f4", ELEMENT_F32},
                 {"<f8", ELEMENT_F64},
                 {"<f2", ELEMENT_F16},
                 {"<i8", ELEMENT_I64},
                 {"<i4", ELEMENT_I32}};
    const char *text;
    size_t length;
    if (!accept_string(cursor, &text, &length)) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "npy: the type is no simple one (arrays of records are not read)");
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (is_text(text, length, types[i].name)) {
            tensor->type = types[i].type;
            return ONESTEP_OK;
        }
    }
    char shown[TEXT_SHOWN];
    return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                     "npy: the type %s is not read: little-endian float32, float64, float16, "
                     "int64 and int32 are",
                     text_shown(shown, text, length));
}

static onestep_status read_shape(npy_cursor *cursor, named_tensor *tensor, onestep_error *error)
{
    bool good = accept(cursor, '(');
    tensor->rank = 0;
    while (good && !accept(cursor, ')')) {
        if (tensor->rank == TENSOR_RANK_LIMIT) {
            return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                             "npy: more than %d dimensions are not read", TENSOR_RANK_LIMIT);
        }
        good = accept_size(cursor, &tensor->shape[tensor->rank]);
        tensor->rank++;
        if (good && !accept(cursor, ',')) {
            good = peek(cursor) == ')' && tensor->rank > 1;
        }
    }
    return good ? ONESTEP_OK
                : error_set(error, ONESTEP_ERROR_FORMAT, "npy: the shape is not readable");
}

static onestep_status read_order(npy_cursor *cursor, onestep_error *error)
{
    if (accept_word(cursor, "True")) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "npy: Fortran order is not read: save numpy.ascontiguousarray(array)");
    }
    return accept_word(cursor, "False") ? ONESTEP_OK
                                        : error_set(error, ONESTEP_ERROR_FORMAT,
                                                    "npy: fortran_order is neither True nor "
                                                    "False");
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), } in any order. */
static onestep_status read_header(npy_cursor *cursor, named_tensor *tensor, onestep_error *error)
{
    enum { TYPE = 1, ORDER = 2, SHAPE = 4, ALL = 7 };
    unsigned seen = 0;
    bool good = accept(cursor, '{');
    while (good && !accept(cursor, '}')) {
        const char *key;
        size_t length;
        unsigned field = 0;
        good = accept_string(cursor, &key, &length) && accept(cursor, ':');
        if (good) {
            field = is_text(key, length, "descr")           ? TYPE
                    : is_text(key, length, "fortran_order") ? ORDER
                    : is_text(key, length, "shape")         ? SHAPE
                                                            : 0;
        }
        good = field != 0 && (seen & field) == 0;
        if (!good) {
            break;
        }
        seen |= field;
        onestep_status status = field == TYPE    ? read_type(cursor, tensor, error)
                                : field == ORDER ? read_order(cursor, error)
                                                 : read_shape(cursor, tensor, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        good = accept(cursor, ',') || peek(cursor) == '}';
    }
    if (!good || seen != ALL || peek(cursor) != '\0' || cursor->position != cursor->length) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "npy: the header is not {'descr', 'fortran_order', 'shape'}");
    }
    return ONESTEP_OK;
}

/* The place of the header; `*data` is where it ends. */
static onestep_status find_header(const uint8_t *bytes, size_t size, npy_cursor *cursor,
                                  size_t *data, onestep_error *error)
{
    if (size < MAGIC_LENGTH + 4 || memcmp(bytes, MAGIC, MAGIC_LENGTH) != 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "npy: not a .npy file, or cut off");
    }
    unsigned version = bytes[MAGIC_LENGTH];
    if (version < 1 || version > 3 || bytes[MAGIC_LENGTH + 1] != 0) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "npy: version %u.%u is not read: 1.0, 2.0 and 3.0 are", version,
                         bytes[MAGIC_LENGTH + 1]);
    }
    size_t length_bytes = version == 1 ? 2 : 4;
    size_t begin = MAGIC_LENGTH + 2 + length_bytes;
    uint32_t length = 0;
    if (size < begin) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "npy: cut off in the header");
    }
    memcpy(&length, bytes + MAGIC_LENGTH + 2, length_bytes);
    if (length > HEADER_LIMIT || length > size - begin) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "npy: a header of %u bytes (the limit is %zu) in a file of %zu", length,
                         HEADER_LIMIT, size);
    }
    *cursor = (npy_cursor){(const char *)bytes + begin, length, 0};
    *data = begin + length;
    return ONESTEP_OK;
}

/* The tensor with `data` inside `bytes`. */
static onestep_status parse(named_tensor *tensor, const uint8_t *bytes, size_t size,
                            onestep_error *error)
{
    npy_cursor cursor = {0};
    size_t data = 0;
    onestep_status status = find_header(bytes, size, &cursor, &data, error);
    if (status == ONESTEP_OK) {
        status = read_header(&cursor, tensor, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    char shown[TENSOR_SHAPE_TEXT];
    if (!tensor_byte_count(tensor->type, tensor->rank, tensor->shape, &tensor->bytes)) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "npy: the shape %s is larger than any memory",
                         tensor_shape_text(tensor, shown));
    }
    if (tensor->bytes != size - data) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "npy: %s %s needs %zu bytes, the file has %zu", element_name(tensor->type),
                         tensor_shape_text(tensor, shown), tensor->bytes, size - data);
    }
    tensor->data = bytes + data;
    return ONESTEP_OK;
}

onestep_status npy_parse(named_tensor *tensor, const char *name, const void *bytes, size_t size,
                         onestep_error *error)
{
    *tensor = (named_tensor){.name = ""};
    named_tensor parsed = {.name = ""};
    onestep_status status = size > FILE_LIMIT
                                ? error_set(error, ONESTEP_ERROR_FORMAT,
                                            "npy: %zu bytes: the limit is %zu", size, FILE_LIMIT)
                                : parse(&parsed, bytes, size, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", name);
        return status;
    }
    void *copy = memory_allocate(1, parsed.bytes, error);
    if (copy == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    memcpy(copy, parsed.data, parsed.bytes);
    parsed.data = copy;
    *tensor = parsed;
    return ONESTEP_OK;
}

onestep_status npy_read(named_tensor *tensor, const char *path, onestep_error *error)
{
    *tensor = (named_tensor){.name = ""};
    mapped_file file;
    onestep_status status = mapped_file_open(&file, path, error);
    if (status == ONESTEP_OK) {
        status = npy_parse(tensor, path, file.data, file.size, error);
        mapped_file_close(&file);
    }
    return status;
}

void npy_free(named_tensor *tensor)
{
    memory_free((void *)(uintptr_t)tensor->data);
    tensor->data = NULL;
}

onestep_status npy_write(const char *path, element_type type, unsigned rank, const size_t *shape,
                         const void *data, onestep_error *error)
{
    size_t bytes;
    if ((type != ELEMENT_F32 && type != ELEMENT_I64) || rank > TENSOR_RANK_LIMIT ||
        !tensor_byte_count(type, rank, shape, &bytes)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s: float32 and int64 arrays of at most %d dimensions are written", path,
                         TENSOR_RANK_LIMIT);
    }
    text_buffer header = {0};
    text_buffer_append(&header, MAGIC "\x01\x00\x00\x00", MAGIC_LENGTH + 4);
    text_buffer_print(&header, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                      type == ELEMENT_F32 ? "<f4" : "<i8");
    for (unsigned i = 0; i < rank; i++) {
        text_buffer_print(&header, i == 0 ? "%zu" : ", %zu", shape[i]);
    }
    text_buffer_print(&header, rank == 1 ? ",), }" : "), }");
    while (!header.failed && (header.length + 1) % DATA_ALIGN != 0) {
        text_buffer_append(&header, " ", 1);
    }
    text_buffer_append(&header, "\n", 1);
    onestep_status status;
    if (header.failed) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory for the header", path);
    } else {
        uint16_t length = (uint16_t)(header.length - MAGIC_LENGTH - 4);
        memcpy(header.data + MAGIC_LENGTH + 2, &length, sizeof(length));
        file_part parts[] = {{header.data, header.length}, {data, bytes}};
        status = file_write_parts(path, parts, 2, error);
    }
    text_buffer_free(&header);
    return status;
}
