#include "serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* How often the watcher looks. */
#define WATCH_NANOSECONDS 100000000L
/* Seconds without any byte before a connection is closed. */
#define IDLE_SECONDS 20u
/* Bytes of request line and headers, and other memory of a connection. */
#define CONNECTION_MEMORY ((size_t)32 * 1024)

void serve_config_init(serve_config *config)
{
    *config = (serve_config){.address = "127.0.0.1",
                             .port = 8080,
                             .queue_most = 32,
                             .body_most = (size_t)32 << 20,
                             .pixels_most = (uint64_t)32 << 20,
                             .work_most = (uint64_t)1 << 20,
                             .timeout_seconds = 300,
                             .client_seconds = 60,
                             .small_at_once = 1,
                             .side = 512,
                             .warm_up = true};
}

/* ---- watching
 * ------------------------------------------------------------------------------------ */

static bool has_left(int socket)
{
    struct pollfd entry = {.fd = socket, .events = POLLRDHUP};
    return socket >= 0 && poll(&entry, 1, 0) > 0 &&
           (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* Looks after one job; true when it shall end. */
static bool look_after(job *j, double now)
{
    j->client_left = j->client_left || !j->connection || has_left(j->socket);
    j->timed_out = j->timed_out || now > j->deadline;
    return j->client_left || j->timed_out;
}

static void watch_jobs(server *s, double now)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < SERVE_LANES; i++) {
        if (s->running[i]) {
            look_after(s->running[i], now);
        }
    }
    for (job *j = s->queue.first, *next; j; j = next) {
        next = j->next;
        if (look_after(j, now) && job_queue_remove(&s->queue, j)) {
            onestep_error error;
            error_set(&error, ONESTEP_ERROR_CANCELLED, "%s",
                      j->client_left ? "the client left"
                                     : "the time for this request is up: the server is too busy");
            job_fail(j, j->client_left ? 499 : 503, NULL, &error);
            metrics_cancelled(&s->metrics);
            job_finish(j);
            job_release(j, &s->config.fields);
        }
    }
    pthread_mutex_unlock(&s->lock);
}

static void watch_connections(server *s, double now)
{
    pthread_mutex_lock(&s->connection_lock);
    for (connection *c = s->connections; c; c = c->next) {
        if (!c->working && now - c->since > s->config.client_seconds) {
            shutdown(c->socket, SHUT_RDWR);
            c->since = now;
        }
    }
    pthread_mutex_unlock(&s->connection_lock);
}

static void *watch(void *context)
{
    server *s = context;
    const struct timespec pause = {.tv_nsec = WATCH_NANOSECONDS};
    for (bool stopping = false; !stopping;) {
        nanosleep(&pause, NULL);
        double now = monotonic_seconds();
        watch_jobs(s, now);
        watch_connections(s, now);
        pthread_mutex_lock(&s->lock);
        stopping = s->stopping;
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* ---- start and end
 * ------------------------------------------------------------------------------- */

/* libmicrohttpd's own messages tell of clients' mistakes, which the access log shows. */
static void drop_message(void *context, const char *format, va_list arguments)
{
    (void)context;
    (void)format;
    (void)arguments;
}

static onestep_status start_daemon(server *s, onestep_error *error)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(s->config.port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(s->config.port)};
    bool is_six = inet_pton(AF_INET, s->config.address, &four.sin_addr) != 1;
    if (is_six && inet_pton(AF_INET6, s->config.address, &six.sin6_addr) != 1) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s is no address", s->config.address);
    }
    const struct sockaddr *address =
        is_six ? (const struct sockaddr *)&six : (const struct sockaddr *)&four;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    if (is_six) {
        flags |= (unsigned)MHD_USE_IPv6 |
                 (IN6_IS_ADDR_UNSPECIFIED(&six.sin6_addr) ? (unsigned)MHD_USE_DUAL_STACK : 0u);
    }
    errno = 0;
    s->daemon = MHD_start_daemon(
        flags, s->config.port, NULL, NULL, http_handle, s, MHD_OPTION_EXTERNAL_LOGGER, drop_message,
        NULL, MHD_OPTION_SOCK_ADDR, address, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)SERVE_HTTP_THREADS, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)SERVE_CONNECTIONS_MOST, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_LISTEN_BACKLOG_SIZE,
        1024u, MHD_OPTION_NOTIFY_COMPLETED, http_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
        http_connection, s, MHD_OPTION_END);
    if (!s->daemon) {
        int reason = errno;
        return error_set(error, ONESTEP_ERROR_IO, "cannot listen on %s port %u%s%s",
                         s->config.address, s->config.port, reason ? ": " : "",
                         reason ? strerror(reason) : "");
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info ? info->port : s->config.port;
    return ONESTEP_OK;
}

