#include "serve/form.h"

onestep_status base64_decode(uint8_t **bytes, size_t *size, const char *text, size_t length,
                             onestep_error *error)
{
    *bytes = NULL;
    *size = 0;
    uint8_t *result = memory_allocate(length / 4 * 3 + 3, 1, error);
    if (!result) {
        return ONESTEP_ERROR_MEMORY;
    }
    uint32_t group = 0;
    size_t held = 0, written = 0, padding = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        int value = c >= 'A' && c <= 'Z'     ? c - 'A'
                    : c >= 'a' && c <= 'z'   ? c - 'a' + 26
                    : c >= '0' && c <= '9'   ? c - '0' + 52
                    : c == '+' || c == '-'   ? 62
                    : c == '/' || c == '_'   ? 63
                    : c == '='               ? -2
                    : c == '\r' || c == '\n' ? -3
                                             : -1;
        if (value == -3) {
            continue;
        }
        if (value == -2) {
            padding++;
            continue;
        }
        if (value == -1 || padding) {
            memory_free(result);
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "no base64: byte %zu of %zu is not of its alphabet", i, length);
        }
        group = group << 6 | (uint32_t)value;
        if (++held == 4) {
            result[written++] = (uint8_t)(group >> 16);
            result[written++] = (uint8_t)(group >> 8);
            result[written++] = (uint8_t)group;
            held = 0;
            group = 0;
        }
    }
    if (held == 1 || padding > 2) {
        memory_free(result);
        return error_set(error, ONESTEP_ERROR_FORMAT, "no base64: cut off after %zu characters",
                         length);
    }
    if (held >= 2) {
        group <<= 6 * (4 - held);
        result[written++] = (uint8_t)(group >> 16);
        if (held == 3) {
            result[written++] = (uint8_t)(group >> 8);
        }
    }
    *bytes = result;
    *size = written;
    return ONESTEP_OK;
}

void base64_append(text_buffer *out, const uint8_t *bytes, size_t size)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char block[4 * 256];
    size_t filled = 0;
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0);
        block[filled++] = alphabet[group >> 18];
        block[filled++] = alphabet[group >> 12 & 63];
        block[filled++] = left > 1 ? alphabet[group >> 6 & 63] : '=';
        block[filled++] = left > 2 ? alphabet[group & 63] : '=';
        if (filled == sizeof block) {
            text_buffer_append(out, block, filled);
            filled = 0;
        }
    }
    text_buffer_append(out, block, filled);
}
