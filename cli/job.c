#include "cli/job.h"
#include "cli/models.h"
#include "cli/terminal.h"
#include "translate/translate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- where the files are
 * --------------------------------------------------------------------------- */

char *store_folder(onestep_error *error)
{
    const char *home = getenv("ONESTEP_HOME"), *data = getenv("XDG_DATA_HOME"),
               *user = getenv("HOME");
    if (home && *home) {
        return string_duplicate(home, error);
    }
    if (data && *data) {
        return path_join(data, "onestep", error);
    }
    return path_join(user && *user ? user : ".", ".local/share/onestep", error);
}

char *demo_folder(onestep_error *error)
{
    /* Beside the program: PREFIX/bin and PREFIX/share, or build/ in the source tree. */
    static const char *const places[] = {"../share/onestep/demo", "../models/demo"};
    char place[4096];
    ssize_t length = readlink("/proc/self/exe", place, sizeof place - 1);
    if (length <= 0) {
        error_set(error, ONESTEP_ERROR_IO, "cannot tell where the program is");
        return NULL;
    }
    place[length] = '\0';
    char *slash = strrchr(place, '/');
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char *folder = path_join(place, places[i], error);
        if (!folder || path_is_folder(folder)) {
            return folder;
        }
        memory_free(folder);
    }
    error_set(error, ONESTEP_ERROR_IO, "the demo models are not installed (looked beside %s)",
              place);
    return NULL;
}

/* FOLDER/SUB/NAME when it exists; else NULL without an error, or with one for want of memory. */
static char *find_in_store(const char *folder, const char *sub, const char *name,
                           onestep_error *error)
{
    char *path = string_format(error, "%s/%s/%s", folder, sub, name);
    if (path && !path_exists(path)) {
        memory_free(path);
        path = NULL;
        error->code = ONESTEP_OK;
    }
    return path;
}

static onestep_status find_base(model_files *files, const options_given *given,
                                const char *default_folder, onestep_error *error)
{
    const char *base = options_text(given, "base", NULL);
    if (base && path_is_folder(base)) {
        files->base = string_duplicate(base, error);
        return files->base ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    }
    if (options_has(given, "demo") && !base) {
        files->base = path_join(default_folder, "base", error);
        return files->base ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    }
    const char *name = base ? base : "sd-turbo";
    files->base = find_in_store(default_folder, "bases", name, error);
    if (files->base) {
        return ONESTEP_OK;
    }
    if (strchr(name, '/')) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: no such folder (--base)", name);
    }
    /* Pulling a task's checkpoint brings its base, so that is the command to name. */
    const char *task_name = options_text(given, "task", NULL);
    bool own = base || !task_name || options_has(given, "checkpoint");
    char what[160];
    snprintf(what, sizeof what, "the base model %.100s", name);
    return models_missing(default_folder, own ? name : task_name, what, false, error);
}

static onestep_status find_checkpoint(model_files *files, const options_given *given,
                                      const char *default_folder, onestep_error *error)
{
    const char *file = options_text(given, "checkpoint", NULL);
    const char *name = options_text(given, "task", NULL);
    if (file) {
        bool there = path_exists(file);
        files->checkpoint = there                    ? string_duplicate(file, error)
                            : store_name_valid(file) ? store_find(default_folder, NULL, file, NULL)
                                                     : NULL;
        if (!there && !files->checkpoint) {
            return error_set(error, ONESTEP_ERROR_IO, "%s: no such file (--checkpoint)", file);
        }
        return files->checkpoint ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    }
    const task *t = task_find(name);
    bool demo = options_has(given, "demo");
    /* A pair of tasks shares one file; the demo has it under the first task's name only. */
    static const char *const twins[][2] = {{"night2day.pkl", "day2night.pkl"},
                                           {"rainy2clear.pkl", "clear2rainy.pkl"}};
    const char *sub = demo ? "." : "checkpoints";
    files->checkpoint = find_in_store(default_folder, sub, t->checkpoint, error);
    for (size_t i = 0; demo && !files->checkpoint && i < 2; i++) {
        if (strcmp(t->checkpoint, twins[i][0]) == 0) {
            files->checkpoint = find_in_store(default_folder, sub, twins[i][1], error);
        }
    }
    if (files->checkpoint) {
        return ONESTEP_OK;
    }
    if (demo) {
        return error_set(error, ONESTEP_ERROR_IO, "the demo has no checkpoint of %s (%s/%s)", name,
                         default_folder, t->checkpoint);
    }
    char what[160];
    snprintf(what, sizeof what, "the checkpoint of %.100s", name);
    return models_missing(default_folder, name, what, options_has(given, "base"), error);
}

