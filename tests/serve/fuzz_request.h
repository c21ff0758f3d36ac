/* A request's way from its body to a job, in process: for both front ends. */
#ifndef TESTS_SERVE_FUZZ_REQUEST_H
#define TESTS_SERVE_FUZZ_REQUEST_H

#include "serve/server.h"

#include <stdlib.h>
#include <string.h>

/* Fields as the option table would take them: a few names, and a limit to their values. */
typedef struct fuzz_fields {
    char *prompt, *task;
} fuzz_fields;

static void *fuzz_create(void *context, onestep_error *error)
{
    (void)context;
    return memory_allocate(1, sizeof(fuzz_fields), error);
}

static onestep_status fuzz_add(void *fields, const char *name, const char *text,
                               onestep_error *error)
{
    fuzz_fields *f = fields;
    char **place = strcmp(name, "prompt") == 0 ? &f->prompt
                   : strcmp(name, "task") == 0 ? &f->task
                                               : NULL;
    if (!place) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "--%s: no such option (--x)", name);
    }
    memory_free(*place);
    *place = string_duplicate(text, error);
    return *place ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
}

static const char *fuzz_text(void *fields, const char *name)
{
    fuzz_fields *f = fields;
    return strcmp(name, "prompt") == 0 ? f->prompt : strcmp(name, "task") == 0 ? f->task : NULL;
}

static onestep_status fuzz_finish(void *fields, onestep_request *request, onestep_error *error)
{
    (void)error;
    onestep_request_init(request);
    request->prompt = fuzz_text(fields, "prompt");
    return ONESTEP_OK;
}

static void fuzz_destroy(void *fields)
{
    fuzz_fields *f = fields;
    memory_free(f->prompt);
    memory_free(f->task);
    memory_free(f);
}

static void fuzz_request(const char *content_type, const uint8_t *body, size_t size)
{
    static const serve_task tasks[] = {{.name = "edge_to_image"},
                                       {.name = "night_to_day", .caption = "driving in the day"}};
    for (int openai = 0; openai < 2; openai++) {
        server s;
        onestep_error error;
        const char *field;
        memset(&s, 0, sizeof s);
        serve_config_init(&s.config);
        s.config.tasks = tasks;
        s.config.task_count = 2;
        s.config.fields = (serve_fields){.create = fuzz_create,
                                         .add = fuzz_add,
                                         .text = fuzz_text,
                                         .finish = fuzz_finish,
                                         .destroy = fuzz_destroy};
        job *j = job_create(&error);
        if (!j) {
            return;
        }
        unsigned status =
            request_read(&s, j, openai, content_type, "*/*", body, size, &field, &error);
        /* A job that may wait has a task, a picture and a prompt; one that may not has words. */
        if (status == 0 ? !j->task || !j->form.picture || !j->request.prompt
                        : strlen(error.message) == 0) {
            abort();
        }
        job_release(j, &s.config.fields);
    }
}

#endif
