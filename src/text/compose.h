/* Canonical composition (NFC); private to text. */
#ifndef TEXT_COMPOSE_H
#define TEXT_COMPOSE_H

#include "base/base.h"

/* Code points. Zero-initialise. */
typedef struct point_list {
    int32_t *points;
    size_t count, capacity;
} point_list;

void point_list_free(point_list *list);

/* Fills an empty list with the composed form of valid UTF-8, as of Unicode 9.0 like the
 * `tokenizers` library. Time is linear. */
onestep_status compose_text(point_list *list, const char *text, size_t length,
                            onestep_error *error) MUST_USE;

#endif
