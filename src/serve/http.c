/* Requests and answers on libmicrohttpd. A request that waits for the engine suspends its
 * connection, so that a few threads serve any number of them. */
#include "serve/guard.h"
#include "serve/server.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bodies in flight may hold this many times the largest body. */
#define BODIES_MOST 8
/* Browsers and proxies send about twenty. */
#define HEADERS_MOST 100
/* A body that is too large is still read up to this many times the limit, so that its client hears
 * why. */
#define DISCARD_MOST 4

#define QUEUE_FULL "the queue is full (%zu requests wait): try again later"

static const char page_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/* One request from its headers to its answer. */
typedef struct exchange {
    server *server;
    metric_route route;
    connection *connection;
    job *job;
    uint8_t *body;
    size_t size, capacity, received;
    size_t reserved; /* of the server's bytes for bodies */
    double started;
    char client[64], path[128], method[16];
    unsigned status; /* of the answer; 0: none yet */
    size_t bytes;
    unsigned refused; /* to be answered when the body is in */
    const char *refused_field;
    onestep_error error;
} exchange;

/* ---- answers
 * ------------------------------------------------------------------------------------- */

static const char *header(struct MHD_Connection *c, const char *name)
{
    return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static void set_phase(server *s, connection *c, bool working)
{
    if (c) {
        pthread_mutex_lock(&s->connection_lock);
        c->working = working;
        c->since = monotonic_seconds();
        pthread_mutex_unlock(&s->connection_lock);
    }
}

static enum MHD_Result send_response(exchange *x, struct MHD_Connection *c, unsigned status,
                                     struct MHD_Response *response, const char *media_type,
                                     size_t size)
{
    if (!response) {
        return MHD_NO;
    }
    bool page = x->route == ROUTE_PAGE && status == 200;
    MHD_add_response_header(response, "Content-Type", media_type);
    MHD_add_response_header(response, "Cache-Control", page ? "no-cache" : "no-store");
    MHD_add_response_header(response, "Content-Security-Policy",
                            page ? page_policy : "default-src 'none'; frame-ancestors 'none'");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
    MHD_add_response_header(response, "Cross-Origin-Opener-Policy", "same-origin");
    x->status = status;
    x->bytes = size;
    set_phase(x->server, x->connection, false);
    enum MHD_Result result = MHD_queue_response(c, status, response);
    MHD_destroy_response(response);
    return result;
}

/* Takes the text over. */
static enum MHD_Result send_text(exchange *x, struct MHD_Connection *c, unsigned status,
                                 text_buffer *text, const char *media_type)
{
    if (text->failed || !text->data) {
        text_buffer_free(text);
        return MHD_NO;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(text->length, text->data, MHD_RESPMEM_MUST_COPY);
    size_t size = text->length;
    text_buffer_free(text);
    return send_response(x, c, status, response, media_type, size);
}

static unsigned retry_seconds(server *s)
{
    pthread_mutex_lock(&s->lock);
    size_t waiting = s->queue.count + 1;
    pthread_mutex_unlock(&s->lock);
    double seconds = ceil(metrics_mean_seconds(&s->metrics, 1) * (double)waiting);
    return seconds < 1 ? 1 : seconds > 600 ? 600 : (unsigned)seconds;
}

static enum MHD_Result send_error(exchange *x, struct MHD_Connection *c, unsigned status,
                                  const char *field, const char *message)
{
    text_buffer text = {0};
    answer_error(&text, status, field, message);
    if (text.failed || !text.data) {
        text_buffer_free(&text);
        return MHD_NO;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(text.length, text.data, MHD_RESPMEM_MUST_COPY);
    size_t size = text.length;
    text_buffer_free(&text);
    if (response && (status == 429 || status == 503)) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", retry_seconds(x->server));
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    if (response && status == 401) {
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"onestep\"");
    }
    if (response && status == 405) {
        bool post = x->route == ROUTE_TRANSLATE || x->route == ROUTE_EDITS;
        MHD_add_response_header(response, "Allow", post ? "POST" : "GET, HEAD");
    }
    return send_response(x, c, status, response, "application/json", size);
}

/* ---- what may be asked
 * --------------------------------------------------------------------------- */

static metric_route route_of(const char *url)
{
    static const struct {
        const char *path;
        metric_route route;
    } routes[] = {{"/v1/translate", ROUTE_TRANSLATE}, {"/v1/images/edits", ROUTE_EDITS},
                  {"/v1/models", ROUTE_MODELS},       {"/healthz", ROUTE_HEALTH},
                  {"/readyz", ROUTE_READY},           {"/metrics", ROUTE_METRICS}};
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(url, routes[i].path) == 0) {
            return routes[i].route;
        }
    }
    return page_find(url)                         ? ROUTE_PAGE
           : strncmp(url, "/v1/models/", 11) == 0 ? ROUTE_MODELS
                                                  : ROUTE_OTHER;
}

