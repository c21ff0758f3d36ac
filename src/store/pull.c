/* Pulling a model: what is missing, where it may lie already, fetching, installing. */
#include "store/manifest.h"
#include "store/transfer.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK_MARGIN ((uint64_t)64 << 20)

void store_pull_options_init(store_pull_options *options)
{
    *options = (store_pull_options){.retries = 8, .first_delay = 1, .stall_seconds = 30};
}

typedef struct pull {
    const char *folder;
    const catalogue_model *model;
    const store_pull_options *options;
    char *incoming; /* FOLDER/incoming/NAME */
    char *final;    /* FOLDER/bases/NAME, or FOLDER/checkpoints */
    json_t *manifest;
    transfer *transfers;
    char **urls, **paths;
    size_t count;
} pull;

static bool wanted(const pull *p, const catalogue_file *file)
{
    return file->variant != (p->options->full ? VARIANT_HALF : VARIANT_FULL);
}

static char *file_url(const pull *p, const catalogue_file *file, onestep_error *error)
{
    const char *own = p->options->url;
    size_t length = own ? strlen(own) : 0;
    if (own && p->model->kind == MODEL_CHECKPOINT && own[length - 1] != '/') {
        return string_duplicate(own, error);
    }
    if (own || p->model->url) {
        const char *folder = own ? own : p->model->url;
        return path_join(folder, file->path, error);
    }
    const char *endpoint = p->options->endpoint ? p->options->endpoint : "https://huggingface.co";
    length = strlen(endpoint);
    while (length > 0 && endpoint[length - 1] == '/') {
        length--;
    }
    return string_format(error, "%.*s/%s/resolve/%s/%s", (int)length, endpoint,
                         p->model->huggingface, p->model->revision, file->path);
}

/* ---- Hugging Face's cache ------------------------------------------------------------------- */

/* HUB/models--OWNER--NAME/snapshots/COMMIT/PATH, where refs/REVISION holds the commit. */
static char *cached_path(const pull *p, const catalogue_file *file, onestep_error *error)
{
    const char *hub = p->options->huggingface_cache, *repository = p->model->huggingface;
    const char *slash = repository ? strchr(repository, '/') : NULL;
    if (!hub || !slash) {
        return NULL;
    }
    uint8_t *commit = NULL;
    size_t size;
    char *path = NULL;
    char *root = string_format(error, "%s/models--%.*s--%s", hub, (int)(slash - repository),
                               repository, slash + 1);
    char *reference = root ? string_format(error, "%s/refs/%s", root, p->model->revision) : NULL;
    if (reference && file_read(reference, 200, &commit, &size, NULL) == ONESTEP_OK) {
        commit[strcspn((char *)commit, "\r\n ")] = '\0';
        if (store_name_valid((char *)commit)) {
            path = string_format(error, "%s/snapshots/%s/%s", root, commit, file->path);
        }
    }
    memory_free(commit);
    memory_free(reference);
    memory_free(root);
    if (path && access(path, R_OK) != 0) {
        memory_free(path);
        path = NULL;
    }
    return path;
}

/* The hash that a cached file must have: the cache names large files by it. */
static bool cached_hash(const char *path, const catalogue_file *file, char hash[SHA256_TEXT])
{
    char resolved[4096];
    if (file->sha256) {
        memcpy(hash, file->sha256, SHA256_TEXT);
        return true;
    }
    if (!realpath(path, resolved)) {
        return false;
    }
    const char *name = strrchr(resolved, '/') + 1;
    if (!sha256_valid(name)) {
        return false;
    }
    memcpy(hash, name, SHA256_TEXT);
    return true;
}

/* Takes a file from the cache into `target`; false (and no error) when it is not good there. */
static bool take_cached(const pull *p, const catalogue_file *file, const char *target)
{
    onestep_error error;
    char found[SHA256_TEXT], expected[SHA256_TEXT], resolved[4096];
    char *path = cached_path(p, file, &error);
    if (!path) {
        return false;
    }
    char *part = string_format(&error, "%s.cached", target);
    bool good = part && parent_create(target, &error) == ONESTEP_OK && realpath(path, resolved);
    /* A second name for the same bytes costs nothing; the cache never writes into its blobs. */
    if (good) {
        unlink(part);
        good = link(resolved, part) == 0 || file_copy(resolved, part, &error) == ONESTEP_OK;
    }
    good = good && (!file->bytes || file_bytes(part) == file->bytes);
    if (good && cached_hash(path, file, expected)) {
        good = sha256_file(part, found, NULL, NULL, &error) == ONESTEP_OK &&
               strcmp(found, expected) == 0;
    }
    good = good && path_rename(part, target, &error) == ONESTEP_OK;
    if (part && !good) {
        unlink(part);
    }
    if (p->options->note) {
        char text[600];
        snprintf(text, sizeof text, "%s: %s Hugging Face's cache", file->path,
                 good ? "taken from" : "damaged in");
        p->options->note(p->options->user_data, text);
    }
    memory_free(part);
    memory_free(path);
    return good;
}

