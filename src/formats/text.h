/* Text from files: is it UTF-8, and how it is shown in messages. */
#ifndef FORMATS_TEXT_H
#define FORMATS_TEXT_H

#include "base/base.h"

/* Whether all of `text` is UTF-8 without a NUL (no overlong forms, no surrogates). */
bool text_is_utf8(const char *text, size_t length);

#define TEXT_SHOWN 160
/* A name from a file, made fit for a one-line message: control characters become '?', invalid
 * UTF-8 too, long names end in "...". Returns `buffer`. */
const char *text_shown(char buffer[TEXT_SHOWN], const char *text, size_t length);

#endif
