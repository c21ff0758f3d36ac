/* Values as a protocol 2 pickle, in the order and with the memo that Python's pickler has. */
#include "formats/pickle_writer.h"

#include "formats/pickle.h"

#include <stdio.h>
#include <string.h>

/* Python fills containers by so many elements at a time. */
#define BATCH ((size_t)1000)

typedef struct pickle_writer {
    pickle_stream *stream;
    text_buffer *out;
    name_map *memo; /* address of a value, or a constant's text (never 8 bytes) -> memo number */
    uint32_t memo_count;
    name_map *storages;                           /* data, size and type -> storage number */
    const pickle_value *open[PICKLE_DEPTH_LIMIT]; /* containers being written */
    size_t open_count;
} pickle_writer;

/* ---- opcodes --------------------------------------------------------------------------------- */

static void put_byte(pickle_writer *writer, int byte)
{
    text_buffer_append(writer->out, &(uint8_t){(uint8_t)byte}, 1);
}

/* An opcode with a little-endian number of `count` bytes. */
static void put_number(pickle_writer *writer, int code, uint64_t number, size_t count)
{
    put_byte(writer, code);
    text_buffer_append(writer->out, &number, count);
}

static void put_integer(pickle_writer *writer, int64_t integer)
{
    if (integer >= 0 && integer <= UINT8_MAX) {
        put_number(writer, 'K', (uint64_t)integer, 1);
    } else if (integer >= 0 && integer <= UINT16_MAX) {
        put_number(writer, 'M', (uint64_t)integer, 2);
    } else if (integer >= INT32_MIN && integer <= INT32_MAX) {
        put_number(writer, 'J', (uint64_t)integer, 4);
    } else {
        /* As few bytes as hold the number with its sign. */
        size_t count = 8;
        while (integer >> (8 * count - 9) == (integer < 0 ? -1 : 0)) {
            count--;
        }
        put_number(writer, 0x8A, count, 1);
        text_buffer_append(writer->out, &integer, count);
    }
}

static void put_float(pickle_writer *writer, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof(bits));
    put_number(writer, 'G', __builtin_bswap64(bits), 8);
}

static void put_string(pickle_writer *writer, const char *text)
{
    size_t length = strlen(text);
    put_number(writer, 'X', length, 4);
    text_buffer_append(writer->out, text, length);
}

/* ---- memo ------------------------------------------------------------------------------------ */

/* Numbers what was just written; `key` (may be NULL) finds it again. */
static onestep_status memo_put(pickle_writer *writer, const void *key, size_t length,
                               onestep_error *error)
{
    uint32_t number = writer->memo_count++;
    if (number <= UINT8_MAX) {
        put_number(writer, 'q', number, 1);
    } else {
        put_number(writer, 'r', number, 4);
    }
    return key == NULL ? ONESTEP_OK : name_map_put(writer->memo, key, length, number, error);
}

static onestep_status memo_put_value(pickle_writer *writer, const pickle_value *value,
                                     onestep_error *error)
{
    return memo_put(writer, &value, sizeof(value), error);
}

/* Writes a reference when the key is in the memo. */
static bool memo_get(pickle_writer *writer, const void *key, size_t length)
{
    uint32_t number;
    if (!name_map_get(writer->memo, key, length, &number)) {
        return false;
    }
    if (number <= UINT8_MAX) {
        put_number(writer, 'h', number, 1);
    } else {
        put_number(writer, 'j', number, 4);
    }
    return true;
}

/* "module\nname\n" */
static onestep_status put_global(pickle_writer *writer, const char *name, onestep_error *error)
{
    size_t length = strlen(name);
    if (memo_get(writer, name, length)) {
        return ONESTEP_OK;
    }
    put_byte(writer, 'c');
    text_buffer_append(writer->out, name, length);
    return memo_put(writer, name, length, error);
}

static onestep_status put_constant(pickle_writer *writer, const char *text, onestep_error *error)
{
    if (memo_get(writer, text, strlen(text))) {
        return ONESTEP_OK;
    }
    put_string(writer, text);
    return memo_put(writer, text, strlen(text), error);
}

