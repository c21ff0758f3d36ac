#include "serve/form.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void form_free(form *f)
{
    for (size_t i = 0; i < f->count; i++) {
        memory_free(f->fields[i].text);
    }
    memory_free(f->picture);
    memset(f, 0, sizeof *f);
}

const char *form_text(const form *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->fields[i].name, name) == 0) {
            return f->fields[i].text;
        }
    }
    return NULL;
}

bool media_type_is(const char *value, const char *type)
{
    size_t length = strlen(type);
    return value && strncasecmp(value, type, length) == 0 &&
           (value[length] == '\0' || value[length] == ';' || value[length] == ' ');
}

/* ---- collecting ------------------------------------------------------------------------------ */

static bool is_utf8(const char *text, size_t size)
{
    /* jansson refuses a string that is not. */
    json_t *string = json_stringn(text, size);
    json_decref(string);
    return string != NULL;
}

static onestep_status add_text(form *f, const char *name, const char *text, size_t size,
                               onestep_error *error)
{
    if (form_text(f, name)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "the field \"%s\" is given twice", name);
    }
    if (f->count == FORM_FIELDS_MOST) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "more than %d fields", FORM_FIELDS_MOST);
    }
    if (size > FORM_TEXT_MOST) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "the field \"%s\" has %zu bytes; a text may have %d", name, size,
                         FORM_TEXT_MOST);
    }
    if (memchr(text, '\0', size) || !is_utf8(text, size)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "the field \"%s\" is not UTF-8 text without NUL", name);
    }
    form_field *field = &f->fields[f->count];
    field->text = memory_allocate(size + 1, 1, error);
    if (!field->text) {
        return ONESTEP_ERROR_MEMORY;
    }
    memcpy(field->text, text, size);
    snprintf(field->name, sizeof field->name, "%s", name);
    f->count++;
    return ONESTEP_OK;
}

static onestep_status check_name(const char *name, size_t length, onestep_error *error)
{
    if (length == 0 || length > FORM_NAME_MOST) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "a field's name has %zu bytes (1 to %d)",
                         length, FORM_NAME_MOST);
    }
    for (size_t i = 0; i < length; i++) {
        if (name[i] < 0x21 || name[i] > 0x7e || name[i] == '"' || name[i] == '\\') {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "a field's name has other characters than letters, digits and signs");
        }
    }
    return ONESTEP_OK;
}

static bool is_picture_name(const char *name)
{
    return strcmp(name, "image") == 0 || strcmp(name, "image[]") == 0;
}

static onestep_status second_picture(const form *f, onestep_error *error)
{
    return f->picture ? error_set(error, ONESTEP_ERROR_ARGUMENT,
                                  "more than one picture: send one \"image\" a request")
                      : ONESTEP_OK;
}

/* ---- multipart/form-data (RFC 7578) ------------------------------------------------------------
 */

/* What is not read yet. */
typedef struct reader {
    const uint8_t *at, *end;
} reader;

static onestep_status find_boundary(const char *content_type, char delimiter[80],
                                    onestep_error *error)
{
    const char *at = content_type;
    while ((at = strchr(at, ';')) != NULL) {
        at++;
        at += strspn(at, " \t");
        if (strncasecmp(at, "boundary=", 9) == 0) {
            at += 9;
            bool quoted = *at == '"';
            at += quoted;
            size_t length = quoted ? strcspn(at, "\"") : strcspn(at, "; \t");
            if (length == 0 || length > 70 || (quoted && at[length] != '"')) {
                break;
            }
            snprintf(delimiter, 80, "\r\n--%.*s", (int)length, at);
            return ONESTEP_OK;
        }
    }
    return error_set(error, ONESTEP_ERROR_FORMAT,
                     "multipart/form-data without a boundary of 1 to 70 characters");
}

