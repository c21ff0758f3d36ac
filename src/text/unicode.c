#include "text/unicode.h"
#include "text/compose.h"

#include <utf8proc.h>

/* ---- UTF-8 -------------------------------------------------------------------------------- */

bool utf8_read(const char *text, size_t length, size_t *position, uint32_t *point)
{
    const uint8_t *bytes = (const uint8_t *)text + *position;
    size_t left = length - *position;
    if (bytes[0] < 0x80) {
        *point = bytes[0];
        *position += 1;
        return true;
    }
    size_t size = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || size > left) {
        return false;
    }
    uint32_t value = bytes[0] & (0xff >> (size + 1));
    for (size_t i = 1; i < size; ++i) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return false;
        }
        value = value << 6 | (bytes[i] & 0x3f);
    }
    bool overlong = (size == 3 && value < 0x800) || (size == 4 && value < 0x10000);
    if (overlong || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
        return false;
    }
    *point = value;
    *position += size;
    return true;
}

void utf8_append(text_buffer *buffer, uint32_t point)
{
    char bytes[4];
    size_t size = 1;
    if (point < 0x80) {
        bytes[0] = (char)point;
    } else {
        size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
        for (size_t i = size - 1; i > 0; --i) {
            bytes[i] = (char)(0x80 | (point & 0x3f));
            point >>= 6;
        }
        bytes[0] = (char)((0xf00 >> size & 0xff) | point);
    }
    text_buffer_append(buffer, bytes, size);
}

/* ---- properties --------------------------------------------------------------------------- */

/* The property White_Space, unchanged since Unicode 6.3. */
static bool is_space(uint32_t point)
{
    return (point >= 0x09 && point <= 0x0d) || point == 0x20 || point == 0x85 || point == 0xa0 ||
           point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
           point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

point_class unicode_class(uint32_t point)
{
    if (is_space(point)) {
        return POINT_SPACE;
    }
    switch (utf8proc_category((utf8proc_int32_t)point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return POINT_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return POINT_NUMBER;
    default:
        return POINT_OTHER;
    }
}

/* ---- the normal form ---------------------------------------------------------------------- */

/* Appends one code point of a composed text; `*after_space` tells whether a space came before. */
static void append_normal(text_buffer *normal, uint32_t point, bool *after_space)
{
    bool space = is_space(point);
    if (space) {
        if (!*after_space) {
            utf8_append(normal, ' ');
        }
    } else if (point == 0x130) {
        /* The one code point whose full lower case is longer: i and a dot above. */
        utf8_append(normal, 'i');
        utf8_append(normal, 0x307);
    } else {
        utf8_append(normal, (uint32_t)utf8proc_tolower((utf8proc_int32_t)point));
    }
    *after_space = space;
}

/* Whether every code point is below U+0300: such texts are composed as they are. */
static bool is_composed_latin(const char *text, size_t length)
{
    for (size_t i = 0; i < length; ++i) {
        if ((uint8_t)text[i] >= 0xcc) {
            return false;
        }
    }
    return true;
}

onestep_status unicode_normalize(text_buffer *normal, const char *text, size_t length,
                                 onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    point_list list = {0};
    bool after_space = false;
    if (is_composed_latin(text, length)) {
        uint32_t point;
        for (size_t i = 0; i < length && utf8_read(text, length, &i, &point);) {
            append_normal(normal, point, &after_space);
        }
    } else {
        status = compose_text(&list, text, length, error);
        for (size_t i = 0; i < list.count && status == ONESTEP_OK; ++i) {
            append_normal(normal, (uint32_t)list.points[i], &after_space);
        }
    }
    if (status == ONESTEP_OK && normal->failed) {
        status =
            error_set(error, ONESTEP_ERROR_MEMORY, "out of memory: prompt of %zu bytes", length);
    }
    point_list_free(&list);
    return status;
}
