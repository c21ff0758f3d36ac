/* onestep demo: the bundled pictures through all six built-in tasks, a contact sheet and a page. */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/job.h"
#include "cli/terminal.h"
#include "translate/translate.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const option demo_options[] = {{.name = "output",
                                       .letter = 'o',
                                       .kind = OPTION_PATH,
                                       .argument = "DIR",
                                       .help = "Where to write (default: onestep-demo)."},
                                      OPTION_THREADS,
                                      OPTION_BACKEND,
                                      {0}};

/* Cells a row of the contact sheet. */
#define SHEET_COLUMNS 8
#define SHEET_CELLS   (SHEET_COLUMNS * 12)

typedef struct demo {
    options_given given;
    const char *output;
    char *folder; /* of the bundled models */
    json_t *inputs;
    onestep_image cells[SHEET_CELLS];
    size_t cell_count;
    onestep_image blank;
    text_buffer page;
    size_t written;
    double seconds;
} demo;

/* ---- the sheet and the page
 * ----------------------------------------------------------------------- */

static onestep_status add_cell(demo *d, const onestep_image *image, onestep_error *error)
{
    return d->cell_count < SHEET_CELLS ? image_copy(&d->cells[d->cell_count++], image, error)
                                       : ONESTEP_OK;
}

static onestep_status end_row(demo *d, onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    while (d->cell_count % SHEET_COLUMNS != 0 && status == ONESTEP_OK) {
        status = add_cell(d, &d->blank, error);
    }
    return status;
}

static void page_escaped(text_buffer *page, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '<'   ? "&lt;"
                             : *text == '>' ? "&gt;"
                             : *text == '&' ? "&amp;"
                             : *text == '"' ? "&quot;"
                                            : NULL;
        text_buffer_append(page, entity ? entity : text, entity ? strlen(entity) : 1);
    }
}

static void page_heading(demo *d, const char *title, const char *text)
{
    text_buffer_print(&d->page, "<h2>%s</h2>\n<p>%s</p>\n", title, text);
}

static void page_picture(demo *d, const char *file, const char *caption)
{
    text_buffer_print(&d->page, "<figure><img src=\"%s\" alt=\"", file);
    page_escaped(&d->page, caption);
    text_buffer_print(&d->page, "\"><figcaption>");
    page_escaped(&d->page, caption);
    text_buffer_print(&d->page, "</figcaption></figure>\n");
}

static const char page_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    "<title>onestep demo</title>\n<style>\n"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}\n"
    "figure{display:inline-block;margin:0 .8rem .8rem 0;vertical-align:top}\n"
    "img{display:block;width:160px;image-rendering:auto;border-radius:4px}\n"
    "figcaption{font-size:.8rem;max-width:160px}\nh2{margin:1.5rem 0 0}\n"
    "@media (prefers-color-scheme:dark){body{color:#ddd;background:#181818}}\n"
    "</style></head><body>\n<h1>onestep demo</h1>\n"
    "<p>Small models trained for this demo, run by <code>onestep demo</code>. "
    "Left: what the network was given. Right: what it made in one step.</p>\n";

/* ---- translating
 * --------------------------------------------------------------------------------------- */

/* Saves a picture into the output folder and shows it on sheet and page. */
static onestep_status show(demo *d, const onestep_image *image, const char *file,
                           const char *caption, onestep_error *error)
{
    char *path = path_join(d->output, file, error);
    onestep_status status = path ? image_save(image, path, 0, NULL, error) : ONESTEP_ERROR_MEMORY;
    memory_free(path);
    if (status == ONESTEP_OK) {
        d->written++;
        page_picture(d, file, caption);
        status = add_cell(d, image, error);
    }
    return status;
}

/* One request; the result is the caller's to free. */
static onestep_status translate_one(demo *d, job *j, const onestep_image *image, const char *prompt,
                                    double gamma, int64_t seed, onestep_result *result,
                                    onestep_error *error)
{
    onestep_request request;
    onestep_request_init(&request);
    onestep_result_init(result);
    request.image = *image;
    request.prompt = prompt;
    request.gamma = gamma;
    request.seed = seed;
    if (onestep_model_family(j->model) == ONESTEP_FAMILY_UNPAIRED) {
        request.image_prep = "no_resize"; /* the demo's models know pictures of this size */
    }
    if (interrupted()) {
        return error_set(error, ONESTEP_ERROR_CANCELLED, "cancelled");
    }
    onestep_status status = onestep_translate(j->session, &request, result, error);
    d->seconds += result->total_seconds;
    return status;
}

static onestep_status load_input(const demo *d, const json_t *entry, onestep_image *image,
                                 onestep_error *error)
{
    char *path = string_format(error, "%s/inputs/%s", d->folder,
                               json_string_value(json_object_get(entry, "file")));
    onestep_status status = path ? image_load(image, path, NULL, error) : ONESTEP_ERROR_MEMORY;
    memory_free(path);
    return status;
}

