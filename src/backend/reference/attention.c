/* Attention and its gradients, one head of one query at a time.
 *
 * With P = softmax(scale * q k^T) and y = P v, for an upstream gradient u:
 *   dv = P^T u,   dS = P * (u v^T - sum(P * (u v^T))),   dq = scale * dS k,   dk = scale * dS^T q.
 */
#include "backend/reference/reference.h"

#include <math.h>
#include <string.h>

typedef struct attention {
    const reference_call *call;
    const float *q, *k, *v, *upstream; /* upstream: NULL forward */
    const float *turned_k, *turned_v;  /* [n][channel][key]: keys side by side */
    size_t queries, keys, key_batch;   /* key_batch 1: shared by all pictures */
    size_t channels, heads, width;     /* channels = heads * width */
    uint8_t *workers;
    size_t worker_bytes;
} attention;

/* A worker's scratch. */
typedef struct workspace {
    double *scores; /* [keys] */
    double *slopes; /* [keys]: u v^T */
    double *sums;   /* [keys][width]: of dk or dv */
    float *weights; /* [keys]: P, then dS */
} workspace;

static bool worker_scratch(size_t keys, size_t width, bool gradient, size_t *bytes)
{
    size_t sums, total;
    if (!size_multiply(keys, 3 * sizeof(double), &total)) {
        return false;
    }
    if (gradient &&
        (!size_multiply(keys, width * sizeof(double), &sums) || !size_add(total, sums, &total))) {
        return false;
    }
    *bytes = total;
    return true;
}

bool reference_attention_scratch(const size_t query_dims[4], const size_t key_dims[4],
                                 const node_attributes *attributes, bool gradient, unsigned threads,
                                 size_t *bytes)
{
    size_t keys = key_dims[1] * key_dims[2], worker, turned;
    return worker_scratch(keys, query_dims[3] / attributes->heads, gradient, &worker) &&
           size_multiply(worker, threads, &worker) &&
           size_multiply(keys * key_dims[0] * key_dims[3], (gradient ? 2 : 1) * sizeof(float),
                         &turned) &&
           size_add(size_round_up(turned, 64), worker, bytes);
}

static workspace workspace_of(const attention *a, unsigned worker)
{
    double *start = (double *)(void *)(a->workers + worker * a->worker_bytes);
    return (workspace){.scores = start,
                       .slopes = start + a->keys,
                       .weights = (float *)(start + 2 * a->keys),
                       .sums = start + 3 * a->keys};
}

typedef struct turning {
    const float *from;
    float *to;
    size_t keys, channels;
} turning;

static void turn_key(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const turning *t = context;
    size_t n = index / t->keys, key = index % t->keys;
    for (size_t c = 0; c < t->channels; c++) {
        t->to[(n * t->channels + c) * t->keys + key] = t->from[index * t->channels + c];
    }
}

static attention attention_prepare(const reference_call *call, bool gradient)
{
    const size_t *q = call->inputs[0].dims, *k = call->inputs[1].dims;
    attention a = {.call = call,
                   .q = call->inputs[0].data,
                   .k = call->inputs[1].data,
                   .v = call->inputs[2].data,
                   .upstream = gradient ? call->inputs[3].data : NULL,
                   .queries = q[1] * q[2],
                   .keys = k[1] * k[2],
                   .key_batch = k[0],
                   .channels = q[3],
                   .heads = call->attributes->heads,
                   .width = q[3] / call->attributes->heads};
    size_t count = call->inputs[1].count;
    float *turned = call->scratch;
    turning turn = {.from = a.k, .to = turned, .keys = a.keys, .channels = a.channels};
    thread_pool_run(call->pool, a.key_batch * a.keys, turn_key, &turn);
    a.turned_k = turned;
    if (gradient) {
        turn.from = a.v;
        turn.to = turned + count;
        thread_pool_run(call->pool, a.key_batch * a.keys, turn_key, &turn);
        a.turned_v = turn.to;
    }
    a.workers =
        (uint8_t *)call->scratch + size_round_up(count * (gradient ? 2 : 1) * sizeof(float), 64);
    if (!worker_scratch(a.keys, a.width, gradient, &a.worker_bytes)) {
        a.worker_bytes = 0; /* cannot be: lowering has computed the same size */
    }
    return a;
}

/* One head of one query: where its numbers stand. */
typedef struct query {
    size_t offset;        /* in q, upstream, y */
    size_t key_offset;    /* in k, v: of key 0 */
    size_t turned_offset; /* in turned_k, turned_v */
    size_t keys;          /* that it sees */
} query;

static query query_at(const attention *a, size_t n, size_t position, size_t head)
{
    size_t key_n = a->key_batch == 1 ? 0 : n;
    return (query){.offset = (n * a->queries + position) * a->channels + head * a->width,
                   .key_offset = key_n * a->keys * a->channels + head * a->width,
                   .turned_offset = (key_n * a->channels + head * a->width) * a->keys,
                   .keys =
                       a->call->attributes->causal ? size_minimum(position + 1, a->keys) : a->keys};
}

