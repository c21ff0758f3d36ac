/* onestep serve: tasks on one base over HTTP. */
#include "serve/serve.h"
#include "cli/commands.h"
#include "cli/job.h"
#include "cli/terminal.h"
#include "translate/translate.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Tasks of the table and own checkpoints. */
#define TASKS_MOST 32

static const option serve_options[] = {
    {.name = "listen",
     .kind = OPTION_TEXT,
     .argument = "ADDR:PORT",
     .help = "Where to listen (127.0.0.1:8080; port 0: any free one, which is printed)."},
    {.name = "tasks",
     .kind = OPTION_TEXT,
     .argument = "LIST",
     .help = "What to serve, divided by commas: a task, TASK=FILE for an own checkpoint of it,\n"
             "or NAME=FILE for a checkpoint under a name of your own. Default: every task whose\n"
             "checkpoint is in the model store."},
    {.name = "demo",
     .kind = OPTION_FLAG,
     .help = "The built-in small base with all six tasks: needs no download."},
    {.name = "base",
     .letter = 'b',
     .kind = OPTION_PATH,
     .argument = "DIR|NAME",
     .help = "Base model: a diffusers folder, or a name in the model store (sd-turbo)."},
    {.name = "queue",
     .kind = OPTION_INTEGER,
     .argument = "N",
     .least = 1,
     .most = 1024,
     .help = "Requests that may wait (32); further ones get 429."},
    {.name = "timeout",
     .kind = OPTION_NUMBER,
     .argument = "SECONDS",
     .least = 0.1,
     .most = 86400,
     .help = "A request that is not done after this time gets 503 (300)."},
    {.name = "client-timeout",
     .kind = OPTION_NUMBER,
     .argument = "SECONDS",
     .least = 1,
     .most = 86400,
     .help = "How long a client may take to send a request or to take an answer (60)."},
    {.name = "drain",
     .kind = OPTION_NUMBER,
     .argument = "SECONDS",
     .least = 0,
     .most = 86400,
     .help = "After SIGTERM, how long work under way may go on (30)."},
    {.name = "max-body",
     .kind = OPTION_BYTES,
     .argument = "SIZE",
     .help = "Largest request body (32M)."},
    {.name = "max-pixels",
     .kind = OPTION_BYTES,
     .argument = "N",
     .help = "Most pixels of a picture file (32M)."},
    {.name = "max-work",
     .kind = OPTION_BYTES,
     .argument = "N",
     .help = "Most pixels translated at a time (1M: 1024x1024); larger pictures need max-side."},
    {.name = "token-file",
     .kind = OPTION_PATH,
     .argument = "FILE",
     .help = "Requests must bring the token in this file: Authorization: Bearer TOKEN."},
    {.name = "insecure",
     .kind = OPTION_FLAG,
     .help = "Allow listening beyond this machine without a token."},
    {.name = "allow-host",
     .kind = OPTION_TEXT,
     .flags = OPTION_REPEATS,
     .argument = "NAME",
     .help = "A host name under which browsers may reach this server (a proxy's name)."},
    {.name = "trust-forwarded",
     .kind = OPTION_FLAG,
     .help = "Behind a proxy: clients are told apart by the last address in X-Forwarded-For."},
    {.name = "log-json", .kind = OPTION_FLAG, .help = "The access log as one JSON object a line."},
    {.name = "no-warm-up",
     .kind = OPTION_FLAG,
     .help = "Be ready at once; the first picture takes longer."},
    OPTION_THREADS,
    OPTION_MEMORY_LIMIT,
    OPTION_PRECISION,
    {0}};

typedef struct opened_checkpoint {
    char *path;
    const char *task; /* or NULL: shared by several */
    onestep_model *model;
} opened_checkpoint;

