#include "cli/queue.h"

#include <pthread.h>
#include <string.h>

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    size_t capacity, slots, item_size, first, count;
    uint64_t weight, weight_most;
    uint64_t *weights;
    bool closed, taker_waits;
    uint8_t *items;
};

onestep_status queue_create(queue **q, size_t capacity, size_t item_size, uint64_t weight_most,
                            onestep_error *error)
{
    *q = NULL;
    queue *made = memory_allocate(1, sizeof *made, error);
    if (!made) {
        return ONESTEP_ERROR_MEMORY;
    }
    made->capacity = capacity;
    made->slots = size_maximum(capacity, 1);
    made->item_size = item_size;
    made->weight_most = weight_most;
    made->items = memory_allocate(made->slots, item_size, error);
    made->weights = memory_allocate(made->slots, sizeof *made->weights, error);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->changed, NULL);
    if (!made->items || !made->weights) {
        queue_destroy(&made);
        return ONESTEP_ERROR_MEMORY;
    }
    *q = made;
    return ONESTEP_OK;
}

void queue_destroy(queue **q)
{
    if (*q) {
        pthread_mutex_destroy(&(*q)->mutex);
        pthread_cond_destroy(&(*q)->changed);
        memory_free((*q)->items);
        memory_free((*q)->weights);
        memory_free(*q);
        *q = NULL;
    }
}

static bool has_room(const queue *q)
{
    if (q->capacity == 0) {
        return q->count == 0 && q->taker_waits;
    }
    return q->count == 0 || (q->count < q->capacity && q->weight < q->weight_most);
}

bool queue_wait(queue *q)
{
    pthread_mutex_lock(&q->mutex);
    while (!q->closed && !has_room(q)) {
        pthread_cond_wait(&q->changed, &q->mutex);
    }
    bool open = !q->closed;
    pthread_mutex_unlock(&q->mutex);
    return open;
}

bool queue_put(queue *q, const void *item, uint64_t weight)
{
    pthread_mutex_lock(&q->mutex);
    bool open = !q->closed;
    if (open) {
        size_t slot = (q->first + q->count) % q->slots;
        memcpy(q->items + slot * q->item_size, item, q->item_size);
        q->weights[slot] = weight;
        q->weight += weight;
        q->count++;
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
    return open;
}

bool queue_take(queue *q, void *item)
{
    pthread_mutex_lock(&q->mutex);
    q->taker_waits = true;
    pthread_cond_broadcast(&q->changed);
    while (q->count == 0 && !q->closed) {
        pthread_cond_wait(&q->changed, &q->mutex);
    }
    bool got = q->count > 0;
    if (got) {
        memcpy(item, q->items + q->first * q->item_size, q->item_size);
        q->weight -= q->weights[q->first];
        q->first = (q->first + 1) % q->slots;
        q->count--;
        q->taker_waits = false;
    }
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
    return got;
}

void queue_close(queue *q)
{
    pthread_mutex_lock(&q->mutex);
    q->closed = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

void queue_drain(queue *q)
{
    pthread_mutex_lock(&q->mutex);
    while (q->count > 0 || !q->taker_waits) {
        pthread_cond_wait(&q->changed, &q->mutex);
    }
    pthread_mutex_unlock(&q->mutex);
}
