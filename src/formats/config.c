/* JSON objects with typed getters. */
#include "formats/formats.h"
#include "formats/json_text.h"
#include "formats/text.h"

#include <math.h>
#include <string.h>

struct config {
    char *path; /* with the keys that lead to a child: "config.json: pad_token" */
    json_t *object;
    const char **keys; /* in the file's order */
    size_t count;
};

/* Takes over one reference to `object`, and `path`, also on failure. */
static onestep_status config_create(config **settings, char *path, json_t *object,
                                    onestep_error *error)
{
    *settings = NULL;
    config *created = path == NULL ? NULL : memory_allocate(1, sizeof(*created), error);
    if (created == NULL) {
        memory_free(path);
        json_decref(object);
        return ONESTEP_ERROR_MEMORY;
    }
    created->path = path;
    created->object = object;
    created->keys = memory_allocate(json_object_size(object), sizeof(*created->keys), error);
    if (created->keys == NULL) {
        config_close(&created);
        return ONESTEP_ERROR_MEMORY;
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        created->keys[created->count++] = key;
    }
    *settings = created;
    return ONESTEP_OK;
}

onestep_status config_parse(config **settings, const char *name, const void *text, size_t length,
                            onestep_error *error)
{
    *settings = NULL;
    json_t *object;
    onestep_status status = json_text_parse(&object, text, length, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", name);
        return status;
    }
    return config_create(settings, string_duplicate(name, error), object, error);
}

onestep_status config_open(config **settings, const char *path, onestep_error *error)
{
    *settings = NULL;
    uint8_t *bytes;
    size_t size;
    onestep_status status = file_read(path, JSON_TEXT_LIMIT, &bytes, &size, error);
    if (status == ONESTEP_OK) {
        status = config_parse(settings, path, bytes, size, error);
        memory_free(bytes);
    }
    return status;
}

void config_close(config **settings)
{
    if (*settings != NULL) {
        json_decref((*settings)->object);
        memory_free((*settings)->keys);
        memory_free((*settings)->path);
        memory_free(*settings);
        *settings = NULL;
    }
}

const char *config_path(const config *settings)
{
    return settings->path;
}

/* ---- errors ---------------------------------------------------------------------------------- */

static const char *kind_text(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static onestep_status wrong_kind(const config *settings, const char *key, const char *expected,
                                 const json_t *found, onestep_error *error)
{
    char shown[TEXT_SHOWN];
    return error_set(error, ONESTEP_ERROR_FORMAT, "%s: %s: %s expected, found %s", settings->path,
                     text_shown(shown, key, strlen(key)), expected, kind_text(found));
}

/* ---- looking up ------------------------------------------------------------------------------ */

/* NULL when missing or null. */
static json_t *find(const config *settings, const char *key)
{
    json_t *value = json_object_get(settings->object, key);
    return json_is_null(value) ? NULL : value;
}

config_kind config_kind_of(const config *settings, const char *key)
{
    const json_t *value = json_object_get(settings->object, key);
    if (value == NULL) {
        return CONFIG_MISSING;
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return CONFIG_OBJECT;
    case JSON_ARRAY:
        return CONFIG_LIST;
    case JSON_STRING:
        return CONFIG_STRING;
    case JSON_INTEGER:
        return CONFIG_INTEGER;
    case JSON_REAL:
        return CONFIG_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return CONFIG_BOOLEAN;
    case JSON_NULL:
        break;
    }
    return CONFIG_NULL;
}

bool config_has(const config *settings, const char *key)
{
    return find(settings, key) != NULL;
}

onestep_status config_require(const config *settings, const char *key, onestep_error *error)
{
    if (find(settings, key) == NULL) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_FORMAT, "%s: %s is missing", settings->path,
                         text_shown(shown, key, strlen(key)));
    }
    return ONESTEP_OK;
}

size_t config_count(const config *settings)
{
    return settings->count;
}

const char *config_key(const config *settings, size_t index)
{
    return settings->keys[index];
}

/* ---- one value ------------------------------------------------------------------------------- */