/* A parameter's value in a Content-Disposition line: NAME="value". */
static bool find_parameter(const char *line, size_t length, const char *name, const char **value,
                           size_t *value_length)
{
    size_t name_length = strlen(name);
    const char *end = line + length;
    for (const char *at = line; (at = memchr(at, ';', (size_t)(end - at))) != NULL;) {
        at++;
        while (at < end && (*at == ' ' || *at == '\t')) {
            at++;
        }
        if ((size_t)(end - at) > name_length && strncasecmp(at, name, name_length) == 0 &&
            at[name_length] == '=') {
            at += name_length + 1;
            bool quoted = at < end && *at == '"';
            at += quoted;
            const char *stop = memchr(at, quoted ? '"' : ';', (size_t)(end - at));
            if (quoted && !stop) {
                return false;
            }
            *value = at;
            *value_length = (size_t)((stop ? stop : end) - at);
            return true;
        }
        /* Over a quoted value that may hold semicolons. */
        const char *quote = memchr(at, '"', (size_t)(end - at));
        const char *next = memchr(at, ';', (size_t)(end - at));
        if (quote && next && quote < next) {
            const char *close = memchr(quote + 1, '"', (size_t)(end - quote - 1));
            at = close ? close + 1 : end;
        }
    }
    return false;
}

/* Reads a part's headers up to the empty line; the name lies in the body. */
static onestep_status read_part_headers(reader *r, const char **name, size_t *name_length,
                                        onestep_error *error)
{
    *name = NULL;
    for (size_t lines = 0;; lines++) {
        const uint8_t *stop = memmem(r->at, (size_t)(r->end - r->at), "\r\n", 2);
        if (!stop || lines > 16 || stop - r->at > 4096) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "multipart: a part's header lines are damaged or too long");
        }
        const char *line = (const char *)r->at;
        size_t length = (size_t)(stop - r->at);
        r->at = stop + 2;
        if (length == 0) {
            break;
        }
        static const char disposition[] = "content-disposition:";
        static const char encoding[] = "content-transfer-encoding:";
        if (length >= sizeof encoding - 1 &&
            strncasecmp(line, encoding, sizeof encoding - 1) == 0 &&
            (memmem(line, length, "base64", 6) || memmem(line, length, "quoted", 6))) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "multipart: parts must be sent as they are, without a transfer "
                             "encoding (base64 belongs into JSON)");
        }
        if (length >= sizeof disposition - 1 &&
            strncasecmp(line, disposition, sizeof disposition - 1) == 0) {
            find_parameter(line, length, "name", name, name_length);
        }
    }
    return *name ? ONESTEP_OK
                 : error_set(error, ONESTEP_ERROR_FORMAT,
                             "multipart: a part without Content-Disposition: form-data; name=...");
}