/* OrderedDict() */
static onestep_status put_ordered_dict(pickle_writer *writer, onestep_error *error)
{
    onestep_status status = put_global(writer, "collections\nOrderedDict\n", error);
    put_byte(writer, ')');
    put_byte(writer, 'R');
    return status;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const char *storage_global(element_type type)
{
    static const char *const names[ELEMENT_TYPE_COUNT] = {
        [ELEMENT_F32] = "torch\nFloatStorage\n",     [ELEMENT_F16] = "torch\nHalfStorage\n",
        [ELEMENT_BF16] = "torch\nBFloat16Storage\n", [ELEMENT_F64] = "torch\nDoubleStorage\n",
        [ELEMENT_I64] = "torch\nLongStorage\n",      [ELEMENT_I32] = "torch\nIntStorage\n",
        [ELEMENT_I16] = "torch\nShortStorage\n",     [ELEMENT_I8] = "torch\nCharStorage\n",
        [ELEMENT_U8] = "torch\nByteStorage\n",       [ELEMENT_BOOL] = "torch\nBoolStorage\n"};
    return names[type];
}

/* The number of the tensor's storage; tensors with the same data share one. */
static onestep_status find_storage(pickle_writer *writer, const named_tensor *tensor,
                                   uint32_t *number, onestep_error *error)
{
    pickle_stream *stream = writer->stream;
    uintptr_t key[3] = {(uintptr_t)tensor->data, tensor->bytes, tensor->type};
    if (name_map_get(writer->storages, (const char *)key, sizeof(key), number)) {
        return ONESTEP_OK;
    }
    if (stream->storage_count == stream->storage_capacity) {
        size_t capacity = size_maximum(64, stream->storage_capacity * 2);
        file_part *grown = memory_resize(stream->storages, capacity, sizeof(*grown), error);
        if (grown == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        stream->storages = grown;
        stream->storage_capacity = capacity;
    }
    *number = (uint32_t)stream->storage_count;
    stream->storages[stream->storage_count++] = (file_part){tensor->data, tensor->bytes};
    return name_map_put(writer->storages, (const char *)key, sizeof(key), *number, error);
}

/* The storage's number as text, which later tensors over the same storage refer to. */
static onestep_status put_storage_key(pickle_writer *writer, uint32_t number, onestep_error *error)
{
    char memo_key[32];
    (void)snprintf(memo_key, sizeof(memo_key), "storage %u", number);
    if (memo_get(writer, memo_key, strlen(memo_key))) {
        return ONESTEP_OK;
    }
    put_string(writer, memo_key + strlen("storage "));
    return memo_put(writer, memo_key, strlen(memo_key), error);
}

/* ('storage', torch.FloatStorage, '0', 'cpu', count) as a persistent id */
static onestep_status put_storage(pickle_writer *writer, const named_tensor *tensor,
                                  onestep_error *error)
{
    uint32_t number;
    onestep_status status = find_storage(writer, tensor, &number, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    put_byte(writer, '(');
    status = put_constant(writer, "storage", error);
    if (status == ONESTEP_OK) {
        status = put_global(writer, storage_global(tensor->type), error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    status = put_storage_key(writer, number, error);
    if (status == ONESTEP_OK) {
        status = put_constant(writer, "cpu", error);
    }
    put_integer(writer, (int64_t)tensor_element_count(tensor));
    put_byte(writer, 't');
    if (status == ONESTEP_OK) {
        status = memo_put(writer, NULL, 0, error);
    }
    put_byte(writer, 'Q');
    return status;
}

/* A tuple of sizes. */
static onestep_status put_sizes(pickle_writer *writer, unsigned rank, const int64_t *sizes,
                                onestep_error *error)
{
    if (rank == 0) {
        put_byte(writer, ')');
        return ONESTEP_OK;
    }
    if (rank > 3) {
        put_byte(writer, '(');
    }
    for (unsigned i = 0; i < rank; i++) {
        put_integer(writer, sizes[i]);
    }
    put_byte(writer, rank > 3 ? 't' : 0x84 + (int)rank);
    return memo_put(writer, NULL, 0, error);
}

/* torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()) */
static onestep_status put_tensor(pickle_writer *writer, const pickle_value *value,
                                 onestep_error *error)
{
    const named_tensor *tensor = pickle_tensor(value);
    int64_t shape[TENSOR_RANK_LIMIT], strides[TENSOR_RANK_LIMIT], stride = 1;
    for (unsigned i = tensor->rank; i-- > 0;) {
        shape[i] = (int64_t)tensor->shape[i];
        strides[i] = stride;
        stride *= tensor->shape[i] == 0 ? 1 : (int64_t)tensor->shape[i];
    }
    onestep_status status = put_global(writer, "torch._utils\n_rebuild_tensor_v2\n", error);
    put_byte(writer, '(');
    if (status == ONESTEP_OK) {
        status = put_storage(writer, tensor, error);
    }
    put_integer(writer, 0);
    if (status == ONESTEP_OK) {
        status = put_sizes(writer, tensor->rank, shape, error);
    }
    if (status == ONESTEP_OK) {
        status = put_sizes(writer, tensor->rank, strides, error);
    }
    put_byte(writer, 0x89);
    if (status == ONESTEP_OK) {
        status = put_ordered_dict(writer, error);
    }
    if (status == ONESTEP_OK) {
        status = memo_put(writer, NULL, 0, error);
    }
    put_byte(writer, 't');
    if (status == ONESTEP_OK) {
        status = memo_put(writer, NULL, 0, error);
    }
    put_byte(writer, 'R');
    return status == ONESTEP_OK ? memo_put_value(writer, value, error) : status;
}

/* ---- containers ------------------------------------------------------------------------------ */

static onestep_status put_value(pickle_writer *writer, const pickle_value *value,
                                onestep_error *error);

/* Element `index`, behind its key in a dict. */
static onestep_status put_element(pickle_writer *writer, const pickle_value *container,
                                  size_t index, onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    if (pickle_kind_of(container) == PICKLE_DICT) {
        status = put_value(writer, pickle_key(container, index), error);
    }
    return status == ONESTEP_OK ? put_value(writer, pickle_item(container, index), error) : status;
}

/* Fills the list or dict on the stack: `one` is the opcode for one element, `many` for a batch. */
static onestep_status fill(pickle_writer *writer, const pickle_value *container, int one, int many,
                           onestep_error *error)
{
    size_t count = pickle_count(container);
    onestep_status status = ONESTEP_OK;
    for (size_t begin = 0; begin < count && status == ONESTEP_OK;) {
        size_t batch = size_minimum(count - begin, BATCH);
        if (batch > 1) {
            put_byte(writer, '(');
        }
        for (size_t i = 0; i < batch && status == ONESTEP_OK; i++) {
            status = put_element(writer, container, begin + i, error);
        }
        put_byte(writer, batch > 1 ? many : one);
        begin += batch;
    }
    return status;
}

static onestep_status put_dict(pickle_writer *writer, const pickle_value *dict,
                               onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    if (pickle_is_ordered_dict(dict)) {
        status = put_ordered_dict(writer, error);
    } else {
        put_byte(writer, '}');
    }
    if (status == ONESTEP_OK) {
        status = memo_put_value(writer, dict, error);
    }
    return status == ONESTEP_OK ? fill(writer, dict, 's', 'u', error) : status;
}

static onestep_status put_tuple(pickle_writer *writer, const pickle_value *tuple,
                                onestep_error *error)
{
    size_t count = pickle_count(tuple);
    if (count == 0) {
        put_byte(writer, ')');
        return ONESTEP_OK;
    }
    if (count > 3) {
        put_byte(writer, '(');
    }
    for (size_t i = 0; i < count; i++) {
        onestep_status status = put_value(writer, pickle_item(tuple, i), error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    put_byte(writer, count > 3 ? 't' : 0x84 + (int)count);
    return memo_put_value(writer, tuple, error);
}

/* set([items]) */
static onestep_status put_set(pickle_writer *writer, const pickle_value *set, onestep_error *error)
{
    onestep_status status = put_global(writer, "__builtin__\nset\n", error);
    put_byte(writer, ']');
    if (status == ONESTEP_OK) {
        status = memo_put(writer, NULL, 0, error);
    }
    if (status == ONESTEP_OK) {
        status = fill(writer, set, 'a', 'e', error);
    }
    put_byte(writer, 0x85);
    if (status == ONESTEP_OK) {
        status = memo_put(writer, NULL, 0, error);
    }
    put_byte(writer, 'R');
    return status == ONESTEP_OK ? memo_put_value(writer, set, error) : status;
}

static onestep_status put_container(pickle_writer *writer, const pickle_value *container,
                                    onestep_error *error)
{
    for (size_t i = 0; i < writer->open_count; i++) {
        if (writer->open[i] == container) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT, "pickle: a %s contains itself",
                             pickle_kind_name(pickle_kind_of(container)));
        }
    }
    if (writer->open_count == PICKLE_DEPTH_LIMIT) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "pickle: nested deeper than %d",
                         PICKLE_DEPTH_LIMIT);
    }
    if (memo_get(writer, &container, sizeof(container))) {
        return ONESTEP_OK;
    }
    writer->open[writer->open_count++] = container;
    onestep_status status;
    switch (pickle_kind_of(container)) {
    case PICKLE_LIST:
        put_byte(writer, ']');
        status = memo_put_value(writer, container, error);
        if (status == ONESTEP_OK) {
            status = fill(writer, container, 'a', 'e', error);
        }
        break;
    case PICKLE_TUPLE:
        status = put_tuple(writer, container, error);
        break;
    case PICKLE_SET:
        status = put_set(writer, container, error);
        break;
    default:
        status = put_dict(writer, container, error);
        break;
    }
    writer->open_count--;
    return status;
}

static onestep_status put_value(pickle_writer *writer, const pickle_value *value,
                                onestep_error *error)
{
    switch (pickle_kind_of(value)) {
    case PICKLE_NONE:
        put_byte(writer, 'N');
        return ONESTEP_OK;
    case PICKLE_BOOLEAN:
        put_byte(writer, pickle_boolean(value) ? 0x88 : 0x89);
        return ONESTEP_OK;
    case PICKLE_INTEGER:
        put_integer(writer, pickle_integer(value));
        return ONESTEP_OK;
    case PICKLE_FLOAT:
        put_float(writer, pickle_float(value));
        return ONESTEP_OK;
    case PICKLE_STRING:
        if (memo_get(writer, &value, sizeof(value))) {
            return ONESTEP_OK;
        }
        put_string(writer, pickle_string(value));
        return memo_put_value(writer, value, error);
    case PICKLE_TENSOR:
        if (memo_get(writer, &value, sizeof(value))) {
            return ONESTEP_OK;
        }
        return put_tensor(writer, value, error);
    case PICKLE_LIST:
    case PICKLE_TUPLE:
    case PICKLE_DICT:
    case PICKLE_SET:
        break;
    }
    return put_container(writer, value, error);
}

onestep_status pickle_write(pickle_stream *stream, const pickle_value *root, onestep_error *error)
{
    pickle_writer writer = {.stream = stream, .out = &stream->bytes};
    onestep_status status = name_map_create(&writer.memo, error);
    if (status == ONESTEP_OK) {
        status = name_map_create(&writer.storages, error);
    }
    if (status == ONESTEP_OK) {
        put_number(&writer, 0x80, 2, 1);
        status = put_value(&writer, root, error);
        put_byte(&writer, '.');
    }
    if (status == ONESTEP_OK && stream->bytes.failed) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "pickle: no memory for %zu bytes",
                           stream->bytes.length);
    }
    if (status == ONESTEP_OK && stream->bytes.length > PICKLE_STREAM_LIMIT) {
        status = error_set(error, ONESTEP_ERROR_ARGUMENT, "pickle: %zu bytes: the limit is %zu",
                           stream->bytes.length, PICKLE_STREAM_LIMIT);
    }
    name_map_destroy(&writer.memo);
    name_map_destroy(&writer.storages);
    return status;
}

void pickle_stream_free(pickle_stream *stream)
{
    text_buffer_free(&stream->bytes);
    memory_free(stream->storages);
    *stream = (pickle_stream){0};
}
