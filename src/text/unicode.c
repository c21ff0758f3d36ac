#include "text/unicode.h"

#include <string.h>
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

/* ---- composition (NFC) -------------------------------------------------------------------- */

typedef struct point_list {
    utf8proc_int32_t *points;
    size_t count, capacity;
} point_list;

static unsigned combining_class(utf8proc_int32_t point)
{
    return (unsigned)utf8proc_get_property(point)->combining_class;
}

/* Appends the canonical decomposition of a code point. */
static onestep_status append_decomposed(point_list *list, uint32_t point, onestep_error *error)
{
    enum { LONGEST = 32 }; /* no code point decomposes to more than four */
    if (list->capacity - list->count < LONGEST) {
        size_t capacity = size_maximum(list->capacity * 2, 256);
        utf8proc_int32_t *points = memory_resize(list->points, capacity, sizeof *points, error);
        if (points == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        list->points = points;
        list->capacity = capacity;
    }
    int boundary = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t count =
        utf8proc_decompose_char((utf8proc_int32_t)point, list->points + list->count, LONGEST,
                                UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
    if (count < 0 || count > LONGEST) {
        return error_set(error, ONESTEP_ERROR_INTERNAL, "prompt: U+%04X cannot be decomposed",
                         (unsigned)point);
    }
    list->count += (size_t)count;
    return ONESTEP_OK;
}

/* Puts a run of combining marks into the order of their classes, equal ones as they came. Counting
 * keeps this linear however many marks a hostile prompt piles up. */
static onestep_status order_marks(utf8proc_int32_t *marks, size_t count, onestep_error *error)
{
    bool ordered = true;
    for (size_t i = 1; i < count && ordered; ++i) {
        ordered = combining_class(marks[i - 1]) <= combining_class(marks[i]);
    }
    if (ordered) {
        return ONESTEP_OK;
    }
    utf8proc_int32_t *sorted = memory_allocate(count, sizeof *sorted, error);
    if (sorted == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; ++i) {
        starts[(combining_class(marks[i]) & 0xff) + 1] += 1;
    }
    for (size_t c = 1; c < 257; ++c) {
        starts[c] += starts[c - 1];
    }
    for (size_t i = 0; i < count; ++i) {
        sorted[starts[combining_class(marks[i]) & 0xff]++] = marks[i];
    }
    memcpy(marks, sorted, count * sizeof *marks);
    memory_free(sorted);
    return ONESTEP_OK;
}

/* Puts the composed form of the text into the list. */
static onestep_status compose(point_list *list, const char *text, size_t length,
                              onestep_error *error)
{
    uint32_t point;
    for (size_t position = 0; position < length && utf8_read(text, length, &position, &point);) {
        onestep_status status = append_decomposed(list, point, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    for (size_t i = 0; i < list->count;) {
        size_t end = i;
        while (end < list->count && combining_class(list->points[end]) != 0) {
            ++end;
        }
        onestep_status status = order_marks(list->points + i, end - i, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        i = end + 1;
    }
    utf8proc_ssize_t count = utf8proc_normalize_utf32(list->points, (utf8proc_ssize_t)list->count,
                                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (count < 0) {
        return error_set(error, ONESTEP_ERROR_INTERNAL, "prompt: cannot be composed");
    }
    list->count = (size_t)count;
    return ONESTEP_OK;
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
        status = compose(&list, text, length, error);
        for (size_t i = 0; i < list.count && status == ONESTEP_OK; ++i) {
            append_normal(normal, (uint32_t)list.points[i], &after_space);
        }
    }
    if (status == ONESTEP_OK && normal->failed) {
        status =
            error_set(error, ONESTEP_ERROR_MEMORY, "out of memory: prompt of %zu bytes", length);
    }
    memory_free(list.points);
    return status;
}
