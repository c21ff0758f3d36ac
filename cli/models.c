/* onestep models: what is in the store, and how models get there and leave it. */
#include "cli/models.h"
#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/inputs.h"
#include "cli/job.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const option models_options[] = {
    {.name = "yes",
     .letter = 'y',
     .kind = OPTION_FLAG,
     .help = "pull: do not ask; the licences that it shows are accepted."},
    {.name = "full",
     .kind = OPTION_FLAG,
     .help = "pull: the fp32 weights, for pictures equal to the official ones to one level."},
    {.name = "offline",
     .kind = OPTION_FLAG,
     .help = "pull: only what Hugging Face's cache on this machine has."},
    {.name = "url",
     .kind = OPTION_TEXT,
     .argument = "URL",
     .help = "pull: another address: of the checkpoint, or of the folder with the base's files."},
    {.name = "name",
     .kind = OPTION_TEXT,
     .argument = "NAME",
     .help = "import: the name that the model gets in the store."},
    {.name = "parallel",
     .kind = OPTION_INTEGER,
     .argument = "N",
     .least = 1,
     .most = 16,
     .help = "pull: files at once (4)."},
    {.name = "retries",
     .kind = OPTION_INTEGER,
     .argument = "N",
     .least = 0,
     .most = 1000,
     .help = "pull: further tries of a file that makes no headway (8)."},
    {.name = "retry-delay",
     .kind = OPTION_NUMBER,
     .argument = "SECONDS",
     .least = 0,
     .most = 60,
     .help = "pull: before the first further try; doubles up to a minute (1)."},
    {.name = "stall",
     .kind = OPTION_NUMBER,
     .argument = "SECONDS",
     .least = 1,
     .most = 3600,
     .help = "pull: give up a connection that is silent for so long (30)."},
    {0}};

typedef struct models {
    options_given given;
    char *folder;
    catalogue *catalogue;
    progress_bar bar;
    const char *drawn_model;
} models;

/* ---- places --------------------------------------------------------------------------------- */

/* $VARIABLE/REST, else ~/FALLBACK/REST. */
static char *user_path(const char *variable, const char *fallback, const char *rest,
                       onestep_error *error)
{
    const char *folder = getenv(variable), *home = getenv("HOME");
    if (folder && *folder) {
        return path_join(folder, rest, error);
    }
    return string_format(error, "%s/%s/%s", home && *home ? home : ".", fallback, rest);
}

onestep_status models_catalogue(catalogue **c, onestep_error *error)
{
    *c = NULL;
    char *user = user_path("XDG_CONFIG_HOME", ".config", "onestep/catalogue.json", error);
    onestep_status status = user ? catalogue_open(c, user, error) : ONESTEP_ERROR_MEMORY;
    memory_free(user);
    return status;
}

static char *huggingface_cache(onestep_error *error)
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME");
    if (hub && *hub) {
        return string_duplicate(hub, error);
    }
    if (home && *home) {
        return path_join(home, "hub", error);
    }
    return user_path("XDG_CACHE_HOME", ".cache", "huggingface/hub", error);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* The file of certificate authorities: what the environment names, else where other distributions
 * have it when it is not where Debian's libcurl looks; NULL: libcurl's own. */
