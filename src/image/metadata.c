/* Texts that travel with a picture, and the growing block of bytes that encoders write to. */
#include "image/image_private.h"

#include <string.h>

/* ---- bytes ---------------------------------------------------------------------------------- */

void byte_sink_append(byte_sink *sink, const void *bytes, size_t size)
{
    size_t needed;
    if (sink->failed || size == 0) {
        return;
    }
    if (!size_add(sink->size, size, &needed)) {
        sink->failed = true;
        return;
    }
    if (needed > sink->capacity) {
        size_t capacity = size_maximum(needed, size_maximum(4096, sink->capacity));
        if (!size_add(capacity, capacity / 2, &capacity)) {
            sink->failed = true;
            return;
        }
        uint8_t *grown = memory_resize(sink->data, capacity, 1, NULL);
        if (grown == NULL) {
            sink->failed = true;
            return;
        }
        sink->data = grown;
        sink->capacity = capacity;
    }
    memcpy(sink->data + sink->size, bytes, size);
    sink->size = needed;
}

void byte_sink_free(byte_sink *sink)
{
    memory_free(sink->data);
    *sink = (byte_sink){0};
}

/* ---- UTF-8 ---------------------------------------------------------------------------------- */

/* The length of the sequence at the start, or 0 when it is not well-formed UTF-8. */
static size_t utf8_sequence(const uint8_t *bytes, size_t size)
{
    static const struct {
        uint8_t first_low, first_high, second_low, second_high, length;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t form = 0; form < sizeof forms / sizeof *forms; form++) {
        if (bytes[0] < forms[form].first_low || bytes[0] > forms[form].first_high) {
            continue;
        }
        size_t length = forms[form].length;
        if (length > size || (length > 1 && (bytes[1] < forms[form].second_low ||
                                             bytes[1] > forms[form].second_high))) {
            return 0;
        }
        for (size_t i = 2; i < length; i++) {
            if ((bytes[i] & 0xc0) != 0x80) {
                return 0;
            }
        }
        return length;
    }
    return 0;
}

static bool is_utf8(const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t length = utf8_sequence(bytes, size);
        if (length == 0) {
            return false;
        }
        bytes += length;
        size -= length;
    }
    return true;
}

/* A NUL-terminated copy in UTF-8. */
static char *text_copy(const uint8_t *bytes, size_t size, onestep_error *error)
{
    const uint8_t *end = size > 0 ? memchr(bytes, 0, size) : NULL;
    if (end != NULL) {
        size = (size_t)(end - bytes);
    }
    bool utf8 = is_utf8(bytes, size);
    size_t capacity;
    if (!size_multiply(size, utf8 ? 1 : 2, &capacity) || !size_add(capacity, 1, &capacity)) {
        error_set(error, ONESTEP_ERROR_MEMORY, "text of %zu bytes is too long", size);
        return NULL;
    }
    char *copy = memory_allocate(capacity, 1, error);
    if (copy == NULL) {
        return NULL;
    }
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        if (utf8 || bytes[i] < 0x80) {
            copy[length++] = (char)bytes[i];
        } else {
            copy[length++] = (char)(0xc0 | bytes[i] >> 6);
            copy[length++] = (char)(0x80 | (bytes[i] & 0x3f));
        }
    }
    copy[length] = '\0';
    return copy;
}

/* ---- entries -------------------------------------------------------------------------------- */

onestep_status metadata_append(image_metadata *metadata, const void *key, size_t key_length,
                               const void *value, size_t value_length, onestep_error *error)
{
    if (metadata->count == metadata->capacity) {
        size_t capacity = metadata->capacity + metadata->capacity / 2 + 8;
        struct image_metadata_entry *grown =
            memory_resize(metadata->entries, capacity, sizeof *grown, error);
        if (grown == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        metadata->entries = grown;
        metadata->capacity = capacity;
    }
    struct image_metadata_entry entry = {text_copy(key, key_length, error), NULL};
    if (entry.key == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    entry.value = text_copy(value, value_length, error);
    if (entry.value == NULL) {
        memory_free(entry.key);
        return ONESTEP_ERROR_MEMORY;
    }
    metadata->entries[metadata->count++] = entry;
    return ONESTEP_OK;
}

static bool key_is_valid(const char *key)
{
    size_t length = strlen(key);
    if (length < 1 || length > 79 || key[0] == ' ' || key[length - 1] == ' ') {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (key[i] < 32 || key[i] > 126 || key[i] == ':' || (key[i] == ' ' && key[i + 1] == ' ')) {
            return false;
        }
    }
    return true;
}

onestep_status image_metadata_add(image_metadata *metadata, const char *key, const char *value,
                                  onestep_error *error)
{
    if (!key_is_valid(key)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "metadata key \"%.100s\": expected 1 to 79 printable ASCII letters, no "
                         "':', no space at an end or twice",
                         key);
    }
    if (!is_utf8((const uint8_t *)value, strlen(value))) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "metadata \"%s\": the value is not UTF-8",
                         key);
    }
    return metadata_append(metadata, key, strlen(key), value, strlen(value), error);
}

