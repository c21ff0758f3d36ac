/* The catalogue: built-in entries and the user's. */
#include "store/files.h"
#include "store/store.h"

#include <string.h>

#define MODELS_MOST 1024
#define FILES_MOST  256

static const unsigned char built_in[] = {
#include "catalogue_json.inc"
};

struct catalogue {
    json_t *documents[2];
    catalogue_model *models;
    size_t count;
};

bool store_name_valid(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(name);
    return length > 0 && length <= 100 && name[0] != '.' && strspn(name, allowed) == length;
}

/* A relative path whose every part is a valid name. */
static bool path_valid(const char *path)
{
    char part[128];
    while (*path) {
        size_t length = strcspn(path, "/");
        if (length >= sizeof part) {
            return false;
        }
        memcpy(part, path, length);
        part[length] = '\0';
        if (!store_name_valid(part)) {
            return false;
        }
        path += length;
        if (*path == '/' && *++path == '\0') {
            return false;
        }
    }
    return true;
}

static onestep_status bad(onestep_error *error, const char *source, const char *name,
                          const char *key, const char *expected)
{
    return error_set(error, ONESTEP_ERROR_FORMAT, "%s: model \"%.60s\": \"%s\": expected %s",
                     source, name ? name : "?", key, expected);
}

static onestep_status read_file_entry(catalogue_file *file, const json_t *entry, const char *source,
                                      const char *model, onestep_error *error)
{
    static const char known[] = " path variant bytes about_bytes sha256 optional ";
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)entry, key, value)
    {
        const char *found = strstr(known, key);
        if (!*key || !found || found[-1] != ' ' || found[strlen(key)] != ' ') {
            return bad(error, source, model, "files", "only the keys that docs/MODELS.md lists");
        }
    }
    *file = (catalogue_file){.path = json_text(entry, "path"),
                             .sha256 = json_text(entry, "sha256"),
                             .optional = json_is_true(json_object_get(entry, "optional"))};
    if (!file->path || !*file->path || !path_valid(file->path)) {
        return bad(error, source, model, "path",
                   "a relative path of letters, digits, '.', '_' and '-'");
    }
    json_int_t bytes = json_integer_value(json_object_get(entry, "bytes"));
    json_int_t about = json_integer_value(json_object_get(entry, "about_bytes"));
    if (bytes < 0 || about < 0) {
        return bad(error, source, model, "bytes", "a size");
    }
    file->bytes = (uint64_t)bytes;
    file->about_bytes = (uint64_t)(bytes ? bytes : about);
    if (json_object_get(entry, "sha256") && !sha256_valid(file->sha256)) {
        return bad(error, source, model, "sha256", "64 lower-case hexadecimal digits");
    }
    const char *variant = json_text(entry, "variant");
    if (variant && strcmp(variant, "half") != 0 && strcmp(variant, "full") != 0) {
        return bad(error, source, model, "variant", "half or full");
    }
    file->variant = !variant ? VARIANT_ANY : *variant == 'h' ? VARIANT_HALF : VARIANT_FULL;
    return ONESTEP_OK;
}