static unsigned refuse(exchange *x, unsigned status, const char *format, ...) PRINTF_LIKE(3, 4);

static unsigned refuse(exchange *x, unsigned status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(x->error.message, sizeof x->error.message, format, arguments);
    va_end(arguments);
    return status;
}

/* 429 when there is no place for a job of this client. Asked before the body is read, so that a
 * busy server spends next to nothing on those whom it sends away. */
static unsigned check_place(exchange *x)
{
    server *s = x->server;
    pthread_mutex_lock(&s->lock);
    bool admitted = job_queue_admits(&s->queue, x->client);
    pthread_mutex_unlock(&s->lock);
    return admitted ? 0 : refuse(x, 429, QUEUE_FULL, s->config.queue_most);
}

/* The status to refuse a request with before its body is looked at; 0: it may go on. */
static unsigned check_request(exchange *x, struct MHD_Connection *c, const char *method)
{
    server *s = x->server;
    const serve_config *config = &s->config;
    bool post = strcmp(method, "POST") == 0;
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    bool wants_post = x->route == ROUTE_TRANSLATE || x->route == ROUTE_EDITS;
    int headers = MHD_get_connection_values(c, MHD_HEADER_KIND, NULL, NULL);
    if (headers > HEADERS_MOST) {
        return refuse(x, 431, "the request has %d headers; this server takes %d", headers,
                      HEADERS_MOST);
    }
    if (x->route == ROUTE_HEALTH || x->route == ROUTE_READY) {
        return get ? 0 : refuse(x, 405, "%s: GET it", x->path);
    }
    /* A token proves that the page in the browser is ours: others cannot know it. */
    if (!config->token && !guard_host_known(header(c, "Host"), config->hosts)) {
        return refuse(x, 403,
                      "this server does not answer to the host \"%.100s\": start it with "
                      "--allow-host to allow that name",
                      header(c, "Host") ? header(c, "Host") : "");
    }
    if (x->route == ROUTE_OTHER) {
        return refuse(x, 404, "there is nothing at %.100s", x->path);
    }
    if (wants_post ? !post : !get) {
        return refuse(x, 405, "%s: %s it", x->path, wants_post ? "POST" : "GET");
    }
    const char *origin = header(c, "Origin"), *site = header(c, "Sec-Fetch-Site");
    if (wants_post && ((origin && !guard_same_origin(origin, header(c, "Host"))) ||
                       (site && strcmp(site, "cross-site") == 0))) {
        return refuse(x, 403, "pages of other sites (%.100s) may not use this server",
                      origin ? origin : site);
    }
    if (config->token && x->route != ROUTE_PAGE &&
        !guard_token_matches(guard_bearer(header(c, "Authorization")), config->token)) {
        return refuse(x, 401, "a token is needed: Authorization: Bearer TOKEN");
    }
    if (!wants_post) {
        return 0;
    }
    const char *length = header(c, "Content-Length");
    if (length && strtoull(length, NULL, 10) > config->body_most) {
        return refuse(x, 413, "the body has %.20s bytes; this server takes %zu", length,
                      config->body_most);
    }
    return check_place(x);
}

static void find_client(exchange *x, struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    snprintf(x->client, sizeof x->client, "-");
    if (x->server->config.trust_forwarded &&
        guard_forwarded_client(header(c, "X-Forwarded-For"), x->client, sizeof x->client)) {
        return;
    }
    if (info && info->client_addr->sa_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)info->client_addr)->sin_addr, x->client,
                  sizeof x->client);
    } else if (info && info->client_addr->sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)info->client_addr)->sin6_addr, x->client,
                  sizeof x->client);
    }
}

/* ---- bodies
 * -------------------------------------------------------------------------------------- */

