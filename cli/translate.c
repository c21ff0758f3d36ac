/* onestep translate: inputs -> requests -> pictures. */
#include "translate/translate.h"
#include "cli/commands.h"
#include "cli/show.h"
#include "cli/translation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Requests handed to the library at once: enough for its batches of small pictures. */
#define CHUNK_REQUESTS 8
/* Pictures read ahead, and waiting to be written; and the bytes of each that end the waiting. */
#define READ_AHEAD    4
#define WRITE_BEHIND  16
#define WAITING_BYTES ((uint64_t)64 << 20)

/* ---- setting up
 * --------------------------------------------------------------------------------------- */

static onestep_status read_noise(const translation *t, const char *name, named_tensor *noise,
                                 onestep_error *error)
{
    const char *path = options_text(&t->given, name, NULL);
    if (!path) {
        return ONESTEP_OK;
    }
    onestep_status status = npy_read(noise, path, error);
    if (status == ONESTEP_OK && noise->type != ELEMENT_F32) {
        status = error_set(error, ONESTEP_ERROR_FORMAT, "%s: holds %s, expected f32", path,
                           element_name(noise->type));
    }
    return status;
}

static onestep_status set_up(translation *t, onestep_error *error)
{
    const options_given *given = &t->given;
    onestep_status status = job_check_options(given, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (!options_has(given, "input")) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "no input: give --input PATH");
    }
    if (options_has(given, "show") && !show_possible()) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--show: this terminal knows neither kitty's nor iTerm2's pictures");
    }
    if (!options_numbers(given, "gammas", &t->gammas, &t->gamma_count, error)) {
        return ONESTEP_ERROR_MEMORY;
    }
    t->seed = options_integer(given, "seed", 42);
    t->variants = (size_t)options_integer(given, "count", 1) * size_maximum(t->gamma_count, 1);
    status = inputs_collect(&t->inputs, given, error);
    if (status == ONESTEP_OK) {
        status = outputs_plan(&t->outputs, given, &t->inputs, t->gammas, t->gamma_count, error);
    }
    const char *captions = options_text(given, "prompts", NULL);
    if (status == ONESTEP_OK && captions) {
        status = config_open(&t->captions, captions, error);
    }
    if (status == ONESTEP_OK) {
        status = read_noise(t, "noise", &t->noise, error);
    }
    if (status == ONESTEP_OK) {
        status = read_noise(t, "posterior-noise", &t->posterior_noise, error);
    }
    t->pictures_all = t->inputs.count * t->variants;
    return status;
}

static void tear_down(translation *t)
{
    job_close(&t->job);
    outputs_free(&t->outputs);
    inputs_free(&t->inputs);
    config_close(&t->captions);
    npy_free(&t->noise);
    npy_free(&t->posterior_noise);
    memory_free(t->gammas);
    queue_destroy(&t->loaded);
    queue_destroy(&t->finished);
    text_buffer_free(&t->failed_names);
    pthread_mutex_destroy(&t->screen);
    options_free(&t->given);
}

/* ---- one input
 * ------------------------------------------------------------------------------------------ */

static int on_progress(void *user_data, double fraction, const char *stage)
{
    translation *t = user_data;
    char label[64];
    snprintf(label, sizeof label, "%zu/%zu %s", t->pictures_done + 1, t->pictures_all, stage);
    double all = (double)t->pictures_all, now = (double)size_minimum(t->variants, CHUNK_REQUESTS);
    pthread_mutex_lock(&t->screen);
    if (!t->clock_runs) {
        /* What --resume skipped took no time. */
        t->clock_runs = true;
        t->bar.start = monotonic_seconds();
        t->bar.from = (double)t->pictures_done / all;
    }
    progress_draw(&t->bar, ((double)t->pictures_done + fraction * now) / all, label);
    pthread_mutex_unlock(&t->screen);
    return interrupted() || atomic_load(&t->stop);
}

typedef struct dump_target {
    const char *folder;
    onestep_error error;
} dump_target;