static const char *certificates(void)
{
    static const char *const places[] = {"/etc/ssl/certs/ca-certificates.crt",
                                         "/etc/pki/tls/certs/ca-bundle.crt",
                                         "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
    const char *named = environment("CURL_CA_BUNDLE");
    named = named ? named : environment("SSL_CERT_FILE");
    for (size_t i = 0; !named && i < sizeof places / sizeof *places; i++) {
        if (path_exists(places[i])) {
            return i ? places[i] : NULL;
        }
    }
    return named;
}

/* A switch of Hugging Face's, as its library reads it. */
static bool environment_switch(const char *name)
{
    static const char *const yes[] = {"1", "on", "yes", "true"};
    const char *value = environment(name);
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(value, yes[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* A token goes over encrypted connections, or to this machine. */
static bool endpoint_is_safe(const char *endpoint)
{
    static const char *const here[] = {"http://localhost", "http://127.", "http://[::1]"};
    bool safe = strncasecmp(endpoint, "https://", 8) == 0;
    for (size_t i = 0; i < 3 && !safe; i++) {
        safe = strncasecmp(endpoint, here[i], strlen(here[i])) == 0;
    }
    return safe;
}

/* ---- what is missing ------------------------------------------------------------------------ */

onestep_status models_missing(const char *folder, const char *name, const char *what, bool own_base,
                              onestep_error *error)
{
    catalogue *c;
    onestep_status status = models_catalogue(&c, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    const catalogue_model *model = catalogue_find(c, name);
    if (!model) {
        catalogue_close(&c);
        return error_set(error, ONESTEP_ERROR_IO,
                         "%s is not in the model store (%s): `onestep models list` names what "
                         "there is, `onestep models import PATH --name %s` puts it there; --demo "
                         "works without any download",
                         what, folder, name);
    }
    const catalogue_model *needs = model->needs ? catalogue_find(c, model->needs) : NULL;
    if (needs && (own_base || store_state(folder, needs, false, NULL) == MODEL_PRESENT)) {
        needs = NULL;
    }
    uint64_t bytes = catalogue_bytes(model, false) + (needs ? catalogue_bytes(needs, false) : 0);
    error_set(error, ONESTEP_ERROR_IO,
              "%s is not in the model store (%s): `onestep models pull %s` fetches it%s%s (about "
              "%s; licence: %s%s%s); --demo works now, without any download",
              what, folder, name, needs ? " and its base " : "", needs ? needs->name : "",
              bytes_text(bytes).text, model->licence, needs ? ", " : "",
              needs ? needs->licence : "");
    catalogue_close(&c);
    return ONESTEP_ERROR_IO;
}

/* ---- output --------------------------------------------------------------------------------- */

static void print_json(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    printf("%s\n", text ? text : "{}");
    free(text);
    json_decref(object);
}

static const char *state_name(model_state state)
{
    return state == MODEL_PRESENT ? "installed" : state == MODEL_PARTIAL ? "partial" : "-";
}

typedef struct listing {
    const models *m;
    bool json;
} listing;

static void list_entry(bool json, const char *name, model_kind kind, const char *state,
                       uint64_t bytes, const char *licence, const char *summary)
{
    const char *kind_name = kind == MODEL_BASE ? "base" : "checkpoint";
    if (json) {
        print_json(json_pack("{s:s, s:s, s:s, s:I, s:s, s:s}", "name", name, "kind", kind_name,
                             "state", *state == '-' ? "absent" : state, "bytes", (json_int_t)bytes,
                             "licence", licence, "summary", summary));
        return;
    }
    printf("%-28s %-10s %-9s %9s  %s\n", name, kind_name, state, bytes_text(bytes).text, licence);
}

static void list_imported(void *user_data, const char *name, model_kind kind, uint64_t bytes,
                          bool imported)
{
    const listing *l = user_data;
    if (imported && !catalogue_find(l->m->catalogue, name)) {
        list_entry(l->json, name, kind, "installed", bytes, "(imported)", "");
    }
}

static onestep_status list_models(models *m, onestep_error *error)
{
    listing l = {m, options_has(&m->given, "json")};
    bool full = options_has(&m->given, "full");
    if (!l.json) {
        printf("%-28s %-10s %-9s %9s  %s\n", "NAME", "KIND", "STATE", "SIZE", "LICENCE");
    }
    for (size_t i = 0; i < catalogue_count(m->catalogue); i++) {
        const catalogue_model *model = catalogue_at(m->catalogue, i);
        uint64_t bytes;
        model_state state = store_state(m->folder, model, full, &bytes);
        list_entry(l.json, model->name, model->kind, state_name(state),
                   state == MODEL_PRESENT && bytes ? bytes : catalogue_bytes(model, full),
                   model->licence, model->summary);
    }
    return store_each(m->folder, list_imported, &l, error);
}

/* The catalogue's entry of that name; the nearest is suggested. */
static const catalogue_model *find_model(const models *m, const char *name, onestep_error *error)
{
    const catalogue_model *model = catalogue_find(m->catalogue, name);
    if (model) {
        return model;
    }
    const char *names[1024];
    size_t count = 0;
    for (; count < catalogue_count(m->catalogue) && count < 1024; count++) {
        names[count] = catalogue_at(m->catalogue, count)->name;
    }
    const char *near = nearest_name(name, names, count);
    error_set(error, ONESTEP_ERROR_ARGUMENT, "no model \"%.60s\" in the catalogue%s%s%s", name,
              near ? "; did you mean " : "", near ? near : "",
              near ? "?" : "; `onestep models list` names all");
    return NULL;
}

static onestep_status show_model(models *m, const char *name, onestep_error *error)
{
    bool json = options_has(&m->given, "json");
    const catalogue_model *model = catalogue_find(m->catalogue, name);
    json_t *object = json_object();
    if (model) {
        uint64_t bytes;
        model_state state = store_state(m->folder, model, false, &bytes);
        json_object_set_new(object, "name", json_string(model->name));
        json_object_set_new(object, "about", json_string(model->summary));
        json_object_set_new(object, "state",
                            json_string(state == MODEL_ABSENT ? "absent" : state_name(state)));
        json_object_set_new(object, "download",
                            json_string(bytes_text(catalogue_bytes(model, false)).text));
        json_object_set_new(object, "licence", json_string(model->licence));
        if (model->licence_url) {
            json_object_set_new(object, "licence_url", json_string(model->licence_url));
        }
        if (model->needs) {
            json_object_set_new(object, "needs", json_string(model->needs));
        }
        json_object_set_new(object, "source",
                            json_string(model->url ? model->url : model->huggingface));
    }
    char *found = path_exists(name) && !model ? string_duplicate(name, error)
                                              : store_find(m->folder, m->catalogue, name, error);
    if (!found && !model) {
        json_decref(object);
        if (!store_name_valid(name)) {
            return error_set(error, ONESTEP_ERROR_IO, "%s: no such file, folder or model", name);
        }
        return error ? error->code : ONESTEP_ERROR_IO;
    }
    onestep_status status = ONESTEP_OK;
    if (found) {
        json_t *contents = describe_path(found, error);
        json_object_set_new(object, "path", json_string(found));
        if (contents) {
            json_object_update(object, contents);
        } else {
            status = error ? error->code : ONESTEP_ERROR_FORMAT;
        }
        json_decref(contents);
    }
    memory_free(found);
    if (status != ONESTEP_OK) {
        json_decref(object);
    } else if (json) {
        print_json(object);
    } else {
        describe_print(object, 0);
        json_decref(object);
    }
    return status;
}

/* ---- pulling -------------------------------------------------------------------------------- */

static int on_progress(void *user_data, const store_progress *progress)
{
    models *m = user_data;
    if (m->drawn_model != progress->model) {
        m->drawn_model = progress->model;
        m->bar.start = monotonic_seconds();
        m->bar.from = progress->total ? (double)progress->done / (double)progress->total : 0;
    }
    char label[60];
    snprintf(label, sizeof label, "%.30s %s/s", progress->model,
             bytes_text((uint64_t)progress->bytes_per_second).text);
    double fraction = progress->total ? (double)progress->done / (double)progress->total : 0;
    progress_draw(&m->bar, fraction < 1 ? fraction : 0.9999, label);
    return interrupted();
}

static void on_note(void *user_data, const char *message)
{
    models *m = user_data;
    progress_end(&m->bar);
    print_note(&m->given, "%s", message);
}

static void print_licence(const models *m, const catalogue_model *model)
{
    uint64_t bytes = catalogue_bytes(model, options_has(&m->given, "full"));
    fprintf(stderr, "%s: %s\n  size     about %s\n  from     %s%s\n  licence  %s\n", model->name,
            model->summary, bytes_text(bytes).text,
            model->url ? model->url : "https://huggingface.co/",
            model->url ? "" : model->huggingface, model->licence);
    if (model->licence_url) {
        fprintf(stderr, "           %s\n", model->licence_url);
    }
    if (model->licence_note) {
        fprintf(stderr, "           %s\n", model->licence_note);
    }
}

static onestep_status ask(onestep_error *error)
{
    char answer[16] = "";
    if (!isatty(STDIN_FILENO)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "nobody to ask about the licence: give --yes to accept it");
    }
    fprintf(stderr, "Fetch, and accept the licence? [y/N] ");
    fflush(stderr);
    if (!fgets(answer, sizeof answer, stdin) || (answer[0] != 'y' && answer[0] != 'Y')) {
        return error_set(error, ONESTEP_ERROR_CANCELLED, "nothing was fetched");
    }
    return ONESTEP_OK;
}

static bool contains(const catalogue_model *const *list, size_t count, const catalogue_model *model)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == model) {
            return true;
        }
    }
    return false;
}

/* The models named and the bases that they need, bases first. */
static onestep_status choose(const models *m, const catalogue_model **list, size_t *count,
                             onestep_error *error)
{
    for (int bases = 1; bases >= 0; bases--) {
        for (size_t i = 1; i < m->given.operand_count; i++) {
            const catalogue_model *model = find_model(m, m->given.operands[i], error);
            if (!model) {
                return ONESTEP_ERROR_ARGUMENT;
            }
            if (bases && model->needs) {
                const catalogue_model *needs = find_model(m, model->needs, error);
                if (!needs) {
                    return ONESTEP_ERROR_ARGUMENT;
                }
                /* What is there in another precision will do. */
                bool there = store_state(m->folder, needs, false, NULL) == MODEL_PRESENT;
                if (!there && !contains(list, *count, needs)) {
                    list[(*count)++] = needs;
                }
            } else if (bases == (model->kind == MODEL_BASE) && !contains(list, *count, model)) {
                list[(*count)++] = model;
            }
        }
    }
    return ONESTEP_OK;
}

static onestep_status pull_one(models *m, const catalogue_model *model,
                               const store_pull_options *options, onestep_error *error)
{
    uint64_t fetched = 0;
    bool there = store_state(m->folder, model, options->full, NULL) == MODEL_PRESENT;
    double start = monotonic_seconds();
    progress_start(&m->bar, &m->given);
    m->drawn_model = NULL;
    onestep_status status = store_pull(m->folder, model, options, &fetched, error);
    progress_end(&m->bar);
    char *path = status == ONESTEP_OK ? store_model_path(m->folder, model, error) : NULL;
    if (status != ONESTEP_OK || !path) {
        return status == ONESTEP_OK ? ONESTEP_ERROR_MEMORY : status;
    }
    if (options_has(&m->given, "json")) {
        print_json(json_pack("{s:s, s:s, s:I, s:b}", "name", model->name, "path", path, "fetched",
                             (json_int_t)fetched, "was_there", (int)there));
    } else if (there) {
        print_note(&m->given, "%s is there already: %s", model->name, path);
    } else {
        double seconds = monotonic_seconds() - start;
        print_note(&m->given, "%s: %s in %.1f s, verified: %s", model->name,
                   bytes_text(fetched).text, seconds, path);
    }
    memory_free(path);
    return ONESTEP_OK;
}

static onestep_status pull_models(models *m, onestep_error *error)
{
    const options_given *given = &m->given;
    store_pull_options options;
    store_pull_options_init(&options);
    size_t count = 0, missing = 0;
    const catalogue_model **list = memory_allocate(2 * given->operand_count, sizeof *list, error);
    if (!list) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = choose(m, list, &count, error);
    options.full = options_has(given, "full");
    options.offline = options_has(given, "offline") || environment_switch("HF_HUB_OFFLINE");
    options.url = options_text(given, "url", NULL);
    options.endpoint = environment("HF_ENDPOINT");
    options.token = environment("HF_TOKEN");
    options.certificates = certificates();
    options.parallel = (unsigned)options_integer(given, "parallel", 0);
    options.retries = (unsigned)options_integer(given, "retries", (int64_t)options.retries);
    options.first_delay = options_number(given, "retry-delay", options.first_delay);
    options.stall_seconds = options_number(given, "stall", options.stall_seconds);
    options.progress = on_progress;
    options.note = on_note;
    options.user_data = m;
    if (options.token && options.endpoint && !endpoint_is_safe(options.endpoint)) {
        print_warning("HF_TOKEN is not sent to %s, which is not encrypted", options.endpoint);
        options.token = NULL;
    }
    if (status == ONESTEP_OK && options.url && (!*options.url || given->operand_count != 2)) {
        status = error_set(error, ONESTEP_ERROR_ARGUMENT, "--url goes with one model");
    }
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        if (store_state(m->folder, list[i], options.full, NULL) != MODEL_PRESENT) {
            missing++;
            print_licence(m, list[i]);
        }
    }
    if (status == ONESTEP_OK && missing && !options_has(given, "yes")) {
        status = ask(error);
    }
    char *cache = huggingface_cache(error);
    options.huggingface_cache = cache;
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        store_pull_options own = options;
        if (strcmp(list[i]->name, given->operands[1]) != 0) {
            own.url = NULL; /* another address is for the model named, not for its base */
        }
        status = pull_one(m, list[i], &own, error);
    }
    memory_free(cache);
    memory_free(list);
    return status;
}

