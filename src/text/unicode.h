/* What the tokenizer needs of Unicode; private to text. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include "base/base.h"

/* Reads the code point at text[*position], which is below `length`, and moves on; false, with
 * *position unchanged, where the bytes are no UTF-8 (RFC 3629). */
bool utf8_read(const char *text, size_t length, size_t *position, uint32_t *point);

/* Appends a code point as UTF-8. */
void utf8_append(text_buffer *buffer, uint32_t point);

typedef enum point_class {
    POINT_OTHER,  /* signs, marks, controls */
    POINT_SPACE,  /* White_Space */
    POINT_LETTER, /* \p{L} */
    POINT_NUMBER  /* \p{N} */
} point_class;

point_class unicode_class(uint32_t point);

/* Appends valid UTF-8 in CLIP's normal form: composed (NFC), runs of white space as one space,
 * lower case. */
onestep_status unicode_normalize(text_buffer *normal, const char *text, size_t length,
                                 onestep_error *error) MUST_USE;

#endif
