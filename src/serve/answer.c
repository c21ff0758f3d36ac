#include "serve/server.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void answer_string(text_buffer *out, const char *text)
{
    json_t *string = json_stringn(text, strlen(text));
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    text_buffer_print(out, "%s", quoted ? quoted : "\"?\"");
    /* jansson's own allocator is malloc. */
    memory_free(quoted);
    json_decref(string);
}

static const char *error_type(unsigned status)
{
    return status == 401 || status == 403 ? "permission_error"
           : status == 404                ? "not_found_error"
           : status == 429                ? "rate_limit_error"
           : status == 503                ? "overloaded_error"
           : status >= 500                ? "server_error"
                                          : "invalid_request_error";
}

void answer_error(text_buffer *out, unsigned status, const char *field, const char *message)
{
    text_buffer_print(out, "{\"error\": {\"message\": ");
    answer_string(out, message);
    text_buffer_print(out, ", \"type\": \"%s\", \"code\": %u, \"param\": ", error_type(status),
                      status);
    if (field) {
        answer_string(out, field);
    } else {
        text_buffer_print(out, "null");
    }
    text_buffer_print(out, "}}\n");
}

void answer_parameters(text_buffer *out, const job *j, const onestep_request *request,
                       const onestep_result *result)
{
    const char *prompt = request->prompt ? request->prompt : j->task->caption;
    text_buffer_print(out, "\"task\": ");
    answer_string(out, j->task->name);
    text_buffer_print(out, ", \"prompt\": ");
    answer_string(out, prompt ? prompt : "");
    text_buffer_print(out, ", \"seed\": \"%lld\"", (long long)request->seed);
    if (onestep_model_is_stochastic(j->task->model)) {
        text_buffer_print(out, ", \"gamma\": %.17g", request->gamma);
    }
    text_buffer_print(out,
                      ", \"width\": %u, \"height\": %u, \"precision\": \"%s\", \"seconds\": "
                      "{\"queue\": %.4f, \"text\": %.4f, \"encode\": %.4f, \"unet\": %.4f, "
                      "\"decode\": %.4f, \"translate\": %.4f}",
                      result->image.width, result->image.height,
                      onestep_model_precision(j->task->model), j->queue_seconds,
                      result->text_seconds, result->encode_seconds, result->unet_seconds,
                      result->decode_seconds, result->total_seconds);
}

static void print_model(text_buffer *out, const server *s, const serve_task *t)
{
    text_buffer_print(out, "{\"id\": ");
    answer_string(out, t->name);
    text_buffer_print(out,
                      ", \"object\": \"model\", \"created\": 0, \"owned_by\": \"onestep\", "
                      "\"family\": \"%s\", \"stochastic\": %s, \"own_direction\": %s, "
                      "\"precision\": \"%s\", \"side\": %u, \"caption\": ",
                      t->unpaired ? "unpaired" : "paired",
                      onestep_model_is_stochastic(t->model) ? "true" : "false",
                      t->own_direction ? "true" : "false", onestep_model_precision(t->model),
                      s->config.side);
    if (t->caption) {
        answer_string(out, t->caption);
    } else {
        text_buffer_print(out, "null");
    }
    if (t->image_prep) {
        text_buffer_print(out, ", \"image_prep\": \"%s\"", t->image_prep);
    }
    text_buffer_print(out, "}");
}

void answer_models(text_buffer *out, const server *s)
{
    text_buffer_print(out, "{\"object\": \"list\", \"demo\": %s, \"data\": [",
                      s->config.demo ? "true" : "false");
    for (size_t i = 0; i < s->config.task_count; i++) {
        text_buffer_print(out, "%s", i ? ",\n  " : "\n  ");
        print_model(out, s, &s->config.tasks[i]);
    }
    text_buffer_print(out, "\n]}\n");
}

bool answer_model(text_buffer *out, const server *s, const char *name)
{
    for (size_t i = 0; i < s->config.task_count; i++) {
        if (strcmp(s->config.tasks[i].name, name) == 0) {
            print_model(out, s, &s->config.tasks[i]);
            text_buffer_print(out, "\n");
            return true;
        }
    }
    return false;
}

const char *answer_media_type(image_format format)
{
    return format == IMAGE_FORMAT_JPEG   ? "image/jpeg"
           : format == IMAGE_FORMAT_WEBP ? "image/webp"
                                         : "image/png";
}
