/* Which pictures to translate, and what their outputs are called. */
#ifndef ONESTEP_CLI_INPUTS_H
#define ONESTEP_CLI_INPUTS_H

#include "cli/options.h"

typedef struct input_list {
    char **paths; /* "-" is standard input */
    size_t count, capacity;
} input_list;

/* Expands what was given with --input: a file, a folder (its pictures, sorted by name), a glob
 * pattern, @list (a name a line, or divided by NUL bytes; @- from standard input), or "-". Nothing
 * found is an error. */
onestep_status inputs_collect(input_list *list, const options_given *given, onestep_error *error);
void inputs_free(input_list *list);

/* The last part of a path without its suffix: "a/bird.png" -> "bird"; "-" -> "stdin". Owned by the
 * caller. */
char *path_stem(const char *path, onestep_error *error) MUST_USE;
/* The last part of a path. */
const char *path_base(const char *path);

#endif
