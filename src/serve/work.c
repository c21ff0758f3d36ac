/* Lanes: threads that take jobs from the queue. A lane reads the picture, waits for the engine,
 * translates, and writes the picture while the next lane has the engine. */
#include "serve/server.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Events of one stage come at most this often. */
#define EVENT_SECONDS 0.05

/* A picture of this size may be as simple as it likes; a larger one may be this much larger than
 * its file. */
#define SIMPLE_PIXELS  ((uint64_t)4 << 20)
#define EXPANSION_MOST 2000

/* What several threads do not make much faster: see turns.c. */
#define SMALL_PIXELS (256.0 * 256.0)

/* ---- telling the connection
 * ---------------------------------------------------------------------- */

static void wake(job *j)
{
    if (j->connection && j->suspended) {
        j->suspended = false;
        MHD_resume_connection(j->connection);
    }
}

void job_event(job *j, const char *event, const char *data)
{
    if (j->answer != ANSWER_EVENTS || !j->connection) {
        return;
    }
    text_buffer_print(&j->events, "event: %s\ndata: ", event);
    text_buffer_append(&j->events, data, strlen(data));
    text_buffer_append(&j->events, "\n\n", 2);
    wake(j);
}

void job_finish(job *j)
{
    if (j->state == JOB_DONE) {
        return;
    }
    if (j->answer == ANSWER_EVENTS && j->connection) {
        if (j->status == 200) {
            job_event(j, "image", j->body.data ? j->body.data : "{}");
        } else {
            text_buffer text = {0};
            answer_error(&text, j->status, j->error_field, j->error.message);
            if (text.length) {
                text.data[text.length - 1] = '\0'; /* its line break */
            }
            job_event(j, "error", text.data ? text.data : "{}");
            text_buffer_free(&text);
        }
        text_buffer_free(&j->body);
    }
    j->state = JOB_DONE;
    wake(j);
}

void job_fail(job *j, unsigned status, const char *field, const onestep_error *error)
{
    j->status = status;
    j->error_field = field;
    j->error = *error;
}

/* ---- one job
 * ------------------------------------------------------------------------------------- */

typedef struct run {
    server *server;
    job *job;
    size_t index; /* of the picture under way */
} run;

static int on_progress(void *user_data, double fraction, const char *stage)
{
    run *r = user_data;
    job *j = r->job;
    double now = monotonic_seconds();
    pthread_mutex_lock(&r->server->lock);
    bool stop = j->client_left || j->timed_out || r->server->stopping;
    if (!stop && j->answer == ANSWER_EVENTS &&
        (stage != j->event_stage || now - j->event_time >= EVENT_SECONDS)) {
        char data[96];
        snprintf(data, sizeof data, "{\"fraction\": %.4f, \"stage\": \"%s\"}",
                 ((double)r->index + fraction) / (double)j->count, stage);
        job_event(j, "progress", data);
        j->event_stage = stage;
        j->event_time = now;
    }
    pthread_mutex_unlock(&r->server->lock);
    return stop;
}

static onestep_status read_picture(server *s, job *j, onestep_image *picture, onestep_error *error)
{
    image_limits limits;
    image_limits_init(&limits);
    limits.max_pixels = s->config.pixels_most;
    uint64_t expanded = j->form.picture_size * (uint64_t)EXPANSION_MOST / 3;
    expanded = expanded > SIMPLE_PIXELS ? expanded : SIMPLE_PIXELS;
    limits.max_pixels = expanded < limits.max_pixels ? expanded : limits.max_pixels;
    double start = monotonic_seconds();
    onestep_status status =
        image_decode(picture, j->form.picture, j->form.picture_size, &limits, error);
    memory_free(j->form.picture);
    j->form.picture = NULL;
    metrics_stage(&s->metrics, STAGE_READ, monotonic_seconds() - start);
    return status;
}

/* The pixels that the network will see; 0 when the task's own preparation decides. */
static double pixels_of(const job *j, const onestep_image *picture)
{
    const onestep_request *q = &j->request;
    bool keeps_size = !j->task->unpaired || q->fit == ONESTEP_FIT_EXACT ||
                      (q->image_prep && strcmp(q->image_prep, "no_resize") == 0);
    double width = picture->width, height = picture->height;
    double longer = width > height ? width : height;
    double scale = q->max_side && longer > q->max_side ? q->max_side / longer : 1;
    return keeps_size ? width * height * scale * scale : 0;
}

