#include "formats/weight_file.h"

#include "formats/text.h"

#include <string.h>

onestep_status weight_file_add(weight_file *file, const named_tensor *tensor, const char *name,
                               size_t name_length, onestep_error *error)
{
    char shown[TEXT_SHOWN];
    if (file->count == WEIGHT_TENSOR_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "more than %zu tensors", WEIGHT_TENSOR_LIMIT);
    }
    uint32_t earlier;
    if (name_map_get(file->names, name, name_length, &earlier)) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "tensor %s is there twice",
                         text_shown(shown, name, name_length));
    }
    if (file->count == file->capacity) {
        size_t capacity = size_maximum(64, file->capacity * 2);
        named_tensor *grown = memory_resize(file->tensors, capacity, sizeof(*grown), error);
        if (grown == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        file->tensors = grown;
        file->capacity = capacity;
    }
    char *copy = arena_string(&file->memory, name, name_length, error);
    if (copy == NULL) {
        return arena_failure(&file->memory);
    }
    onestep_status status =
        name_map_put(file->names, name, name_length, (uint32_t)file->count, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    file->tensors[file->count] = *tensor;
    file->tensors[file->count].name = copy;
    file->count++;
    return ONESTEP_OK;
}

onestep_status weight_file_add_metadata(weight_file *file, const char *key, const char *value,
                                        onestep_error *error)
{
    if (weight_file_metadata(file, key) != NULL) {
        return ONESTEP_OK;
    }
    if (file->metadata_count == WEIGHT_METADATA_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "__metadata__ with more than %zu keys",
                         WEIGHT_METADATA_LIMIT);
    }
    if (file->metadata_count == file->metadata_capacity) {
        size_t capacity = size_maximum(8, file->metadata_capacity * 2);
        weight_metadata *grown = memory_resize(file->metadata, capacity, sizeof(*grown), error);
        if (grown == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        file->metadata = grown;
        file->metadata_capacity = capacity;
    }
    weight_metadata pair;
    pair.key = arena_string(&file->memory, key, strlen(key), error);
    pair.value = pair.key == NULL ? NULL : arena_string(&file->memory, value, strlen(value), error);
    if (pair.value == NULL) {
        return arena_failure(&file->memory);
    }
    file->metadata[file->metadata_count++] = pair;
    return ONESTEP_OK;
}

static onestep_status weight_file_create(weight_file **file, const char *path, onestep_error *error)
{
    weight_file *created = memory_allocate(1, sizeof(*created), error);
    if (created == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    created->memory.limit = WEIGHT_MEMORY_LIMIT;
    created->path = string_duplicate(path, error);
    onestep_status status =
        created->path == NULL ? ONESTEP_ERROR_MEMORY : name_map_create(&created->names, error);
    if (status != ONESTEP_OK) {
        weight_file_close(&created);
        return status;
    }
    *file = created;
    return ONESTEP_OK;
}

static onestep_status read_bytes(weight_file *file, const uint8_t *bytes, size_t size,
                                 onestep_error *error)
{
    const char *hint;
    file->kind = weight_bytes_kind(bytes, size, &hint);
    switch (file->kind) {
    case WEIGHT_KIND_SAFETENSORS:
        return safetensors_read(file, bytes, size, error);
    case WEIGHT_KIND_TORCH_ZIP:
        return torch_read(file, bytes, size, error);
    case WEIGHT_KIND_SAFETENSORS_INDEX:
        return safetensors_index_read(file, file->path, bytes, size, error);
    case WEIGHT_KIND_TORCH_LEGACY:
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED, "not read: %s", hint);
    case WEIGHT_KIND_UNKNOWN:
        break;
    }
    return error_set(error, ONESTEP_ERROR_FORMAT,
                     "no weights that can be read (safetensors or torch.save): %s", hint);
}

onestep_status weight_file_parse(weight_file **file, const char *name, const uint8_t *bytes,
                                 size_t size, onestep_error *error)
{
    *file = NULL;
    weight_file *created = NULL;
    onestep_status status = weight_file_create(&created, name, error);
    if (status == ONESTEP_OK) {
        status = read_bytes(created, bytes, size, error);
    }
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", name);
        weight_file_close(&created);
        return status;
    }
    *file = created;
    return ONESTEP_OK;
}

onestep_status weight_file_open(weight_file **file, const char *path, onestep_error *error)
{
    *file = NULL;
    mapped_file map;
    onestep_status status = mapped_file_open(&map, path, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    weight_file *created = NULL;
    status = weight_file_create(&created, path, error);
    if (status != ONESTEP_OK) {
        mapped_file_close(&map);
        return status;
    }
    created->maps[created->map_count++] = map;
    status = read_bytes(created, map.data, map.size, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", path);
        weight_file_close(&created);
        return status;
    }
    *file = created;
    return ONESTEP_OK;
}

void weight_file_close(weight_file **file)
{
    weight_file *closed = *file;
    if (closed == NULL) {
        return;
    }
    pickle_tree_destroy(&closed->tree);
    zip_archive_destroy(&closed->archive);
    name_map_destroy(&closed->names);
    memory_free(closed->tensors);
    memory_free(closed->metadata);
    arena_free(&closed->memory);
    for (size_t i = 0; i < closed->map_count; i++) {
        mapped_file_close(&closed->maps[i]);
    }
    memory_free(closed->path);
    memory_free(closed);
    *file = NULL;
}

const char *weight_file_path(const weight_file *file)
{
    return file->path;
}

weight_kind weight_file_opened_kind(const weight_file *file)
{
    return file->kind;
}

size_t weight_file_count(const weight_file *file)
{
    return file->count;
}

const named_tensor *weight_file_tensor(const weight_file *file, size_t index)
{
    return &file->tensors[index];
}

const named_tensor *weight_file_find(const weight_file *file, const char *name)
{
    uint32_t index;
    return name_map_get(file->names, name, strlen(name), &index) ? &file->tensors[index] : NULL;
}

size_t weight_file_metadata_count(const weight_file *file)
{
    return file->metadata_count;
}

const char *weight_file_metadata_key(const weight_file *file, size_t index)
{
    return file->metadata[index].key;
}

const char *weight_file_metadata_value(const weight_file *file, size_t index)
{
    return file->metadata[index].value;
}

const char *weight_file_metadata(const weight_file *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (strcmp(file->metadata[i].key, key) == 0) {
            return file->metadata[i].value;
        }
    }
    return NULL;
}

const pickle_value *weight_file_root(const weight_file *file)
{
    return file->root;
}

onestep_status weight_file_verify(const weight_file *file, onestep_error *error)
{
    for (size_t i = 0; file->archive != NULL && i < file->archive->count; i++) {
        const zip_entry *entry = &file->archive->entries[i];
        /* PyTorch can be told to leave the checksums out; then they are 0. */
        if (entry->crc != 0 && !zip_entry_is_intact(entry)) {
            char shown[TEXT_SHOWN];
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "%s: entry %s does not have its checksum: the file is damaged",
                             file->path, text_shown(shown, entry->name, entry->name_length));
        }
    }
    return ONESTEP_OK;
}