/* Keeps received bytes; what does not fit is dropped and refused later. */
static void keep(exchange *x, const char *bytes, size_t count)
{
    server *s = x->server;
    x->received += count;
    if (x->refused) {
        return;
    }
    if (x->received > s->config.body_most) {
        x->refused = refuse(x, 413, "the body has more than the %zu bytes that this server takes",
                            s->config.body_most);
        return;
    }
    if (x->size + count > x->capacity) {
        size_t capacity = size_maximum(2 * x->capacity, size_maximum(x->size + count, 65536));
        capacity = size_minimum(capacity, s->config.body_most);
        pthread_mutex_lock(&s->lock);
        bool fits = s->body_bytes + capacity - x->reserved <= BODIES_MOST * s->config.body_most;
        if (fits) {
            s->body_bytes += capacity - x->reserved;
            x->reserved = capacity;
        }
        pthread_mutex_unlock(&s->lock);
        uint8_t *grown = fits ? memory_resize(x->body, capacity, 1, &x->error) : NULL;
        if (!grown) {
            x->refused = refuse(x, 503, "no memory for the request: too many are being received");
            return;
        }
        x->body = grown;
        x->capacity = capacity;
    }
    memcpy(x->body + x->size, bytes, count);
    x->size += count;
}

static void drop_body(exchange *x)
{
    server *s = x->server;
    memory_free(x->body);
    x->body = NULL;
    x->size = x->capacity = 0;
    pthread_mutex_lock(&s->lock);
    s->body_bytes -= x->reserved;
    pthread_mutex_unlock(&s->lock);
    x->reserved = 0;
}

/* ---- events
 * -------------------------------------------------------------------------------------- */

typedef struct event_reader {
    server *server;
    job *job;
} event_reader;

static ssize_t read_events(void *context, uint64_t position, char *buffer, size_t most)
{
    event_reader *r = context;
    job *j = r->job;
    ssize_t result = 0;
    (void)position;
    pthread_mutex_lock(&r->server->lock);
    size_t left = j->events.length - j->events_sent;
    if (left > 0) {
        size_t count = size_minimum(left, most);
        memcpy(buffer, j->events.data + j->events_sent, count);
        j->events_sent += count;
        if (j->events_sent == j->events.length) {
            j->events.length = j->events_sent = 0;
        }
        result = (ssize_t)count;
    } else if (j->state == JOB_DONE || !j->connection) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        j->suspended = true;
        MHD_suspend_connection(j->connection);
    }
    pthread_mutex_unlock(&r->server->lock);
    return result;
}

static void free_events(void *context)
{
    event_reader *r = context;
    pthread_mutex_lock(&r->server->lock);
    job_release(r->job, &r->server->config.fields);
    pthread_mutex_unlock(&r->server->lock);
    memory_free(r);
}

static enum MHD_Result send_events(exchange *x, struct MHD_Connection *c)
{
    event_reader *r = memory_allocate(1, sizeof *r, NULL);
    if (!r) {
        return MHD_NO;
    }
    *r = (event_reader){x->server, x->job};
    pthread_mutex_lock(&x->server->lock);
    x->job->references++;
    pthread_mutex_unlock(&x->server->lock);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, (size_t)16 * 1024, read_events, r, free_events);
    if (!response) {
        free_events(r);
        return MHD_NO;
    }
    /* Proxies shall pass events on as they come. */
    MHD_add_response_header(response, "X-Accel-Buffering", "no");
    enum MHD_Result result = send_response(x, c, 200, response, "text/event-stream", 0);
    set_phase(x->server, x->connection, true);
    return result;
}

/* ---- jobs
 * ---------------------------------------------------------------------------------------- */

/* Puts the exchange's job into the queue. The connection is suspended before a lane can see the
 * job, so that its end always finds it so; event streams suspend themselves. */
static unsigned enqueue(exchange *x, struct MHD_Connection *c)
{
    server *s = x->server;
    job *j = x->job, *evicted = NULL;
    unsigned refused = 0;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    snprintf(j->client, sizeof j->client, "%s", x->client);
    j->accepted = monotonic_seconds();
    j->deadline = j->accepted + s->config.timeout_seconds;
    j->socket = info ? info->connect_fd : -1;
    pthread_mutex_lock(&s->lock);
    if (s->draining) {
        refused = refuse(x, 503, "the server is stopping: ask another one");
    } else if (!job_queue_push(&s->queue, j, s->running, SERVE_LANES, &evicted)) {
        refused = refuse(x, 429, QUEUE_FULL, s->queue.most);
    } else {
        char data[64];
        j->references++;
        j->connection = c;
        j->suspended = j->answer != ANSWER_EVENTS;
        if (j->suspended) {
            MHD_suspend_connection(c);
        }
        snprintf(data, sizeof data, "{\"position\": %zu}", s->queue.count);
        job_event(j, "queued", data);
        pthread_cond_signal(&s->work);
    }
    if (evicted) {
        onestep_error error;
        error_set(&error, ONESTEP_ERROR_CANCELLED,
                  "the queue is full, and this client has most of it: try again later");
        job_fail(evicted, 429, NULL, &error);
        job_finish(evicted);
        job_release(evicted, &s->config.fields);
    }
    pthread_mutex_unlock(&s->lock);
    return refused;
}