/* ---- what is missing ------------------------------------------------------------------------ */

static onestep_status add_transfer(pull *p, const catalogue_file *file, char *staged,
                                   onestep_error *error)
{
    char *url = file_url(p, file, error);
    if (!url) {
        memory_free(staged);
        return ONESTEP_ERROR_MEMORY;
    }
    bool hugging = p->model->huggingface && !p->options->url;
    p->urls[p->count] = url;
    p->paths[p->count] = staged;
    p->transfers[p->count++] = (transfer){.url = url,
                                          .path = staged,
                                          .token = hugging ? p->options->token : NULL,
                                          .bytes = file->bytes,
                                          .about_bytes = file->about_bytes,
                                          .sha256 = file->sha256,
                                          .linked_hash = hugging,
                                          .optional = file->optional};
    return ONESTEP_OK;
}

/* Goes through the files: installed, staged by an earlier pull, cached, or to be fetched. */
static onestep_status look_around(pull *p, uint64_t *there, onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < p->model->file_count && status == ONESTEP_OK; i++) {
        const catalogue_file *file = &p->model->files[i];
        if (!wanted(p, file)) {
            continue;
        }
        char *installed = path_join(p->final, file->path, error);
        char *staged = path_join(p->incoming, file->path, error);
        if (!installed || !staged) {
            memory_free(installed);
            memory_free(staged);
            return ONESTEP_ERROR_MEMORY;
        }
        if (path_exists(installed) || path_exists(staged) || take_cached(p, file, staged)) {
            *there += path_exists(installed) ? file_bytes(installed) : file_bytes(staged);
            memory_free(staged);
        } else {
            status = add_transfer(p, file, staged, error);
        }
        memory_free(installed);
    }
    return status;
}

static onestep_status check_room(const pull *p, onestep_error *error)
{
    uint64_t needed = 0, room = disk_free(p->folder);
    for (size_t i = 0; i < p->count; i++) {
        char *part = string_format(error, "%s.part", p->paths[i]);
        uint64_t have = part ? file_bytes(part) : 0;
        memory_free(part);
        uint64_t whole = p->transfers[i].about_bytes;
        needed += whole > have ? whole - have : 0;
    }
    if (needed + DISK_MARGIN < needed || needed + DISK_MARGIN > room) {
        return error_set(error, ONESTEP_ERROR_IO,
                         "%s: the disk is too full for %s: about %.0f MB to fetch, %.0f MB free; "
                         "ONESTEP_HOME names another place",
                         p->folder, p->model->name, (double)needed / 1e6, (double)room / 1e6);
    }
    return ONESTEP_OK;
}

/* ---- installing ----------------------------------------------------------------------------- */

static const transfer *find_transfer(const pull *p, const char *staged)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->paths[i], staged) == 0) {
            return &p->transfers[i];
        }
    }
    return NULL;
}

/* Notes hash and origin of every new file, then gives the files their places. */
static onestep_status install_file(pull *p, const catalogue_file *file, onestep_error *error)
{
    char hash[SHA256_TEXT];
    char *staged = path_join(p->incoming, file->path, error);
    char *installed = path_join(p->final, file->path, error);
    onestep_status status = staged && installed ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    if (status == ONESTEP_OK && path_exists(staged)) {
        const transfer *t = find_transfer(p, staged);
        uint64_t bytes = file_bytes(staged);
        if (t) {
            memcpy(hash, t->found_sha256, sizeof hash);
        } else {
            status = sha256_file(staged, hash, NULL, NULL, error);
        }
        if (status == ONESTEP_OK) {
            status = manifest_add(p->manifest, file->path, bytes, hash, t ? t->url : NULL,
                                  t ? t->commit : NULL, error);
        }
        /* The note stands before the file: one that is in place can always be verified. */
        if (status == ONESTEP_OK) {
            status = manifest_write(p->manifest, p->folder, p->model->name, error);
        }
        if (status == ONESTEP_OK) {
            status = parent_create(installed, error);
        }
        if (status == ONESTEP_OK) {
            status = path_rename(staged, installed, error);
        }
    }
    memory_free(staged);
    memory_free(installed);
    return status;
}