/* ---- importing, removing, verifying --------------------------------------------------------- */

/* The catalogue's name for an official file name, or NULL. */
static const char *official_name(const models *m, const char *path)
{
    for (size_t i = 0; i < catalogue_count(m->catalogue); i++) {
        const catalogue_model *model = catalogue_at(m->catalogue, i);
        if (model->kind == MODEL_CHECKPOINT && strcmp(model->files[0].path, path_base(path)) == 0) {
            return model->name;
        }
    }
    return NULL;
}

static onestep_status import_model(models *m, const char *given_path, onestep_error *error)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", given_path);
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--) {
        path[length - 1] = '\0';
    }
    json_t *contents = describe_path(path, error);
    if (!contents) {
        return error ? error->code : ONESTEP_ERROR_FORMAT;
    }
    bool folder = path_is_folder(path);
    if (!folder && !json_object_get(contents, "family")) {
        onestep_status status = error_set(
            error, ONESTEP_ERROR_MISMATCH,
            "%s: %s, expected a pix2pix-turbo or CycleGAN-turbo checkpoint or a diffusers folder",
            path, json_string_value(json_object_get(contents, "kind")));
        json_decref(contents);
        return status;
    }
    const char *official = folder ? NULL : official_name(m, path);
    char *stem = folder ? string_duplicate(path_base(path), error) : path_stem(path, error);
    const char *name = options_text(&m->given, "name", official ? official : stem);
    onestep_status status = stem ? store_import(m->folder, m->catalogue, name,
                                                folder ? MODEL_BASE : MODEL_CHECKPOINT, path, error)
                                 : ONESTEP_ERROR_MEMORY;
    char *placed = status == ONESTEP_OK ? store_find(m->folder, m->catalogue, name, error) : NULL;
    if (placed) {
        json_object_set_new(contents, "name", json_string(name));
        json_object_set_new(contents, "path", json_string(placed));
        if (options_has(&m->given, "json")) {
            print_json(json_incref(contents));
        } else {
            describe_print(contents, 0);
            bool task = catalogue_find(m->catalogue, name) != NULL;
            print_note(&m->given, "use it with: onestep translate %s %s",
                       folder ? "-b"
                       : task ? "-t"
                              : "-c",
                       name);
        }
    }
    status = status == ONESTEP_OK && !placed ? error->code : status;
    memory_free(placed);
    memory_free(stem);
    json_decref(contents);
    return status;
}