onestep_status server_start(server **result, const serve_config *config, onestep_error *error)
{
    *result = NULL;
    server *s = memory_allocate(1, sizeof *s, error);
    if (!s) {
        return ONESTEP_ERROR_MEMORY;
    }
    s->config = *config;
    s->queue.most = config->queue_most;
    metrics_create(&s->metrics);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->connection_lock, NULL);
    /* Large models keep few sessions: each holds activation memory of its last sizes. */
    turns_create(&s->turns, config->small_at_once, config->demo ? SERVE_SESSIONS_MOST : 2);
    pthread_mutex_init(&s->log_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    onestep_status status = start_daemon(s, error);
    size_t lanes = 0;
    while (status == ONESTEP_OK && lanes < SERVE_LANES) {
        if (pthread_create(&s->lanes[lanes], NULL, lane_run, s) != 0) {
            status = error_set(error, ONESTEP_ERROR_MEMORY, "cannot start a thread");
        } else {
            lanes++;
        }
    }
    s->lane_count = lanes;
    if (status == ONESTEP_OK) {
        s->watcher_started = pthread_create(&s->watcher, NULL, watch, s) == 0;
        if (!s->watcher_started) {
            status = error_set(error, ONESTEP_ERROR_MEMORY, "cannot start a thread");
        }
    }
    if (status != ONESTEP_OK) {
        server_stop(&s);
        return status;
    }
    *result = s;
    return ONESTEP_OK;
}

uint16_t server_port(const server *s)
{
    return s->port;
}

bool server_is_ready(server *s)
{
    pthread_mutex_lock(&s->lock);
    bool ready = s->ready && !s->draining;
    pthread_mutex_unlock(&s->lock);
    return ready;
}

bool server_drain(server *s, double seconds)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    double end = monotonic_seconds() + seconds;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        s->draining = true;
        /* Answers on their way count too: a connection works until its answer is sent. */
        bool idle = s->queue.count == 0 && s->running_count == 0 && s->exchanges == 0;
        pthread_mutex_unlock(&s->lock);
        if (idle) {
            return true;
        }
        if (monotonic_seconds() > end) {
            return false;
        }
        nanosleep(&pause, NULL);
    }
}

void server_stop(server **result)
{
    server *s = *result;
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->draining = s->stopping = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < s->lane_count; i++) {
        pthread_join(s->lanes[i], NULL);
    }
    if (s->watcher_started) {
        pthread_join(s->watcher, NULL);
    }
    /* No connection may be suspended when the daemon stops. */
    pthread_mutex_lock(&s->lock);
    for (job *j; (j = job_queue_pop(&s->queue)) != NULL;) {
        onestep_error error;
        error_set(&error, ONESTEP_ERROR_CANCELLED, "the server is stopping");
        job_fail(j, 503, NULL, &error);
        job_finish(j);
        job_release(j, &s->config.fields);
    }
    pthread_mutex_unlock(&s->lock);
    if (s->daemon) {
        MHD_stop_daemon(s->daemon);
    }
    turns_destroy(&s->turns);
    metrics_destroy(&s->metrics);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->log_lock);
    pthread_mutex_destroy(&s->connection_lock);
    pthread_mutex_destroy(&s->lock);
    memory_free(s);
    *result = NULL;
}