static int on_dump(void *user_data, const onestep_tensor *stage)
{
    dump_target *target = user_data;
    size_t shape[4];
    for (unsigned d = 0; d < stage->rank; d++) {
        shape[d] = (size_t)stage->shape[d];
    }
    char *path = string_format(&target->error, "%s/%s.npy", target->folder, stage->stage);
    bool good = path && npy_write(path, stage->is_int64 ? ELEMENT_I64 : ELEMENT_F32, stage->rank,
                                  shape, stage->data, &target->error) == ONESTEP_OK;
    memory_free(path);
    return !good;
}

/* The caption of an input: from --prompts by file name, else --prompt. */
static onestep_status find_caption(const translation *t, const char *input, const char **caption,
                                   onestep_error *error)
{
    if (!t->captions) {
        return ONESTEP_OK;
    }
    const char *found = NULL;
    onestep_status status = config_string(t->captions, path_base(input), NULL, &found, error);
    if (status == ONESTEP_OK && !found && !*caption) {
        status = error_set(error, ONESTEP_ERROR_FORMAT, "%s: no caption for %s",
                           config_path(t->captions), path_base(input));
    }
    *caption = found ? found : *caption;
    return status;
}

static onestep_status read_input(const char *path, onestep_image *image, onestep_error *error)
{
    if (strcmp(path, "-") != 0) {
        return image_load(image, path, NULL, error);
    }
    enum { BYTES_MOST = 1 << 30 };
    uint8_t *bytes;
    size_t size;
    onestep_status status = file_read("/dev/stdin", BYTES_MOST, &bytes, &size, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    status = image_decode(image, bytes, size, NULL, error);
    memory_free(bytes);
    if (status != ONESTEP_OK) {
        error_prefix(error, "standard input");
    }
    return status;
}

static void fill_request(const translation *t, onestep_request *request, size_t variant,
                         const onestep_image *image, const char *caption)
{
    request_from_options(request, &t->given);
    request->image = *image;
    request->prompt = caption;
    size_t gammas = size_maximum(t->gamma_count, 1);
    /* Seeds count on in 64 bits, as the official generators take them. */
    request->seed = (int64_t)((uint64_t)t->seed + variant / gammas);
    if (t->gamma_count) {
        request->gamma = t->gammas[variant % gammas];
    }
    request->noise = t->noise.data;
    request->noise_count = t->noise.data ? t->noise.bytes / sizeof(float) : 0;
    request->posterior_noise = t->posterior_noise.data;
    request->posterior_noise_count =
        t->posterior_noise.data ? t->posterior_noise.bytes / sizeof(float) : 0;
    request->progress = on_progress;
    request->progress_user_data = (void *)t;
}

/* Hands a picture, or the failure of an input, to the writer. */
static void hand_on(translation *t, finished_picture *p)
{
    uint64_t weight = (uint64_t)p->result.image.stride * p->result.image.height +
                      (uint64_t)p->result.control.stride * p->result.control.height;
    (void)queue_wait(t->finished);
    if (!queue_put(t->finished, p, weight)) {
        onestep_result_free(&p->result);
        image_destroy(&p->source);
    }
    if (options_has(&t->given, "memory-limit")) {
        queue_drain(t->finished);
    }
}

/* --json tells of every input, also of those that were done before. */
static void hand_on_resumed(translation *t, size_t input)
{
    finished_picture p = {.input = input, .there = true};
    onestep_result_init(&p.result);
    hand_on(t, &p);
}

static void hand_on_failure(translation *t, size_t input, const onestep_error *error)
{
    finished_picture p = {.input = input, .error = *error};
    onestep_result_init(&p.result);
    hand_on(t, &p);
}

/* Runs the variants of one input in chunks. The source picture goes on with the last one when it is
 * wanted in a grid. */
static onestep_status run_variants(translation *t, size_t input, onestep_image *image,
                                   const char *caption, dump_target *target, onestep_error *error)
{
    onestep_request requests[CHUNK_REQUESTS];
    onestep_result results[CHUNK_REQUESTS];
    bool grid = options_has(&t->given, "grid");
    for (size_t first = 0; first < t->variants; first += CHUNK_REQUESTS) {
        size_t count = size_minimum(CHUNK_REQUESTS, t->variants - first);
        for (size_t i = 0; i < count; i++) {
            fill_request(t, &requests[i], first + i, image, caption);
            onestep_result_init(&results[i]);
            if (target && first + i == 0) {
                requests[i].dump = on_dump;
                requests[i].dump_user_data = target;
            }
        }
        double start = monotonic_seconds();
        onestep_status status =
            onestep_translate_batch(t->job.session, requests, count, results, error);
        t->network_seconds += monotonic_seconds() - start;
        if (status != ONESTEP_OK) {
            if (target && target->error.code != ONESTEP_OK) {
                *error = target->error;
                status = error->code;
            }
            return status;
        }
        for (size_t i = 0; i < count; i++) {
            finished_picture p = {
                .input = input, .variant = first + i, .request = requests[i], .result = results[i]};
            p.request.image = (onestep_image){0};
            if (grid && first + i + 1 == t->variants) {
                p.source = *image;
                *image = (onestep_image){0};
            }
            hand_on(t, &p);
        }
        t->pictures_done += count;
    }
    return ONESTEP_OK;
}

static onestep_status translate_input(translation *t, loaded_input *loaded, onestep_error *error)
{
    size_t input = loaded->input;
    dump_target target = {0};
    char *dump_folder = NULL;
    const char *caption = options_text(&t->given, "prompt", NULL);
    if (loaded->error.code != ONESTEP_OK) {
        *error = loaded->error;
        return error->code;
    }
    onestep_status status = find_caption(t, t->inputs.paths[input], &caption, error);
    if (status == ONESTEP_OK && options_has(&t->given, "dump")) {
        dump_folder =
            outputs_dump_folder(&t->outputs, input, options_text(&t->given, "dump", NULL), error);
        status = dump_folder ? folder_create(dump_folder, error) : ONESTEP_ERROR_MEMORY;
        target.folder = dump_folder;
    }
    if (status == ONESTEP_OK) {
        status =
            run_variants(t, input, &loaded->image, caption, dump_folder ? &target : NULL, error);
    }
    memory_free(dump_folder);
    return status;
}

/* ---- reading ahead -------------------------------------------------------------------------- */

void *translation_read(void *context)
{
    translation *t = context;
    bool resume = options_has(&t->given, "resume");
    for (size_t i = 0; i < t->inputs.count && queue_wait(t->loaded); i++) {
        loaded_input item = {.input = i};
        double start = monotonic_seconds();
        /* Looked at now and not before: another process may work on the same list. */
        item.there = resume && outputs_exist(&t->outputs, i, options_has(&t->given, "grid"));
        if (!item.there && read_input(t->inputs.paths[i], &item.image, &item.error) == ONESTEP_OK) {
            item.error.code = ONESTEP_OK;
        }
        t->read_seconds += monotonic_seconds() - start;
        if (!queue_put(t->loaded, &item, (uint64_t)item.image.stride * item.image.height)) {
            image_destroy(&item.image);
        }
    }
    queue_close(t->loaded);
    return NULL;
}

/* ---- all inputs
 * ----------------------------------------------------------------------------------------- */

static onestep_status print_plan_and_graph(translation *t, onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    text_buffer text = {0};
    if (options_has(&t->given, "plan")) {
        session_print_plan(t->job.session, &text);
        fputs(text.data ? text.data : "", t->outputs.to_stdout ? stderr : stdout);
        text_buffer_free(&text);
    }
    const char *path = options_text(&t->given, "dump-graph", NULL);
    if (path) {
        session_print_graph(t->job.session, &text);
        status = text.failed || !text.data
                     ? error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory for the graph", path)
                     : file_write_atomic(path, text.data, text.length, error);
        text_buffer_free(&text);
    }
    return status;
}

/* Takes what the reader has, translates it and hands it on, until all is done or something stops
 * the run. */
static void run_inputs(translation *t, size_t *resumed)
{
    loaded_input loaded;
    while (!atomic_load(&t->stop) && queue_take(t->loaded, &loaded)) {
        size_t after = (loaded.input + 1) * t->variants;
        onestep_error error;
        if (loaded.there) {
            ++*resumed;
            hand_on_resumed(t, loaded.input);
        } else if (interrupted()) {
            error_set(&error, ONESTEP_ERROR_CANCELLED, "interrupted");
            hand_on_failure(t, loaded.input, &error);
            image_destroy(&loaded.image);
            break;
        } else if (translate_input(t, &loaded, &error) != ONESTEP_OK) {
            hand_on_failure(t, loaded.input, &error);
        }
        image_destroy(&loaded.image);
        t->pictures_done = after;
    }
    queue_close(t->loaded);
    queue_close(t->finished);
}

/* Starts reader and writer, works, and waits for them. */
static onestep_status run_threads(translation *t, size_t *resumed, onestep_error *error)
{
    pthread_t reader, writer;
    bool turns = options_has(&t->given, "memory-limit");
    onestep_status status = queue_create(&t->loaded, turns ? 0 : READ_AHEAD, sizeof(loaded_input),
                                         WAITING_BYTES, error);
    if (status == ONESTEP_OK) {
        status = queue_create(&t->finished, WRITE_BEHIND, sizeof(finished_picture), WAITING_BYTES,
                              error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (pthread_create(&reader, NULL, translation_read, t) != 0) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "no thread to read pictures with");
    }
    bool writes = pthread_create(&writer, NULL, translation_write, t) == 0;
    if (writes) {
        run_inputs(t, resumed);
        pthread_join(writer, NULL);
    } else {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "no thread to write pictures with");
        queue_close(t->loaded);
    }
    pthread_join(reader, NULL);
    loaded_input left;
    while (queue_take(t->loaded, &left)) {
        image_destroy(&left.image);
    }
    return status;
}