static void on_verified(void *user_data, const char *model, const char *path, uint64_t bytes,
                        const char *problem)
{
    const models *m = user_data;
    if (options_has(&m->given, "json")) {
        print_json(json_pack("{s:s, s:s, s:I, s:b, s:s*}", "name", model, "file", path, "bytes",
                             (json_int_t)bytes, "good", problem == NULL, "problem", problem));
    } else {
        printf("%s %s/%s%s%s\n", problem ? "BAD " : "good", model, path, problem ? ": " : "",
               problem ? problem : "");
    }
    fflush(stdout);
}

static onestep_status verify_models(models *m, onestep_error *error)
{
    size_t bad = 0, all = 0;
    onestep_status status = ONESTEP_OK;
    for (size_t i = 1; i < size_maximum(m->given.operand_count, 2) && status == ONESTEP_OK; i++) {
        const char *name = i < m->given.operand_count ? m->given.operands[i] : NULL;
        status = store_verify(m->folder, name, on_verified, m, &bad, error);
        all += bad;
    }
    if (status == ONESTEP_OK && all) {
        status = error_set(error, ONESTEP_ERROR_FORMAT,
                           "%zu %s damaged or missing: `onestep models remove NAME`, then pull it "
                           "again",
                           all, all == 1 ? "file is" : "files are");
    }
    return status;
}