/* Whether that is more than this server allows. */
static onestep_status check_work(const server *s, const job *j, const onestep_image *picture,
                                 onestep_error *error)
{
    if (pixels_of(j, picture) > (double)s->config.work_most * 1.01) {
        double width = picture->width, height = picture->height;
        double longer = width > height ? width : height;
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "%u x %u pixels are more than the %llu that this server translates at a "
                         "time: send max-side=%.0f",
                         picture->width, picture->height, (unsigned long long)s->config.work_most,
                         floor(longer * sqrt((double)s->config.work_most / (width * height))));
    }
    return ONESTEP_OK;
}

/* Encodes a result and adds it to the answer. */
static onestep_status add_picture(run *r, const onestep_request *request,
                                  const onestep_result *result, onestep_error *error)
{
    server *s = r->server;
    job *j = r->job;
    uint8_t *bytes = NULL, *control = NULL;
    size_t size = 0, control_size = 0;
    image_metadata metadata = {0};
    double start = monotonic_seconds();
    onestep_status status = ONESTEP_OK;
    if (s->config.fields.describe) {
        status = s->config.fields.describe(j->fields, request, j->task->model, &metadata, error);
    }
    if (status == ONESTEP_OK) {
        status =
            image_encode(&bytes, &size, &result->image, j->format, j->quality, &metadata, error);
    }
    if (status == ONESTEP_OK && j->want_control && result->control.pixels) {
        status = image_encode(&control, &control_size, &result->control, IMAGE_FORMAT_PNG, 0, NULL,
                              error);
    }
    image_metadata_free(&metadata);
    metrics_stage(&s->metrics, STAGE_WRITE, monotonic_seconds() - start);
    if (status == ONESTEP_OK && j->answer == ANSWER_IMAGE) {
        j->picture = bytes;
        j->picture_size = size;
        bytes = NULL;
    } else if (status == ONESTEP_OK && j->answer == ANSWER_OPENAI) {
        if (r->index == 0) {
            text_buffer_print(
                &j->body, "{\"created\": %lld, \"output_format\": \"%s\", \"data\": [",
                (long long)time(NULL),
                j->format == IMAGE_FORMAT_JPEG ? "jpeg" : image_format_suffix(j->format));
        }
        text_buffer_print(&j->body, "%s{\"b64_json\": \"", r->index ? ", " : "");
        base64_append(&j->body, bytes, size);
        text_buffer_print(&j->body, "\"}%s", r->index + 1 == j->count ? "]}" : "");
    } else if (status == ONESTEP_OK) {
        text_buffer_print(&j->body, "{");
        answer_parameters(&j->body, j, request, result);
        text_buffer_print(&j->body, ", \"type\": \"%s\", \"image\": \"",
                          answer_media_type(j->format));
        base64_append(&j->body, bytes, size);
        text_buffer_print(&j->body, "\"");
        if (control) {
            text_buffer_print(&j->body, ", \"control\": \"");
            base64_append(&j->body, control, control_size);
            text_buffer_print(&j->body, "\"");
        }
        text_buffer_print(&j->body, "}");
    }
    if (status == ONESTEP_OK && j->body.failed) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "out of memory for the answer");
    }
    memory_free(bytes);
    memory_free(control);
    return status;
}