static enum MHD_Result begin_job(exchange *x, struct MHD_Connection *c)
{
    const char *field = NULL;
    pthread_mutex_lock(&x->server->lock);
    bool draining = x->server->draining;
    pthread_mutex_unlock(&x->server->lock);
    if (draining) {
        return send_error(x, c, 503, NULL, "the server is stopping: ask another one");
    }
    x->job = job_create(&x->error);
    if (!x->job) {
        return send_error(x, c, 503, NULL, x->error.message);
    }
    unsigned refused =
        request_read(x->server, x->job, x->route == ROUTE_EDITS, header(c, "Content-Type"),
                     header(c, "Accept"), x->body, x->size, &field, &x->error);
    drop_body(x);
    if (refused == 0) {
        refused = enqueue(x, c);
    }
    if (refused) {
        return send_error(x, c, refused, field, x->error.message);
    }
    return x->job->answer == ANSWER_EVENTS ? send_events(x, c) : MHD_YES;
}

static void free_picture(void *bytes)
{
    memory_free(bytes);
}

/* The connection was woken: its job is done. */
static enum MHD_Result end_job(exchange *x, struct MHD_Connection *c)
{
    job *j = x->job;
    pthread_mutex_lock(&x->server->lock);
    bool done = j->state == JOB_DONE;
    pthread_mutex_unlock(&x->server->lock);
    if (!done) {
        return MHD_YES;
    }
    if (j->status != 200) {
        return send_error(x, c, j->status, j->error_field, j->error.message);
    }
    if (j->answer != ANSWER_IMAGE) {
        return send_text(x, c, 200, &j->body, "application/json");
    }
    struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback(
        j->picture_size, j->picture, free_picture);
    size_t size = j->picture_size;
    if (!response) {
        return MHD_NO;
    }
    j->picture = NULL;
    MHD_add_response_header(response, "Vary", "Accept");
    return send_response(x, c, 200, response, answer_media_type(j->format), size);
}

/* ---- the other routes
 * ---------------------------------------------------------------------------- */

static enum MHD_Result answer_metrics(exchange *x, struct MHD_Connection *c)
{
    server *s = x->server;
    metric_gauges gauges = {.queue_most = s->queue.most};
    text_buffer text = {0};
    pthread_mutex_lock(&s->lock);
    gauges.queued = s->queue.count;
    gauges.running = s->running_count;
    gauges.ready = s->ready && !s->draining;
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_lock(&s->connection_lock);
    gauges.connections = s->connection_count;
    pthread_mutex_unlock(&s->connection_lock);
    metrics_print(&s->metrics, &gauges, &text);
    return send_text(x, c, 200, &text, "text/plain; version=0.0.4; charset=utf-8");
}

static enum MHD_Result answer_get(exchange *x, struct MHD_Connection *c, const char *url)
{
    text_buffer text = {0};
    const page_file *file;
    switch (x->route) {
    case ROUTE_HEALTH:
        text_buffer_print(&text, "ok\n");
        return send_text(x, c, 200, &text, "text/plain");
    case ROUTE_READY:
        if (!server_is_ready(x->server)) {
            return send_error(x, c, 503, NULL, "warming up, or stopping");
        }
        text_buffer_print(&text, "ready\n");
        return send_text(x, c, 200, &text, "text/plain");
    case ROUTE_METRICS:
        return answer_metrics(x, c);
    case ROUTE_MODELS:
        if (strcmp(url, "/v1/models") == 0) {
            answer_models(&text, x->server);
        } else if (!answer_model(&text, x->server, url + strlen("/v1/models/"))) {
            return send_error(x, c, 404, "model", "no such model; GET /v1/models lists them");
        }
        return send_text(x, c, 200, &text, "application/json");
    default:
        file = page_find(url);
        if (!file) {
            return send_error(x, c, 404, NULL, "there is nothing here");
        }
        return send_response(x, c, 200,
                             MHD_create_response_from_buffer(file->size,
                                                             (void *)(uintptr_t)file->bytes,
                                                             MHD_RESPMEM_PERSISTENT),
                             page_media_type(file), file->size);
    }
}