static onestep_status remove_model(models *m, const char *name, onestep_error *error)
{
    uint64_t bytes = 0;
    onestep_status status = store_remove(m->folder, m->catalogue, name, &bytes, error);
    if (status == ONESTEP_OK) {
        print_note(&m->given, "%s removed: %s freed", name, bytes_text(bytes).text);
    }
    return status;
}

static onestep_status print_path(models *m, const char *name, onestep_error *error)
{
    char *path = store_find(m->folder, m->catalogue, name, error);
    if (!path) {
        return error ? error->code : ONESTEP_ERROR_IO;
    }
    printf("%s\n", path);
    memory_free(path);
    return ONESTEP_OK;
}

/* ---- the command ---------------------------------------------------------------------------- */

static onestep_status run_action(models *m, onestep_error *error)
{
    static const struct {
        const char *name;
        bool takes_name, one;
        onestep_status (*each)(models *m, const char *name, onestep_error *error);
        onestep_status (*all)(models *m, onestep_error *error);
    } actions[] = {
        {"list", false, false, NULL, list_models},  {"info", true, false, show_model, NULL},
        {"pull", true, false, NULL, pull_models},   {"import", true, true, import_model, NULL},
        {"remove", true, true, remove_model, NULL}, {"verify", false, false, NULL, verify_models},
        {"path", true, false, print_path, NULL},
    };
    enum { COUNT = sizeof actions / sizeof *actions };
    const char *names[COUNT];
    const char *given = m->given.operand_count ? m->given.operands[0] : "list";
    for (size_t i = 0; i < COUNT; i++) {
        names[i] = actions[i].name;
        if (strcmp(given, actions[i].name) != 0) {
            continue;
        }
        size_t operands = m->given.operand_count;
        if ((actions[i].takes_name && operands < 2) || (actions[i].one && operands > 2)) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT, "models %s: expected %s", given,
                             actions[i].one ? "one name or path" : "a name");
        }
        if (actions[i].all) {
            return actions[i].all(m, error);
        }
        onestep_status status = ONESTEP_OK;
        for (size_t n = 1; n < operands && status == ONESTEP_OK; n++) {
            status = actions[i].each(m, m->given.operands[n], error);
        }
        return status;
    }
    const char *near = nearest_name(given, names, COUNT);
    return error_set(error, ONESTEP_ERROR_ARGUMENT, "unknown action \"%.40s\"%s%s%s", given,
                     near ? "; did you mean "
                          : ": expected list, info, pull, import, remove, "
                            "verify or path",
                     near ? near : "", near ? "?" : "");
}