onestep_status model_files_find(model_files *files, const options_given *given,
                                onestep_error *error)
{
    *files = (model_files){0};
    onestep_error own;
    error = error ? error : &own;
    char *folder = options_has(given, "demo") ? demo_folder(error) : store_folder(error);
    if (!folder) {
        return error->code;
    }
    onestep_status status = find_base(files, given, folder, error);
    if (status == ONESTEP_OK) {
        status = find_checkpoint(files, given, folder, error);
    }
    memory_free(folder);
    if (status != ONESTEP_OK) {
        model_files_free(files);
    }
    return status;
}

void model_files_free(model_files *files)
{
    memory_free(files->base);
    memory_free(files->checkpoint);
    *files = (model_files){0};
}

/* ---- options -> requests
 * ---------------------------------------------------------------------------- */

/* Whether an option was given by its official spelling. */
static bool given_officially(const options_given *given, const char *name)
{
    const option *o = option_find(given->command, name);
    for (size_t i = 0; i < given->count; i++) {
        if (given->values[i].option == o && given->values[i].official_name) {
            return true;
        }
    }
    return false;
}

onestep_status job_check_options(const options_given *given, onestep_error *error)
{
    const char *name = options_text(given, "task", NULL);
    const task *t = name ? task_find(name) : NULL;
    if (!name && !options_has(given, "checkpoint")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "what shall be done? Give --task NAME or --checkpoint FILE");
    }
    if (given_officially(given, "task") && given_officially(given, "checkpoint")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--model_name and --model_path exclude each other");
    }
    if (t && options_has(given, "direction")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--direction cannot be given with the task %s, which has its own",
                         t->name);
    }
    if (t && !t->caption && !options_has(given, "prompt") && !options_has(given, "prompts")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s needs a --prompt", t->name);
    }
    if (t && t->family == ONESTEP_FAMILY_UNPAIRED && options_has(given, "control")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--control is for paired checkpoints; %s is unpaired", t->name);
    }
    if (options_has(given, "image-prep")) {
        if (strcmp(options_text(given, "fit", "official"), "exact") == 0) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "--image-prep and --fit exact exclude each other");
        }
        if (t && t->family == ONESTEP_FAMILY_PAIRED) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "--image-prep is for the unpaired tasks; %s is paired", t->name);
        }
    }
    if (options_has(given, "gamma") && options_has(given, "gammas")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "--gamma and --gammas exclude each other");
    }
    return ONESTEP_OK;
}