/* What the network was given, and its output: for edges and sketches black on white. */
static onestep_status show_pair(demo *d, job *j, const json_t *entry, double gamma,
                                onestep_error *error)
{
    const char *file = json_string_value(json_object_get(entry, "file"));
    const char *prompt = json_string_value(json_object_get(entry, "prompt"));
    const task *t = task_find(j->task);
    onestep_image input = {0}, given = {0};
    onestep_result result;
    onestep_result_init(&result);
    char *stem = path_stem(file, error);
    char *given_name = stem ? string_format(error, "%s_given.png", stem) : NULL;
    onestep_status status = given_name ? load_input(d, entry, &input, error) : ONESTEP_ERROR_MEMORY;
    if (status == ONESTEP_OK) {
        status = translate_one(d, j, &input, prompt, gamma, 42, &result, error);
    }
    if (status == ONESTEP_OK) {
        status = t->control == ONESTEP_CONTROL_CANNY ? image_invert(&given, &result.control, error)
                                                     : image_copy(&given, &input, error);
    }
    if (status == ONESTEP_OK) {
        status = show(d, &given, given_name, "given", error);
    }
    if (status == ONESTEP_OK) {
        status = show(d, &result.image, file, prompt ? prompt : t->caption, error);
    }
    image_destroy(&input);
    image_destroy(&given);
    onestep_result_free(&result);
    memory_free(given_name);
    memory_free(stem);
    return status;
}

/* The first sketch at several guidances, or with several seeds. */
static onestep_status show_row(demo *d, job *j, const json_t *entry, bool seeds,
                               onestep_error *error)
{
    enum { STEPS = 6 };
    const char *prompt = json_string_value(json_object_get(entry, "prompt"));
    onestep_image input = {0};
    onestep_status status = load_input(d, entry, &input, error);
    if (status == ONESTEP_OK) {
        status = show(d, &input, seeds ? "seeds_given.png" : "gamma_given.png", "given", error);
    }
    for (int i = 0; i < STEPS && status == ONESTEP_OK; i++) {
        onestep_result result;
        char file[40], caption[60];
        double gamma = seeds ? 0.4 : 0.2 * i;
        int seed = seeds ? 42 + i : 42;
        if (seeds) {
            snprintf(file, sizeof file, "seeds_%d.png", seed);
        } else {
            snprintf(file, sizeof file, "gamma_%.1f.png", gamma);
        }
        snprintf(caption, sizeof caption, "gamma %.1f, seed %d", gamma, seed);
        status = translate_one(d, j, &input, prompt, gamma, seed, &result, error);
        if (status == ONESTEP_OK) {
            status = show(d, &result.image, file, caption, error);
        }
        onestep_result_free(&result);
    }
    image_destroy(&input);
    return status == ONESTEP_OK ? end_row(d, error) : status;
}

static onestep_status open_task(demo *d, job *j, options_given *given, const char *name,
                                onestep_error *error)
{
    *given = (options_given){.command = &translate_command};
    bool good = options_add(given, "demo", NULL, error) && options_add(given, "task", name, error);
    static const char *const passed[] = {"threads", "backend"};
    for (size_t i = 0; good && i < sizeof passed / sizeof *passed; i++) {
        const char *text = options_text(&d->given, passed[i], NULL);
        good = !text || options_add(given, passed[i], text, error);
    }
    return good ? job_open(j, given, error) : error->code;
}

static onestep_status run_task(demo *d, const task *t, onestep_error *error)
{
    static const char *const explanations[TASK_COUNT] = {
        "The outline of a picture and a sentence become a picture.",
        "A sketch and a sentence become a picture; gamma says how closely it follows the sketch.",
        "A street by day becomes the same street by night.",
        "A street by night becomes the same street by day.",
        "A clear street gets rain.",
        "A street in the rain gets a clear sky."};
    options_given given;
    job j = {0};
    size_t index = 0;
    while (task_at(index) != t) {
        index++;
    }
    page_heading(d, t->name, explanations[index]);
    onestep_status status = open_task(d, &j, &given, t->name, error);
    const json_t *entry, *first = NULL;
    size_t i;
    json_array_foreach(d->inputs, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "task"));
        if (status == ONESTEP_OK && strcmp(name, t->name) == 0) {
            first = first ? first : entry;
            status = show_pair(d, &j, entry, 1, error);
        }
    }
    if (status == ONESTEP_OK) {
        status = end_row(d, error);
    }
    if (status == ONESTEP_OK && t->stochastic && first) {
        page_heading(d, "Guidance", "gamma 0 (free) to 1 (as drawn), the same seed.");
        status = show_row(d, &j, first, false, error);
        if (status == ONESTEP_OK) {
            page_heading(d, "Seeds", "gamma 0.4: every seed is another picture.");
            status = show_row(d, &j, first, true, error);
        }
    }
    job_close(&j);
    options_free(&given);
    return status;
}

/* ---- the whole
 * ------------------------------------------------------------------------------------------- */

