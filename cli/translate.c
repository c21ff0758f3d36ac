/* onestep translate: inputs -> requests -> pictures. */
#include "translate/translate.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/job.h"
#include "cli/outputs.h"
#include "cli/terminal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Requests handed to the library at once: enough for its batches of small pictures. */
#define CHUNK_REQUESTS 8

typedef struct translation {
    options_given given;
    job job;
    input_list inputs;
    output_plan outputs;
    config *captions; /* --prompts */
    named_tensor noise, posterior_noise;
    size_t variants; /* outputs an input: seeds times gammas */
    double *gammas;
    size_t gamma_count;
    int64_t seed;
    progress_bar bar;
    size_t pictures_done, pictures_all, failed;
    double seconds; /* inside the library */
} translation;

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
    options_free(&t->given);
}

/* ---- one input
 * ------------------------------------------------------------------------------------------ */

static int on_progress(void *user_data, double fraction, const char *stage)
{
    translation *t = user_data;
    double pictures = (double)t->pictures_all;
    char label[64];
    snprintf(label, sizeof label, "%zu/%zu %s", t->pictures_done + 1, t->pictures_all, stage);
    size_t now = size_minimum(t->variants, CHUNK_REQUESTS);
    progress_draw(&t->bar, ((double)t->pictures_done + fraction * (double)now) / pictures, label);
    return interrupted();
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

static void report_output(const translation *t, const char *input, const char *output,
                          const onestep_request *request, const onestep_result *result)
{
    if (!options_has(&t->given, "json")) {
        print_note(&t->given, "%s -> %s (%ux%u, %.2f s)", input, output, result->image.width,
                   result->image.height, result->total_seconds);
        return;
    }
    json_t *line =
        json_pack("{s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:f}", "input", input, "output",
                  output, "width", (int)result->image.width, "height", (int)result->image.height,
                  "seed", (json_int_t)request->seed, "total_s", result->total_seconds, "text_s",
                  result->text_seconds, "encode_s", result->encode_seconds, "unet_s",
                  result->unet_seconds, "decode_s", result->decode_seconds);
    if (line && onestep_model_is_stochastic(t->job.model)) {
        json_object_set_new(line, "gamma", json_real(request->gamma));
    }
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    FILE *stream = t->outputs.to_stdout ? stderr : stdout;
    if (text) {
        fprintf(stream, "%s\n", text);
        fflush(stream);
    }
    free(text);
    json_decref(line);
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

static onestep_status write_result(translation *t, size_t input, size_t variant,
                                   const onestep_request *request, const onestep_result *result,
                                   onestep_error *error)
{
    image_metadata metadata = {0};
    const char *path = outputs_path(&t->outputs, input, variant);
    onestep_status status =
        metadata_from_options(&metadata, &t->given, request, t->job.model, t->job.engine, error);
    if (status == ONESTEP_OK) {
        status = outputs_write(&t->outputs, path, &result->image, &metadata, error);
    }
    image_metadata_free(&metadata);
    const task *the_task = t->job.task ? task_find(t->job.task) : NULL;
    bool edges = the_task && the_task->control == ONESTEP_CONTROL_CANNY &&
                 request->control == ONESTEP_CONTROL_DEFAULT && !t->outputs.to_stdout &&
                 !options_has(&t->given, "no-canny");
    if (status == ONESTEP_OK && edges && variant == 0) {
        status = outputs_write_extra(&t->outputs, input, "canny", &result->control, true, error);
    }
    if (status == ONESTEP_OK) {
        report_output(t, t->inputs.paths[input], path, request, result);
    }
    return status;
}

/* Input, control and every output side by side. */
static onestep_status write_grid(translation *t, size_t input, const onestep_image *source,
                                 const onestep_image *control, const onestep_image *outputs,
                                 onestep_error *error)
{
    size_t count = t->variants + 2;
    onestep_image grid = {0};
    const onestep_image **pictures = memory_allocate(count, sizeof *pictures, error);
    if (!pictures) {
        return ONESTEP_ERROR_MEMORY;
    }
    pictures[0] = source;
    pictures[1] = control;
    for (size_t v = 0; v < t->variants; v++) {
        pictures[v + 2] = &outputs[v];
    }
    onestep_status status = image_grid(&grid, pictures, count, 0, 4, error);
    if (status == ONESTEP_OK) {
        status = outputs_write_extra(&t->outputs, input, "grid", &grid, false, error);
    }
    image_destroy(&grid);
    memory_free(pictures);
    return status;
}

/* Runs the variants of one input in chunks; `kept` (or NULL) receives the pictures for the grid. */
static onestep_status run_variants(translation *t, size_t input, const onestep_image *image,
                                   const char *caption, dump_target *target, onestep_image *kept,
                                   onestep_image *kept_control, onestep_error *error)
{
    onestep_request requests[CHUNK_REQUESTS];
    onestep_result results[CHUNK_REQUESTS];
    onestep_status status = ONESTEP_OK;
    for (size_t first = 0; first < t->variants && status == ONESTEP_OK; first += CHUNK_REQUESTS) {
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
        status = onestep_translate_batch(t->job.session, requests, count, results, error);
        t->seconds += monotonic_seconds() - start;
        if (status != ONESTEP_OK) {
            if (target && target->error.code != ONESTEP_OK) {
                *error = target->error;
                status = error->code;
            }
            return status;
        }
        progress_end(&t->bar);
        for (size_t i = 0; i < count; i++) {
            if (status == ONESTEP_OK) {
                status = write_result(t, input, first + i, &requests[i], &results[i], error);
            }
            if (kept && status == ONESTEP_OK) {
                kept[first + i] = results[i].image;
                results[i].image = (onestep_image){0};
                if (first + i == 0) {
                    *kept_control = results[i].control;
                    results[i].control = (onestep_image){0};
                }
            }
            onestep_result_free(&results[i]);
        }
        t->pictures_done += count;
    }
    return status;
}

static onestep_status translate_input(translation *t, size_t input, onestep_error *error)
{
    onestep_image image = {0}, control = {0}, *kept = NULL;
    dump_target target = {0};
    char *dump_folder = NULL;
    const char *caption = options_text(&t->given, "prompt", NULL);
    onestep_status status = find_caption(t, t->inputs.paths[input], &caption, error);
    if (status == ONESTEP_OK) {
        status = read_input(t->inputs.paths[input], &image, error);
    }
    if (status == ONESTEP_OK && options_has(&t->given, "dump")) {
        dump_folder =
            outputs_dump_folder(&t->outputs, input, options_text(&t->given, "dump", NULL), error);
        status = dump_folder ? folder_create(dump_folder, error) : ONESTEP_ERROR_MEMORY;
        target.folder = dump_folder;
    }
    bool grid = options_has(&t->given, "grid");
    if (status == ONESTEP_OK && grid) {
        kept = memory_allocate(t->variants, sizeof *kept, error);
        status = kept ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    }
    if (status == ONESTEP_OK) {
        status = run_variants(t, input, &image, caption, dump_folder ? &target : NULL, kept,
                              &control, error);
    }
    if (status == ONESTEP_OK && grid) {
        status = write_grid(t, input, &image, &control, kept, error);
    }
    for (size_t v = 0; kept && v < t->variants; v++) {
        image_destroy(&kept[v]);
    }
    memory_free(kept);
    image_destroy(&control);
    image_destroy(&image);
    memory_free(dump_folder);
    return status;
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

static onestep_status run(translation *t, onestep_error *error)
{
    bool skip = strcmp(options_text(&t->given, "on-error", "stop"), "skip") == 0;
    bool resume = options_has(&t->given, "resume");
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
    progress_start(&t->bar, &t->given);
    for (size_t i = 0; i < t->inputs.count; i++) {
        if (resume && outputs_exist(&t->outputs, i)) {
            resumed++;
            t->pictures_done += t->variants;
            continue;
        }
        size_t before = t->pictures_done;
        onestep_error own;
        status = translate_input(t, i, &own);
        progress_end(&t->bar);
        if (status == ONESTEP_OK) {
            continue;
        }
        if (!skip || status == ONESTEP_ERROR_CANCELLED || status == ONESTEP_ERROR_ARGUMENT) {
            *error = own;
            return status;
        }
        t->failed++;
        t->pictures_done = before + t->variants;
        print_error(&own);
    }
    status = print_plan_and_graph(t, error);
    if (t->inputs.count > 1) {
        print_note(&t->given, "%zu done, %zu skipped, %zu failed in %.1f s",
                   t->inputs.count - t->failed - resumed, resumed, t->failed,
                   monotonic_seconds() - start);
    }
    if (options_has(&t->given, "verbose")) {
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