static int models_run(int argument_count, char **arguments)
{
    models m = {0};
    onestep_error error = {0};
    int code;
    if (!command_begin(&m.given, &models_command, argument_count, arguments, &code)) {
        return code;
    }
    interrupt_catch();
    m.folder = store_folder(&error);
    onestep_status status = m.folder ? models_catalogue(&m.catalogue, &error) : error.code;
    if (status == ONESTEP_OK) {
        status = run_action(&m, &error);
    }
    if (status != ONESTEP_OK) {
        print_error(&error);
    }
    catalogue_close(&m.catalogue);
    memory_free(m.folder);
    options_free(&m.given);
    interrupt_finish();
    return exit_code(status);
}

const command models_command = {
    .name = "models",
    .summary = "fetch, import, list, verify and remove models",
    .operands = "list | info NAME|FILE|DIR | pull NAME... | import PATH | remove NAME | "
                "verify [NAME] | path NAME",
    .operand_names = "onestep models list 2>/dev/null | sed -e 1d -e \"s/ .*//\"",
    .examples = "  onestep models list\n"
                "  onestep models pull day_to_night           its checkpoint and SD-Turbo\n"
                "  onestep models pull sd-turbo --full        fp32 weights\n"
                "  onestep models info mine.pkl\n"
                "  onestep models import mine.pkl --name mine\n"
                "  onestep models verify\n"
                "  onestep translate -c \"$(onestep models path mine)\" -p \"a cat\" -i in.png\n",
    .options = models_options,
    .run = models_run};
