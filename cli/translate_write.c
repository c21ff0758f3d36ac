/* The writer of `onestep translate`: files, and every message about a picture. */
#include "cli/show.h"
#include "cli/translation.h"
#include "translate/translate.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* At the end so many failed inputs are named again. */
#define FAILED_NAMES_MOST 20

static void print_json_line(const translation *t, json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    FILE *stream = t->outputs.to_stdout ? stderr : stdout;
    if (text) {
        fprintf(stream, "%s\n", text);
        fflush(stream);
    }
    free(text);
    json_decref(line);
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
    print_json_line(t, line);
}

static onestep_status write_picture(translation *t, const finished_picture *p, onestep_error *error)
{
    image_metadata metadata = {0};
    const char *path = outputs_path(&t->outputs, p->input, p->variant);
    const task *the_task = t->job.task ? task_find(t->job.task) : NULL;
    bool edges = the_task && the_task->control == ONESTEP_CONTROL_CANNY &&
                 p->request.control == ONESTEP_CONTROL_DEFAULT && !t->outputs.to_stdout &&
                 !options_has(&t->given, "no-canny");
    onestep_status status = ONESTEP_OK;
    /* The edge map first: where the output exists, everything does (--resume). */
    if (edges && p->variant == 0) {
        status =
            outputs_write_extra(&t->outputs, p->input, "canny", &p->result.control, true, error);
    }
    if (status == ONESTEP_OK) {
        status = metadata_from_options(&metadata, &t->given, &p->request, t->job.model,
                                       t->job.engine, error);
    }
    if (status == ONESTEP_OK) {
        status = outputs_write(&t->outputs, path, &p->result.image, &metadata, error);
    }
    image_metadata_free(&metadata);
    if (status == ONESTEP_OK) {
        pthread_mutex_lock(&t->screen);
        progress_end(&t->bar);
        report_output(t, t->inputs.paths[p->input], path, &p->request, &p->result);
        if (options_has(&t->given, "show")) {
            status = show_picture(&p->result.image, error);
        }
        pthread_mutex_unlock(&t->screen);
    }
    return status;
}

/* ---- the grid ------------------------------------------------------------------------------- */

static void forget_kept(translation *t)
{
    for (size_t v = 0; t->kept && v < t->variants; v++) {
        image_destroy(&t->kept[v]);
    }
    image_destroy(&t->kept_control);
}

/* Input, control and every output side by side. */
static onestep_status write_grid(translation *t, const finished_picture *p, onestep_error *error)
{
    size_t count = t->variants + 2;
    onestep_image grid = {0};
    const onestep_image **pictures = memory_allocate(count, sizeof *pictures, error);
    if (!pictures) {
        return ONESTEP_ERROR_MEMORY;
    }
    pictures[0] = &p->source;
    pictures[1] = &t->kept_control;
    for (size_t v = 0; v < t->variants; v++) {
        pictures[v + 2] = &t->kept[v];
    }
    onestep_status status = image_grid(&grid, pictures, count, 0, 4, error);
    if (status == ONESTEP_OK) {
        status = outputs_write_extra(&t->outputs, p->input, "grid", &grid, false, error);
    }
    image_destroy(&grid);
    memory_free(pictures);
    return status;
}

static onestep_status keep_for_grid(translation *t, finished_picture *p, onestep_error *error)
{
    if (!t->kept) {
        t->kept = memory_allocate(t->variants, sizeof *t->kept, error);
        if (!t->kept) {
            return ONESTEP_ERROR_MEMORY;
        }
    }
    image_destroy(&t->kept[p->variant]);
    t->kept[p->variant] = p->result.image;
    p->result.image = (onestep_image){0};
    if (p->variant == 0) {
        image_destroy(&t->kept_control);
        t->kept_control = p->result.control;
        p->result.control = (onestep_image){0};
    }
    onestep_status status = ONESTEP_OK;
    if (p->variant + 1 == t->variants) {
        status = write_grid(t, p, error);
        forget_kept(t);
    }
    return status;
}

/* ---- failures ------------------------------------------------------------------------------- */

static void note_failure(translation *t, size_t input, const onestep_error *error)
{
    const char *path = t->inputs.paths[input];
    t->failed_input = input;
    t->failed++;
    if (!t->skip_errors || error->code == ONESTEP_ERROR_CANCELLED ||
        error->code == ONESTEP_ERROR_ARGUMENT) {
        t->error = *error;
        atomic_store(&t->stop, true);
        return;
    }
    if (t->failed <= FAILED_NAMES_MOST) {
        text_buffer_print(&t->failed_names, "  %s\n", path);
    }
    pthread_mutex_lock(&t->screen);
    progress_end(&t->bar);
    print_error(error);
    if (options_has(&t->given, "json")) {
        print_json_line(t, json_pack("{s:s, s:s}", "input", path, "error", error->message));
    }
    pthread_mutex_unlock(&t->screen);
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void report_resumed(translation *t, size_t input)
{
    for (size_t v = 0; options_has(&t->given, "json") && v < t->variants; v++) {
        pthread_mutex_lock(&t->screen);
        print_json_line(t, json_pack("{s:s, s:s, s:b}", "input", t->inputs.paths[input], "output",
                                     outputs_path(&t->outputs, input, v), "skipped", 1));
        pthread_mutex_unlock(&t->screen);
    }
}

static void take_picture(translation *t, finished_picture *p)
{
    onestep_error error;
    if (p->there) {
        report_resumed(t, p->input);
        return;
    }
    onestep_status status = p->error.code;
    if (status != ONESTEP_OK) {
        note_failure(t, p->input, &p->error);
        return;
    }
    status = write_picture(t, p, &error);
    if (status == ONESTEP_OK && options_has(&t->given, "grid")) {
        status = keep_for_grid(t, p, &error);
    }
    if (status != ONESTEP_OK) {
        note_failure(t, p->input, &error);
    }
}

void *translation_write(void *context)
{
    translation *t = context;
    finished_picture p;
    t->failed_input = SIZE_MAX;
    while (queue_take(t->finished, &p)) {
        /* After a failure the other pictures of that input are not wanted. */
        if (!atomic_load(&t->stop) && p.input != t->failed_input) {
            double start = monotonic_seconds();
            take_picture(t, &p);
            t->write_seconds += monotonic_seconds() - start;
        }
        onestep_result_free(&p.result);
        image_destroy(&p.source);
    }
    forget_kept(t);
    memory_free(t->kept);
    t->kept = NULL;
    return NULL;
}
