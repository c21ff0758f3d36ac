/* A growing byte string. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

/* Makes room for `length` more bytes and the NUL. */
static bool text_buffer_reserve(text_buffer *buffer, size_t length)
{
    size_t needed;
    if (buffer->failed || !size_add(buffer->length, length, &needed) ||
        !size_add(needed, 1, &needed)) {
        buffer->failed = true;
        return false;
    }
    if (needed <= buffer->capacity) {
        return true;
    }
    size_t capacity = size_maximum(needed, 64);
    if (buffer->capacity <= SIZE_MAX / 2) {
        capacity = size_maximum(capacity, buffer->capacity * 2);
    }
    char *data = memory_resize(buffer->data, capacity, 1, NULL);
    if (data == NULL) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void text_buffer_append(text_buffer *buffer, const void *bytes, size_t length)
{
    if (!text_buffer_reserve(buffer, length)) {
        return;
    }
    if (length > 0) {
        memcpy(buffer->data + buffer->length, bytes, length);
    }
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void text_buffer_print(text_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        buffer->failed = true;
        return;
    }
    if (!text_buffer_reserve(buffer, (size_t)length)) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

void text_buffer_free(text_buffer *buffer)
{
    memory_free(buffer->data);
    *buffer = (text_buffer){0};
}