/* The bundled list is part of the installation, but a damaged one must not crash the program. */
static onestep_status read_inputs(demo *d, onestep_error *error)
{
    char *path = path_join(d->folder, "inputs/inputs.json", error);
    json_error_t problem;
    if (!path) {
        return ONESTEP_ERROR_MEMORY;
    }
    d->inputs = json_load_file(path, JSON_REJECT_DUPLICATES, &problem);
    bool good = json_is_array(d->inputs);
    const json_t *entry;
    size_t i;
    json_array_foreach(d->inputs, i, entry)
    {
        const char *file = json_string_value(json_object_get(entry, "file"));
        good = good && file && !strchr(file, '/') && json_is_string(json_object_get(entry, "task"));
    }
    onestep_status status = good ? ONESTEP_OK
                                 : error_set(error, ONESTEP_ERROR_FORMAT,
                                             "%s: not a list of tasks, files and prompts%s%s", path,
                                             d->inputs ? "" : ": ", d->inputs ? "" : problem.text);
    memory_free(path);
    return status;
}

static onestep_status finish(demo *d, onestep_error *error)
{
    const onestep_image *pictures[SHEET_CELLS];
    onestep_image sheet = {0};
    for (size_t i = 0; i < d->cell_count; i++) {
        pictures[i] = &d->cells[i];
    }
    onestep_status status = image_grid(&sheet, pictures, d->cell_count, SHEET_COLUMNS, 6, error);
    char *path = path_join(d->output, "contact_sheet.png", error);
    if (status == ONESTEP_OK) {
        status = path ? image_save(&sheet, path, 0, NULL, error) : ONESTEP_ERROR_MEMORY;
    }
    memory_free(path);
    image_destroy(&sheet);
    text_buffer_print(&d->page, "</body></html>\n");
    path = path_join(d->output, "index.html", error);
    if (status == ONESTEP_OK) {
        status = !path || d->page.failed
                     ? error_set(error, ONESTEP_ERROR_MEMORY, "no memory for the page")
                     : file_write_atomic(path, d->page.data, d->page.length, error);
    }
    memory_free(path);
    return status;
}

static onestep_status run_demo(demo *d, onestep_error *error)
{
    progress_bar bar;
    d->folder = demo_folder(error);
    if (!d->folder) {
        return error->code;
    }
    onestep_status status = read_inputs(d, error);
    if (status == ONESTEP_OK) {
        status = folder_create(d->output, error);
    }
    if (status == ONESTEP_OK) {
        status = image_create(&d->blank, 8, 8, ONESTEP_PIXEL_U8, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    memset(d->blank.pixels, 255, d->blank.stride * d->blank.height);
    text_buffer_print(&d->page, "%s", page_head);
    progress_start(&bar, &d->given);
    for (size_t i = 0; i < TASK_COUNT && status == ONESTEP_OK; i++) {
        progress_draw(&bar, (double)i / TASK_COUNT, task_at(i)->name);
        status = run_task(d, task_at(i), error);
    }
    progress_end(&bar);
    return status == ONESTEP_OK ? finish(d, error) : status;
}

static int demo_run(int argument_count, char **arguments)
{
    demo d = {0};
    onestep_error error = {0};
    int code;
    if (!command_begin(&d.given, &demo_command, argument_count, arguments, &code)) {
        return code;
    }
    interrupt_catch();
    d.output = options_text(&d.given, "output", "onestep-demo");
    onestep_status status = run_demo(&d, &error);
    if (status != ONESTEP_OK) {
        print_error(&error);
    } else if (options_has(&d.given, "json")) {
        json_t *line = json_pack("{s:s, s:I, s:f}", "output", d.output, "pictures",
                                 (json_int_t)d.written, "seconds", d.seconds);
        char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
        printf("%s\n", text ? text : "{}");
        free(text);
        json_decref(line);
    } else {
        printf("%zu pictures in %s (%.1f s of computing)\n"
               "  %s/index.html         a page with all of them\n"
               "  %s/contact_sheet.png  the same at a glance\n"
               "Try next:\n"
               "  %s serve --demo  (then open http://127.0.0.1:8080/ and draw)\n"
               "  %s translate --demo -t sketch_to_image_stochastic \\\n"
               "      -i %s/sketch_to_image_stochastic_fish_given.png \\\n"
               "      -p \"a red fish on a blue ground\" --gammas 0,0.5,1 -o out/\n"
               "  %s translate --help\n",
               d.written, d.output, d.seconds, d.output, d.output, program_invocation_name,
               program_invocation_name, d.output, program_invocation_name);
    }
    for (size_t i = 0; i < d.cell_count; i++) {
        image_destroy(&d.cells[i]);
    }
    image_destroy(&d.blank);
    text_buffer_free(&d.page);
    json_decref(d.inputs);
    memory_free(d.folder);
    options_free(&d.given);
    interrupt_finish();
    return exit_code(status);
}

const command demo_command = {.name = "demo",
                              .summary = "translate the bundled pictures with the built-in models",
                              .operands = "",
                              .examples = "  onestep demo\n  onestep demo -o /tmp/demo\n",
                              .options = demo_options,
                              .run = demo_run};
