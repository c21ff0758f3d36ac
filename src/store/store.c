/* What is installed: states, paths, importing, removing, verifying. */
#include "store/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- manifests ------------------------------------------------------------------------------ */

json_t *manifest_read(const char *folder, const char *name, onestep_error *error)
{
    onestep_error own;
    error = error ? error : &own;
    error->code = ONESTEP_OK;
    char *path = string_format(error, "%s/manifests/%s.json", folder, name);
    json_t *manifest = path && path_exists(path) ? json_read(path, error) : NULL;
    memory_free(path);
    return manifest;
}

json_t *manifest_open(const char *folder, const char *name, model_kind kind, onestep_error *error)
{
    json_t *manifest = manifest_read(folder, name, error);
    if (manifest || (error && error->code != ONESTEP_OK)) {
        return manifest;
    }
    char now[32];
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    manifest = json_pack("{s:s, s:s, s:s, s:{}}", "name", name, "kind",
                         kind == MODEL_BASE ? "base" : "checkpoint", "installed", now, "files");
    if (!manifest) {
        error_set(error, ONESTEP_ERROR_MEMORY, "no memory for a manifest");
    }
    return manifest;
}

onestep_status manifest_add(json_t *manifest, const char *path, uint64_t bytes, const char *sha256,
                            const char *url, const char *commit, onestep_error *error)
{
    json_t *files = json_object_get(manifest, "files");
    json_t *entry = json_pack("{s:I, s:s}", "bytes", (json_int_t)bytes, "sha256", sha256);
    bool good =
        entry && (!url || json_object_set_new(entry, "url", json_string(url)) == 0) &&
        (!commit || !*commit || json_object_set_new(entry, "commit", json_string(commit)) == 0);
    if (!good || json_object_set(files, path, entry) != 0) {
        json_decref(entry);
        return error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory to note it", path);
    }
    json_decref(entry);
    return ONESTEP_OK;
}

onestep_status manifest_write(const json_t *manifest, const char *folder, const char *name,
                              onestep_error *error)
{
    char *path = string_format(error, "%s/manifests/%s.json", folder, name);
    onestep_status status = path ? json_write(path, manifest, error) : ONESTEP_ERROR_MEMORY;
    memory_free(path);
    return status;
}

model_kind manifest_kind(const json_t *manifest)
{
    const char *kind = json_text(manifest, "kind");
    return kind && strcmp(kind, "base") == 0 ? MODEL_BASE : MODEL_CHECKPOINT;
}

char *manifest_path(const json_t *manifest, const char *folder, const char *name, const char *path,
                    onestep_error *error)
{
    return manifest_kind(manifest) == MODEL_BASE
               ? string_format(error, "%s/bases/%s/%s", folder, name, path)
               : string_format(error, "%s/checkpoints/%s", folder, path);
}

static bool manifest_imported(const json_t *manifest)
{
    return json_is_true(json_object_get(manifest, "imported"));
}

/* ---- states and paths ----------------------------------------------------------------------- */

char *store_model_path(const char *folder, const catalogue_model *model, onestep_error *error)
{
    return model->kind == MODEL_BASE
               ? string_format(error, "%s/bases/%s", folder, model->name)
               : string_format(error, "%s/checkpoints/%s", folder, model->files[0].path);
}

static uint64_t bytes_there(const char *folder, const catalogue_model *model,
                            const catalogue_file *file)
{
    char *path = model->kind == MODEL_BASE
                     ? string_format(NULL, "%s/bases/%s/%s", folder, model->name, file->path)
                     : string_format(NULL, "%s/checkpoints/%s", folder, file->path);
    uint64_t bytes = path ? file_bytes(path) : 0;
    memory_free(path);
    return bytes;
}

model_state store_state(const char *folder, const catalogue_model *model, bool full,
                        uint64_t *bytes)
{
    uint64_t total = 0;
    bool any = true, half = true, whole = true;
    for (size_t i = 0; i < model->file_count; i++) {
        const catalogue_file *file = &model->files[i];
        uint64_t there = bytes_there(folder, model, file);
        bool good = there > 0 || file->optional;
        total += there;
        any = any && (good || file->variant != VARIANT_ANY);
        half = half && (good || file->variant != VARIANT_HALF);
        whole = whole && (good || file->variant != VARIANT_FULL);
    }
    if (bytes) {
        *bytes = total;
    }
    if (any && (full ? whole : half || whole)) {
        return MODEL_PRESENT;
    }
    json_t *manifest = manifest_read(folder, model->name, NULL);
    bool imported = manifest && manifest_imported(manifest);
    json_decref(manifest);
    char *place = store_model_path(folder, model, NULL);
    bool exists = place && path_exists(place);
    memory_free(place);
    char *incoming = string_format(NULL, "%s/incoming/%s", folder, model->name);
    bool begun = incoming && path_exists(incoming);
    memory_free(incoming);
    return imported && exists ? MODEL_PRESENT : begun ? MODEL_PARTIAL : MODEL_ABSENT;
}

