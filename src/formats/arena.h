/* Memory that is released all at once, with a limit: for what a file's headers are turned into. */
#ifndef FORMATS_ARENA_H
#define FORMATS_ARENA_H

#include "base/base.h"

typedef struct arena_block arena_block;

/* Zero-initialise, then set `limit`. */
typedef struct arena {
    arena_block *blocks;   /* the newest first */
    size_t used;           /* in the newest block */
    size_t total;          /* bytes in all blocks */
    size_t limit;          /* of `total` */
    onestep_status status; /* of the last failure */
} arena;

/* Zeroed, aligned to 16 bytes; ONESTEP_ERROR_FORMAT when the limit is reached (the file asks for
 * too much), ONESTEP_ERROR_MEMORY when there is no memory. */
void *arena_allocate(arena *memory, size_t count, size_t size, onestep_error *error) MUST_USE;
/* What to return after a NULL: the code that is in `error`. */
onestep_status arena_failure(const arena *memory);
/* A NUL-terminated copy. */
char *arena_string(arena *memory, const char *text, size_t length, onestep_error *error) MUST_USE;
void arena_free(arena *memory);

#endif