/* ---- libmicrohttpd's callbacks
 * -------------------------------------------------------------------- */

static exchange *exchange_create(server *s, struct MHD_Connection *c, const char *url,
                                 const char *method)
{
    exchange *x = memory_allocate(1, sizeof *x, NULL);
    if (!x) {
        return NULL;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    x->server = s;
    x->connection = info ? info->socket_context : NULL;
    x->route = route_of(url);
    x->started = monotonic_seconds();
    snprintf(x->path, sizeof x->path, "%s", url);
    snprintf(x->method, sizeof x->method, "%s", method);
    find_client(x, c);
    pthread_mutex_lock(&s->lock);
    s->exchanges++;
    pthread_mutex_unlock(&s->lock);
    return x;
}

enum MHD_Result http_handle(void *context, struct MHD_Connection *c, const char *url,
                            const char *method, const char *version, const char *upload,
                            size_t *upload_size, void **state)
{
    server *s = context;
    exchange *x = *state;
    (void)version;
    if (!x) {
        x = exchange_create(s, c, url, method);
        if (!x) {
            return MHD_NO;
        }
        *state = x;
        x->refused = check_request(x, c, method);
        const char *length = header(c, "Content-Length");
        bool endless = x->refused && length &&
                       strtoull(length, NULL, 10) > DISCARD_MOST * (uint64_t)s->config.body_most;
        /* A body far too large is not waited for. */
        return endless ? send_error(x, c, x->refused, x->refused_field, x->error.message) : MHD_YES;
    }
    if (*upload_size > 0) {
        keep(x, upload, *upload_size);
        *upload_size = 0;
        return x->received > DISCARD_MOST * s->config.body_most ? MHD_NO : MHD_YES;
    }
    if (x->job) {
        return end_job(x, c);
    }
    set_phase(s, x->connection, true);
    if (x->refused) {
        drop_body(x);
        return send_error(x, c, x->refused, x->refused_field, x->error.message);
    }
    bool post = x->route == ROUTE_TRANSLATE || x->route == ROUTE_EDITS;
    return post ? begin_job(x, c) : answer_get(x, c, url);
}

void http_completed(void *context, struct MHD_Connection *c, void **state,
                    enum MHD_RequestTerminationCode code)
{
    server *s = context;
    exchange *x = *state;
    (void)c;
    (void)code;
    if (!x) {
        return;
    }
    *state = NULL;
    drop_body(x);
    unsigned status =
        x->job && x->job->answer == ANSWER_EVENTS && x->status == 200 && x->job->status
            ? x->job->status
            : x->status;
    access_line line = {.client = x->client,
                        .method = x->method,
                        .path = x->path,
                        .status = status ? status : 499,
                        .bytes = x->bytes,
                        .seconds = monotonic_seconds() - x->started,
                        .job = x->job};
    metrics_request(&s->metrics, x->route, line.status);
    access_log(s, &line);
    set_phase(s, x->connection, false);
    pthread_mutex_lock(&s->lock);
    if (x->job) {
        x->job->connection = NULL;
        x->job->socket = -1;
        job_release(x->job, &s->config.fields);
    }
    s->exchanges--;
    pthread_mutex_unlock(&s->lock);
    memory_free(x);
}

void http_connection(void *context, struct MHD_Connection *connection_, void **state,
                     enum MHD_ConnectionNotificationCode code)
{
    server *s = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection_, MHD_CONNECTION_INFO_CONNECTION_FD);
        connection *c = memory_allocate(1, sizeof *c, NULL);
        if (!c) {
            *state = NULL;
            return;
        }
        c->socket = info ? info->connect_fd : -1;
        c->since = monotonic_seconds();
        pthread_mutex_lock(&s->connection_lock);
        c->next = s->connections;
        c->link = &s->connections;
        if (c->next) {
            c->next->link = &c->next;
        }
        s->connections = c;
        s->connection_count++;
        pthread_mutex_unlock(&s->connection_lock);
        *state = c;
    } else if (*state) {
        connection *c = *state;
        pthread_mutex_lock(&s->connection_lock);
        *c->link = c->next;
        if (c->next) {
            c->next->link = c->link;
        }
        s->connection_count--;
        pthread_mutex_unlock(&s->connection_lock);
        memory_free(c);
        *state = NULL;
    }
}