static void print_summary(translation *t, size_t resumed, double seconds)
{
    size_t done = t->inputs.count - t->failed - resumed;
    double rate = seconds > 0 ? (double)done * 60 / seconds : 0;
    print_note(&t->given, "%zu done, %zu skipped, %zu failed in %.1f s (%.3g inputs a minute)",
               done, resumed, t->failed, seconds, rate);
    if (t->failed > 1 && t->failed_names.data) {
        print_note(&t->given, "failed:\n%.*s%s", (int)t->failed_names.length - 1,
                   t->failed_names.data, t->failed > 20 ? "\n  ..." : "");
    }
}

static onestep_status run(translation *t, onestep_error *error)
{
    double start = monotonic_seconds();
    onestep_status status = job_open(&t->job, &t->given, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (options_has(&t->given, "verbose")) {
        fprintf(stderr, "precision %s, loaded in %.2f s\n", onestep_model_precision(t->job.model),
                monotonic_seconds() - start);
    }
    size_t resumed = 0;
    t->skip_errors = strcmp(options_text(&t->given, "on-error", "stop"), "skip") == 0;
    progress_start(&t->bar, &t->given);
    double working = monotonic_seconds();
    status = run_threads(t, &resumed, error);
    working = monotonic_seconds() - working;
    progress_end(&t->bar);
    if (status == ONESTEP_OK && t->error.code != ONESTEP_OK) {
        *error = t->error;
        status = error->code;
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    status = print_plan_and_graph(t, error);
    if (t->inputs.count > 1) {
        print_summary(t, resumed, monotonic_seconds() - start);
    }
    if (options_has(&t->given, "verbose")) {
        fprintf(stderr, "reading %.2f s, network %.2f s, writing %.2f s, together %.2f s\n",
                t->read_seconds, t->network_seconds, t->write_seconds, working);
        fprintf(stderr, "peak memory %s\n", bytes_text(peak_resident_bytes()).text);
    }
    return status;
}

int translate_run(int argument_count, char **arguments)
{
    translation t = {0};
    onestep_error error = {0};
    int code;
    if (!command_begin(&t.given, &translate_command, argument_count, arguments, &code)) {
        return code;
    }
    pthread_mutex_init(&t.screen, NULL);
    interrupt_catch();
    const char *like = options_text(&t.given, "like", NULL);
    onestep_status status = like ? options_like(&t.given, like, &error) : ONESTEP_OK;
    if (status == ONESTEP_OK) {
        status = set_up(&t, &error);
    }
    if (status == ONESTEP_OK) {
        status = run(&t, &error);
    }
    if (status != ONESTEP_OK) {
        print_error(&error);
    }
    code = status == ONESTEP_OK && t.failed ? EXIT_FAILED : exit_code(status);
    tear_down(&t);
    interrupt_finish();
    return code;
}
