/* From a request's body to a job that can wait for its turn. */
#include "serve/guard.h"
#include "serve/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned status_of(onestep_status status, unsigned argument)
{
    return status == ONESTEP_ERROR_MEMORY     ? 503
           : status == ONESTEP_ERROR_ARGUMENT ? argument
           : status == ONESTEP_ERROR_FORMAT   ? 400
                                              : 500;
}

/* Messages of the option table name options as the command line spells them; here they are fields.
 */
static void as_fields(onestep_error *error)
{
    char *to = error->message;
    for (const char *from = error->message; *from; from++) {
        bool starts = from == error->message || from[-1] == ' ' || from[-1] == '(';
        if (starts && from[0] == '-' && from[1] == '-' && from[2] >= 'a' && from[2] <= 'z') {
            from += 2;
        }
        *to++ = *from;
    }
    *to = '\0';
}

static bool read_count(const char *text, long least, long most, long *value)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || *end || number < least || number > most) {
        return false;
    }
    *value = number;
    return true;
}

static const serve_task *find_task(const server *s, const char *name)
{
    for (size_t i = 0; i < s->config.task_count; i++) {
        if (strcmp(s->config.tasks[i].name, name) == 0) {
            return &s->config.tasks[i];
        }
    }
    return NULL;
}

/* The names of what is served, for messages. */
static void task_names(const server *s, char *names, size_t size)
{
    size_t used = 0;
    names[0] = '\0';
    for (size_t i = 0; i < s->config.task_count && used < size; i++) {
        int written =
            snprintf(names + used, size - used, "%s%s", i ? ", " : "", s->config.tasks[i].name);
        used += written > 0 ? (size_t)written : 0;
    }
}

static unsigned choose_task(server *s, job *j, const char *name, unsigned missing,
                            onestep_error *error)
{
    char names[512];
    j->task = name ? find_task(s, name) : s->config.task_count == 1 ? &s->config.tasks[0] : NULL;
    if (j->task) {
        return 0;
    }
    task_names(s, names, sizeof names);
    if (name) {
        error_set(error, ONESTEP_ERROR_ARGUMENT, "\"%.80s\" is not served here; there are %s", name,
                  names);
        return missing;
    }
    error_set(error, ONESTEP_ERROR_ARGUMENT, "which task? There are %s", names);
    return 422;
}

/* ---- the OpenAI shape
 * ---------------------------------------------------------------------------- */

/* Fields that are OpenAI's own: taken, or refused where ignoring them would deceive. */
static unsigned read_openai_field(job *j, const form_field *field, char *side, size_t side_size,
                                  onestep_error *error)
{
    static const char *const without_effect[] = {
        "model",  "user",          "input_fidelity",    "moderation",
        "prompt", "output_format", "output_compression"};
    long number;
    const char *name = field->name, *text = field->text;
    for (size_t i = 0; i < sizeof without_effect / sizeof *without_effect; i++) {
        if (strcmp(name, without_effect[i]) == 0) {
            return 0; /* read elsewhere, or without meaning here */
        }
    }
    if (strcmp(name, "n") == 0) {
        if (!read_count(text, 1, JOB_PICTURES_MOST, &number)) {
            error_set(error, ONESTEP_ERROR_ARGUMENT, "n \"%.20s\": expected 1 to %d", text,
                      JOB_PICTURES_MOST);
            return 422;
        }
        j->count = (size_t)number;
        return 0;
    }
    if (strcmp(name, "size") == 0) {
        unsigned width, height;
        char rest;
        if (strcmp(text, "auto") == 0) {
            return 0;
        }
        if (sscanf(text, "%5ux%5u%c", &width, &height, &rest) != 2 || width < 8 || height < 8) {
            error_set(error, ONESTEP_ERROR_ARGUMENT,
                      "size \"%.20s\": expected auto or WIDTHxHEIGHT", text);
            return 422;
        }
        /* Pictures keep their proportions: the longer side counts. */
        snprintf(side, side_size, "%u", width > height ? width : height);
        return 0;
    }
    struct {
        const char *name, *only;
    } fixed[] = {{"response_format", "b64_json"},
                 {"stream", "false"},
                 {"background", "auto"},
                 {"quality", "auto"},
                 {"partial_images", "0"}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (strcmp(name, fixed[i].name) == 0) {
            bool harmless = strcmp(name, "quality") == 0 ||
                            (strcmp(name, "background") == 0 && strcmp(text, "opaque") == 0);
            if (harmless || strcmp(text, fixed[i].only) == 0) {
                return 0;
            }
            error_set(error, ONESTEP_ERROR_ARGUMENT, "%s \"%.40s\": only %s is possible here", name,
                      text, fixed[i].only);
            return 422;
        }
    }
    if (strcmp(name, "mask") == 0) {
        error_set(error, ONESTEP_ERROR_ARGUMENT,
                  "mask: whole pictures are translated, masks are not possible");
        return 422;
    }
    return 1; /* not one of OpenAI's */
}

/* ---- both shapes
 * --------------------------------------------------------------------------------- */

/* "jpeg" -> IMAGE_FORMAT_JPEG; unknown when not given. */
static unsigned read_output(job *j, bool openai, image_format *format, const char **field,
                            onestep_error *error)
{
    const char *format_name = openai ? "output_format" : "format";
    const char *quality_name = openai ? "output_compression" : "quality";
    const char *text = form_text(&j->form, format_name);
    long number = 0;
    *format = IMAGE_FORMAT_UNKNOWN;
    if (text) {
        *format = strchr(text, '.') ? IMAGE_FORMAT_UNKNOWN : image_format_of_name(text);
        if (*format == IMAGE_FORMAT_UNKNOWN) {
            *field = format_name;
            error_set(error, ONESTEP_ERROR_ARGUMENT, "%s \"%.40s\": expected png, jpg or webp",
                      format_name, text);
            return 422;
        }
    }
    text = form_text(&j->form, quality_name);
    if (text && !read_count(text, openai ? 0 : 1, 100, &number)) {
        *field = quality_name;
        error_set(error, ONESTEP_ERROR_ARGUMENT, "%s \"%.40s\": expected 1 to 100", quality_name,
                  text);
        return 422;
    }
    j->quality = text && number == 0 ? 1 : (int)number;
    return 0;
}