static onestep_status read_integer(const config *settings, const char *key, const json_t *found,
                                   int64_t minimum, int64_t maximum, int64_t *value,
                                   onestep_error *error)
{
    int64_t number;
    double real = json_is_real(found) ? json_real_value(found) : 0.5;
    if (json_is_integer(found)) {
        number = json_integer_value(found);
    } else if (real == floor(real) && fabs(real) <= 9007199254740992.0) {
        number = (int64_t)real;
    } else {
        return wrong_kind(settings, key, "an integer", found, error);
    }
    if (number < minimum || number > maximum) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "%s: %s: %lld is outside the range %lld to %lld", settings->path,
                         text_shown(shown, key, strlen(key)), (long long)number, (long long)minimum,
                         (long long)maximum);
    }
    *value = number;
    return ONESTEP_OK;
}

static onestep_status read_number(const config *settings, const char *key, const json_t *found,
                                  double minimum, double maximum, double *value,
                                  onestep_error *error)
{
    if (!json_is_number(found)) {
        return wrong_kind(settings, key, "a number", found, error);
    }
    double number = json_number_value(found);
    if (!(number >= minimum && number <= maximum)) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "%s: %s: %.10g is outside the range %.10g to %.10g", settings->path,
                         text_shown(shown, key, strlen(key)), number, minimum, maximum);
    }
    *value = number;
    return ONESTEP_OK;
}

static onestep_status read_boolean(const config *settings, const char *key, const json_t *found,
                                   bool *value, onestep_error *error)
{
    if (!json_is_boolean(found)) {
        return wrong_kind(settings, key, "true or false", found, error);
    }
    *value = json_is_true(found);
    return ONESTEP_OK;
}

static onestep_status read_string(const config *settings, const char *key, const json_t *found,
                                  const char **value, onestep_error *error)
{
    if (!json_is_string(found)) {
        return wrong_kind(settings, key, "a text", found, error);
    }
    *value = json_string_value(found);
    return ONESTEP_OK;
}

onestep_status config_integer(const config *settings, const char *key, int64_t fallback,
                              int64_t minimum, int64_t maximum, int64_t *value,
                              onestep_error *error)
{
    const json_t *found = find(settings, key);
    if (found == NULL) {
        *value = fallback;
        return ONESTEP_OK;
    }
    return read_integer(settings, key, found, minimum, maximum, value, error);
}

onestep_status config_number(const config *settings, const char *key, double fallback,
                             double minimum, double maximum, double *value, onestep_error *error)
{
    const json_t *found = find(settings, key);
    if (found == NULL) {
        *value = fallback;
        return ONESTEP_OK;
    }
    return read_number(settings, key, found, minimum, maximum, value, error);
}

onestep_status config_boolean(const config *settings, const char *key, bool fallback, bool *value,
                              onestep_error *error)
{
    const json_t *found = find(settings, key);
    if (found == NULL) {
        *value = fallback;
        return ONESTEP_OK;
    }
    return read_boolean(settings, key, found, value, error);
}

onestep_status config_string(const config *settings, const char *key, const char *fallback,
                             const char **value, onestep_error *error)
{
    const json_t *found = find(settings, key);
    if (found == NULL) {
        *value = fallback;
        return ONESTEP_OK;
    }
    return read_string(settings, key, found, value, error);
}

/* ---- lists ----------------------------------------------------------------------------------- */

/* The list under a key with at most *count elements, and its length in *count. When the key is
 * missing *list is NULL and *count the fallback. */
static onestep_status find_list(const config *settings, const char *key, size_t *count,
                                size_t fallback_count, const json_t **list, onestep_error *error)
{
    *list = find(settings, key);
    if (*list == NULL) {
        *count = fallback_count;
        return ONESTEP_OK;
    }
    if (!json_is_array(*list)) {
        return wrong_kind(settings, key, "a list", *list, error);
    }
    if (json_array_size(*list) > *count) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "%s: %s has %zu elements: at most %zu are supported", settings->path,
                         text_shown(shown, key, strlen(key)), json_array_size(*list), *count);
    }
    *count = json_array_size(*list);
    return ONESTEP_OK;
}

onestep_status config_integer_list(const config *settings, const char *key, int64_t minimum,
                                   int64_t maximum, int64_t *values, size_t *count,
                                   size_t fallback_count, onestep_error *error)
{
    const json_t *list;
    onestep_status status = find_list(settings, key, count, fallback_count, &list, error);
    for (size_t i = 0; i < json_array_size(list) && status == ONESTEP_OK; i++) {
        status = read_integer(settings, key, json_array_get(list, i), minimum, maximum, &values[i],
                              error);
    }
    return status;
}