typedef struct serving {
    options_given given;
    serve_config config;
    char address[64];
    char *token;
    const char *hosts[64];
    onestep_engine *engine;
    onestep_base *base;
    opened_checkpoint checkpoints[TASKS_MOST];
    size_t checkpoint_count;
    serve_task tasks[TASKS_MOST];
    char *names[TASKS_MOST];
    size_t task_count;
} serving;

/* ---- fields of requests: the option table of translate
 * ---------------------------------------------- */

typedef struct request_fields {
    options_given given;
    const serving *serving;
} request_fields;

static void *fields_create(void *context, onestep_error *error)
{
    request_fields *f = memory_allocate(1, sizeof *f, error);
    if (f) {
        f->given.command = &translate_command;
        f->serving = context;
    }
    return f;
}

static void fields_destroy(void *fields)
{
    request_fields *f = fields;
    options_free(&f->given);
    memory_free(f);
}

static onestep_status fields_add(void *fields, const char *name, const char *text,
                                 onestep_error *error)
{
    request_fields *f = fields;
    const option *o = option_find(&translate_command, name);
    if (o && !(o->flags & OPTION_HTTP)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "\"%s\" is an option of the command line, not a field of requests", name);
    }
    return options_add(&f->given, name, text, error) ? ONESTEP_OK : error->code;
}

static const char *fields_text(void *fields, const char *name)
{
    request_fields *f = fields;
    return options_text(&f->given, name, NULL);
}