char *store_find(const char *folder, const catalogue *c, const char *name, onestep_error *error)
{
    const catalogue_model *model = catalogue_find(c, name);
    char *path = NULL;
    if (!store_name_valid(name)) {
        error_set(error, ONESTEP_ERROR_ARGUMENT, "\"%.60s\" is no name of a model", name);
        return NULL;
    }
    json_t *manifest = manifest_read(folder, name, NULL);
    if (manifest && manifest_kind(manifest) == MODEL_BASE) {
        path = string_format(error, "%s/bases/%s", folder, name);
    } else if (manifest) {
        void *first = json_object_iter(json_object_get(manifest, "files"));
        path = first ? manifest_path(manifest, folder, name, json_object_iter_key(first), error)
                     : NULL;
    } else if (model) {
        path = store_model_path(folder, model, error);
    }
    json_decref(manifest);
    if (path && path_exists(path)) {
        return path;
    }
    memory_free(path);
    error_set(error, ONESTEP_ERROR_IO, "%s is not in the model store (%s)%s%s", name, folder,
              model ? ": fetch it with `onestep models pull " : "; `onestep models list` names all",
              model ? name : "");
    if (model && error) {
        size_t length = strlen(error->message);
        snprintf(error->message + length, sizeof error->message - length, "`");
    }
    return NULL;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        memory_free(names[i]);
    }
    memory_free(names);
}

/* The names of all manifests, sorted. */
static onestep_status list_manifests(const char *folder, char ***names, size_t *count,
                                     onestep_error *error)
{
    *names = NULL;
    *count = 0;
    char *path = path_join(folder, "manifests", error);
    DIR *directory = path ? opendir(path) : NULL;
    memory_free(path);
    if (!directory) {
        return ONESTEP_OK; /* nothing was ever installed */
    }
    onestep_status status = ONESTEP_OK;
    const struct dirent *entry;
    while (status == ONESTEP_OK && (entry = readdir(directory))) {
        size_t length = strlen(entry->d_name);
        if (length <= 5 || strcmp(entry->d_name + length - 5, ".json") != 0) {
            continue;
        }
        char **grown = memory_resize(*names, *count + 1, sizeof **names, error);
        if (grown) {
            *names = grown;
            grown[*count] = string_format(error, "%.*s", (int)(length - 5), entry->d_name);
        }
        status = grown && grown[*count] ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
        *count += status == ONESTEP_OK;
    }
    closedir(directory);
    if (*count) {
        qsort(*names, *count, sizeof **names, compare_names);
    }
    return status;
}

onestep_status store_each(const char *folder, store_visit visit, void *user_data,
                          onestep_error *error)
{
    char **names;
    size_t count;
    onestep_status status = list_manifests(folder, &names, &count, error);
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        json_t *manifest = manifest_read(folder, names[i], error);
        if (!manifest) {
            status = error ? error->code : ONESTEP_ERROR_FORMAT;
            continue;
        }
        uint64_t bytes = 0;
        const char *path;
        json_t *entry;
        json_object_foreach(json_object_get(manifest, "files"), path, entry)
        {
            bytes += (uint64_t)json_integer_value(json_object_get(entry, "bytes"));
        }
        visit(user_data, names[i], manifest_kind(manifest), bytes, manifest_imported(manifest));
        json_decref(manifest);
    }
    names_free(names, count);
    return status;
}

/* ---- importing ------------------------------------------------------------------------------ */

static onestep_status import_file(json_t *manifest, const char *from, const char *target,
                                  const char *path, onestep_error *error)
{
    char hash[SHA256_TEXT];
    onestep_status status = parent_create(target, error);
    if (status == ONESTEP_OK) {
        status = file_copy(from, target, error);
    }
    if (status == ONESTEP_OK) {
        status = sha256_file(target, hash, NULL, NULL, error);
    }
    return status == ONESTEP_OK
               ? manifest_add(manifest, path, file_bytes(target), hash, NULL, NULL, error)
               : status;
}

