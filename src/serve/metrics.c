#include "serve/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double bucket_limits[METRIC_BUCKETS - 1] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                         0.5,   1,    2.5,   5,    10,  30};

static const char *const stage_names[STAGE_COUNT] = {"queue", "read",   "text",  "encode",
                                                     "unet",  "decode", "write", "total"};

static const char *const route_names[ROUTE_COUNT] = {
    "/",        "/v1/translate", "/v1/images/edits", "/v1/models",
    "/healthz", "/readyz",       "/metrics",         "other"};

void metrics_create(metrics *m)
{
    struct timespec now;
    memset(m, 0, sizeof *m);
    pthread_mutex_init(&m->lock, NULL);
    clock_gettime(CLOCK_REALTIME, &now);
    m->started = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void metrics_destroy(metrics *m)
{
    pthread_mutex_destroy(&m->lock);
}

void metrics_request(metrics *m, metric_route route, unsigned code)
{
    pthread_mutex_lock(&m->lock);
    size_t i = 0;
    while (i < METRIC_CODES - 1 && m->requests[i].code && m->requests[i].code != code) {
        i++;
    }
    m->requests[i].code = code;
    m->requests[i].count[route]++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_stage(metrics *m, metric_stage stage, double seconds)
{
    size_t bucket = 0;
    while (bucket < METRIC_BUCKETS - 1 && seconds > bucket_limits[bucket]) {
        bucket++;
    }
    pthread_mutex_lock(&m->lock);
    histogram *h = &m->stages[stage];
    h->buckets[bucket]++;
    h->sum += seconds;
    h->count++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_picture(metrics *m)
{
    pthread_mutex_lock(&m->lock);
    m->pictures++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_busy(metrics *m, double engine_seconds)
{
    pthread_mutex_lock(&m->lock);
    m->busy_seconds += engine_seconds;
    pthread_mutex_unlock(&m->lock);
}

void metrics_cancelled(metrics *m)
{
    pthread_mutex_lock(&m->lock);
    m->cancelled++;
    pthread_mutex_unlock(&m->lock);
}

double metrics_mean_seconds(metrics *m, double fallback)
{
    pthread_mutex_lock(&m->lock);
    double mean = m->pictures ? m->busy_seconds / (double)m->pictures : fallback;
    pthread_mutex_unlock(&m->lock);
    return mean;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%llu %llu", &pages, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void head(text_buffer *out, const char *name, const char *type, const char *help)
{
    text_buffer_print(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(text_buffer *out, const char *name, const char *type, const char *help,
                double value)
{
    head(out, name, type, help);
    text_buffer_print(out, "%s %.17g\n", name, value);
}

static void print_stages(const metrics *m, text_buffer *out)
{
    static const char name[] = "onestep_stage_seconds";
    head(out, name, "histogram", "Seconds that pictures spent in each stage.");
    for (size_t s = 0; s < STAGE_COUNT; s++) {
        const histogram *h = &m->stages[s];
        uint64_t below = 0;
        for (size_t b = 0; b < METRIC_BUCKETS - 1; b++) {
            below += h->buckets[b];
            text_buffer_print(out, "%s_bucket{stage=\"%s\",le=\"%g\"} %" PRIu64 "\n", name,
                              stage_names[s], bucket_limits[b], below);
        }
        text_buffer_print(out, "%s_bucket{stage=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name,
                          stage_names[s], h->count);
        text_buffer_print(out, "%s_sum{stage=\"%s\"} %.9g\n", name, stage_names[s], h->sum);
        text_buffer_print(out, "%s_count{stage=\"%s\"} %" PRIu64 "\n", name, stage_names[s],
                          h->count);
    }
}

void metrics_print(metrics *m, const metric_gauges *gauges, text_buffer *out)
{
    pthread_mutex_lock(&m->lock);
    head(out, "onestep_build_info", "gauge", "The program's version.");
    text_buffer_print(out, "onestep_build_info{version=\"%s\"} 1\n", onestep_version());
    head(out, "onestep_requests_total", "counter", "Answers by route and status.");
    for (size_t i = 0; i < METRIC_CODES && m->requests[i].code; i++) {
        for (size_t r = 0; r < ROUTE_COUNT; r++) {
            if (m->requests[i].count[r]) {
                text_buffer_print(out,
                                  "onestep_requests_total{route=\"%s\",code=\"%u\"} %" PRIu64 "\n",
                                  route_names[r], m->requests[i].code, m->requests[i].count[r]);
            }
        }
    }
    print_stages(m, out);
    one(out, "onestep_pictures_total", "counter", "Pictures translated.", (double)m->pictures);
    one(out, "onestep_cancelled_total", "counter", "Jobs whose client left or whose time was up.",
        (double)m->cancelled);
    one(out, "onestep_engine_busy_seconds_total", "counter", "Seconds in which the engine worked.",
        m->busy_seconds);
    one(out, "onestep_queue_depth", "gauge", "Jobs waiting.", (double)gauges->queued);
    one(out, "onestep_queue_limit", "gauge", "Jobs that may wait.", (double)gauges->queue_most);
    one(out, "onestep_jobs_running", "gauge", "Jobs under way.", (double)gauges->running);
    one(out, "onestep_connections", "gauge", "Open connections.", (double)gauges->connections);
    one(out, "onestep_ready", "gauge", "1 when /readyz says so.", gauges->ready);
    one(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
        (double)resident_bytes());
    one(out, "process_start_time_seconds", "gauge", "Start, in Unix time.", m->started);
    pthread_mutex_unlock(&m->lock);
}
