/* Counters and histograms in Prometheus' text format. */
#ifndef ONESTEP_SERVE_METRICS_H
#define ONESTEP_SERVE_METRICS_H

#include "base/base.h"

#include <pthread.h>

typedef enum metric_stage {
    STAGE_QUEUE, /* waiting for its turn */
    STAGE_READ,  /* picture file to pixels */
    STAGE_TEXT,  /* the four stages of the network */
    STAGE_ENCODE,
    STAGE_UNET,
    STAGE_DECODE,
    STAGE_WRITE, /* pixels to picture file */
    STAGE_TOTAL, /* from the end of the request's body to the answer */
    STAGE_COUNT
} metric_stage;

typedef enum metric_route {
    ROUTE_PAGE,
    ROUTE_TRANSLATE,
    ROUTE_EDITS,
    ROUTE_MODELS,
    ROUTE_HEALTH,
    ROUTE_READY,
    ROUTE_METRICS,
    ROUTE_OTHER,
    ROUTE_COUNT
} metric_route;

enum { METRIC_BUCKETS = 13, METRIC_CODES = 24 };

typedef struct histogram {
    uint64_t buckets[METRIC_BUCKETS]; /* the last one: everything beyond */
    double sum;
    uint64_t count;
} histogram;

typedef struct metrics {
    pthread_mutex_t lock;
    double started; /* Unix time */
    struct {
        unsigned code;
        uint64_t count[ROUTE_COUNT];
    } requests[METRIC_CODES];
    histogram stages[STAGE_COUNT];
    uint64_t pictures, cancelled;
    double busy_seconds; /* of the engine */
} metrics;

/* What changes from moment to moment. */
typedef struct metric_gauges {
    size_t queued, running, connections, queue_most;
    bool ready;
} metric_gauges;

void metrics_create(metrics *m);
void metrics_destroy(metrics *m);
void metrics_request(metrics *m, metric_route route, unsigned code);
void metrics_stage(metrics *m, metric_stage stage, double seconds);
void metrics_picture(metrics *m);
void metrics_busy(metrics *m, double engine_seconds);
void metrics_cancelled(metrics *m);
void metrics_print(metrics *m, const metric_gauges *gauges, text_buffer *out);
/* The mean time that the engine takes for a picture; `fallback` before the first. */
double metrics_mean_seconds(metrics *m, double fallback);

#endif
