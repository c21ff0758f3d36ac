/* What a request's body holds: named texts and one picture. Everything is bounded, nothing is
 * believed. */
#ifndef ONESTEP_SERVE_FORM_H
#define ONESTEP_SERVE_FORM_H

#include "base/base.h"

enum {
    FORM_FIELDS_MOST = 64,
    FORM_NAME_MOST = 63,       /* bytes of a field's name */
    FORM_TEXT_MOST = 16 * 1024 /* bytes of a text field */
};

typedef struct form_field {
    char name[FORM_NAME_MOST + 1];
    char *text; /* UTF-8 without NUL */
} form_field;

typedef struct form {
    form_field fields[FORM_FIELDS_MOST];
    size_t count;
    uint8_t *picture; /* a picture file; NULL when there was none */
    size_t picture_size;
} form;

/* Both zero the form first, and leave it empty on failure (ONESTEP_ERROR_FORMAT: not what the
 * content type says; ONESTEP_ERROR_ARGUMENT: well-formed, but not acceptable; out of memory).
 *
 * multipart/form-data: the part "image" (or "image[]") is the picture, every other part a text.
 * `content_type` is the header's value, with the boundary. */
onestep_status form_parse_multipart(form *result, const char *content_type, const uint8_t *body,
                                    size_t size, onestep_error *error) MUST_USE;
/* A JSON object: "image" is the picture in base64 (a data: URL is welcome), texts are strings,
 * numbers or booleans. null is the same as absent. */
onestep_status form_parse_json(form *result, const uint8_t *body, size_t size,
                               onestep_error *error) MUST_USE;
void form_free(form *f);

/* The text of a field, or NULL. */
const char *form_text(const form *f, const char *name);

/* True when a header's value names this media type, whatever its parameters. */
bool media_type_is(const char *value, const char *type);

/* ---- base64 (RFC 4648; line breaks and missing padding are tolerated) --------------------------
 */

/* `*bytes` is released with memory_free. */
onestep_status base64_decode(uint8_t **bytes, size_t *size, const char *text, size_t length,
                             onestep_error *error) MUST_USE;
void base64_append(text_buffer *out, const uint8_t *bytes, size_t size);

#endif