onestep_status config_number_list(const config *settings, const char *key, double minimum,
                                  double maximum, double *values, size_t *count,
                                  size_t fallback_count, onestep_error *error)
{
    const json_t *list;
    onestep_status status = find_list(settings, key, count, fallback_count, &list, error);
    for (size_t i = 0; i < json_array_size(list) && status == ONESTEP_OK; i++) {
        status = read_number(settings, key, json_array_get(list, i), minimum, maximum, &values[i],
                             error);
    }
    return status;
}

onestep_status config_string_list(const config *settings, const char *key, const char **values,
                                  size_t *count, size_t fallback_count, onestep_error *error)
{
    const json_t *list;
    onestep_status status = find_list(settings, key, count, fallback_count, &list, error);
    for (size_t i = 0; i < json_array_size(list) && status == ONESTEP_OK; i++) {
        status = read_string(settings, key, json_array_get(list, i), &values[i], error);
    }
    return status;
}

/* When the value is a list it must have `count` elements. */
static onestep_status check_each(const config *settings, const char *key, const json_t *found,
                                 size_t count, onestep_error *error)
{
    if (json_is_array(found) && json_array_size(found) != count) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "%s: %s has %zu elements: %zu expected, or one value for all",
                         settings->path, text_shown(shown, key, strlen(key)),
                         json_array_size(found), count);
    }
    return ONESTEP_OK;
}

/* Element `index` of a list, or the value itself. */
static const json_t *each(const json_t *found, size_t index)
{
    return json_is_array(found) ? json_array_get(found, index) : found;
}

onestep_status config_integer_each(const config *settings, const char *key, int64_t fallback,
                                   int64_t minimum, int64_t maximum, int64_t *values, size_t count,
                                   onestep_error *error)
{
    const json_t *found = find(settings, key);
    onestep_status status = check_each(settings, key, found, count, error);
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        if (found == NULL) {
            values[i] = fallback;
        } else {
            status =
                read_integer(settings, key, each(found, i), minimum, maximum, &values[i], error);
        }
    }
    return status;
}

onestep_status config_boolean_each(const config *settings, const char *key, bool fallback,
                                   bool *values, size_t count, onestep_error *error)
{
    const json_t *found = find(settings, key);
    onestep_status status = check_each(settings, key, found, count, error);
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        if (found == NULL) {
            values[i] = fallback;
        } else {
            status = read_boolean(settings, key, each(found, i), &values[i], error);
        }
    }
    return status;
}

onestep_status config_list_length(const config *settings, const char *key, size_t *length,
                                  onestep_error *error)
{
    const json_t *list;
    *length = SIZE_MAX;
    return find_list(settings, key, length, 0, &list, error);
}

/* ---- children -------------------------------------------------------------------------------- */

onestep_status config_object(const config *settings, const char *key, config **child,
                             onestep_error *error)
{
    *child = NULL;
    json_t *found = find(settings, key);
    if (found == NULL) {
        return ONESTEP_OK;
    }
    if (!json_is_object(found)) {
        return wrong_kind(settings, key, "an object", found, error);
    }
    char shown[TEXT_SHOWN];
    char *path =
        string_format(error, "%s: %s", settings->path, text_shown(shown, key, strlen(key)));
    return config_create(child, path, json_incref(found), error);
}

onestep_status config_list_object(const config *settings, const char *key, size_t index,
                                  config **child, onestep_error *error)
{
    *child = NULL;
    size_t length;
    onestep_status status = config_list_length(settings, key, &length, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    char shown[TEXT_SHOWN];
    text_shown(shown, key, strlen(key));
    if (index >= length) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "%s: %s has no element %zu", settings->path,
                         shown, index);
    }
    json_t *found = json_array_get(find(settings, key), index);
    if (!json_is_object(found)) {
        return wrong_kind(settings, key, "a list of objects", found, error);
    }
    return config_create(child, string_format(error, "%s: %s[%zu]", settings->path, shown, index),
                         json_incref(found), error);
}