/* The index of a choice among names; the first when not given. */
static int choice_index(const options_given *given, const char *option_name,
                        const char *const *names, int count)
{
    const char *text = options_text(given, option_name, names[0]);
    for (int i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return 0;
}

void request_from_options(onestep_request *request, const options_given *given)
{
    static const char *const rngs[] = {"cuda", "cpu"}, *const posteriors[] = {"sample", "mean"},
                             *const directions[] = {"", "a2b", "b2a"},
                             *const controls[] = {"", "image", "canny", "sketch"},
                             *const fits[] = {"official", "exact"};
    onestep_request_init(request);
    request->prompt = options_text(given, "prompt", NULL);
    request->gamma = options_number(given, "gamma", request->gamma);
    request->seed = options_integer(given, "seed", request->seed);
    request->rng = (onestep_rng)choice_index(given, "rng", rngs, 2);
    request->posterior = (onestep_posterior)choice_index(given, "posterior", posteriors, 2);
    request->direction = (onestep_direction)choice_index(given, "direction", directions, 3);
    request->control = (onestep_control)choice_index(given, "control", controls, 4);
    request->fit = (onestep_fit)choice_index(given, "fit", fits, 2);
    request->image_prep = options_text(given, "image-prep", NULL);
    request->max_side = (uint32_t)options_integer(given, "max-side", 0);
    request->low_threshold = options_number(given, "low-threshold", request->low_threshold);
    request->high_threshold = options_number(given, "high-threshold", request->high_threshold);
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

static onestep_status open_engine(job *j, const options_given *given, onestep_error *error)
{
    onestep_engine_options options;
    onestep_engine_options_init(&options);
    if (strcmp(options_text(given, "backend", "cpu"), "reference") == 0) {
        options.backend = ONESTEP_BACKEND_REFERENCE;
    }
    options.threads = (unsigned)options_integer(given, "threads", 0);
    options.memory_limit = options_bytes(given, "memory-limit", 0);
    options.isa = options_text(given, "isa", NULL);
    options.log = print_log;
    options.log_level = options_has(given, "verbose") ? ONESTEP_LOG_INFO : ONESTEP_LOG_WARNING;
    onestep_status status = onestep_engine_create(&j->engine, &options, error);
    /* An instruction set that the CPU lacks is a wrong command line, like a wrong precision. */
    return status == ONESTEP_ERROR_UNSUPPORTED
               ? (error ? (error->code = ONESTEP_ERROR_ARGUMENT) : ONESTEP_ERROR_ARGUMENT)
               : status;
}

onestep_status job_open(job *j, const options_given *given, onestep_error *error)
{
    static const char *const precisions[] = {"auto", "f32", "bf16", "int16"};
    *j = (job){.task = options_text(given, "task", NULL)};
    model_files files = {0};
    onestep_model_options options;
    onestep_model_options_init(&options);
    options.task = j->task;
    options.precision = (onestep_precision)choice_index(given, "precision", precisions, 4);
    options.lora_alpha_unet = options_number(given, "lora-alpha-unet", NAN);
    options.lora_alpha_vae = options_number(given, "lora-alpha-vae", NAN);
    onestep_status status = open_engine(j, given, error);
    if (status == ONESTEP_OK) {
        status = model_files_find(&files, given, error);
    }
    if (status == ONESTEP_OK) {
        status = onestep_base_open(&j->base, j->engine, files.base, error);
    }
    if (status == ONESTEP_OK) {
        status = onestep_model_open(&j->model, j->base, files.checkpoint, &options, error);
    }
    if (status == ONESTEP_OK) {
        status = onestep_session_create(&j->session, j->model, error);
    }
    model_files_free(&files);
    if (status != ONESTEP_OK) {
        job_close(j);
    }
    return status;
}

void job_close(job *j)
{
    onestep_session_destroy(&j->session);
    onestep_model_destroy(&j->model);
    onestep_base_destroy(&j->base);
    onestep_engine_destroy(&j->engine);
}

/* ---- parameters in pictures
 * ---------------------------------------------------------------------------- */

static const char parameter_prefix[] = "onestep.";

onestep_status options_like(options_given *given, const char *path, onestep_error *error)
{
    enum { PICTURE_BYTES_MOST = 1 << 30 };
    uint8_t *bytes;
    size_t size;
    image_metadata metadata = {0};
    onestep_status status = file_read(path, PICTURE_BYTES_MOST, &bytes, &size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    status = image_metadata_read(&metadata, bytes, size, error);
    memory_free(bytes);
    bool found = false;
    for (size_t i = 0; i < metadata.count && status == ONESTEP_OK; i++) {
        const char *key = metadata.entries[i].key;
        if (strncmp(key, parameter_prefix, sizeof parameter_prefix - 1) != 0) {
            continue;
        }
        key += sizeof parameter_prefix - 1;
        const option *o = option_find(given->command, key);
        found = true;
        /* A list given now stands in for the single value kept. */
        bool replaced =
            options_has(given, key) || (strcmp(key, "gamma") == 0 && options_has(given, "gammas"));
        if (o && (o->flags & OPTION_STORED) && !replaced &&
            !options_add(given, key, metadata.entries[i].value, error)) {
            error_prefix(error, "%s", path);
            status = error->code;
        }
    }
    image_metadata_free(&metadata);
    if (status == ONESTEP_OK && !found) {
        status = error_set(error, ONESTEP_ERROR_FORMAT, "%s: holds no parameters of onestep", path);
    }
    return status;
}

static onestep_status metadata_put(image_metadata *metadata, const char *key, const char *value,
                                   onestep_error *error)
{
    char full[80];
    snprintf(full, sizeof full, "%s%s", parameter_prefix, key);
    return image_metadata_add(metadata, full, value, error);
}

onestep_status metadata_from_options(image_metadata *metadata, const options_given *given,
                                     const onestep_request *request, const onestep_model *model,
                                     const onestep_engine *engine, onestep_error *error)
{
    char text[64];
    snprintf(text, sizeof text, "onestep %s", onestep_version());
    onestep_status status = image_metadata_add(metadata, "Software", text, error);
    for (const option *o = given->command->options; o->name && status == ONESTEP_OK; o++) {
        bool own = strcmp(o->name, "seed") == 0 || strcmp(o->name, "gamma") == 0 ||
                   strcmp(o->name, "prompt") == 0;
        if (!(o->flags & OPTION_STORED) || own || !options_has(given, o->name)) {
            continue;
        }
        const char *value = options_text(given, o->name, NULL);
        status = metadata_put(metadata, o->name, value ? value : "1", error);
    }
    if (status == ONESTEP_OK && request->prompt) {
        status = metadata_put(metadata, "prompt", request->prompt, error);
    }
    if (status == ONESTEP_OK) {
        snprintf(text, sizeof text, "%lld", (long long)request->seed);
        status = metadata_put(metadata, "seed", text, error);
    }
    if (status == ONESTEP_OK && onestep_model_is_stochastic(model)) {
        snprintf(text, sizeof text, "%.17g", request->gamma);
        status = metadata_put(metadata, "gamma", text, error);
    }
    if (status == ONESTEP_OK) {
        status = metadata_put(metadata, "precision-used", onestep_model_precision(model), error);
    }
    if (status == ONESTEP_OK) {
        status = metadata_put(metadata, "isa-used", onestep_engine_isa(engine), error);
    }
    return status;
}