static onestep_status install(pull *p, onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    /* A new base appears at once and whole: its folder is moved, not its files. */
    bool whole = p->model->kind == MODEL_BASE && !path_exists(p->final);
    char *final = p->final;
    char *together = NULL;
    if (whole) {
        together = string_format(error, "%s.whole", p->incoming);
        if (!together) {
            return ONESTEP_ERROR_MEMORY;
        }
        p->final = together;
    }
    for (size_t i = 0; i < p->model->file_count && status == ONESTEP_OK; i++) {
        if (wanted(p, &p->model->files[i])) {
            status = install_file(p, &p->model->files[i], error);
        }
    }
    p->final = final;
    if (status == ONESTEP_OK && whole) {
        status = parent_create(p->final, error);
        if (status == ONESTEP_OK) {
            status = path_rename(together, p->final, error);
        }
    }
    memory_free(together);
    return status == ONESTEP_OK ? tree_remove(p->incoming, NULL, error) : status;
}

/* A process that ended between the files of a new base: what it had moved goes back. */
static onestep_status gather(pull *p, onestep_error *error)
{
    char *together = string_format(error, "%s.whole", p->incoming);
    onestep_status status = together ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    for (size_t i = 0; i < p->model->file_count && status == ONESTEP_OK; i++) {
        char *from = path_join(together, p->model->files[i].path, error);
        char *to = path_join(p->incoming, p->model->files[i].path, error);
        if (!from || !to) {
            status = ONESTEP_ERROR_MEMORY;
        } else if (path_exists(from)) {
            status = parent_create(to, error);
            status = status == ONESTEP_OK ? path_rename(from, to, error) : status;
        }
        memory_free(from);
        memory_free(to);
    }
    if (status == ONESTEP_OK) {
        status = tree_remove(together, NULL, error);
    }
    memory_free(together);
    return status;
}

static onestep_status pull_locked(pull *p, uint64_t *fetched, onestep_error *error)
{
    uint64_t there = 0;
    const char *name = p->model->name;
    if (store_state(p->folder, p->model, p->options->full, NULL) == MODEL_PRESENT) {
        return ONESTEP_OK;
    }
    p->manifest = manifest_open(p->folder, name, p->model->kind, error);
    onestep_status status = p->manifest ? gather(p, error) : ONESTEP_ERROR_IO;
    if (status == ONESTEP_OK) {
        status = look_around(p, &there, error);
    }
    if (status == ONESTEP_OK && p->count && p->options->offline) {
        status = error_set(error, ONESTEP_ERROR_IO,
                           "%s: %zu of its files are not on this machine (the first: %s), and "
                           "--offline or HF_HUB_OFFLINE forbids to fetch them",
                           name, p->count, p->transfers[0].url);
    }
    if (status == ONESTEP_OK) {
        status = check_room(p, error);
    }
    if (status == ONESTEP_OK) {
        status = transfer_run(p->transfers, p->count, name, there, p->options, error);
    }
    for (size_t i = 0; i < p->count; i++) {
        *fetched += p->transfers[i].fetched;
    }
    return status == ONESTEP_OK ? install(p, error) : status;
}

onestep_status store_pull(const char *folder, const catalogue_model *model,
                          const store_pull_options *options, uint64_t *fetched,
                          onestep_error *error)
{
    onestep_error own;
    uint64_t bytes = 0;
    int lock = -1;
    error = error ? error : &own;
    pull p = {.folder = folder, .model = model, .options = options};
    onestep_status status = folder_create(folder, error);
    if (status == ONESTEP_OK) {
        status = store_lock(&lock, folder, model->name, options->note, options->user_data, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    p.incoming = string_format(error, "%s/incoming/%s", folder, model->name);
    p.final = model->kind == MODEL_BASE ? string_format(error, "%s/bases/%s", folder, model->name)
                                        : string_format(error, "%s/checkpoints", folder);
    p.transfers = memory_allocate(model->file_count, sizeof *p.transfers, error);
    p.urls = memory_allocate(model->file_count, sizeof *p.urls, error);
    p.paths = memory_allocate(model->file_count, sizeof *p.paths, error);
    if (!p.incoming || !p.final || !p.transfers || !p.urls || !p.paths) {
        status = ONESTEP_ERROR_MEMORY;
    } else if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        status = error_set(error, ONESTEP_ERROR_INTERNAL, "libcurl cannot be initialised");
    } else {
        status = pull_locked(&p, &bytes, error);
        curl_global_cleanup();
    }
    if (fetched) {
        *fetched = bytes;
    }
    for (size_t i = 0; i < p.count; i++) {
        memory_free(p.urls[i]);
        memory_free(p.paths[i]);
    }
    memory_free(p.urls);
    memory_free(p.paths);
    memory_free(p.transfers);
    memory_free(p.incoming);
    memory_free(p.final);
    json_decref(p.manifest);
    store_unlock(lock);
    return status;
}