static unsigned add_fields(server *s, job *j, bool openai, const char **field, onestep_error *error)
{
    const serve_fields *fields = &s->config.fields;
    char side[16] = "";
    const char *model = form_text(&j->form, "model");
    for (size_t i = 0; i < j->form.count; i++) {
        const form_field *f = &j->form.fields[i];
        unsigned refused = openai ? read_openai_field(j, f, side, sizeof side, error) : 1;
        bool mine = !openai && (strcmp(f->name, "format") == 0 || strcmp(f->name, "quality") == 0 ||
                                strcmp(f->name, "with_control") == 0);
        if (refused > 1) {
            *field = f->name;
            return refused;
        }
        if ((refused == 0 && strcmp(f->name, "prompt") != 0) || mine) {
            continue;
        }
        *field = f->name;
        /* An own checkpoint's name is no task of the option table. */
        bool names_task = strcmp(f->name, "task") == 0 || strcmp(f->name, "model_name") == 0;
        j->task = names_task && find_task(s, f->text) ? find_task(s, f->text) : j->task;
        onestep_status status = fields->add(j->fields, f->name, f->text, error);
        if (status != ONESTEP_OK && !(names_task && j->task)) {
            as_fields(error);
            return status_of(status, 422);
        }
    }
    *field = NULL;
    if (side[0] && fields->add(j->fields, "max-side", side, error) != ONESTEP_OK) {
        *field = "size";
        return 422;
    }
    if (!j->task) {
        const char *task = openai && model ? model : fields->text(j->fields, "task");
        unsigned refused = choose_task(s, j, task, openai ? 404 : 422, error);
        *field = refused ? (openai ? "model" : "task") : NULL;
        return refused;
    }
    return 0;
}

static unsigned check_request(job *j, const char **field, onestep_error *error)
{
    const serve_task *t = j->task;
    if (j->request.direction != ONESTEP_DIRECTION_DEFAULT && !t->own_direction) {
        *field = "direction";
        error_set(error, ONESTEP_ERROR_ARGUMENT, "direction cannot be given with %s", t->name);
        return 422;
    }
    if (!t->own_direction && t->direction != ONESTEP_DIRECTION_DEFAULT) {
        j->request.direction = t->direction;
    }
    if (!j->request.prompt) {
        j->request.prompt = t->caption;
    }
    if (!j->form.picture || j->form.picture_size == 0) {
        *field = "image";
        error_set(error, ONESTEP_ERROR_ARGUMENT, "no picture: send it as the field \"image\"");
        return 422;
    }
    if (image_format_of_bytes(j->form.picture, j->form.picture_size) == IMAGE_FORMAT_UNKNOWN) {
        *field = "image";
        error_set(error, ONESTEP_ERROR_ARGUMENT,
                  "the field \"image\" is no PNG, JPEG or WebP file (%zu bytes)",
                  j->form.picture_size);
        return 422;
    }
    return 0;
}

unsigned request_read(server *s, job *j, bool openai, const char *content_type, const char *accept,
                      const uint8_t *body, size_t size, const char **field, onestep_error *error)
{
    onestep_status status;
    *field = NULL;
    if (media_type_is(content_type, "multipart/form-data")) {
        status = form_parse_multipart(&j->form, content_type, body, size, error);
    } else if (media_type_is(content_type, "application/json")) {
        status = form_parse_json(&j->form, body, size, error);
    } else {
        error_set(error, ONESTEP_ERROR_ARGUMENT,
                  "the content type is \"%.60s\"; expected multipart/form-data or application/json",
                  content_type ? content_type : "");
        return 415;
    }
    if (status != ONESTEP_OK) {
        return status_of(status, 422);
    }
    j->fields = s->config.fields.create(s->config.fields.context, error);
    if (!j->fields) {
        return 503;
    }
    image_format format;
    unsigned refused = read_output(j, openai, &format, field, error);
    if (refused == 0) {
        refused = add_fields(s, j, openai, field, error);
    }
    if (refused) {
        return refused;
    }
    if (openai) {
        j->answer = ANSWER_OPENAI;
        j->format = format == IMAGE_FORMAT_UNKNOWN ? IMAGE_FORMAT_PNG : format;
    } else if (!accept_choose(accept, format, &j->answer, &j->format)) {
        error_set(error, ONESTEP_ERROR_ARGUMENT,
                  "Accept \"%.80s\": there are image/png, image/webp, image/jpeg, "
                  "application/json and text/event-stream",
                  accept);
        return 406;
    }
    const char *control = form_text(&j->form, "with_control");
    j->want_control = control && (strcmp(control, "true") == 0 || strcmp(control, "1") == 0);
    if (!j->task->caption && !s->config.fields.text(j->fields, "prompt")) {
        *field = "prompt";
        error_set(error, ONESTEP_ERROR_ARGUMENT, "%s needs a prompt", j->task->name);
        return 422;
    }
    status = s->config.fields.finish(j->fields, &j->request, error);
    if (status != ONESTEP_OK) {
        as_fields(error);
        return status_of(status, 422);
    }
    return check_request(j, field, error);
}