/* The files of a diffusers folder that count: its parts' configs, vocabularies and weights. */
static onestep_status import_folder(json_t *manifest, const char *from, const char *target,
                                    const char *part, onestep_error *error)
{
    char *source = path_join(from, part, error);
    DIR *directory = source ? opendir(source) : NULL;
    onestep_status status = ONESTEP_OK;
    const struct dirent *entry;
    while (directory && status == ONESTEP_OK && (entry = readdir(directory))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || !store_name_valid(entry->d_name) ||
            (strcmp(dot, ".json") != 0 && strcmp(dot, ".txt") != 0 &&
             strcmp(dot, ".safetensors") != 0)) {
            continue;
        }
        char *path =
            *part ? path_join(part, entry->d_name, error) : string_duplicate(entry->d_name, error);
        char *file = path ? path_join(from, path, error) : NULL;
        char *copy = path ? path_join(target, path, error) : NULL;
        status =
            file && copy ? import_file(manifest, file, copy, path, error) : ONESTEP_ERROR_MEMORY;
        memory_free(path);
        memory_free(file);
        memory_free(copy);
    }
    if (directory) {
        closedir(directory);
    }
    memory_free(source);
    return status;
}

static onestep_status import_base(json_t *manifest, const char *folder, const char *name,
                                  const char *from, onestep_error *error)
{
    static const char *const parts[] = {"",          "scheduler", "text_encoder",
                                        "tokenizer", "unet",      "vae"};
    char *staged = string_format(error, "%s/incoming/%s.import", folder, name);
    char *final = string_format(error, "%s/bases/%s", folder, name);
    onestep_status status = staged && final ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    if (status == ONESTEP_OK && path_exists(final)) {
        status = error_set(error, ONESTEP_ERROR_IO,
                           "%s is in the model store already: `onestep models remove %s` first, or "
                           "give another --name",
                           name, name);
    }
    if (status == ONESTEP_OK) {
        status = tree_remove(staged, NULL, error);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts && status == ONESTEP_OK; i++) {
        status = import_folder(manifest, from, staged, parts[i], error);
    }
    if (status == ONESTEP_OK) {
        status = manifest_write(manifest, folder, name, error);
    }
    if (status == ONESTEP_OK) {
        status = parent_create(final, error);
    }
    if (status == ONESTEP_OK) {
        status = path_rename(staged, final, error);
    }
    if (status != ONESTEP_OK && staged) {
        (void)!tree_remove(staged, NULL, NULL);
    }
    memory_free(staged);
    memory_free(final);
    return status;
}

static onestep_status import_checkpoint(json_t *manifest, const char *folder,
                                        const catalogue_model *model, const char *name,
                                        const char *from, onestep_error *error)
{
    const char *dot = strrchr(from, '.');
    bool safetensors = dot && strcmp(dot, ".safetensors") == 0;
    char *file = model ? string_duplicate(model->files[0].path, error)
                       : string_format(error, "%s%s", name, safetensors ? ".safetensors" : ".pkl");
    char *staged = file ? string_format(error, "%s/incoming/%s.import", folder, file) : NULL;
    char *final = file ? string_format(error, "%s/checkpoints/%s", folder, file) : NULL;
    onestep_status status = staged && final ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    if (status == ONESTEP_OK && path_exists(final)) {
        status = error_set(error, ONESTEP_ERROR_IO,
                           "%s is in the model store already: `onestep models remove %s` first, or "
                           "give another --name",
                           name, name);
    }
    if (status == ONESTEP_OK) {
        status = import_file(manifest, from, staged, file, error);
    }
    if (status == ONESTEP_OK) {
        status = manifest_write(manifest, folder, name, error);
    }
    if (status == ONESTEP_OK) {
        status = parent_create(final, error);
    }
    if (status == ONESTEP_OK) {
        status = path_rename(staged, final, error);
    }
    if (status != ONESTEP_OK && staged) {
        unlink(staged);
    }
    memory_free(file);
    memory_free(staged);
    memory_free(final);
    return status;
}

