#include "serve/server.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Who, what, when and how long; never what a picture showed or a prompt said. */
void access_log(server *s, const access_line *line)
{
    if (s->config.log_quiet) {
        return;
    }
    char when[40];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    text_buffer text = {0};
    const char *task = line->job && line->job->task ? line->job->task->name : "";
    double queued = line->job ? line->job->queue_seconds : 0;
    if (s->config.log_json) {
        text_buffer_print(&text, "{\"time\": \"%s.%03ldZ\", \"client\": ", when,
                          now.tv_nsec / 1000000);
        answer_string(&text, line->client);
        text_buffer_print(&text, ", \"method\": ");
        answer_string(&text, line->method);
        text_buffer_print(&text, ", \"path\": ");
        answer_string(&text, line->path);
        text_buffer_print(&text, ", \"status\": %u, \"bytes\": %zu, \"seconds\": %.4f",
                          line->status, line->bytes, line->seconds);
        if (*task) {
            text_buffer_print(&text, ", \"task\": \"%s\", \"queue_seconds\": %.4f", task, queued);
        }
        text_buffer_print(&text, "}\n");
    } else {
        text_buffer_print(&text, "%s.%03ldZ %s ", when, now.tv_nsec / 1000000, line->client);
        /* A path may hold anything: only plain characters reach a terminal. */
        text_buffer_print(&text, "%s ", line->method);
        for (const char *c = line->path; *c && c - line->path < 120; c++) {
            text_buffer_print(&text, "%c", *c > 0x20 && *c < 0x7f ? *c : '?');
        }
        text_buffer_print(&text, " %u %zu %.3fs", line->status, line->bytes, line->seconds);
        if (*task) {
            text_buffer_print(&text, " %s queue=%.3fs", task, queued);
        }
        text_buffer_print(&text, "\n");
    }
    pthread_mutex_lock(&s->log_lock);
    if (!text.failed) {
        fwrite(text.data, 1, text.length, stderr);
    }
    pthread_mutex_unlock(&s->log_lock);
    text_buffer_free(&text);
}
