/* The server's parts among themselves. */
#ifndef ONESTEP_SERVE_SERVER_H
#define ONESTEP_SERVE_SERVER_H

#include "serve/job.h"
#include "serve/metrics.h"

#include <pthread.h>

enum {
    /* One lane reads a picture, two may have the engine, one writes a picture. */
    SERVE_LANES = 4,
    /* Threads that wait for sockets. */
    SERVE_HTTP_THREADS = 2,
    SERVE_CONNECTIONS_MOST = 1024,
    /* Sessions that keep their plans and activation memory. */
    SERVE_SESSIONS_MOST = 8
};

/* An open connection, watched for clients that send or take their bytes too slowly. */
typedef struct connection {
    int socket;
    double since; /* of the present phase */
    bool working; /* the server's turn, not the client's */
    struct connection *next, **link;
} connection;

typedef struct held_session {
    const onestep_model *model;
    onestep_session *session;
    uint64_t used;
    bool busy;
} held_session;

/* turns.c: who translates now, and the sessions. */
typedef struct turns {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t next, now; /* tickets */
    size_t users, small_most;
    bool alone;   /* a large picture has the engine */
    double since; /* work before is counted already */
    held_session sessions[SERVE_SESSIONS_MOST];
    size_t sessions_most;
    uint64_t uses;
} turns;

struct server {
    serve_config config;
    struct MHD_Daemon *daemon;
    uint16_t port;
    metrics metrics;

    pthread_mutex_t lock; /* of everything up to the engine */
    pthread_cond_t work;  /* a job waits, or the server stops */
    job_queue queue;
    job *running[SERVE_LANES];
    size_t running_count;
    bool draining, stopping, ready;
    size_t body_bytes; /* held by requests that are being received */
    size_t exchanges;  /* requests whose answer is not sent yet */

    pthread_mutex_t connection_lock;
    connection *connections;
    size_t connection_count;

    turns turns;
    pthread_mutex_t log_lock;
    pthread_t lanes[SERVE_LANES], watcher;
    size_t lanes_started; /* under the lock */
    size_t lane_count;
    bool watcher_started;
};

/* http.c */
enum MHD_Result http_handle(void *context, struct MHD_Connection *connection, const char *url,
                            const char *method, const char *version, const char *upload,
                            size_t *upload_size, void **state);
void http_completed(void *context, struct MHD_Connection *connection, void **state,
                    enum MHD_RequestTerminationCode code);
void http_connection(void *context, struct MHD_Connection *connection, void **state,
                     enum MHD_ConnectionNotificationCode code);

/* `small_most` small pictures are translated at a time. */
void turns_create(turns *t, size_t small_most, size_t sessions_most);
void turns_destroy(turns *t);
/* Waits for the engine; `*held` is the caller's until turn_end. */
onestep_status turn_begin(turns *t, onestep_model *model, bool small, held_session **held,
                          onestep_error *error) MUST_USE;
/* The seconds that the engine has worked since this was last asked. */
double turn_end(turns *t, held_session *held);

/* work.c: translating. */
void *lane_run(void *context);
/* Makes an event known to the connection; the caller holds the lock. */
void job_event(job *j, const char *event, const char *data);
/* Marks a job done and wakes its connection; the caller holds the lock. */
void job_finish(job *j);
/* Marks a job that failed; `field` names the culprit, or is NULL. */
void job_fail(job *j, unsigned status, const char *field, const onestep_error *error);

/* answer.c: texts. */
/* {"error": {...}}: of any failure. */
void answer_error(text_buffer *out, unsigned status, const char *field, const char *message);
/* A JSON string with its quotes. */
void answer_string(text_buffer *out, const char *text);
/* What one picture of a job was made from, as members of a JSON object without its braces. */
void answer_parameters(text_buffer *out, const job *j, const onestep_request *request,
                       const onestep_result *result);
void answer_models(text_buffer *out, const server *s);
bool answer_model(text_buffer *out, const server *s, const char *name);
const char *answer_media_type(image_format format);

/* request.c: from a body to a job. On failure the HTTP status; `field` names the culprit or is
 * NULL. */
unsigned request_read(server *s, job *j, bool openai, const char *content_type, const char *accept,
                      const uint8_t *body, size_t size, const char **field, onestep_error *error);

/* page.c: the embedded files. */
typedef struct page_file {
    const char *path;
    const uint8_t *bytes;
    size_t size;
} page_file;
const page_file *page_find(const char *path);
const char *page_media_type(const page_file *file);

/* access.c: one line an answer, on stderr. */
typedef struct access_line {
    const char *client, *method, *path;
    unsigned status;
    size_t bytes;
    double seconds;
    const job *job; /* or NULL */
} access_line;
void access_log(server *s, const access_line *line);

#endif
