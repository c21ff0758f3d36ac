/* serve: translation over HTTP (interface.md section 3), on libmicrohttpd. Part of the program, not
 * of the library.
 *
 * One engine translates one large picture at a time with all its threads, or a few small ones;
 * reading and writing of picture files goes on beside it. Requests wait in a bounded queue that is
 * fair between clients. Nothing is kept from one request to the next. */
#ifndef ONESTEP_SERVE_H
#define ONESTEP_SERVE_H

#include "image/image.h"

/* ---- what is served ----------------------------------------------------------------------------
 */

/* A task that requests may name. Tasks of one checkpoint share its model. */
typedef struct serve_task {
    const char *name;
    onestep_model *model;        /* borrowed */
    onestep_direction direction; /* for a model without a task of its own */
    const char *caption;         /* the fixed prompt; NULL: requests must bring one */
    bool unpaired;               /* for the page: which of its controls make sense */
    bool own_direction;          /* requests may choose the direction */
    const char *image_prep;      /* what the page sends; NULL: nothing */
} serve_task;

/* How texts become requests: the program's option table, which serve does not know. */
typedef struct serve_fields {
    void *context;
    /* The fields of one request; NULL with the error set. */
    void *(*create)(void *context, onestep_error *error);
    /* Takes a field by its long option's name. An unknown name or a bad value is
     * ONESTEP_ERROR_ARGUMENT. */
    onestep_status (*add)(void *fields, const char *name, const char *text, onestep_error *error);
    /* Fills a request; its texts live as long as the fields. */
    onestep_status (*finish)(void *fields, onestep_request *request, onestep_error *error);
    /* A field's text after `add`, or NULL. */
    const char *(*text)(void *fields, const char *name);
    /* The parameters that the picture file keeps; may be NULL. */
    onestep_status (*describe)(void *fields, const onestep_request *request,
                               const onestep_model *model, image_metadata *metadata,
                               onestep_error *error);
    void (*destroy)(void *fields);
} serve_fields;

typedef struct serve_config {
    const char *address;      /* "127.0.0.1", "::", ... */
    uint16_t port;            /* 0: any free one */
    const char *token;        /* NULL: none */
    const char *const *hosts; /* further names that Host may have; ends with NULL; may be NULL */
    bool trust_forwarded;     /* the client is the last address in X-Forwarded-For */
    bool log_json, log_quiet;
    size_t queue_most;      /* jobs waiting */
    size_t body_most;       /* bytes of a request's body */
    uint64_t pixels_most;   /* of a picture file */
    uint64_t work_most;     /* pixels that are translated */
    double timeout_seconds; /* from the end of the body to the picture */
    /* How long a client may take to send a request or to take an answer, however steadily it
     * drips. */
    double client_seconds;
    size_t small_at_once; /* pictures of at most 256 x 256 that are translated side by side */
    uint32_t side;        /* the side the models were trained for: warm-up and the page */
    bool warm_up;
    bool demo; /* told to the page */
    const serve_task *tasks;
    size_t task_count;
    serve_fields fields;
} serve_config;

void serve_config_init(serve_config *config);

/* ---- running ------------------------------------------------------------------------------------
 */

typedef struct server server;

/* Binds and starts; pictures are translated as soon as the warm-up is over. The config and what it
 * points to must outlive the server. */
onestep_status server_start(server **result, const serve_config *config,
                            onestep_error *error) MUST_USE;
/* The port that was bound. */
uint16_t server_port(const server *s);
bool server_is_ready(server *s);
/* Takes no new work (readiness fails, 503) and waits for what is under way; false when `seconds`
 * were not enough. */
bool server_drain(server *s, double seconds);
/* Stops at once: cancels what is under way. Accepts NULL in *s. */
void server_stop(server **s);

/* ---- addresses ----------------------------------------------------------------------------------
 */

/* Splits "ADDR:PORT", "[V6]:PORT", ":PORT" or "PORT"; "localhost" becomes 127.0.0.1. */
onestep_status serve_parse_listen(const char *text, char address[64], uint16_t *port,
                                  onestep_error *error) MUST_USE;
bool serve_is_loopback(const char *address);

#endif