static onestep_status fields_finish(void *fields, onestep_request *request, onestep_error *error)
{
    request_fields *f = fields;
    /* Without a task the server has one of its own in mind; what the options say of each other is
     * the library's to check then. */
    if (options_has(&f->given, "task")) {
        onestep_status status = job_check_options(&f->given, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    request_from_options(request, &f->given);
    return ONESTEP_OK;
}

static onestep_status fields_describe(void *fields, const onestep_request *request,
                                      const onestep_model *model, image_metadata *metadata,
                                      onestep_error *error)
{
    request_fields *f = fields;
    return metadata_from_options(metadata, &f->given, request, model, f->serving->engine, error);
}

/* ---- models
 * ------------------------------------------------------------------------------------------ */

static bool fill_options(options_given *lookup, const serving *v, const char *name,
                         const char *file, onestep_error *error)
{
    const char *base = options_text(&v->given, "base", NULL);
    lookup->command = &translate_command;
    return (!name || options_add(lookup, "task", name, error)) &&
           (!file || options_add(lookup, "checkpoint", file, error)) &&
           (!base || options_add(lookup, "base", base, error)) &&
           (!options_has(&v->given, "demo") || options_add(lookup, "demo", NULL, error));
}

static onestep_status open_base(serving *v, const char *path, onestep_error *error)
{
    if (v->base) {
        return ONESTEP_OK;
    }
    onestep_engine_options options;
    onestep_engine_options_init(&options);
    options.threads = (unsigned)options_integer(&v->given, "threads", 0);
    options.memory_limit = options_bytes(&v->given, "memory-limit", 0);
    options.log = print_log;
    options.log_level = options_has(&v->given, "verbose") ? ONESTEP_LOG_INFO : ONESTEP_LOG_WARNING;
    onestep_status status = onestep_engine_create(&v->engine, &options, error);
    return status == ONESTEP_OK ? onestep_base_open(&v->base, v->engine, path, error) : status;
}

/* The model of a checkpoint file. Two tasks of one unpaired file share it: it is opened without a
 * task then, and the tasks give direction and caption. */
static onestep_status open_checkpoint(serving *v, const char *path, const task *t,
                                      onestep_model **model, onestep_error *error)
{
    static const char *const precisions[] = {"auto", "f32", "bf16", "int16"};
    bool shareable = t && t->family == ONESTEP_FAMILY_UNPAIRED;
    for (size_t i = 0; i < v->checkpoint_count && shareable; i++) {
        if (!v->checkpoints[i].task && strcmp(v->checkpoints[i].path, path) == 0) {
            *model = v->checkpoints[i].model;
            if (onestep_model_family(*model) == ONESTEP_FAMILY_UNPAIRED) {
                return ONESTEP_OK;
            }
        }
    }
    opened_checkpoint *c = &v->checkpoints[v->checkpoint_count];
    onestep_model_options options;
    onestep_model_options_init(&options);
    options.task = t && !shareable ? t->name : NULL;
    const char *wanted = options_text(&v->given, "precision", "auto");
    for (size_t i = 0; i < 4; i++) {
        options.precision =
            strcmp(wanted, precisions[i]) == 0 ? (onestep_precision)i : options.precision;
    }
    c->task = options.task;
    c->path = string_duplicate(path, error);
    if (!c->path) {
        return ONESTEP_ERROR_MEMORY;
    }
    v->checkpoint_count++;
    onestep_status status = onestep_model_open(&c->model, v->base, path, &options, error);
    if (status == ONESTEP_OK && shareable &&
        onestep_model_family(c->model) != ONESTEP_FAMILY_UNPAIRED) {
        status =
            error_set(error, ONESTEP_ERROR_MISMATCH,
                      "%s: a checkpoint of the paired family, but %s is unpaired", path, t->name);
    }
    if (status == ONESTEP_OK) {
        /* They will be asked for again: the first picture, or the warm-up, leaves them packed. */
        weight_cache_keep_repeated(model_weight_cache(c->model), false);
    }
    *model = c->model;
    return status;
}

static onestep_status add_task(serving *v, const char *name, const char *file, onestep_error *error)
{
    const task *t = task_find(name);
    model_files files = {0};
    options_given lookup = {0};
    onestep_model *model = NULL;
    if (!t && !file) {
        const char *names[TASK_COUNT];
        for (size_t i = 0; i < TASK_COUNT; i++) {
            names[i] = task_at(i)->name;
        }
        const char *near = nearest_name(name, names, TASK_COUNT);
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--tasks: \"%.60s\" is no task%s%s%s; an own checkpoint is NAME=FILE",
                         name, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    if (v->task_count == TASKS_MOST) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "--tasks: more than %d", TASKS_MOST);
    }
    onestep_status status = fill_options(&lookup, v, t ? name : NULL, file, error)
                                ? model_files_find(&files, &lookup, error)
                                : error->code;
    if (status == ONESTEP_OK) {
        status = open_base(v, files.base, error);
    }
    if (status == ONESTEP_OK) {
        status = open_checkpoint(v, files.checkpoint, t, &model, error);
    }
    if (status == ONESTEP_OK) {
        v->names[v->task_count] = string_duplicate(name, error);
        status = v->names[v->task_count] ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    }
    if (status == ONESTEP_OK) {
        bool unpaired = onestep_model_family(model) == ONESTEP_FAMILY_UNPAIRED;
        v->tasks[v->task_count] =
            (serve_task){.name = v->names[v->task_count],
                         .model = model,
                         .direction = t && unpaired ? t->direction : ONESTEP_DIRECTION_DEFAULT,
                         .caption = t ? t->caption : NULL,
                         .unpaired = unpaired,
                         .own_direction = !t && unpaired,
                         /* The demo models know small pictures only. */
                         .image_prep = unpaired && v->config.demo ? "no_resize" : NULL};
        v->task_count++;
    }
    options_free(&lookup);
    model_files_free(&files);
    return status;
}

/* Every task whose checkpoint is there; at least one must be. */
static onestep_status add_all_tasks(serving *v, onestep_error *error)
{
    for (size_t i = 0; i < TASK_COUNT; i++) {
        model_files files = {0};
        options_given lookup = {0};
        onestep_error missing;
        bool there = fill_options(&lookup, v, task_at(i)->name, NULL, &missing) &&
                     model_files_find(&files, &lookup, &missing) == ONESTEP_OK;
        model_files_free(&files);
        options_free(&lookup);
        onestep_status status = there ? add_task(v, task_at(i)->name, NULL, error) : ONESTEP_OK;
        if (status != ONESTEP_OK) {
            return status;
        }
        if (!there && v->task_count == 0 && i + 1 == TASK_COUNT) {
            return error_set(error, missing.code, "%s; or try: onestep serve --demo",
                             missing.message);
        }
    }
    return ONESTEP_OK;
}

static onestep_status open_tasks(serving *v, onestep_error *error)
{
    const char *list = options_text(&v->given, "tasks", NULL);
    if (!list) {
        return add_all_tasks(v, error);
    }
    char *copy = string_duplicate(list, error), *position = NULL;
    if (!copy) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = ONESTEP_OK;
    for (char *entry = strtok_r(copy, ",", &position); entry && status == ONESTEP_OK;
         entry = strtok_r(NULL, ",", &position)) {
        char *equals = strchr(entry, '=');
        if (equals) {
            *equals = '\0';
        }
        for (size_t i = 0; i < v->task_count && status == ONESTEP_OK; i++) {
            if (strcmp(v->names[i], entry) == 0) {
                status =
                    error_set(error, ONESTEP_ERROR_ARGUMENT, "--tasks: %s is there twice", entry);
            }
        }
        if (status == ONESTEP_OK) {
            status = add_task(v, entry, equals ? equals + 1 : NULL, error);
        }
    }
    memory_free(copy);
    if (status == ONESTEP_OK && v->task_count == 0) {
        status = error_set(error, ONESTEP_ERROR_ARGUMENT, "--tasks: an empty list");
    }
    return status;
}

/* ---- options
 * ------------------------------------------------------------------------------------------ */

static onestep_status read_token(serving *v, const char *path, onestep_error *error)
{
    enum { TOKEN_BYTES_MOST = 4096, TOKEN_BYTES_LEAST = 16 };
    uint8_t *bytes;
    size_t size;
    onestep_status status = file_read(path, TOKEN_BYTES_MOST, &bytes, &size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    v->token = (char *)bytes; /* file_read ends it with NUL */
    v->token[strcspn(v->token, " \t\r\n")] = '\0';
    if (strlen(v->token) < TOKEN_BYTES_LEAST) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s: a token needs at least %d characters (try: openssl rand -hex 24)",
                         path, TOKEN_BYTES_LEAST);
    }
    v->config.token = v->token;
    return ONESTEP_OK;
}

