/* jansson within limits: formats.h lists them. */
#ifndef FORMATS_JSON_TEXT_H
#define FORMATS_JSON_TEXT_H

#include "base/base.h"

#include <jansson.h>

#define JSON_TEXT_LIMIT ((size_t)16 * 1024 * 1024)

/* Parses `text` (UTF-8) as one JSON object without duplicate keys. The caller releases `*object`
 * with json_decref. Errors give the line or the offset, not the file. */
onestep_status json_text_parse(json_t **object, const void *text, size_t length,
                               onestep_error *error) MUST_USE;

#endif