onestep_status store_import(const char *folder, const catalogue *c, const char *name,
                            model_kind kind, const char *path, onestep_error *error)
{
    int lock = -1;
    const catalogue_model *model = catalogue_find(c, name);
    if (!store_name_valid(name)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--name \"%.60s\": expected letters, digits, '.', '_' and '-'", name);
    }
    if (model && model->kind != kind) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s: %s is the name of a %s", path, name,
                         model->kind == MODEL_BASE ? "base model" : "checkpoint");
    }
    onestep_status status = folder_create(folder, error);
    if (status == ONESTEP_OK) {
        status = store_lock(&lock, folder, name, NULL, NULL, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    json_t *manifest = manifest_open(folder, name, kind, error);
    if (!manifest) {
        status = ONESTEP_ERROR_IO;
    } else {
        /* An old manifest whose files are gone says nothing any more. */
        json_object_clear(json_object_get(manifest, "files"));
        json_object_set_new(manifest, "imported", json_true());
        status = kind == MODEL_BASE ? import_base(manifest, folder, name, path, error)
                                    : import_checkpoint(manifest, folder, model, name, path, error);
    }
    json_decref(manifest);
    store_unlock(lock);
    return status;
}

/* ---- removing ------------------------------------------------------------------------------- */

static onestep_status remove_path(char *path, uint64_t *bytes, onestep_error *error)
{
    onestep_status status = path ? tree_remove(path, bytes, error) : ONESTEP_ERROR_MEMORY;
    memory_free(path);
    return status;
}

onestep_status store_remove(const char *folder, const catalogue *c, const char *name,
                            uint64_t *bytes, onestep_error *error)
{
    uint64_t freed = 0;
    int lock = -1;
    const catalogue_model *model = catalogue_find(c, name);
    char *path = NULL;
    bool partial = model && store_state(folder, model, false, NULL) == MODEL_PARTIAL;
    if (!partial) {
        path = store_find(folder, c, name, error);
        if (!path) {
            return error ? error->code : ONESTEP_ERROR_IO;
        }
    }
    onestep_status status = store_lock(&lock, folder, name, NULL, NULL, error);
    if (status == ONESTEP_OK && path) {
        status = tree_remove(path, &freed, error);
    }
    if (status == ONESTEP_OK) {
        status = remove_path(string_format(error, "%s/incoming/%s", folder, name), &freed, error);
    }
    if (status == ONESTEP_OK) {
        status =
            remove_path(string_format(error, "%s/incoming/%s.whole", folder, name), &freed, error);
    }
    if (status == ONESTEP_OK) {
        status =
            remove_path(string_format(error, "%s/manifests/%s.json", folder, name), NULL, error);
    }
    if (bytes) {
        *bytes = freed;
    }
    memory_free(path);
    store_unlock(lock);
    return status;
}

/* ---- verifying ------------------------------------------------------------------------------ */

static onestep_status verify_file(const json_t *manifest, const char *folder, const char *name,
                                  const char *path, const json_t *entry, store_verified visit,
                                  void *user_data, size_t *bad, onestep_error *error)
{
    char found[SHA256_TEXT], problem[200] = "";
    const char *sha256 = json_text(entry, "sha256");
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(entry, "bytes"));
    char *full = manifest_path(manifest, folder, name, path, error);
    if (!full) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_error reason;
    if (!path_exists(full)) {
        snprintf(problem, sizeof problem, "missing");
    } else if (file_bytes(full) != bytes) {
        snprintf(problem, sizeof problem, "has %llu bytes, expected %llu",
                 (unsigned long long)file_bytes(full), (unsigned long long)bytes);
    } else if (sha256_file(full, found, NULL, NULL, &reason) != ONESTEP_OK) {
        snprintf(problem, sizeof problem, "%.190s", reason.message);
    } else if (!sha256 || strcmp(found, sha256) != 0) {
        snprintf(problem, sizeof problem, "SHA-256 %s, expected %.64s", found,
                 sha256 ? sha256 : "(none noted)");
    }
    *bad += problem[0] != '\0';
    visit(user_data, name, path, bytes, problem[0] ? problem : NULL);
    memory_free(full);
    return ONESTEP_OK;
}

onestep_status store_verify(const char *folder, const char *name, store_verified visit,
                            void *user_data, size_t *bad, onestep_error *error)
{
    char **names;
    size_t count, seen = 0;
    *bad = 0;
    onestep_status status = list_manifests(folder, &names, &count, error);
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        if (name && strcmp(name, names[i]) != 0) {
            continue;
        }
        seen++;
        json_t *manifest = manifest_read(folder, names[i], error);
        if (!manifest) {
            status = error ? error->code : ONESTEP_ERROR_FORMAT;
            continue;
        }
        const char *path;
        json_t *entry;
        json_object_foreach(json_object_get(manifest, "files"), path, entry)
        {
            if (status == ONESTEP_OK) {
                status = verify_file(manifest, folder, names[i], path, entry, visit, user_data, bad,
                                     error);
            }
        }
        json_decref(manifest);
    }
    names_free(names, count);
    if (status == ONESTEP_OK && name && !seen) {
        status = error_set(error, ONESTEP_ERROR_IO,
                           "%s: the model store (%s) has no record of it, so there is nothing to "
                           "compare with",
                           name, folder);
    }
    return status;
}
