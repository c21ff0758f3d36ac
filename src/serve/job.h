/* A job: one request for pictures, from its body to its answer; and the queue of such. */
#ifndef ONESTEP_SERVE_JOB_H
#define ONESTEP_SERVE_JOB_H

#include "serve/form.h"
#include "serve/serve.h"

#include <microhttpd.h>

enum { JOB_PICTURES_MOST = 10 };

typedef enum answer_kind {
    ANSWER_IMAGE,
    ANSWER_JSON,
    ANSWER_EVENTS,
    ANSWER_OPENAI /* JSON in the shape of POST /v1/images/edits */
} answer_kind;

typedef enum job_state { JOB_WAITING, JOB_RUNNING, JOB_DONE } job_state;

typedef struct job {
    /* What shall be done; constant once the job waits. */
    form form;
    void *fields;
    const serve_task *task;
    onestep_request request; /* without the picture */
    size_t count;            /* pictures, with the seeds seed, seed + 1, ... */
    answer_kind answer;
    image_format format;
    int quality;
    bool want_control;
    char client[64];

    /* Under the server's lock. */
    unsigned references; /* the connection's and the lane's */
    job_state state;
    bool client_left, timed_out;
    struct MHD_Connection *connection; /* NULL once it is gone */
    bool suspended;
    int socket; /* watched for its end; -1 when it is gone */
    double accepted, deadline;
    uint64_t round, sequence;
    struct job *next; /* in the queue */

    /* Events that the connection has not sent yet (ANSWER_EVENTS); under the server's lock. */
    text_buffer events;
    size_t events_sent;
    double event_time;
    const char *event_stage;

    /* The answer; the lane's until the state is JOB_DONE. */
    unsigned status; /* HTTP */
    onestep_error error;
    const char *error_field; /* static text or NULL */
    uint8_t *picture;        /* ANSWER_IMAGE: a picture file */
    size_t picture_size;
    text_buffer body; /* the others: JSON */
    double queue_seconds, total_seconds;
} job;

job *job_create(onestep_error *error) MUST_USE;
/* Frees at the last reference; the caller holds the server's lock or is the only one. */
void job_release(job *j, const serve_fields *fields);

/* ---- the queue: fair between clients -----------------------------------------------------------
 */

/* Start-time fair order: a client's n-th waiting job belongs to the n-th round from now, so that
 * clients with one job each come before one client's second job. Not thread-safe. */
typedef struct job_queue {
    job *first;
    size_t count, most;
    uint64_t round, sequence;
} job_queue;

/* False when the queue is full and this client has no claim to a place. When another client holds
 * at least two places more than this one, its newest job makes room: `*evicted`. */
bool job_queue_push(job_queue *queue, job *j, job *const *running, size_t running_count,
                    job **evicted) MUST_USE;
/* Whether a job of this client would be taken now. */
bool job_queue_admits(const job_queue *queue, const char *client);
/* NULL when empty. */
job *job_queue_pop(job_queue *queue);
bool job_queue_remove(job_queue *queue, job *j);

#endif