static onestep_status read_options(serving *v, onestep_error *error)
{
    const options_given *given = &v->given;
    serve_config *c = &v->config;
    serve_config_init(c);
    onestep_status status = serve_parse_listen(options_text(given, "listen", "127.0.0.1:8080"),
                                               v->address, &c->port, error);
    if (status == ONESTEP_OK && options_has(given, "token-file")) {
        status = read_token(v, options_text(given, "token-file", NULL), error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    c->address = v->address;
    if (!serve_is_loopback(v->address) && !c->token && !options_has(given, "insecure")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--listen %s reaches beyond this machine: give --token-file FILE, or "
                         "--insecure when something else guards it",
                         v->address);
    }
    for (size_t i = 0; i + 1 < sizeof v->hosts / sizeof *v->hosts; i++) {
        v->hosts[i] = options_item(given, "allow-host", i);
        if (!v->hosts[i]) {
            break;
        }
    }
    c->hosts = v->hosts;
    c->trust_forwarded = options_has(given, "trust-forwarded");
    c->log_json = options_has(given, "log-json");
    c->log_quiet = options_has(given, "quiet");
    c->queue_most = (size_t)options_integer(given, "queue", (int64_t)c->queue_most);
    c->timeout_seconds = options_number(given, "timeout", c->timeout_seconds);
    c->client_seconds = options_number(given, "client-timeout", c->client_seconds);
    c->body_most = (size_t)options_bytes(given, "max-body", c->body_most);
    c->pixels_most = options_bytes(given, "max-pixels", c->pixels_most);
    c->work_most = options_bytes(given, "max-work", c->work_most);
    c->warm_up = !options_has(given, "no-warm-up");
    c->demo = options_has(given, "demo");
    c->side = c->demo ? 128 : 512;
    return ONESTEP_OK;
}

/* ---- running
 * ------------------------------------------------------------------------------------------- */

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096) {
        limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
        /* With fewer descriptors further connections wait; nothing else fails. */
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void announce(const serving *v, const server *s)
{
    bool six = strchr(v->address, ':') != NULL;
    if (options_has(&v->given, "json")) {
        printf("{\"listening\": \"http://%s%s%s:%u/\", \"tasks\": %zu}\n", six ? "[" : "",
               v->address, six ? "]" : "", server_port(s), v->task_count);
    } else {
        printf("onestep: listening on http://%s%s%s:%u/ (%zu tasks)\n", six ? "[" : "", v->address,
               six ? "]" : "", server_port(s), v->task_count);
    }
    fflush(stdout);
}

static onestep_status serve(serving *v, onestep_error *error)
{
    const struct timespec pause = {.tv_nsec = 50000000};
    server *s = NULL;
    v->config.small_at_once = onestep_engine_threads(v->engine) > 1 ? 2 : 1;
    v->config.tasks = v->tasks;
    v->config.task_count = v->task_count;
    v->config.fields = (serve_fields){.context = v,
                                      .create = fields_create,
                                      .add = fields_add,
                                      .finish = fields_finish,
                                      .text = fields_text,
                                      .describe = fields_describe,
                                      .destroy = fields_destroy};
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    interrupt_catch();
    onestep_status status = server_start(&s, &v->config, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    announce(v, s);
    while (!interrupted()) {
        nanosleep(&pause, NULL);
    }
    print_note(&v->given, "onestep: finishing what is under way (again to stop at once)");
    bool drained = server_drain(s, options_number(&v->given, "drain", 30));
    server_stop(&s);
    return drained ? ONESTEP_OK
                   : error_set(error, ONESTEP_ERROR_CANCELLED,
                               "stopped before all work was done (--drain was too short)");
}

static int serve_run(int argument_count, char **arguments)
{
    serving *v = memory_allocate(1, sizeof *v, NULL);
    onestep_error error = {0};
    int code = EXIT_FAILED;
    if (!v) {
        return EXIT_FAILED;
    }
    if (!command_begin(&v->given, &serve_command, argument_count, arguments, &code)) {
        memory_free(v);
        return code;
    }
    onestep_status status = read_options(v, &error);
    if (status == ONESTEP_OK) {
        status = open_tasks(v, &error);
    }
    if (status == ONESTEP_OK) {
        status = serve(v, &error);
    }
    if (status != ONESTEP_OK) {
        print_error(&error);
    }
    for (size_t i = 0; i < v->checkpoint_count; i++) {
        onestep_model_destroy(&v->checkpoints[i].model);
        memory_free(v->checkpoints[i].path);
    }
    for (size_t i = 0; i < TASKS_MOST; i++) {
        memory_free(v->names[i]);
    }
    onestep_base_destroy(&v->base);
    onestep_engine_destroy(&v->engine);
    memory_free(v->token);
    options_free(&v->given);
    memory_free(v);
    return exit_code(status);
}

const command serve_command = {
    .name = "serve",
    .summary = "serve translation over HTTP, with a web page",
    .operands = "",
    .examples =
        "  onestep serve --demo                     then open http://127.0.0.1:8080/\n"
        "  onestep serve --tasks edge_to_image,day_to_night\n"
        "  onestep serve --tasks mine=mine.pkl -b sd-turbo --listen 0.0.0.0:8080 --token-file "
        "token\n"
        "  curl -F task=edge_to_image -F prompt=\"a blue bird\" -F image=@bird.png \\\n"
        "      http://127.0.0.1:8080/v1/translate -o bird_blue.png\n",
    .options = serve_options,
    .run = serve_run};
