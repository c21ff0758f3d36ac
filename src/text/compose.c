#include "text/compose.h"
#include "text/unicode.h"

#include <string.h>
#include <sys/types.h>
#include <utf8proc.h>

/* The `tokenizers` library composes with the tables of Unicode 9.0. These are the later code points
 * that are marks with a combining class or take part in compositions, as of Unicode 18.0: to the
 * library they are strangers that neither move nor compose. (Found by comparing the library with
 * unicodedata2, code point by code point.) */
static const uint32_t STRANGERS[][2] = {
    {0x05c8, 0x05c9},   {0x07fd, 0x07fd},   {0x0897, 0x089f},   {0x08ca, 0x08d3},
    {0x09fe, 0x09fe},   {0x0c3c, 0x0c3c},   {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},
    {0x1715, 0x1715},   {0x1abf, 0x1af0},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
    {0x105c9, 0x105c9}, {0x105d2, 0x105d2}, {0x105da, 0x105da}, {0x105e4, 0x105e4},
    {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10ecb, 0x10ecf},
    {0x10ef0, 0x10efb}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11382, 0x11385}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x11391}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5},
    {0x113c7, 0x113c8}, {0x113ce, 0x113d0}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
    {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
    {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
    {0x1611e, 0x1611e}, {0x16121, 0x16129}, {0x1612f, 0x1612f}, {0x16d63, 0x16d63},
    {0x16d67, 0x16d6a}, {0x16ff0, 0x16ff1}, {0x1d127, 0x1d128}, {0x1d250, 0x1d252},
    {0x1d25b, 0x1d25c}, {0x1d25f, 0x1d25f}, {0x1d280, 0x1d281}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
    {0x1e5ee, 0x1e5ef}, {0x1e6e3, 0x1e6e3}, {0x1e6e6, 0x1e6e6}, {0x1e6ee, 0x1e6ef},
    {0x1e6f5, 0x1e6f5},
};

/* Whether nothing composes with the code point. utf8proc takes U+11A7, one before the first Hangul
 * final consonant, for one and loses it after a syllable (2.8). */
static bool is_inert(uint32_t point)
{
    if (point == 0x11a7) {
        return true;
    }
    size_t low = 0, high = sizeof STRANGERS / sizeof *STRANGERS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point > STRANGERS[middle][1]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < sizeof STRANGERS / sizeof *STRANGERS && point >= STRANGERS[low][0];
}

void point_list_free(point_list *list)
{
    memory_free(list->points);
    *list = (point_list){0};
}

static unsigned combining_class(int32_t point)
{
    if (is_inert((uint32_t)point)) {
        return 0;
    }
    return (unsigned)utf8proc_get_property(point)->combining_class;
}

/* Appends the canonical decomposition of a code point. */
static onestep_status append_decomposed(point_list *list, uint32_t point, onestep_error *error)
{
    enum { LONGEST = 32 }; /* no code point decomposes to more than four */
    if (list->capacity - list->count < LONGEST) {
        size_t capacity = size_maximum(list->capacity * 2, 256);
        int32_t *points = memory_resize(list->points, capacity, sizeof *points, error);
        if (points == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        list->points = points;
        list->capacity = capacity;
    }
    if (is_inert(point)) {
        list->points[list->count++] = (int32_t)point;
        return ONESTEP_OK;
    }
    int boundary = UTF8PROC_BOUNDCLASS_START;
    ssize_t count = utf8proc_decompose_char((int32_t)point, list->points + list->count, LONGEST,
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
static onestep_status order_marks(int32_t *marks, size_t count, onestep_error *error)
{
    bool ordered = true;
    for (size_t i = 1; i < count && ordered; ++i) {
        ordered = combining_class(marks[i - 1]) <= combining_class(marks[i]);
    }
    if (ordered) {
        return ONESTEP_OK;
    }
    int32_t *sorted = memory_allocate(count, sizeof *sorted, error);
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

/* Composes decomposed, ordered code points: the stretches between inert ones, each alone. */
static onestep_status compose_points(point_list *list, onestep_error *error)
{
    size_t kept = 0;
    for (size_t start = 0; start < list->count;) {
        size_t end = start;
        while (end < list->count && !is_inert((uint32_t)list->points[end])) {
            ++end;
        }
        ssize_t count = 0;
        if (end > start) {
            count = utf8proc_normalize_utf32(list->points + start, (ssize_t)(end - start),
                                             UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        }
        if (count < 0) {
            return error_set(error, ONESTEP_ERROR_INTERNAL, "prompt: cannot be composed");
        }
        memmove(list->points + kept, list->points + start, (size_t)count * sizeof *list->points);
        kept += (size_t)count;
        if (end < list->count) {
            list->points[kept++] = list->points[end++];
        }
        start = end;
    }
    list->count = kept;
    return ONESTEP_OK;
}

onestep_status compose_text(point_list *list, const char *text, size_t length, onestep_error *error)
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
    return compose_points(list, error);
}