const char *image_metadata_find(const image_metadata *metadata, const char *key)
{
    for (size_t i = 0; i < metadata->count; i++) {
        if (strcmp(metadata->entries[i].key, key) == 0) {
            return metadata->entries[i].value;
        }
    }
    return NULL;
}

void image_metadata_free(image_metadata *metadata)
{
    for (size_t i = 0; i < metadata->count; i++) {
        memory_free(metadata->entries[i].key);
        memory_free(metadata->entries[i].value);
    }
    memory_free(metadata->entries);
    *metadata = (image_metadata){0};
}

/* ---- all entries as one text ---------------------------------------------------------------- */

onestep_status metadata_to_text(byte_sink *text, const image_metadata *metadata,
                                onestep_error *error)
{
    byte_sink_append(text, METADATA_TEXT_PREFIX, strlen(METADATA_TEXT_PREFIX));
    for (size_t i = 0; i < metadata->count; i++) {
        byte_sink_append(text, metadata->entries[i].key, strlen(metadata->entries[i].key));
        byte_sink_append(text, ": ", 2);
        for (const char *letter = metadata->entries[i].value; *letter != '\0'; letter++) {
            switch (*letter) {
            case '\\':
                byte_sink_append(text, "\\\\", 2);
                break;
            case '\n':
                byte_sink_append(text, "\\n", 2);
                break;
            case '\r':
                byte_sink_append(text, "\\r", 2);
                break;
            default:
                byte_sink_append(text, letter, 1);
            }
        }
        byte_sink_append(text, "\n", 1);
    }
    if (text->failed) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "no memory for the picture's metadata");
    }
    return ONESTEP_OK;
}

/* One line "key: value" as an entry; other lines are skipped. */
static onestep_status line_to_entry(image_metadata *metadata, const char *line, size_t length,
                                    onestep_error *error)
{
    const char *colon = length > 0 ? memchr(line, ':', length) : NULL;
    if (colon == NULL || colon == line || (size_t)(colon - line) + 2 > length || colon[1] != ' ') {
        return ONESTEP_OK;
    }
    size_t key_length = (size_t)(colon - line);
    const char *value = colon + 2;
    size_t value_length = length - key_length - 2;
    byte_sink plain = {0};
    byte_sink_append(&plain, "", 1); /* so that an empty value has an address, too */
    for (size_t i = 0; i < value_length; i++) {
        char letter = value[i];
        if (letter == '\\' && i + 1 < value_length) {
            i++;
            letter = value[i] == 'n' ? '\n' : value[i] == 'r' ? '\r' : value[i];
        }
        byte_sink_append(&plain, &letter, 1);
    }
    onestep_status status;
    if (plain.failed) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "no memory for the picture's metadata");
    } else {
        status = metadata_append(metadata, line, key_length, plain.data + 1, plain.size - 1, error);
    }
    byte_sink_free(&plain);
    return status;
}

onestep_status metadata_from_text(image_metadata *metadata, const char *text, size_t length,
                                  const char *other_key, onestep_error *error)
{
    size_t prefix = strlen(METADATA_TEXT_PREFIX);
    if (length < prefix || memcmp(text, METADATA_TEXT_PREFIX, prefix) != 0) {
        return metadata_append(metadata, other_key, strlen(other_key), text, length, error);
    }
    text += prefix;
    length -= prefix;
    while (length > 0) {
        const char *end = memchr(text, '\n', length);
        size_t line = end != NULL ? (size_t)(end - text) : length;
        onestep_status status = line_to_entry(metadata, text, line, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        size_t taken = size_minimum(line + 1, length);
        text += taken;
        length -= taken;
    }
    return ONESTEP_OK;
}
