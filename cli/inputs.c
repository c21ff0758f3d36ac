#include "cli/inputs.h"
#include "image/image.h"

#include <dirent.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

/* A list file is read whole; ten million names are enough. */
#define LIST_BYTES_MOST ((size_t)1 << 30)

static onestep_status add(input_list *list, const char *path, onestep_error *error)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        char **grown = memory_resize(list->paths, capacity, sizeof *grown, error);
        if (!grown) {
            return ONESTEP_ERROR_MEMORY;
        }
        list->paths = grown;
        list->capacity = capacity;
    }
    list->paths[list->count] = string_duplicate(path, error);
    return list->paths[list->count] ? (list->count++, ONESTEP_OK) : ONESTEP_ERROR_MEMORY;
}

static int compare_paths(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static onestep_status add_folder(input_list *list, const char *folder, onestep_error *error)
{
    DIR *directory = opendir(folder);
    if (!directory) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot read the folder", folder);
    }
    size_t before = list->count;
    onestep_status status = ONESTEP_OK;
    struct dirent *entry;
    while (status == ONESTEP_OK && (entry = readdir(directory))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (entry->d_name[0] == '.' || !dot ||
            image_format_of_name(entry->d_name) == IMAGE_FORMAT_UNKNOWN) {
            continue;
        }
        char *path = path_join(folder, entry->d_name, error);
        status = path ? add(list, path, error) : ONESTEP_ERROR_MEMORY;
        memory_free(path);
    }
    closedir(directory);
    if (status == ONESTEP_OK && list->count == before) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: no PNG, JPEG or WebP picture in the folder",
                         folder);
    }
    qsort(list->paths + before, list->count - before, sizeof *list->paths, compare_paths);
    return status;
}

static onestep_status add_list(input_list *list, const char *path, onestep_error *error)
{
    uint8_t *bytes;
    size_t size;
    const char *file = strcmp(path, "-") == 0 ? "/dev/stdin" : path;
    onestep_status status = file_read(file, LIST_BYTES_MOST, &bytes, &size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    size_t before = list->count;
    char separator = memchr(bytes, '\0', size) ? '\0' : '\n';
    for (size_t start = 0; start < size && status == ONESTEP_OK;) {
        const uint8_t *end = memchr(bytes + start, separator, size - start);
        size_t stop = end ? (size_t)(end - bytes) : size;
        bytes[stop] = '\0'; /* file_read keeps one byte beyond the end */
        if (separator == '\n' && stop > start && bytes[stop - 1] == '\r') {
            bytes[stop - 1] = '\0';
        }
        if (bytes[start]) {
            status = add(list, (const char *)bytes + start, error);
        }
        start = stop + 1;
    }
    memory_free(bytes);
    if (status == ONESTEP_OK && list->count == before) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: the list is empty", path);
    }
    return status;
}

static onestep_status add_pattern(input_list *list, const char *pattern, onestep_error *error)
{
    glob_t found;
    if (glob(pattern, 0, NULL, &found) != 0) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: no file matches", pattern);
    }
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < found.gl_pathc && status == ONESTEP_OK; i++) {
        status = add(list, found.gl_pathv[i], error);
    }
    globfree(&found);
    return status;
}

onestep_status inputs_collect(input_list *list, const options_given *given, onestep_error *error)
{
    *list = (input_list){0};
    onestep_status status = ONESTEP_OK;
    const char *path;
    for (size_t i = 0; status == ONESTEP_OK && (path = options_item(given, "input", i)); i++) {
        if (strcmp(path, "-") == 0) {
            status = add(list, path, error);
        } else if (path[0] == '@' && !path_exists(path)) {
            status = add_list(list, path + 1, error);
        } else if (path_is_folder(path)) {
            status = add_folder(list, path, error);
        } else if (!path_exists(path) && strpbrk(path, "*?[")) {
            status = add_pattern(list, path, error);
        } else {
            status = add(list, path, error);
        }
    }
    if (status != ONESTEP_OK) {
        inputs_free(list);
    }
    return status;
}

void inputs_free(input_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        memory_free(list->paths[i]);
    }
    memory_free(list->paths);
    *list = (input_list){0};
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *path_stem(const char *path, onestep_error *error)
{
    if (strcmp(path, "-") == 0) {
        return string_duplicate("stdin", error);
    }
    const char *base = path_base(path), *dot = strrchr(base, '.');
    size_t length = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    return string_format(error, "%.*s", (int)length, base);
}