static onestep_status read_model(catalogue_model *model, const json_t *entry, const char *source,
                                 onestep_error *error)
{
    *model = (catalogue_model){.name = json_text(entry, "name"),
                               .summary = json_text(entry, "summary"),
                               .licence = json_text(entry, "licence"),
                               .licence_url = json_text(entry, "licence_url"),
                               .licence_note = json_text(entry, "licence_note"),
                               .needs = json_text(entry, "needs"),
                               .url = json_text(entry, "url"),
                               .huggingface = json_text(entry, "huggingface"),
                               .revision = json_text(entry, "revision")};
    const char *kind = json_text(entry, "kind");
    const json_t *files = json_object_get(entry, "files");
    if (!model->name || !store_name_valid(model->name)) {
        return bad(error, source, model->name, "name", "letters, digits, '.', '_' and '-'");
    }
    if (!kind || (strcmp(kind, "base") != 0 && strcmp(kind, "checkpoint") != 0)) {
        return bad(error, source, model->name, "kind", "base or checkpoint");
    }
    model->kind = *kind == 'b' ? MODEL_BASE : MODEL_CHECKPOINT;
    if (!model->licence) {
        return bad(error, source, model->name, "licence", "a text (\"unknown\" will do)");
    }
    model->summary = model->summary ? model->summary : "";
    model->revision = model->revision ? model->revision : "main";
    if (!model->url == !model->huggingface) {
        return bad(error, source, model->name, "url", "either \"url\" or \"huggingface\"");
    }
    if (model->url && strncmp(model->url, "http://", 7) != 0 &&
        strncmp(model->url, "https://", 8) != 0) {
        return bad(error, source, model->name, "url", "http:// or https://");
    }
    if (model->huggingface && (!path_valid(model->huggingface) || !path_valid(model->revision))) {
        return bad(error, source, model->name, "huggingface", "OWNER/NAME");
    }
    size_t count = json_array_size(files);
    if (count == 0 || count > FILES_MOST || (model->kind == MODEL_CHECKPOINT && count != 1)) {
        return bad(error, source, model->name, "files",
                   model->kind == MODEL_BASE ? "a list of 1 to 256 files" : "a list of one file");
    }
    model->files = memory_allocate(count, sizeof *model->files, error);
    if (!model->files) {
        return ONESTEP_ERROR_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        onestep_status status =
            read_file_entry(&model->files[i], json_array_get(files, i), source, model->name, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        model->file_count++;
    }
    if (model->kind == MODEL_CHECKPOINT && strchr(model->files[0].path, '/')) {
        return bad(error, source, model->name, "path", "a plain file name");
    }
    return ONESTEP_OK;
}

static onestep_status add_document(catalogue *c, const json_t *document, const char *source,
                                   onestep_error *error)
{
    const json_t *models = json_object_get(document, "models");
    if (json_integer_value(json_object_get(document, "format")) != 1 || !json_is_array(models)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "%s: expected \"format\": 1 and a list \"models\"", source);
    }
    size_t count = json_array_size(models);
    if (count > MODELS_MOST) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "%s: %zu models, expected at most %d", source,
                         count, MODELS_MOST);
    }
    catalogue_model *grown = memory_resize(c->models, c->count + count, sizeof *grown, error);
    if (!grown) {
        return ONESTEP_ERROR_MEMORY;
    }
    c->models = grown;
    for (size_t i = 0; i < count; i++) {
        catalogue_model model;
        onestep_status status = read_model(&model, json_array_get(models, i), source, error);
        if (status != ONESTEP_OK) {
            memory_free(model.files);
            return status;
        }
        size_t place = 0;
        while (place < c->count && strcmp(c->models[place].name, model.name) != 0) {
            place++;
        }
        if (place < c->count) {
            memory_free(c->models[place].files);
        } else {
            c->count++;
        }
        c->models[place] = model;
    }
    return ONESTEP_OK;
}

onestep_status catalogue_open(catalogue **c, const char *user_file, onestep_error *error)
{
    *c = NULL;
    catalogue *made = memory_allocate(1, sizeof *made, error);
    if (!made) {
        return ONESTEP_ERROR_MEMORY;
    }
    json_error_t reason;
    made->documents[0] =
        json_loadb((const char *)built_in, sizeof built_in, JSON_REJECT_DUPLICATES, &reason);
    onestep_status status =
        made->documents[0]
            ? add_document(made, made->documents[0], "the built-in catalogue", error)
            : error_set(error, ONESTEP_ERROR_INTERNAL, "the built-in catalogue: %s", reason.text);
    if (status == ONESTEP_OK && user_file && path_exists(user_file)) {
        made->documents[1] = json_read(user_file, error);
        status = made->documents[1] ? add_document(made, made->documents[1], user_file, error)
                                    : ONESTEP_ERROR_FORMAT;
    }
    if (status != ONESTEP_OK) {
        catalogue_close(&made);
        return status;
    }
    *c = made;
    return ONESTEP_OK;
}

void catalogue_close(catalogue **c)
{
    if (!*c) {
        return;
    }
    for (size_t i = 0; i < (*c)->count; i++) {
        memory_free((*c)->models[i].files);
    }
    memory_free((*c)->models);
    json_decref((*c)->documents[0]);
    json_decref((*c)->documents[1]);
    memory_free(*c);
    *c = NULL;
}

size_t catalogue_count(const catalogue *c)
{
    return c->count;
}

const catalogue_model *catalogue_at(const catalogue *c, size_t index)
{
    return &c->models[index];
}

const catalogue_model *catalogue_find(const catalogue *c, const char *name)
{
    for (size_t i = 0; c && i < c->count; i++) {
        if (strcmp(c->models[i].name, name) == 0) {
            return &c->models[i];
        }
    }
    return NULL;
}

uint64_t catalogue_bytes(const catalogue_model *model, bool full)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < model->file_count; i++) {
        const catalogue_file *file = &model->files[i];
        if (file->variant != (full ? VARIANT_HALF : VARIANT_FULL)) {
            bytes += file->about_bytes;
        }
    }
    return bytes;
}
