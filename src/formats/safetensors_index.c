/* An index of shards: {"metadata": {...}, "weight_map": {"tensor": "shard.safetensors"}}. */
#include "formats/json_text.h"
#include "formats/text.h"
#include "formats/weight_file.h"

#include <string.h>

/* Shards lie beside the index: a name that leads elsewhere could read any file. */
static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

/* "folder/name" beside `path`. */
static char *path_beside(const char *path, const char *name, onestep_error *error)
{
    const char *slash = strrchr(path, '/');
    size_t folder = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    return string_format(error, "%.*s%s", (int)folder, path, name);
}

static onestep_status read_shard(weight_file *file, const char *index_path, const char *shard,
                                 onestep_error *error)
{
    char shown[TEXT_SHOWN];
    text_shown(shown, shard, strlen(shard));
    if (!is_plain_name(shard)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "shard %s: a plain file name beside the index expected", shown);
    }
    if (file->map_count == sizeof(file->maps) / sizeof(file->maps[0])) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED, "more than %zu shards",
                         WEIGHT_SHARD_LIMIT);
    }
    char *path = path_beside(index_path, shard, error);
    if (path == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    mapped_file *map = &file->maps[file->map_count];
    onestep_status status = mapped_file_open(map, path, error);
    if (status == ONESTEP_OK) {
        const char *hint;
        file->map_count++;
        status = weight_bytes_kind(map->data, map->size, &hint) == WEIGHT_KIND_SAFETENSORS
                     ? safetensors_read(file, map->data, map->size, error)
                     : error_set(error, ONESTEP_ERROR_FORMAT, "not safetensors: %s", hint);
        if (status != ONESTEP_OK) {
            error_prefix(error, "shard %s", shown);
        }
    }
    memory_free(path);
    return status;
}

/* Reads every shard that the map names, once, and notes in `firsts` the index of its first tensor:
 * firsts[s] .. firsts[s + 1] are the tensors of shard s. */
static onestep_status read_shards(weight_file *file, const char *path, json_t *weight_map,
                                  name_map *shards, size_t firsts[WEIGHT_SHARD_LIMIT + 1],
                                  onestep_error *error)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value)
    {
        char shown[TEXT_SHOWN];
        if (!json_is_string(value)) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "\"weight_map\": the shard of %s is no text",
                             text_shown(shown, tensor, strlen(tensor)));
        }
        const char *shard = json_string_value(value);
        uint32_t known;
        if (name_map_get(shards, shard, strlen(shard), &known)) {
            continue;
        }
        uint32_t number = (uint32_t)name_map_count(shards);
        onestep_status status = read_shard(file, path, shard, error);
        if (status == ONESTEP_OK) {
            firsts[number + 1] = file->count;
            status = name_map_put(shards, shard, strlen(shard), number, error);
        }
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    return ONESTEP_OK;
}

static onestep_status check_places(const weight_file *file, json_t *weight_map,
                                   const name_map *shards,
                                   const size_t firsts[WEIGHT_SHARD_LIMIT + 1],
                                   onestep_error *error)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value)
    {
        const char *shard = json_string_value(value);
        uint32_t number = 0, index;
        bool placed = name_map_get(shards, shard, strlen(shard), &number) &&
                      name_map_get(file->names, tensor, strlen(tensor), &index) &&
                      index >= firsts[number] && index < firsts[number + 1];
        if (!placed) {
            char shown[TEXT_SHOWN], shown_shard[TEXT_SHOWN];
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "tensor %s is not in the shard that the index gives (%s)",
                             text_shown(shown, tensor, strlen(tensor)),
                             text_shown(shown_shard, shard, strlen(shard)));
        }
    }
    return ONESTEP_OK;
}

onestep_status safetensors_index_read(weight_file *file, const char *path, const uint8_t *bytes,
                                      size_t size, onestep_error *error)
{
    json_t *index = NULL;
    name_map *shards = NULL;
    onestep_status status = json_text_parse(&index, bytes, size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0) {
        status = error_set(error, ONESTEP_ERROR_FORMAT,
                           "an index of shards needs an object \"weight_map\" with tensors");
        goto done;
    }
    status = name_map_create(&shards, error);
    if (status != ONESTEP_OK) {
        goto done;
    }
    size_t firsts[WEIGHT_SHARD_LIMIT + 1] = {0};
    status = read_shards(file, path, weight_map, shards, firsts, error);
    if (status == ONESTEP_OK) {
        status = check_places(file, weight_map, shards, firsts, error);
    }
done:
    name_map_destroy(&shards);
    json_decref(index);
    return status;
}
