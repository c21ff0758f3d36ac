/* torch.save archives: NAME/data.pkl and NAME/data/KEY (behaviour.md section 4). */
#include "formats/pickle.h"
#include "formats/text.h"
#include "formats/weight_file.h"

#include <stdio.h>
#include <string.h>

#define PICKLE_NAME "data.pkl"
#define KEY_LIMIT   200
#define NAME_LIMIT  4096 /* of a tensor, with the keys around it */

typedef struct torch_archive {
    const zip_archive *zip;
    const char *folder; /* "NAME/" */
    size_t folder_length;
    char *path; /* scratch: the folder with room for "data/" and a key */
} torch_archive;

/* The one entry NAME/data.pkl. */
static onestep_status find_pickle(torch_archive *archive, const zip_entry **pickle,
                                  onestep_error *error)
{
    const size_t length = sizeof(PICKLE_NAME) - 1;
    *pickle = NULL;
    for (size_t i = 0; i < archive->zip->count; i++) {
        const zip_entry *entry = &archive->zip->entries[i];
        if (entry->name_length <= length ||
            memcmp(entry->name + entry->name_length - length, PICKLE_NAME, length) != 0 ||
            memchr(entry->name, '/', entry->name_length) !=
                entry->name + entry->name_length - length - 1) {
            continue;
        }
        if (*pickle != NULL) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "a torch archive with more than one " PICKLE_NAME);
        }
        *pickle = entry;
    }
    if (*pickle == NULL) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "a zip archive, but not of torch.save: it has no NAME/" PICKLE_NAME);
    }
    archive->folder = (*pickle)->name;
    archive->folder_length = (*pickle)->name_length - length;
    return ONESTEP_OK;
}

static const zip_entry *find_entry(const torch_archive *archive, const char *name)
{
    size_t length = strlen(name);
    memcpy(archive->path + archive->folder_length, name, length);
    return zip_archive_find(archive->zip, archive->path, archive->folder_length + length);
}

static onestep_status check_archive(const torch_archive *archive, const zip_entry *pickle,
                                    onestep_error *error)
{
    if (find_entry(archive, "constants.pkl") != NULL) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "a TorchScript archive: torch.save the state dict instead");
    }
    const zip_entry *order = find_entry(archive, "byteorder");
    if (order != NULL && (order->size != 6 || memcmp(order->data, "little", 6) != 0)) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "the byte order of the archive is \"%s\": only little is read",
                         text_shown(shown, (const char *)order->data, order->size));
    }
    /* PyTorch can be told to leave the checksums out; then they are 0. */
    if (pickle->crc != 0 && !zip_entry_is_intact(pickle)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         PICKLE_NAME " does not have its checksum: the file is damaged");
    }
    return ONESTEP_OK;
}

static onestep_status find_storage(void *context, const char *key, element_type type, size_t count,
                                   const uint8_t **data, onestep_error *error)
{
    const torch_archive *archive = context;
    char shown[TEXT_SHOWN], name[KEY_LIMIT + 8];
    text_shown(shown, key, strlen(key));
    if (strlen(key) > KEY_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "storage %s: the key is too long", shown);
    }
    (void)snprintf(name, sizeof(name), "data/%s", key);
    const zip_entry *entry = find_entry(archive, name);
    if (entry == NULL) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "storage %s is not in the archive", shown);
    }
    size_t bytes;
    if (!size_multiply(count, element_size(type), &bytes) || bytes != entry->size) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "storage %s has %zu bytes, not %zu elements of %s", shown, entry->size,
                         count, element_name(type));
    }
    *data = entry->data;
    return ONESTEP_OK;
}

/* Adds the tensors below `dict`, whose own name is the first `length` bytes of `name`. */
static onestep_status add_tensors(weight_file *file, const pickle_value *dict,
                                  char name[NAME_LIMIT], size_t length, onestep_error *error)
{
    for (size_t i = 0; i < pickle_count(dict); i++) {
        const pickle_value *key = pickle_key(dict, i);
        const pickle_value *item = pickle_item(dict, i);
        bool is_dict = pickle_kind_of(item) == PICKLE_DICT;
        if (pickle_kind_of(key) != PICKLE_STRING ||
            (!is_dict && pickle_kind_of(item) != PICKLE_TENSOR)) {
            continue;
        }
        size_t key_length = strlen(pickle_string(key));
        if (key_length + 1 > NAME_LIMIT - length) {
            char shown[TEXT_SHOWN];
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "the name %s and the names around it have more than %d bytes",
                             text_shown(shown, pickle_string(key), key_length), NAME_LIMIT);
        }
        memcpy(name + length, pickle_string(key), key_length);
        size_t total = length + key_length;
        onestep_status status;
        if (is_dict) {
            name[total] = '.';
            status = add_tensors(file, item, name, total + 1, error);
        } else {
            status = weight_file_add(file, pickle_tensor(item), name, total, error);
        }
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    return ONESTEP_OK;
}

onestep_status torch_read(weight_file *file, const uint8_t *bytes, size_t size,
                          onestep_error *error)
{
    onestep_status status = zip_archive_parse(&file->archive, bytes, size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    torch_archive archive = {.zip = file->archive};
    const zip_entry *pickle;
    status = find_pickle(&archive, &pickle, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    archive.path = memory_allocate(1, archive.folder_length + KEY_LIMIT + 16, error);
    if (archive.path == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    memcpy(archive.path, archive.folder, archive.folder_length);
    status = check_archive(&archive, pickle, error);
    if (status == ONESTEP_OK) {
        pickle_storage_source source = {
            .find = find_storage, .context = &archive, .copy_limit = size + PICKLE_COPY_FREE};
        status =
            pickle_interpret(&file->tree, &file->root, pickle->data, pickle->size, &source, error);
    }
    if (status == ONESTEP_OK && pickle_kind_of(file->root) == PICKLE_DICT) {
        char name[NAME_LIMIT];
        status = add_tensors(file, file->root, name, 0, error);
    }
    memory_free(archive.path);
    return status;
}
