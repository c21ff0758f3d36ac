#include "formats/json_text.h"

#include "formats/text.h"

#include <string.h>

#define NESTING_LIMIT 32
#define VALUE_LIMIT   ((size_t)1024 * 1024)

/* What jansson reads: ["xx...x",TEXT]. jansson 2.14 drops characters of a token without a word
 * when its token buffer cannot grow. The string in front makes that buffer as large as the longest
 * token of TEXT: a lack of memory shows in that string, and TEXT is read whole or not at all. */
typedef struct json_piece {
    const char *text; /* NULL: `length` times 'x' */
    size_t length;
} json_piece;

#define PIECE_COUNT 5

typedef struct json_feed {
    json_piece pieces[PIECE_COUNT];
    size_t piece, position;
} json_feed;

static size_t feed_read(void *buffer, size_t size, void *context)
{
    json_feed *feed = context;
    size_t written = 0;
    while (written < size && feed->piece < PIECE_COUNT) {
        const json_piece *piece = &feed->pieces[feed->piece];
        size_t step = size_minimum(piece->length - feed->position, size - written);
        if (piece->text == NULL) {
            memset((char *)buffer + written, 'x', step);
        } else if (step > 0) {
            memcpy((char *)buffer + written, piece->text + feed->position, step);
        }
        written += step;
        feed->position += step;
        if (feed->position == piece->length) {
            feed->piece++;
            feed->position = 0;
        }
    }
    return written;
}

/* Bounds what the parser will do: nesting, number of values, and the longest token in bytes. */
static onestep_status scan_limits(const char *text, size_t length, size_t *longest,
                                  onestep_error *error)
{
    size_t depth = 0, values = 1, token = 0;
    bool in_string = false;
    *longest = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        token++;
        if (in_string) {
            if (c == '\\' && i + 1 < length) {
                i++;
                token++;
            } else if (c == '"') {
                in_string = false;
            }
            *longest = size_maximum(*longest, token);
            continue;
        }
        switch (c) {
        case '"':
            in_string = true;
            token = 1;
            break;
        case '{':
        case '[':
            values++;
            depth++;
            token = 0;
            if (depth > NESTING_LIMIT) {
                return error_set(error, ONESTEP_ERROR_FORMAT,
                                 "JSON nested deeper than %d at offset %zu", NESTING_LIMIT, i);
            }
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            token = 0;
            break;
        case ',':
            values++;
            token = 0;
            break;
        case ':':
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            token = 0;
            break;
        default:
            *longest = size_maximum(*longest, token);
        }
        if (values > VALUE_LIMIT) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "JSON with more than %zu values",
                             VALUE_LIMIT);
        }
    }
    return ONESTEP_OK;
}

/* What jansson says, in terms of TEXT, which begins at `begin` of what it read. Some
 * allocation failures come as syntax errors, which cannot be told apart. */
static onestep_status parse_failure(const json_error_t *problem, size_t begin, size_t length,
                                    onestep_error *error)
{
    char shown[TEXT_SHOWN];
    if (json_error_code(problem) == json_error_out_of_memory || problem->text[0] == '\0') {
        return error_set(error, ONESTEP_ERROR_MEMORY, "no memory for JSON of %zu bytes", length);
    }
    size_t position = problem->position > 0 ? (size_t)problem->position : 0;
    if (position > begin + length) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "bad JSON: it ends in the middle, after %zu bytes: is it cut off?",
                         length);
    }
    return error_set(error, ONESTEP_ERROR_FORMAT, "bad JSON at line %d, offset %zu: %s",
                     problem->line, size_maximum(position, begin) - begin,
                     text_shown(shown, problem->text, strlen(problem->text)));
}

onestep_status json_text_parse(json_t **object, const void *text, size_t length,
                               onestep_error *error)
{
    *object = NULL;
    if (length > JSON_TEXT_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "JSON of %zu bytes: the limit is %zu", length,
                         JSON_TEXT_LIMIT);
    }
    size_t longest;
    onestep_status status = scan_limits(text, length, &longest, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (length == 0 || (longest == 0 && memchr(text, '{', length) == NULL)) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "one JSON object expected");
    }
    size_t padding = longest + 8;
    json_feed feed = {
        .pieces = {{"[\"", 2}, {NULL, padding}, {"\",", 2}, {text, length}, {"]", 1}}};
    json_error_t problem;
    json_t *wrapper = json_load_callback(feed_read, &feed, JSON_REJECT_DUPLICATES, &problem);
    if (wrapper == NULL) {
        return parse_failure(&problem, padding + 4, length, error);
    }
    if (json_string_length(json_array_get(wrapper, 0)) != padding) {
        json_decref(wrapper);
        return error_set(error, ONESTEP_ERROR_MEMORY, "no memory for JSON of %zu bytes", length);
    }
    json_t *value = json_array_get(wrapper, 1);
    if (json_array_size(wrapper) != 2 || !json_is_object(value)) {
        json_decref(wrapper);
        return error_set(error, ONESTEP_ERROR_FORMAT, "one JSON object expected");
    }
    *object = json_incref(value);
    json_decref(wrapper);
    return ONESTEP_OK;
}