/* softmax(scale * q k^T) of one query into w.weights. */
static void query_softmax(const attention *a, query q, workspace w)
{
    memset(w.scores, 0, q.keys * sizeof *w.scores);
    reference_accumulate(w.scores, q.keys, a->turned_k + q.turned_offset, a->keys, a->q + q.offset,
                         a->width);
    double scale = (double)a->call->attributes->attention_scale, highest = -INFINITY, sum = 0;
    for (size_t t = 0; t < q.keys; t++) {
        w.scores[t] *= scale;
        highest = fmax(highest, w.scores[t]);
    }
    for (size_t t = 0; t < q.keys; t++) {
        w.scores[t] = exp(w.scores[t] - highest);
        sum += w.scores[t];
    }
    for (size_t t = 0; t < q.keys; t++) {
        w.weights[t] = (float)(w.scores[t] / sum);
    }
}

/* dS of one query into w.weights, which hold P. */
static void query_slopes(const attention *a, query q, workspace w)
{
    memset(w.slopes, 0, q.keys * sizeof *w.slopes);
    reference_accumulate(w.slopes, q.keys, a->turned_v + q.turned_offset, a->keys,
                         a->upstream + q.offset, a->width);
    double sum = 0;
    for (size_t t = 0; t < q.keys; t++) {
        sum += w.weights[t] * w.slopes[t];
    }
    for (size_t t = 0; t < q.keys; t++) {
        w.weights[t] = (float)(w.weights[t] * (w.slopes[t] - sum));
    }
}

/* result[c] = factor * sum over keys of w.weights[key] * rows[key][c] */
static void query_sum(const attention *a, query q, workspace w, const float *rows, double factor,
                      float *result)
{
    for (size_t channel = 0; channel < a->width; channel += REFERENCE_STRIP) {
        size_t channels = size_minimum(REFERENCE_STRIP, a->width - channel);
        double sums[REFERENCE_STRIP] = {0};
        reference_accumulate(sums, channels, rows + q.key_offset + channel, a->channels, w.weights,
                             q.keys);
        for (size_t c = 0; c < channels; c++) {
            result[q.offset + channel + c] = (float)(factor * sums[c]);
        }
    }
}

static void attention_query(void *context, size_t index, unsigned worker)
{
    const attention *a = context;
    size_t token = index / a->heads;
    query q = query_at(a, token / a->queries, token % a->queries, index % a->heads);
    workspace w = workspace_of(a, worker);
    query_softmax(a, q, w);
    if (!a->upstream) {
        query_sum(a, q, w, a->v, 1.0, a->call->output);
    } else {
        query_slopes(a, q, w);
        query_sum(a, q, w, a->k, (double)a->call->attributes->attention_scale, a->call->output);
    }
}

/* dk or dv of one head of one batch of keys: sums over all queries that see them. */
static void attention_keys(void *context, size_t index, unsigned worker)
{
    const attention *a = context;
    size_t key_n = index / a->heads, head = index % a->heads;
    bool of_value = a->call->attributes->wrt == 2;
    workspace w = workspace_of(a, worker);
    memset(w.sums, 0, a->keys * a->width * sizeof *w.sums);
    size_t first = a->key_batch == 1 ? 0 : key_n;
    size_t end = a->key_batch == 1 ? a->call->inputs[0].dims[0] : key_n + 1;
    for (size_t n = first; n < end; n++) {
        for (size_t position = 0; position < a->queries; position++) {
            query q = query_at(a, n, position, head);
            query_softmax(a, q, w);
            if (!of_value) {
                query_slopes(a, q, w);
            }
            const float *row = (of_value ? a->upstream : a->q) + q.offset;
            for (size_t t = 0; t < q.keys; t++) {
                reference_accumulate(w.sums + t * a->width, a->width, row, 0, &w.weights[t], 1);
            }
        }
    }
    double factor = of_value ? 1.0 : (double)a->call->attributes->attention_scale;
    for (size_t t = 0; t < a->keys; t++) {
        float *to = a->call->output + (key_n * a->keys + t) * a->channels + head * a->width;
        for (size_t c = 0; c < a->width; c++) {
            to[c] = (float)(factor * w.sums[t * a->width + c]);
        }
    }
}

void reference_attention(const reference_call *call)
{
    attention a = attention_prepare(call, false);
    thread_pool_run(call->pool, call->dims[0] * a.queries * a.heads, attention_query, &a);
}

void reference_attention_gradient(const reference_call *call)
{
    attention a = attention_prepare(call, true);
    if (call->attributes->wrt == 0) {
        thread_pool_run(call->pool, call->dims[0] * a.queries * a.heads, attention_query, &a);
    } else {
        thread_pool_run(call->pool, a.key_batch * a.heads, attention_keys, &a);
    }
}