static onestep_status add_part(form *f, const char *name, size_t name_length, const uint8_t *bytes,
                               size_t size, onestep_error *error)
{
    char text[FORM_NAME_MOST + 1];
    onestep_status status = check_name(name, name_length, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    memcpy(text, name, name_length);
    text[name_length] = '\0';
    if (!is_picture_name(text)) {
        return add_text(f, text, (const char *)bytes, size, error);
    }
    status = second_picture(f, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    f->picture = memory_allocate(size, 1, error);
    if (!f->picture) {
        return ONESTEP_ERROR_MEMORY;
    }
    memcpy(f->picture, bytes, size);
    f->picture_size = size;
    return ONESTEP_OK;
}

onestep_status form_parse_multipart(form *result, const char *content_type, const uint8_t *body,
                                    size_t size, onestep_error *error)
{
    char delimiter[80];
    memset(result, 0, sizeof *result);
    onestep_status status = find_boundary(content_type, delimiter, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    size_t length = strlen(delimiter);
    reader r = {body, body + size};
    /* The first delimiter may stand at the very start, without the line break before it. */
    if (size >= length - 2 && memcmp(body, delimiter + 2, length - 2) == 0) {
        r.at += length - 2;
    } else {
        const uint8_t *first = memmem(body, size, delimiter, length);
        r.at = first ? first + length : r.end;
    }
    for (bool last = false; status == ONESTEP_OK && !last;) {
        if (r.end - r.at < 2) {
            status = error_set(error, ONESTEP_ERROR_FORMAT,
                               "multipart: the body ends before its last boundary");
        } else if (memcmp(r.at, "--", 2) == 0) {
            last = true;
        } else if (memcmp(r.at, "\r\n", 2) != 0) {
            status = error_set(error, ONESTEP_ERROR_FORMAT,
                               "multipart: a boundary is followed by neither a part nor the end");
        } else {
            const char *name = NULL;
            size_t name_length = 0;
            r.at += 2;
            status = read_part_headers(&r, &name, &name_length, error);
            /* An empty part's delimiter begins with the line break that ended its headers. */
            const uint8_t *from = r.at - 2;
            const uint8_t *stop = status == ONESTEP_OK
                                      ? memmem(from, (size_t)(r.end - from), delimiter, length)
                                      : NULL;
            if (status == ONESTEP_OK && !stop) {
                status = error_set(error, ONESTEP_ERROR_FORMAT,
                                   "multipart: the body ends inside a part");
            } else if (status == ONESTEP_OK) {
                size_t part = stop > r.at ? (size_t)(stop - r.at) : 0;
                status = add_part(result, name, name_length, r.at, part, error);
                r.at = stop + length;
            }
        }
    }
    if (status != ONESTEP_OK) {
        form_free(result);
    }
    return status;
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static onestep_status add_json_picture(form *f, const json_t *value, onestep_error *error)
{
    if (!json_is_string(value)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "\"image\" must be a string: the picture file in base64");
    }
    onestep_status status = second_picture(f, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    if (strncmp(text, "data:", 5) == 0) {
        const char *comma = memchr(text, ',', size_minimum(length, 256));
        if (!comma || comma - text < 12 || memcmp(comma - 7, ";base64", 7) != 0) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "\"image\" is a data: URL without ;base64,");
        }
        length -= (size_t)(comma + 1 - text);
        text = comma + 1;
    }
    status = base64_decode(&f->picture, &f->picture_size, text, length, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "\"image\"");
    }
    return status == ONESTEP_ERROR_FORMAT ? ONESTEP_ERROR_ARGUMENT : status;
}

static onestep_status add_json(form *f, const char *name, const json_t *value, onestep_error *error)
{
    char number[64];
    onestep_status status = check_name(name, strlen(name), error);
    if (status != ONESTEP_OK || json_is_null(value)) {
        return status;
    }
    if (is_picture_name(name)) {
        return add_json_picture(f, value, error);
    }
    if (json_is_string(value)) {
        return add_text(f, name, json_string_value(value), json_string_length(value), error);
    }
    if (json_is_boolean(value)) {
        const char *text = json_is_true(value) ? "true" : "false";
        return add_text(f, name, text, strlen(text), error);
    }
    if (json_is_number(value)) {
        if (json_is_integer(value)) {
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        } else {
            snprintf(number, sizeof number, "%.17g", json_real_value(value));
        }
        return add_text(f, name, number, strlen(number), error);
    }
    return error_set(error, ONESTEP_ERROR_ARGUMENT,
                     "the field \"%s\" must be a string, a number or true or false", name);
}

onestep_status form_parse_json(form *result, const uint8_t *body, size_t size, onestep_error *error)
{
    memset(result, 0, sizeof *result);
    json_error_t reason;
    json_t *root = json_loadb((const char *)body, size, JSON_REJECT_DUPLICATES, &reason);
    if (!root) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "no JSON: line %d, column %d: %.200s",
                         reason.line, reason.column, reason.text);
    }
    onestep_status status = ONESTEP_OK;
    if (!json_is_object(root)) {
        status = error_set(error, ONESTEP_ERROR_FORMAT,
                           "the JSON is no object: expected {\"task\": ..., \"image\": ...}");
    }
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        status = add_json(result, name, value, error);
        if (status != ONESTEP_OK) {
            break;
        }
    }
    json_decref(root);
    if (status != ONESTEP_OK) {
        form_free(result);
    }
    return status;
}