static onestep_status translate(run *r, const onestep_image *picture, onestep_request *request,
                                onestep_result *result, onestep_error *error)
{
    server *s = r->server;
    held_session *held;
    double pixels = pixels_of(r->job, picture);
    request->image = *picture;
    request->seed = (int64_t)((uint64_t)r->job->request.seed + r->index);
    request->progress = on_progress;
    request->progress_user_data = r;
    onestep_status status = turn_begin(&s->turns, r->job->task->model,
                                       pixels > 0 && pixels <= SMALL_PIXELS, &held, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    /* The client may have left while others had the engine. */
    status = on_progress(r, 0, "start") != 0
                 ? error_set(error, ONESTEP_ERROR_CANCELLED, "cancelled")
                 : onestep_translate(held->session, request, result, error);
    metrics_busy(&s->metrics, turn_end(&s->turns, held));
    if (status == ONESTEP_OK) {
        metrics_picture(&s->metrics);
        metrics_stage(&s->metrics, STAGE_TEXT, result->text_seconds);
        metrics_stage(&s->metrics, STAGE_ENCODE, result->encode_seconds);
        metrics_stage(&s->metrics, STAGE_UNET, result->unet_seconds);
        metrics_stage(&s->metrics, STAGE_DECODE, result->decode_seconds);
    }
    return status;
}

static unsigned http_status(const server *s, const job *j, onestep_status status)
{
    switch (status) {
    case ONESTEP_OK:
        return 200;
    case ONESTEP_ERROR_CANCELLED:
        return j->timed_out || s->stopping ? 503 : 499;
    case ONESTEP_ERROR_MEMORY:
        return 503;
    case ONESTEP_ERROR_INTERNAL:
    case ONESTEP_ERROR_IO:
        return 500;
    default:
        return 422;
    }
}

static void run_job(server *s, job *j)
{
    run r = {.server = s, .job = j};
    onestep_error error;
    onestep_image picture = {0};
    onestep_result result;
    const char *field = NULL;
    onestep_result_init(&result);
    onestep_status status = read_picture(s, j, &picture, &error);
    field = status == ONESTEP_OK ? NULL : "image";
    if (status == ONESTEP_OK) {
        status = check_work(s, j, &picture, &error);
        field = status == ONESTEP_OK ? NULL : "max-side";
    }
    for (; r.index < j->count && status == ONESTEP_OK; r.index++) {
        onestep_request request = j->request;
        status = translate(&r, &picture, &request, &result, &error);
        if (status == ONESTEP_OK) {
            status = add_picture(&r, &request, &result, &error);
        }
        onestep_result_free(&result);
        onestep_result_init(&result);
    }
    image_destroy(&picture);
    pthread_mutex_lock(&s->lock);
    j->status = http_status(s, j, status);
    if (status != ONESTEP_OK) {
        if (status == ONESTEP_ERROR_CANCELLED) {
            metrics_cancelled(&s->metrics);
            error_set(&error, status, "%s",
                      j->timed_out  ? "the time for this request is up: the server is too busy, or "
                                      "the picture too large"
                      : s->stopping ? "the server is stopping"
                                    : "the client left");
        }
        job_fail(j, j->status, field, &error);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- lanes
 * --------------------------------------------------------------------------------------- */

static bool is_stopping(server *s)
{
    pthread_mutex_lock(&s->lock);
    bool stopping = s->stopping;
    pthread_mutex_unlock(&s->lock);
    return stopping;
}

/* Translates a grey picture with every model, so that the first client finds weights packed and
 * plans made. A failure shows again, and is told, with the first request. */
static void warm_up(server *s)
{
    onestep_error error;
    onestep_image picture = {0};
    if (image_create(&picture, s->config.side, s->config.side, ONESTEP_PIXEL_U8, &error) !=
        ONESTEP_OK) {
        return;
    }
    memset(picture.pixels, 127, picture.stride * picture.height);
    for (size_t i = 0; i < s->config.task_count && !is_stopping(s); i++) {
        const serve_task *t = &s->config.tasks[i];
        held_session *held;
        onestep_request request;
        onestep_result result;
        onestep_request_init(&request);
        onestep_result_init(&result);
        request.image = picture;
        request.prompt = t->caption ? t->caption : "a picture";
        request.image_prep = t->image_prep;
        request.direction = t->own_direction ? ONESTEP_DIRECTION_A2B : t->direction;
        onestep_status status = turn_begin(&s->turns, t->model, false, &held, &error);
        if (status == ONESTEP_OK) {
            status = onestep_translate(held->session, &request, &result, &error);
            (void)turn_end(&s->turns, held);
        }
        if (status != ONESTEP_OK) {
            pthread_mutex_lock(&s->log_lock);
            fprintf(stderr, "onestep: warning: warm-up of %s: %s\n", t->name, error.message);
            pthread_mutex_unlock(&s->log_lock);
        }
        onestep_result_free(&result);
    }
    image_destroy(&picture);
}

void *lane_run(void *context)
{
    server *s = context;
    pthread_mutex_lock(&s->lock);
    size_t lane = s->lanes_started++;
    if (lane == 0) {
        pthread_mutex_unlock(&s->lock);
        if (s->config.warm_up) {
            warm_up(s);
        }
        pthread_mutex_lock(&s->lock);
        s->ready = true;
        pthread_cond_broadcast(&s->work);
    }
    for (;;) {
        while (!s->stopping && (!s->ready || s->queue.count == 0)) {
            pthread_cond_wait(&s->work, &s->lock);
        }
        if (s->stopping) {
            break;
        }
        job *j = job_queue_pop(&s->queue);
        s->running[lane] = j;
        s->running_count++;
        j->state = JOB_RUNNING;
        j->queue_seconds = monotonic_seconds() - j->accepted;
        pthread_mutex_unlock(&s->lock);
        metrics_stage(&s->metrics, STAGE_QUEUE, j->queue_seconds);
        run_job(s, j);
        pthread_mutex_lock(&s->lock);
        j->total_seconds = monotonic_seconds() - j->accepted;
        metrics_stage(&s->metrics, STAGE_TOTAL, j->total_seconds);
        job_finish(j);
        s->running[lane] = NULL;
        s->running_count--;
        job_release(j, &s->config.fields);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
